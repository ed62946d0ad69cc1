"""The same job, done in several ways, each a program of its own.

Every video gets its cover_image_url, cover_expires_at and refreshed_at, in the refresher's own
tables, from requests of at most 20 IDs of one account.
"""
