-- Of what was read, as far as chunks were granted: the due ones and their top-ups. Between the two
-- lies what is asked for alone.
g.{{ column }}[:least(g.chosen, {{ chunk_size }} * g.granted_chunks)]
|| g.{{ column }}[greatest(g.due_videos, g.chosen) + g.alone + 1:
         g.alone + least(g.filled, {{ chunk_size }} * g.granted_chunks)]
