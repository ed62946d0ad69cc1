-- How many of these come first and are due.
least(g.wanted_videos, {{ chunk_size }} * g.granted_chunks)
