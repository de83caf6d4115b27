CREATE TABLE answers (
  token_hash text COLLATE "C" PRIMARY KEY NOT NULL,
  channel_id text COLLATE "C" REFERENCES notification_channels (id),
  seq bigint NOT NULL,
  session_id text COLLATE "C",
  agent_id text COLLATE "C",
  actions text NOT NULL,
  created_at timestamptz NOT NULL,
  reject_until timestamptz,
  expires_at timestamptz NOT NULL,
  used_at timestamptz,
  used_action text
);
CREATE INDEX idx_answers_session_id ON answers (session_id) WHERE used_at IS NULL;
CREATE INDEX idx_answers_expires_at ON answers (expires_at);
