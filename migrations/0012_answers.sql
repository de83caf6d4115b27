CREATE TABLE answers (
  token_hash TEXT PRIMARY KEY NOT NULL,
  channel_id TEXT REFERENCES notification_channels (id),
  seq INTEGER NOT NULL,
  session_id TEXT,
  agent_id TEXT,
  actions TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  reject_until INTEGER,
  expires_at INTEGER NOT NULL,
  used_at INTEGER,
  used_action TEXT
);
CREATE INDEX idx_answers_session_id ON answers (session_id) WHERE used_at IS NULL;
CREATE INDEX idx_answers_expires_at ON answers (expires_at);
