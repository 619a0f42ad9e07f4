-- One row a saga. `due` is when somebody must look at it next: for a saga that is being run it is the end of the
-- runner's lease, for one that waits it is the end of the wait. `epoch` is the fencing token: it grows with each claim,
-- and every write of a runner names the epoch it claimed.
CREATE TABLE sagas (
    id               TEXT    NOT NULL PRIMARY KEY,
    definition       TEXT    NOT NULL,
    version          BIGINT  NOT NULL,
    phase            TEXT    NOT NULL CHECK (phase IN ('RUNNING', 'COMPENSATING', 'DONE', 'UNWOUND', 'STUCK')),
    step             BIGINT  NOT NULL CHECK (step >= 0),
    attempts         BIGINT  NOT NULL CHECK (attempts >= 0),
    step_started     BIGINT  NOT NULL,
    due              BIGINT  NOT NULL,
    active           BOOLEAN NOT NULL,
    epoch            BIGINT  NOT NULL,
    owner            TEXT    NOT NULL,
    data             BYTEA   NOT NULL,
    reason           TEXT    NOT NULL,
    detail           TEXT    NOT NULL,
    correlation      TEXT    NOT NULL,
    traceparent      TEXT    NOT NULL,
    created          BIGINT  NOT NULL,
    updated          BIGINT  NOT NULL
);

CREATE INDEX sagas_by_due ON sagas (due) WHERE phase IN ('RUNNING', 'COMPENSATING');
CREATE INDEX sagas_by_phase ON sagas (phase, created);

-- What happened, one row a step and direction: how an operator's question "why is this order still pending?" is answered.
CREATE TABLE saga_steps (
    saga             TEXT    NOT NULL,
    step             BIGINT  NOT NULL,
    direction        TEXT    NOT NULL CHECK (direction IN ('ACTION', 'COMPENSATION')),
    name             TEXT    NOT NULL,
    attempts         BIGINT  NOT NULL,
    outcome          TEXT    NOT NULL,
    detail           TEXT    NOT NULL,
    started          BIGINT  NOT NULL,
    ended            BIGINT  NOT NULL,
    PRIMARY KEY (saga, step, direction)
);
