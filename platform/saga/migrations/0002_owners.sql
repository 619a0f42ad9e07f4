-- The runners that live, where several processes share the store: a runner that says nothing until `lease_end` is taken for
-- gone, and its sagas are taken over. One that was only slow finds its epochs moved on.
CREATE TABLE saga_owners (
    owner            TEXT    NOT NULL PRIMARY KEY,
    lease_end        BIGINT  NOT NULL
);
