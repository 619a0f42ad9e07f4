-- Everything here is derived from the log. Addresses, names and subject lines are sealed as the events are; a text is read
-- from its event alone.

-- Where to write to: `users/{user}` and `guests/{guest}`, and `orders/{order}` where an order says otherwise.
CREATE TABLE recipients (
    name         TEXT NOT NULL PRIMARY KEY,
    subject      TEXT NOT NULL,
    email        TEXT NOT NULL,
    display_name TEXT NOT NULL
);

CREATE INDEX recipients_by_subject ON recipients (subject);

CREATE TABLE notifications (
    name          TEXT   NOT NULL PRIMARY KEY,
    template      TEXT   NOT NULL,
    state         TEXT   NOT NULL,
    recipient     TEXT   NOT NULL,
    subject_line  TEXT   NOT NULL,
    order_name    TEXT   NOT NULL,
    customer      TEXT   NOT NULL,
    dedupe_key    TEXT   NOT NULL,
    attempt_count BIGINT NOT NULL,
    last_error    TEXT   NOT NULL,
    message_id    TEXT   NOT NULL,
    trace_id      TEXT   NOT NULL,
    version       BIGINT NOT NULL,
    create_time   BIGINT NOT NULL,
    send_time     BIGINT,
    update_time   BIGINT NOT NULL,
    due           BIGINT NOT NULL
);

CREATE INDEX notifications_due ON notifications (due) WHERE state = 'PENDING';
CREATE INDEX notifications_by_order ON notifications (order_name, create_time, name);
CREATE INDEX notifications_by_customer ON notifications (customer) WHERE customer <> '';
CREATE INDEX notifications_by_time ON notifications (create_time, name);
