-- The ledger of the sandbox provider. Amounts are minor units, times are microseconds since 1970.

-- One row an authorisation, as it is now.
CREATE TABLE IF NOT EXISTS authorizations (
    id              TEXT    NOT NULL PRIMARY KEY,
    reference       TEXT    NOT NULL,
    amount          INTEGER NOT NULL CHECK (amount > 0),
    currency        TEXT    NOT NULL,
    token           TEXT    NOT NULL,
    status          TEXT    NOT NULL,
    captured        INTEGER NOT NULL DEFAULT 0,
    refunded        INTEGER NOT NULL DEFAULT 0,
    metadata        TEXT    NOT NULL,
    challenge       TEXT,
    challenge_url   TEXT,
    create_time     INTEGER NOT NULL,
    update_time     INTEGER NOT NULL,
    CHECK (0 <= refunded AND refunded <= captured AND captured <= amount)
) STRICT, WITHOUT ROWID;

-- Not unique on purpose: two authorisations for one reference are the client's mistake, and the ledger must show it.
CREATE INDEX IF NOT EXISTS authorizations_by_reference ON authorizations (reference);
CREATE UNIQUE INDEX IF NOT EXISTS authorizations_by_challenge ON authorizations (challenge) WHERE challenge IS NOT NULL;

-- What happened, in order; rows are only ever added.
CREATE TABLE IF NOT EXISTS entries (
    seq             INTEGER NOT NULL PRIMARY KEY,
    kind            TEXT    NOT NULL,
    id              TEXT    NOT NULL,
    authorization   TEXT    NOT NULL,
    capture         TEXT,
    reference       TEXT    NOT NULL,
    idempotency_key TEXT    NOT NULL,
    amount          INTEGER NOT NULL,
    currency        TEXT    NOT NULL,
    status          TEXT    NOT NULL,
    create_time     INTEGER NOT NULL
) STRICT;

CREATE INDEX IF NOT EXISTS entries_by_authorization ON entries (authorization);
CREATE UNIQUE INDEX IF NOT EXISTS entries_by_id ON entries (id);

-- The answer given to each idempotency key.
CREATE TABLE IF NOT EXISTS answers (
    idempotency_key TEXT    NOT NULL PRIMARY KEY,
    fingerprint     BLOB    NOT NULL,
    status          INTEGER NOT NULL,
    body            TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- Keys that have been answered 500 once.
CREATE TABLE IF NOT EXISTS failed_once (
    idempotency_key TEXT    NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- The webhook outbox: written with the change it tells of, emptied by delivery.
CREATE TABLE IF NOT EXISTS webhooks (
    id              TEXT    NOT NULL PRIMARY KEY,
    body            TEXT    NOT NULL,
    copies          INTEGER NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    due_time        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS webhooks_by_due_time ON webhooks (due_time);

-- Where webhooks go, when it was set at run time.
CREATE TABLE IF NOT EXISTS endpoint (
    one             INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    url             TEXT    NOT NULL,
    secret          TEXT    NOT NULL
) STRICT;
