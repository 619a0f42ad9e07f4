-- Derived from the log, all of it. Addresses stand in the log alone, sealed.
CREATE TABLE shipments (
    name          TEXT   NOT NULL PRIMARY KEY,
    order_name    TEXT   NOT NULL,
    customer      TEXT   NOT NULL,
    state         TEXT   NOT NULL,
    version       BIGINT NOT NULL,
    create_time   BIGINT NOT NULL,
    update_time   BIGINT NOT NULL,
    pack_time     BIGINT,
    release_time  BIGINT,
    dispatch_time BIGINT,
    deliver_time  BIGINT
);

CREATE INDEX shipments_by_order ON shipments (order_name);
CREATE INDEX shipments_by_time ON shipments (create_time, name);
CREATE INDEX shipments_by_customer ON shipments (customer, create_time);
