-- Of a column of the videos that were read those that are asked for, as far as chunks were granted:
-- the wanted ones and their top-ups. What is asked for alone lies between the two.
g.{{ column }}[:least(g.wanted_videos, {{ chunk_size }} * g.granted_chunks)]
|| g.{{ column }}[greatest(g.due_videos, g.wanted_videos) + g.alone + 1:
         g.alone + least(g.filled_videos, {{ chunk_size }} * g.granted_chunks)]
