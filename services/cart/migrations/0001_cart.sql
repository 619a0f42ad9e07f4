-- Carts and their lines are derived from the log. `lines_version` is the version of the last event that changed the lines:
-- the cart's etag. `own` is true for a cart that its customer opened, false for one that an operator opened for them.
CREATE TABLE carts (
    name          TEXT   NOT NULL PRIMARY KEY,
    customer      TEXT   NOT NULL,
    own           BOOLEAN NOT NULL,
    currency      TEXT   NOT NULL,
    state         TEXT   NOT NULL,
    order_name    TEXT   NOT NULL,
    next_line     BIGINT NOT NULL,
    version       BIGINT NOT NULL,
    lines_version BIGINT NOT NULL,
    create_time   BIGINT NOT NULL,
    update_time   BIGINT NOT NULL
);

CREATE INDEX carts_by_customer ON carts (customer, state, currency);

CREATE TABLE cart_items (
    cart     TEXT   NOT NULL,
    id       BIGINT NOT NULL,
    sku      TEXT   NOT NULL,
    variant  TEXT   NOT NULL,
    title    TEXT   NOT NULL,
    stocked  BOOLEAN NOT NULL,
    quantity BIGINT NOT NULL CHECK (quantity BETWEEN 1 AND 100000),
    PRIMARY KEY (cart, id)
);

-- Not derived: what quotes are signed with. A quote given before a restart holds after it, so the keys are stored; the
-- newest signs, all verify.
CREATE TABLE quote_keys (
    id          BIGINT NOT NULL PRIMARY KEY,
    secret      BYTEA  NOT NULL,
    create_time BIGINT NOT NULL
);
