-- Whether more hosts may be named. A mistake, TikTok's or ours, must not fill the table.
SELECT count(*) < {{ most_cover_hosts }} FROM refresher.cover_hosts
