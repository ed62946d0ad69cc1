-- A connection that listens is idle by nature: the server is not to end it for that.
SET idle_session_timeout = 0
