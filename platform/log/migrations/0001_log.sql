-- What every service keeps beside its events. None of these tables is derived from the log:
-- a rebuild never touches them.

-- Request ids: who asked for what with which key, and the answer. The row is the first statement
-- of the transaction that has the effect.
CREATE TABLE requests (
    principal   TEXT   NOT NULL,
    method      TEXT   NOT NULL,
    key         TEXT   NOT NULL,
    fingerprint BYTEA  NOT NULL,
    state       TEXT   NOT NULL CHECK (state IN ('CLAIMED', 'DONE', 'REFUSED')),
    code        BIGINT NOT NULL,
    message     TEXT   NOT NULL,
    body        BYTEA  NOT NULL,
    claim_time  BIGINT NOT NULL,
    PRIMARY KEY (principal, method, key)
);
CREATE INDEX requests_claim_time ON requests (claim_time);

-- The last version of each stream that a consumer has dealt with.
CREATE TABLE inbox (
    consumer TEXT   NOT NULL,
    producer TEXT   NOT NULL,
    stream   TEXT   NOT NULL,
    version  BIGINT NOT NULL,
    PRIMARY KEY (consumer, producer, stream)
);

-- The last position of each shard that a consumer has dealt with.
CREATE TABLE cursors (
    consumer TEXT   NOT NULL,
    producer TEXT   NOT NULL,
    shard    BIGINT NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (consumer, producer, shard)
);

-- Messages that could not be applied, and those of the same stream queueing behind them.
-- Only their address: the content stays in the producer's log.
CREATE TABLE parked (
    consumer  TEXT   NOT NULL,
    producer  TEXT   NOT NULL,
    stream    TEXT   NOT NULL,
    version   BIGINT NOT NULL,
    name      TEXT   NOT NULL,
    reason    TEXT   NOT NULL,
    attempts  BIGINT NOT NULL,
    park_time BIGINT NOT NULL,
    PRIMARY KEY (consumer, producer, stream, version)
);

CREATE TABLE timers (
    kind             TEXT   NOT NULL,
    key              TEXT   NOT NULL,
    due              BIGINT NOT NULL,
    expected_version BIGINT NOT NULL,
    payload          BYTEA  NOT NULL,
    attempts         BIGINT NOT NULL,
    last_error       TEXT   NOT NULL,
    PRIMARY KEY (kind, key)
);
CREATE INDEX timers_due ON timers (due);

-- One key a person. A destroyed key leaves its row, empty, so that nothing can be sealed for
-- that person again.
CREATE TABLE subject_keys (
    subject     TEXT   NOT NULL,
    secret      BYTEA  NOT NULL,
    create_time BIGINT NOT NULL,
    forget_time BIGINT,
    PRIMARY KEY (subject)
);
