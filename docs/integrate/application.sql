-- A small application, to try getting-started.md with the emulated TikTok: the sample users, their
-- tokens and their videos, in tables as docs/attach.md has them. For psql, in the root of a clone.
CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tiktok_open_id text UNIQUE
);
CREATE TABLE identities (
    provider text NOT NULL DEFAULT 'tiktok',
    uid text NOT NULL,
    access_token text,
    expires_at timestamptz,
    refresh_token text,
    refresh_expires_at timestamptz,
    scope text,
    UNIQUE (provider, uid)
);
CREATE TABLE clips (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    tiktok_id text NOT NULL,
    cover_url text,
    cover_expires timestamptz,
    UNIQUE (user_id, tiktok_id)
);

CREATE TEMPORARY TABLE sample (open_id text, video_id text);
\copy sample FROM 'refresher/sample/videos.csv' WITH (FORMAT csv, HEADER)
\copy identities (uid, access_token, expires_at, refresh_token, refresh_expires_at, scope) FROM 'refresher/sample/accounts.csv' WITH (FORMAT csv, HEADER)
INSERT INTO users (tiktok_open_id) SELECT uid FROM identities;
INSERT INTO clips (user_id, tiktok_id)
SELECT users.id, video_id FROM sample JOIN users ON tiktok_open_id = open_id;
