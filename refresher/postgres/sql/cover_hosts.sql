SELECT host, grown_seconds FROM refresher.cover_hosts
