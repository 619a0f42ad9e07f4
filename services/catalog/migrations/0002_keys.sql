-- Not derived: the keys that sign prices, made at first start.
CREATE TABLE price_keys (
    id          TEXT   NOT NULL PRIMARY KEY,
    secret      BYTEA  NOT NULL,
    create_time BIGINT NOT NULL
);
