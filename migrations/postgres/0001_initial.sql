-- Ids compare byte by byte, as they do in SQLite, whatever the locale of the database.
CREATE TABLE agents (
  id text COLLATE "C" PRIMARY KEY NOT NULL,
  name text NOT NULL,
  chain text CHECK (chain IN ('solana', 'ethereum')),
  network text CHECK (network IN ('mainnet', 'devnet', 'testnet')),
  public_key text COLLATE "C",
  status text NOT NULL DEFAULT 'CREATING'
    CHECK (status IN ('CREATING', 'ACTIVE', 'SUSPENDED', 'TERMINATING', 'TERMINATED')),
  metadata text NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  suspended_at timestamptz,
  suspension_reason text
);
CREATE UNIQUE INDEX idx_agents_public_key ON agents (public_key) WHERE public_key IS NOT NULL;
CREATE INDEX idx_agents_created_at ON agents (created_at, id);

CREATE TABLE sessions (
  id text COLLATE "C" PRIMARY KEY NOT NULL,
  agent_id text COLLATE "C" NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
  token_hash text COLLATE "C" NOT NULL,
  constraints text,
  usage_stats text,
  expires_at timestamptz NOT NULL,
  revoked_at timestamptz,
  created_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX idx_sessions_token_hash ON sessions (token_hash);
CREATE INDEX idx_sessions_agent_id ON sessions (agent_id);
CREATE INDEX idx_sessions_expires_at ON sessions (expires_at);

CREATE TABLE audit_log (
  id bigint PRIMARY KEY,
  timestamp timestamptz NOT NULL,
  event_type text COLLATE "C" NOT NULL,
  actor text NOT NULL,
  agent_id text COLLATE "C",
  session_id text COLLATE "C",
  severity text NOT NULL DEFAULT 'info' CHECK (severity IN ('info', 'warning', 'critical')),
  details text NOT NULL DEFAULT '{}',
  request_id text,
  ip_address text,
  prev_hash text NOT NULL,
  hash text NOT NULL
);
CREATE INDEX idx_audit_log_session_id ON audit_log (session_id, id);
CREATE INDEX idx_audit_log_agent_id ON audit_log (agent_id, id);
CREATE INDEX idx_audit_log_event_type ON audit_log (event_type, id);

CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'audit_log is append-only: events are never %', TG_ARGV[0]
    USING ERRCODE = 'integrity_constraint_violation';
END;
$$;

CREATE TRIGGER audit_log_refuses_update BEFORE UPDATE ON audit_log
  FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only('changed');
CREATE TRIGGER audit_log_refuses_delete BEFORE DELETE ON audit_log
  FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only('deleted');
CREATE TRIGGER audit_log_refuses_truncate BEFORE TRUNCATE ON audit_log
  FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only('deleted');

-- An ordinary trigger does not fire in a session that calls itself a replica.
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_refuses_update;
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_refuses_delete;
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_refuses_truncate;

-- The newest event: locked last before a commit, so that all daemons together append one chain without a gap.
CREATE TABLE audit_head (
  id bigint NOT NULL,
  hash text NOT NULL
);
CREATE UNIQUE INDEX idx_audit_head_is_one_row ON audit_head ((true));
INSERT INTO audit_head (id, hash) VALUES (0, repeat('0', 64));

CREATE TABLE notification_channels (
  id text COLLATE "C" PRIMARY KEY NOT NULL,
  type text NOT NULL CHECK (type IN ('TELEGRAM', 'DISCORD', 'NTFY', 'WEBHOOK')),
  name text NOT NULL,
  config text NOT NULL,
  priority bigint NOT NULL DEFAULT 0,
  min_level text NOT NULL DEFAULT 'INFO' CHECK (min_level IN ('INFO', 'WARNING', 'CRITICAL')),
  events text,
  agents text,
  enabled boolean NOT NULL DEFAULT true,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL
);

CREATE TABLE notification_log (
  id text COLLATE "C" PRIMARY KEY NOT NULL,
  channel_id text COLLATE "C" REFERENCES notification_channels (id),
  event text NOT NULL,
  level text NOT NULL CHECK (level IN ('INFO', 'WARNING', 'CRITICAL')),
  reference_id text COLLATE "C",
  status text NOT NULL CHECK (status IN ('DELIVERED', 'FAILED', 'RATE_LIMITED', 'ALL_FAILED')),
  error text,
  retry_count bigint NOT NULL DEFAULT 0,
  sent_at timestamptz NOT NULL
);
CREATE INDEX idx_notification_log_channel_id ON notification_log (channel_id);
CREATE INDEX idx_notification_log_sent_at ON notification_log (sent_at);

CREATE TABLE key_value_store (
  key text COLLATE "C" PRIMARY KEY NOT NULL,
  value text NOT NULL,
  updated_at timestamptz NOT NULL
);
