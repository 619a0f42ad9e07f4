-- Derived from the log, and the only table that is SQLite's own. It keeps its content, so that a rebuild can copy it.
CREATE VIRTUAL TABLE words USING fts5 (title, brand, description, sku, tokenize = 'unicode61 remove_diacritics 2');
