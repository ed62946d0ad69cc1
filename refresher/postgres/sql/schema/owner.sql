SELECT relowner::regrole::text FROM pg_class WHERE oid = 'refresher.videos'::regclass
