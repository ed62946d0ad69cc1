least(g.chosen, {{ chunk_size }} * g.granted_chunks)
