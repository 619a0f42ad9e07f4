-- What moved is in the log. These only find the events that moved something: all by time, and those of an item; so a line
-- of a sale costs one short row an event, and its text stands in the log alone. Their rows live in their keys' trees.
CREATE TABLE moving_events (
    occur_time BIGINT NOT NULL,
    stream     TEXT   NOT NULL,
    version    BIGINT NOT NULL,
    PRIMARY KEY (occur_time, stream, version)
) /*sqlite WITHOUT ROWID */;

INSERT INTO moving_events (occur_time, stream, version) SELECT DISTINCT occur_time, stream, version FROM movements;

CREATE TABLE item_movements (
    sku        TEXT   NOT NULL,
    warehouse  TEXT   NOT NULL,
    occur_time BIGINT NOT NULL,
    stream     TEXT   NOT NULL,
    version    BIGINT NOT NULL,
    PRIMARY KEY (sku, warehouse, occur_time, stream, version)
) /*sqlite WITHOUT ROWID */;

INSERT INTO item_movements (sku, warehouse, occur_time, stream, version)
SELECT sku, warehouse, occur_time, stream, version FROM movements;

DROP TABLE movements;

-- The same table in its key's tree: each line of a sale looks into it three times.
CREATE TABLE stock_by_item (
    warehouse   TEXT   NOT NULL,
    sku         TEXT   NOT NULL,
    on_hand     BIGINT NOT NULL CHECK (on_hand >= 0),
    held        BIGINT NOT NULL CHECK (held >= 0),
    committed   BIGINT NOT NULL CHECK (committed >= 0),
    version     BIGINT NOT NULL,
    update_time BIGINT NOT NULL,
    CHECK (on_hand - held - committed >= 0),
    PRIMARY KEY (sku, warehouse)
) /*sqlite WITHOUT ROWID */;

INSERT INTO stock_by_item (warehouse, sku, on_hand, held, committed, version, update_time)
SELECT warehouse, sku, on_hand, held, committed, version, update_time FROM stock;

DROP TABLE stock;

ALTER TABLE stock_by_item RENAME TO stock;
