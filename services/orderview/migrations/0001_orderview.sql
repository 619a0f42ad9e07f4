-- The view of an order: what changes with its events is one narrow row; its lines, and what became of them, are written once
-- an event and never touched again, because an order of a thousand lines has a dozen events. Both tables are derived from
-- the log of ordering.
CREATE TABLE order_views (
    name               TEXT   NOT NULL PRIMARY KEY,
    customer           TEXT   NOT NULL,
    state              TEXT   NOT NULL,
    needs_attention    BIGINT NOT NULL,
    external_reference TEXT   NOT NULL,
    payment            TEXT   NOT NULL,
    currency           TEXT   NOT NULL,
    subtotal           BIGINT NOT NULL,
    tax                BIGINT NOT NULL,
    shipping           BIGINT NOT NULL,
    total              BIGINT NOT NULL,
    version            BIGINT NOT NULL,
    last_event         TEXT   NOT NULL,
    placed_time        BIGINT NOT NULL,
    create_time        BIGINT NOT NULL,
    update_time        BIGINT NOT NULL,
    progress           TEXT   NOT NULL
);

CREATE INDEX order_views_by_time ON order_views (create_time, name);
CREATE INDEX order_views_by_customer ON order_views (customer, create_time);
CREATE INDEX order_views_by_state ON order_views (state, create_time);
CREATE INDEX order_views_by_reference ON order_views (external_reference) WHERE external_reference <> '';
CREATE INDEX order_views_for_attention ON order_views (create_time) WHERE needs_attention <> 0;

CREATE TABLE order_view_lines (
    order_name TEXT   NOT NULL,
    version    BIGINT NOT NULL,
    kind       TEXT   NOT NULL,
    lines      BYTEA  NOT NULL,
    PRIMARY KEY (order_name, version)
);

-- Where to write to, sealed with the customer's key in this store. Sealing is random, so this is not derived: a rebuild
-- fills in what is missing and leaves the rest.
CREATE TABLE order_contacts (
    order_name TEXT NOT NULL PRIMARY KEY,
    customer   TEXT NOT NULL,
    email      TEXT NOT NULL
);
