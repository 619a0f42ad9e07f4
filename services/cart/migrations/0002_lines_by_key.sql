-- The same lines in their key's tree: a cart's lines lie side by side and are written once, not once more in an index.
CREATE TABLE lines_of_carts (
    cart     TEXT   NOT NULL,
    id       BIGINT NOT NULL,
    sku      TEXT   NOT NULL,
    variant  TEXT   NOT NULL,
    title    TEXT   NOT NULL,
    stocked  BOOLEAN NOT NULL,
    quantity BIGINT NOT NULL CHECK (quantity BETWEEN 1 AND 100000),
    PRIMARY KEY (cart, id)
) /*sqlite WITHOUT ROWID */;

INSERT INTO lines_of_carts (cart, id, sku, variant, title, stocked, quantity)
SELECT cart, id, sku, variant, title, stocked, quantity FROM cart_items;

DROP TABLE cart_items;

ALTER TABLE lines_of_carts RENAME TO cart_items;
