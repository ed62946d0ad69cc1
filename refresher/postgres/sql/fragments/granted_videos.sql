-- From a column of the videos that were read: those that fit the granted chunks. First the wanted
-- videos, then the top-ups. The videos that are asked for alone lie between these two.
g.{{ column }}[:least(g.wanted_videos, {{ chunk_size }} * g.granted_chunks)]
|| g.{{ column }}[greatest(g.due_videos, g.wanted_videos) + g.alone + 1:
         g.alone + least(g.filled_videos, {{ chunk_size }} * g.granted_chunks)]
