-- LIKE takes the columns as the revisions have made them.
CREATE TABLE refresher.videos (
    LIKE refresher_set_aside.videos INCLUDING ALL EXCLUDING INDEXES
) PARTITION BY HASH (open_id)
