CREATE TABLE idempotency_keys (
  key_hash text COLLATE "C" PRIMARY KEY NOT NULL,
  session_id text COLLATE "C" NOT NULL,
  created_at timestamptz NOT NULL
);
CREATE INDEX idx_idempotency_keys_created_at ON idempotency_keys (created_at);
