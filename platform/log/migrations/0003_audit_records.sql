-- expand
-- What was refused and what operators did. Rows are only ever added; on PostgreSQL the service's role can do nothing else.
-- `calls` is more than one where calls alike in everything but their trace came within a moment.
CREATE TABLE audit_records (
    id        TEXT   NOT NULL,
    time      BIGINT NOT NULL,
    verdict   TEXT   NOT NULL CHECK (verdict IN ('denied', 'admitted', 'done')),
    method    TEXT   NOT NULL,
    caller    TEXT   NOT NULL,
    principal TEXT   NOT NULL,
    resource  TEXT   NOT NULL,
    reason    TEXT   NOT NULL,
    outcome   TEXT   NOT NULL,
    trace_id  TEXT   NOT NULL,
    calls     BIGINT NOT NULL CHECK (calls > 0),
    PRIMARY KEY (id)
);
