-- For whoever has to know which sessions ended that somebody could still show a token of.
CREATE INDEX sessions_revoked ON sessions (refresh_time) WHERE state = 'REVOKED';

-- For the sweep of what is kept of the tokens of sessions that have expired.
CREATE INDEX refresh_tokens_by_time ON refresh_tokens (rotate_time);
