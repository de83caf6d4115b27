ALTER TABLE sessions ADD COLUMN ttl_seconds bigint NOT NULL DEFAULT 86400;
ALTER TABLE sessions ADD COLUMN generation bigint NOT NULL DEFAULT 1;
ALTER TABLE sessions ADD COLUMN previous_token_hash text COLLATE "C";
ALTER TABLE sessions ADD COLUMN retry_answer bytea;
ALTER TABLE sessions ADD COLUMN rotated_at timestamptz;
ALTER TABLE sessions ADD COLUMN owner_rotated_generation bigint NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN used_generation bigint NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN reuse_reported_at timestamptz;

-- What an older version handed out becomes the unit of renewal, within the range a new session may ask for.
UPDATE sessions
SET ttl_seconds = least(greatest(extract(epoch FROM expires_at - created_at)::bigint, 300), 604800);

CREATE UNIQUE INDEX idx_sessions_previous_token_hash ON sessions (previous_token_hash)
  WHERE previous_token_hash IS NOT NULL;
