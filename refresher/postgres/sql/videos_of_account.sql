-- Videos of one account. (With both keys in one comparison the last page would read all others.)
{{ videos_listed which="open_id = :after_open_id AND video_id > :after_video_id" }}
