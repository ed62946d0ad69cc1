-- Claims due accounts; those that have waited longest come first.
{{ claiming
    who="{{ is_due }}"
    first="wake_at"
    wanted_if_nothing_is_due="least(1, starved + alone)"
    due_videos="{{ granted_due_videos }}" }}
