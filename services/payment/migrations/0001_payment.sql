-- Everything here is derived from the log. The CHECKs are the last word on money: whatever the code above them believed,
-- a transaction that would charge more than was set aside, or give back more than was charged, does not commit.
CREATE TABLE payments (
    name                      TEXT   NOT NULL PRIMARY KEY,
    order_name                TEXT   NOT NULL,
    customer                  TEXT   NOT NULL,
    provider                  TEXT   NOT NULL,
    state                     TEXT   NOT NULL,
    currency                  TEXT   NOT NULL,
    amount                    BIGINT NOT NULL CHECK (amount >= 0),
    authorized                BIGINT NOT NULL CHECK (authorized >= 0),
    voided                    BIGINT NOT NULL CHECK (voided >= 0),
    captured                  BIGINT NOT NULL CHECK (captured >= 0),
    refunded                  BIGINT NOT NULL CHECK (refunded >= 0),
    cancel                    TEXT   NOT NULL,
    reference                 TEXT   NOT NULL,
    decline_code              TEXT   NOT NULL,
    action_expire_time        BIGINT,
    authorization_expire_time BIGINT,
    version                   BIGINT NOT NULL,
    create_time               BIGINT NOT NULL,
    update_time               BIGINT NOT NULL,
    CHECK (refunded <= captured),
    CHECK (captured + voided <= authorized)
);

CREATE INDEX payments_by_order ON payments (order_name);
CREATE INDEX payments_to_cancel ON payments (update_time) WHERE cancel = 'REQUESTED';

CREATE TABLE attempts (
    payment      TEXT   NOT NULL,
    attempt      TEXT   NOT NULL,
    kind         TEXT   NOT NULL,
    state        TEXT   NOT NULL,
    amount       BIGINT NOT NULL,
    currency     TEXT   NOT NULL,
    provider_key TEXT   NOT NULL UNIQUE,
    tries        BIGINT NOT NULL,
    reference    TEXT   NOT NULL,
    decline_code TEXT   NOT NULL,
    last_error   TEXT   NOT NULL,
    shipment     TEXT   NOT NULL,
    return_id    TEXT   NOT NULL,
    reason       TEXT   NOT NULL,
    actor        TEXT   NOT NULL,
    source       TEXT   NOT NULL,
    traceparent  TEXT   NOT NULL,
    create_time  BIGINT NOT NULL,
    update_time  BIGINT NOT NULL,
    PRIMARY KEY (payment, attempt)
);

CREATE INDEX attempts_open ON attempts (update_time) WHERE state IN ('PREPARED', 'SENT', 'IN_DOUBT');
CREATE INDEX attempts_waiting ON attempts (update_time) WHERE state = 'WAITING';

CREATE TABLE refunds (
    payment     TEXT   NOT NULL,
    attempt     TEXT   NOT NULL,
    return_id   TEXT   NOT NULL,
    currency    TEXT   NOT NULL,
    amount      BIGINT NOT NULL CHECK (amount > 0),
    occur_time  BIGINT NOT NULL,
    PRIMARY KEY (payment, attempt)
);

CREATE TABLE postings (
    stream      TEXT   NOT NULL,
    version     BIGINT NOT NULL,
    line        BIGINT NOT NULL,
    account     TEXT   NOT NULL,
    currency    TEXT   NOT NULL,
    minor       BIGINT NOT NULL,
    occur_time  BIGINT NOT NULL,
    PRIMARY KEY (stream, version, line)
);

CREATE TABLE webhook_receipts (
    provider     TEXT   NOT NULL,
    event_id     TEXT   NOT NULL,
    event_type   TEXT   NOT NULL,
    provider_key TEXT   NOT NULL,
    reference    TEXT   NOT NULL,
    state        TEXT   NOT NULL,
    payment      TEXT   NOT NULL,
    outcome      TEXT   NOT NULL,
    receive_time BIGINT NOT NULL,
    update_time  BIGINT NOT NULL,
    PRIMARY KEY (provider, event_id)
);

CREATE INDEX webhook_receipts_parked ON webhook_receipts (receive_time) WHERE state = 'PARKED';
