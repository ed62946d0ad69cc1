-- Claims a few accounts, due or not, to learn whether TikTok answers at all.
{{ claiming
    who="{{ candidates }}"
    first="{{ trial_order }}"
    wanted_if_nothing_is_due="CASE WHEN starved + alone > 0 THEN 1
                                   ELSE least(top_ups, {{ chunk_size }}) END"
    due_videos="CASE WHEN g.due_videos + g.starved + g.alone > 0
                     THEN {{ granted_due_videos }} ELSE 0 END" }}
