-- Everything here is derived from the log. The CHECK is the last word on overselling: whatever the code above it
-- believed, a transaction that would promise more than there is does not commit.
CREATE TABLE stock (
    warehouse   TEXT   NOT NULL,
    sku         TEXT   NOT NULL,
    on_hand     BIGINT NOT NULL CHECK (on_hand >= 0),
    held        BIGINT NOT NULL CHECK (held >= 0),
    committed   BIGINT NOT NULL CHECK (committed >= 0),
    version     BIGINT NOT NULL,
    update_time BIGINT NOT NULL,
    CHECK (on_hand - held - committed >= 0),
    PRIMARY KEY (sku, warehouse)
);

CREATE TABLE reservations (
    name        TEXT   NOT NULL PRIMARY KEY,
    order_name  TEXT   NOT NULL,
    state       TEXT   NOT NULL,
    expire_time BIGINT,
    version     BIGINT NOT NULL,
    create_time BIGINT NOT NULL,
    update_time BIGINT NOT NULL
);

CREATE INDEX reservations_by_expiry ON reservations (expire_time) WHERE state = 'HELD';
CREATE INDEX reservations_by_order ON reservations (order_name);
CREATE INDEX reservations_by_time ON reservations (create_time, name);

CREATE TABLE movements (
    sku         TEXT   NOT NULL,
    warehouse   TEXT   NOT NULL,
    stream      TEXT   NOT NULL,
    version     BIGINT NOT NULL,
    kind        TEXT   NOT NULL,
    on_hand     BIGINT NOT NULL,
    held        BIGINT NOT NULL,
    committed   BIGINT NOT NULL,
    order_name  TEXT   NOT NULL,
    note        TEXT   NOT NULL,
    traceparent TEXT   NOT NULL,
    occur_time  BIGINT NOT NULL,
    PRIMARY KEY (stream, version, sku, warehouse)
);

CREATE INDEX movements_by_item ON movements (sku, warehouse, occur_time);
