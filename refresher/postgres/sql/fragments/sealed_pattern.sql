-- What Fernet makes: see sealing.py.
'^gAAAA[A-Za-z0-9_-]{90,}={0,2}$'
