-- Orders that say how the root file system is to come.
ALTER TABLE orders ADD COLUMN transport TEXT NOT NULL DEFAULT '';  -- http, relay, torrent; empty is the server's
