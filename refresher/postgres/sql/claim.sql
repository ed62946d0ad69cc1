-- The accounts that are due, those first that have waited longest.
{{ claiming
    who="{{ is_due }}"
    first="wake_at"
    if_nothing_else_is_due="least(1, starved + alone)"
    due_videos="{{ due_of_chosen }}" }}
