-- Derived from the log, all of it. `number` is a product's place in the log, which the full-text index needs for a key.
CREATE TABLE products (
    name        TEXT   NOT NULL PRIMARY KEY,
    number      BIGINT NOT NULL UNIQUE,
    state       TEXT   NOT NULL,
    version     BIGINT NOT NULL,
    create_time BIGINT NOT NULL,
    update_time BIGINT NOT NULL,
    record      BYTEA  NOT NULL
);

CREATE INDEX products_by_state ON products (state, name);
CREATE INDEX products_by_time ON products (state, create_time, number);

-- A SKU is one variant's in the whole shop, whatever the code above believed.
CREATE TABLE variants (
    sku    TEXT   NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL
);

CREATE INDEX variants_by_product ON variants (number);

-- What a product can be narrowed by: `brand`, `category`, `option.{option}`.
CREATE TABLE facets (
    number BIGINT NOT NULL,
    field  TEXT   NOT NULL,
    value  TEXT   NOT NULL,
    PRIMARY KEY (number, field, value)
);

CREATE INDEX facets_by_value ON facets (field, value, number);

-- The distinct prices of a product's variants.
CREATE TABLE prices (
    number   BIGINT NOT NULL,
    currency TEXT   NOT NULL,
    amount   BIGINT NOT NULL,
    PRIMARY KEY (number, currency, amount)
);

CREATE INDEX prices_by_amount ON prices (currency, amount, number);
