SELECT max(version_num) FROM refresher.alembic_version
