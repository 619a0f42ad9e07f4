-- Derived from the log. E-mail addresses and names are sealed as the events are.
CREATE TABLE users (
    name         TEXT   NOT NULL PRIMARY KEY,
    email        TEXT   NOT NULL,
    display_name TEXT   NOT NULL,
    role         TEXT   NOT NULL,
    state        TEXT   NOT NULL,
    external_id  TEXT   NOT NULL,
    country_code TEXT   NOT NULL,
    version      BIGINT NOT NULL,
    create_time  BIGINT NOT NULL,
    update_time  BIGINT NOT NULL
);

CREATE UNIQUE INDEX users_by_external_id ON users (external_id) WHERE external_id <> '';
CREATE INDEX users_by_role ON users (role) WHERE role = 'operator';

CREATE TABLE sessions (
    name          TEXT   NOT NULL PRIMARY KEY,
    principal     TEXT   NOT NULL,
    role          TEXT   NOT NULL,
    state         TEXT   NOT NULL,
    revoke_reason TEXT   NOT NULL,
    generation    BIGINT NOT NULL,
    version       BIGINT NOT NULL,
    create_time   BIGINT NOT NULL,
    refresh_time  BIGINT NOT NULL,
    expire_time   BIGINT NOT NULL
);

CREATE INDEX sessions_by_principal ON sessions (principal, create_time, name);

CREATE TABLE signing_keys (
    kid           TEXT   NOT NULL PRIMARY KEY,
    algorithm     TEXT   NOT NULL,
    public_key    BYTEA  NOT NULL,
    create_time   BIGINT NOT NULL,
    activate_time BIGINT NOT NULL,
    retire_time   BIGINT,
    remove_time   BIGINT
);

-- Secrets, of which the log knows nothing: a rebuild leaves them alone.

-- Keys of the service itself: `email` makes addresses comparable without storing them, `refresh` signs refresh tokens.
CREATE TABLE secrets (
    name   TEXT  NOT NULL PRIMARY KEY,
    secret BYTEA NOT NULL
);

-- One row a user with a password. The key makes an address unique: its keyed hash, since the address itself is sealed.
CREATE TABLE credentials (
    email_hash    BYTEA  NOT NULL PRIMARY KEY,
    user_name     TEXT   NOT NULL UNIQUE,
    password_hash TEXT   NOT NULL,
    create_time   BIGINT NOT NULL
);

-- One row a family: the token that is good, the one it replaced, and its successor masked with the replaced one's text.
CREATE TABLE refresh_tokens (
    session     TEXT   NOT NULL PRIMARY KEY,
    generation  BIGINT NOT NULL,
    token_hash  BYTEA  NOT NULL,
    spent_hash  BYTEA  NOT NULL,
    successor   BYTEA  NOT NULL,
    rotate_time BIGINT NOT NULL
);

CREATE TABLE signing_secrets (
    kid  TEXT  NOT NULL PRIMARY KEY,
    seed BYTEA NOT NULL
);
