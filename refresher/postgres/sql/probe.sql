{{ claiming
    who="{{ candidates }}"
    first="{{ probe_order }}"
    if_nothing_else_is_due="CASE WHEN starved + alone > 0 THEN 1
                                 ELSE least(top_ups, {{ chunk_size }}) END"
    due_videos="CASE WHEN g.due_videos + g.starved + g.alone > 0
                     THEN {{ due_of_chosen }} ELSE 0 END" }}
