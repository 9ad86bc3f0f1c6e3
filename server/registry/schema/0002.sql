-- Orders for several disks, with seals to be broken and layouts of their own; previews, and what these have found. disk is
-- that of orders made before; new ones have disks.
ALTER TABLE orders ADD COLUMN disks   TEXT   NOT NULL DEFAULT '';  -- JSON, as wipe
ALTER TABLE orders ADD COLUMN unseal  TEXT   NOT NULL DEFAULT '';  -- JSON
ALTER TABLE orders ADD COLUMN fresh   BIGINT NOT NULL DEFAULT 0;
ALTER TABLE orders ADD COLUMN layout  TEXT   NOT NULL DEFAULT '';  -- JSON
ALTER TABLE orders ADD COLUMN preview BIGINT NOT NULL DEFAULT 0;
ALTER TABLE orders ADD COLUMN outlook TEXT   NOT NULL DEFAULT '';  -- JSON
ALTER TABLE events ADD COLUMN preview BIGINT NOT NULL DEFAULT 0;   -- it is about such an order
