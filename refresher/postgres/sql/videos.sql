-- Videos of all accounts.
{{ videos_listed which="(open_id, video_id) > (:after_open_id, :after_video_id)" }}
