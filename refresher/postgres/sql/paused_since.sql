-- Since when everything is paused; NULL: it is not.
SELECT paused_since FROM refresher.app
