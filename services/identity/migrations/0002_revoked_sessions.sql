-- For whoever has to know which sessions ended that somebody could still show a token of.
CREATE INDEX sessions_revoked ON sessions (refresh_time) WHERE state = 'REVOKED';
