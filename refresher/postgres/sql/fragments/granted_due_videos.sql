-- How many of the videos that come first are due.
least(g.wanted_videos, {{ chunk_size }} * g.granted_chunks)
