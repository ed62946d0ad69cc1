-- The lower limit of the role's and the database's connections. NULL: none; no row: a superuser.
SELECT least(nullif(rolconnlimit, -1), nullif(datconnlimit, -1))
FROM pg_roles, pg_database
WHERE rolname = current_user
    AND datname = current_database()
    AND NOT rolsuper
