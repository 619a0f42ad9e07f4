-- How far the relay to a broker has come in each shard of this log, and which copy of the service runs it.
-- Not derived from the log: a rebuild never touches it.
CREATE TABLE relays (
    shard    BIGINT NOT NULL,
    position BIGINT NOT NULL,
    epoch    BIGINT NOT NULL,
    holder   TEXT   NOT NULL,
    hold_end BIGINT NOT NULL,
    PRIMARY KEY (shard)
);
