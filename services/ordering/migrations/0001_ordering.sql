-- Derived from the log. A cart at a version becomes one order, unless that was rejected: the index is the last word on two
-- tabs placing the same cart.
CREATE TABLE orders (
    name        TEXT   NOT NULL PRIMARY KEY,
    customer    TEXT   NOT NULL,
    cart        TEXT   NOT NULL,
    cart_etag   TEXT   NOT NULL,
    state       TEXT   NOT NULL,
    version     BIGINT NOT NULL,
    create_time BIGINT NOT NULL,
    update_time BIGINT NOT NULL
);

CREATE UNIQUE INDEX orders_by_cart ON orders (cart, cart_etag) WHERE state <> 'REJECTED';
CREATE INDEX orders_by_state ON orders (state, create_time);
