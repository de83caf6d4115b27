CREATE TABLE agents (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  chain TEXT CHECK (chain IN ('solana', 'ethereum')),
  network TEXT CHECK (network IN ('mainnet', 'devnet', 'testnet')),
  public_key TEXT,
  status TEXT NOT NULL DEFAULT 'CREATING'
    CHECK (status IN ('CREATING', 'ACTIVE', 'SUSPENDED', 'TERMINATING', 'TERMINATED')),
  metadata TEXT NOT NULL DEFAULT '{}',
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  suspended_at INTEGER,
  suspension_reason TEXT
);
CREATE UNIQUE INDEX idx_agents_public_key ON agents (public_key) WHERE public_key IS NOT NULL;
CREATE INDEX idx_agents_created_at ON agents (created_at, id);

CREATE TABLE sessions (
  id TEXT PRIMARY KEY NOT NULL,
  agent_id TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
  token_hash TEXT NOT NULL,
  constraints TEXT,
  usage_stats TEXT,
  expires_at INTEGER NOT NULL,
  revoked_at INTEGER,
  created_at INTEGER NOT NULL
);
CREATE UNIQUE INDEX idx_sessions_token_hash ON sessions (token_hash);
CREATE INDEX idx_sessions_agent_id ON sessions (agent_id);
CREATE INDEX idx_sessions_expires_at ON sessions (expires_at);

CREATE TABLE audit_log (
  id INTEGER PRIMARY KEY,
  timestamp INTEGER NOT NULL,
  event_type TEXT NOT NULL,
  actor TEXT NOT NULL,
  agent_id TEXT,
  session_id TEXT,
  severity TEXT NOT NULL DEFAULT 'info' CHECK (severity IN ('info', 'warning', 'critical')),
  details TEXT NOT NULL DEFAULT '{}',
  request_id TEXT,
  ip_address TEXT,
  prev_hash TEXT NOT NULL,
  hash TEXT NOT NULL
);
CREATE INDEX idx_audit_log_session_id ON audit_log (session_id, id);
CREATE INDEX idx_audit_log_agent_id ON audit_log (agent_id, id);
CREATE INDEX idx_audit_log_event_type ON audit_log (event_type, id);

CREATE TRIGGER audit_log_refuses_update BEFORE UPDATE ON audit_log
BEGIN
  SELECT RAISE(ABORT, 'audit_log is append-only: events are never changed');
END;

CREATE TRIGGER audit_log_refuses_delete BEFORE DELETE ON audit_log
BEGIN
  SELECT RAISE(ABORT, 'audit_log is append-only: events are never deleted');
END;

-- INSERT OR REPLACE deletes without firing the trigger above unless recursive_triggers is on.
CREATE TRIGGER audit_log_refuses_replace BEFORE INSERT ON audit_log
WHEN EXISTS (SELECT 1 FROM audit_log WHERE id = NEW.id)
BEGIN
  SELECT RAISE(ABORT, 'audit_log is append-only: events are never replaced');
END;

CREATE TABLE notification_channels (
  id TEXT PRIMARY KEY NOT NULL,
  type TEXT NOT NULL CHECK (type IN ('TELEGRAM', 'DISCORD', 'NTFY', 'WEBHOOK')),
  name TEXT NOT NULL,
  config TEXT NOT NULL,
  priority INTEGER NOT NULL DEFAULT 0,
  min_level TEXT NOT NULL DEFAULT 'INFO' CHECK (min_level IN ('INFO', 'WARNING', 'CRITICAL')),
  events TEXT,
  agents TEXT,
  enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
);

CREATE TABLE notification_log (
  id TEXT PRIMARY KEY NOT NULL,
  channel_id TEXT REFERENCES notification_channels (id),
  event TEXT NOT NULL,
  level TEXT NOT NULL CHECK (level IN ('INFO', 'WARNING', 'CRITICAL')),
  reference_id TEXT,
  status TEXT NOT NULL CHECK (status IN ('DELIVERED', 'FAILED', 'RATE_LIMITED', 'ALL_FAILED')),
  error TEXT,
  retry_count INTEGER NOT NULL DEFAULT 0,
  sent_at INTEGER NOT NULL
);
CREATE INDEX idx_notification_log_channel_id ON notification_log (channel_id);
CREATE INDEX idx_notification_log_sent_at ON notification_log (sent_at);

CREATE TABLE key_value_store (
  key TEXT PRIMARY KEY NOT NULL,
  value TEXT NOT NULL,
  updated_at INTEGER NOT NULL
);
