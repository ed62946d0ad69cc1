-- A replica says which session it keeps open.
INSERT INTO refresher.replicas (replica, version, session)
VALUES (:replica, :version, :session)
ON CONFLICT (replica) DO UPDATE SET session = excluded.session
