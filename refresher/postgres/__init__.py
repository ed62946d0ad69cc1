"""SQL and asyncpg: one file per concern, its statements as constants at the top."""
