CREATE TABLE notification_outbox (
  id INTEGER PRIMARY KEY,
  seq INTEGER NOT NULL,
  channel_id TEXT REFERENCES notification_channels (id),
  event TEXT NOT NULL,
  level TEXT NOT NULL CHECK (level IN ('INFO', 'WARNING', 'CRITICAL')),
  agent_id TEXT,
  session_id TEXT,
  reference_id TEXT,
  dedup_key TEXT,
  created_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  next_attempt_at INTEGER NOT NULL,
  done_at INTEGER
);
CREATE INDEX idx_notification_outbox_due ON notification_outbox (level, next_attempt_at) WHERE done_at IS NULL;
CREATE INDEX idx_notification_outbox_done ON notification_outbox (done_at) WHERE done_at IS NOT NULL;
CREATE INDEX idx_notification_outbox_dedup ON notification_outbox (dedup_key, created_at) WHERE dedup_key IS NOT NULL;
