-- A replica that stops is none that hangs.
DELETE FROM refresher.replicas WHERE replica = :replica
