-- The schema that migrations/ arrive at, for people to read. The daemon never runs this file: it builds every
-- database, new ones too, by the migrations, and a test proves that both give the same.
--
-- Ids are UUID v7 as text. Times are Unix seconds, UTC. JSON is text. Booleans are 0 or 1.
-- Columns stand in the order in which migrations added them.

-- Which migrations made this database, and from which text: a changed or missing file is noticed at start.
CREATE TABLE schema_migrations (
  version INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  sha256 TEXT NOT NULL,  -- of the file with LF line ends, so that a checkout with CRLF is the same
  applied_at INTEGER NOT NULL
);

-- Registered identities. Terminated ones stay: the audit log and the owner refer to them.
CREATE TABLE agents (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,  -- not unique: owners reuse names, ids tell apart
  chain TEXT CHECK (chain IN ('solana', 'ethereum')),
  network TEXT CHECK (network IN ('mainnet', 'devnet', 'testnet')),
  public_key TEXT,
  status TEXT NOT NULL DEFAULT 'CREATING'
    CHECK (status IN ('CREATING', 'ACTIVE', 'SUSPENDED', 'TERMINATING', 'TERMINATED')),
  metadata TEXT NOT NULL DEFAULT '{}',
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  suspended_at INTEGER,
  suspension_reason TEXT,
  owner_address TEXT,
  owner_verified INTEGER NOT NULL DEFAULT 0 CHECK (owner_verified IN (0, 1)),
  suspended_by TEXT CHECK (suspended_by IN ('owner', 'kill_switch', 'auto_stop'))  -- recovery brings back its own alone
);
CREATE UNIQUE INDEX idx_agents_public_key ON agents (public_key) WHERE public_key IS NOT NULL;
CREATE INDEX idx_agents_created_at ON agents (created_at, id);  -- lists page by it
CREATE INDEX idx_agents_owner_address ON agents (owner_address);
CREATE INDEX idx_agents_status ON agents (status);

-- Sessions. Whether a token may be used (ACTIVE, EXPIRED, REVOKED) is derived from the times, never stored;
-- what a session is doing is its state.
CREATE TABLE sessions (
  id TEXT PRIMARY KEY NOT NULL,
  agent_id TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
  token_hash TEXT NOT NULL,  -- SHA-256 of the whole token: the file alone lets nobody in
  constraints TEXT,  -- as the owner sent them, unknown keys too
  usage_stats TEXT,
  expires_at INTEGER NOT NULL,  -- the authority on expiry; the token's own `exp` is a hint to its holder
  revoked_at INTEGER,
  created_at INTEGER NOT NULL,
  renewal_count INTEGER NOT NULL DEFAULT 0,
  max_renewals INTEGER NOT NULL DEFAULT 30,  -- 0: never renewable
  last_renewed_at INTEGER,
  absolute_expires_at INTEGER NOT NULL DEFAULT 0,  -- fixed at creation, so that configuration does not reach back
  ttl_seconds INTEGER NOT NULL DEFAULT 86400,  -- what one renewal adds; the agent cannot choose it
  generation INTEGER NOT NULL DEFAULT 1,  -- of the current token; each renewal and rotation adds one
  previous_token_hash TEXT,  -- finds the session when an agent repeats a renewal whose answer was lost
  retry_answer BLOB,  -- that answer, sealed under the previous token: only its holder can open it
  rotated_at INTEGER,  -- when the current generation began
  owner_rotated_generation INTEGER NOT NULL DEFAULT 0,  -- older tokens up to this one are refused, not punished
  used_generation INTEGER NOT NULL DEFAULT 0,  -- the newest whose token was used: a retry after that is a theft
  reuse_reported_at INTEGER,  -- reuse is acted on once a session
  state TEXT NOT NULL DEFAULT 'READY'
    CHECK (state IN (
      'CREATED', 'INITIALIZING', 'READY', 'ACTIVE', 'IDLE', 'SUSPENDED', 'CLOSING', 'CLOSED', 'ERROR'
    )),
  state_changed_at INTEGER,
  started_at INTEGER,  -- the first request: tells SESSION_STARTED from a later return to ACTIVE
  revoked_reason TEXT,
  expired_at INTEGER,  -- set when SESSION_EXPIRED was emitted, so that it is emitted once
  idle_timeout INTEGER,  -- copy of constraints.idleTimeout: the sweeper asks by index, not by parsing JSON
  last_activity INTEGER,  -- this and request_count are written behind, at most a second late
  request_count INTEGER NOT NULL DEFAULT 0,
  user_id TEXT,
  workspace_id TEXT,
  metadata TEXT NOT NULL DEFAULT '{}',
  created_by TEXT NOT NULL DEFAULT 'api' CHECK (created_by IN ('api', 'cli', 'run', 'process')),
  expiry_warned_at INTEGER,  -- SESSION_EXPIRING_SOON is emitted once a session
  -- Delegation: the session whose agent made this one. No foreign keys: a child is over before its parent is
  -- deleted, and a row whose parent is gone is over itself.
  parent_id TEXT,
  root_id TEXT,  -- the session that its owner made, at the top of the tree; absent in that one itself
  depth INTEGER NOT NULL DEFAULT 0 CHECK (depth BETWEEN 0 AND 3)
);
CREATE UNIQUE INDEX idx_sessions_token_hash ON sessions (token_hash);
CREATE UNIQUE INDEX idx_sessions_previous_token_hash ON sessions (previous_token_hash)
  WHERE previous_token_hash IS NOT NULL;
CREATE INDEX idx_sessions_agent_id ON sessions (agent_id);
CREATE INDEX idx_sessions_expires_at ON sessions (expires_at);
CREATE INDEX idx_sessions_created_at ON sessions (created_at, id);  -- lists page by it
CREATE INDEX idx_sessions_alive_by_agent ON sessions (agent_id, expires_at)
  WHERE revoked_at IS NULL;  -- counts an agent's active sessions while another is created
-- The sweeper: what is to be marked as expired, what is old enough to be deleted, what may have become idle.
CREATE INDEX idx_sessions_to_expire ON sessions (expires_at) WHERE revoked_at IS NULL AND expired_at IS NULL;
CREATE INDEX idx_sessions_revoked_at ON sessions (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX idx_sessions_expired_at ON sessions (expired_at) WHERE expired_at IS NOT NULL;
CREATE INDEX idx_sessions_active ON sessions (state) WHERE state = 'ACTIVE';
CREATE INDEX idx_sessions_idle_timeout ON sessions (idle_timeout)
  WHERE idle_timeout IS NOT NULL AND revoked_at IS NULL AND expired_at IS NULL;
-- The pool, and what is under way: closed sessions are kept for long.
CREATE INDEX idx_sessions_supervised ON sessions (id) WHERE created_by = 'process' AND state <> 'CLOSED';
CREATE INDEX idx_sessions_parent_id ON sessions (parent_id)
  WHERE parent_id IS NOT NULL AND revoked_at IS NULL AND expired_at IS NULL;
CREATE INDEX idx_sessions_root_id ON sessions (root_id)
  WHERE root_id IS NOT NULL AND revoked_at IS NULL AND expired_at IS NULL;

-- Conversations: a client-chosen id that is bound to one provider and model for as long as it is used.
CREATE TABLE conversations (
  agent_id TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
  conversation_id TEXT NOT NULL,  -- as the client sent it, never normalised
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  external_id TEXT,
  session_id TEXT REFERENCES sessions (id) ON DELETE SET NULL,  -- the session that bound it, for as long as it is kept
  created_at INTEGER NOT NULL,
  last_activity INTEGER NOT NULL,  -- this, expires_at and request_count are written behind, at most a second late
  expires_at INTEGER NOT NULL,
  request_count INTEGER NOT NULL DEFAULT 0,
  rebind_count INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (agent_id, conversation_id)
);
-- Lists page by creation: everybody's, an agent's, a provider's.
CREATE INDEX idx_conversations_created_at ON conversations (created_at, agent_id, conversation_id);
CREATE INDEX idx_conversations_of_agent ON conversations (agent_id, created_at, conversation_id);
CREATE INDEX idx_conversations_provider ON conversations (provider, created_at, agent_id, conversation_id);
CREATE INDEX idx_conversations_session_id ON conversations (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX idx_conversations_expires_at ON conversations (expires_at);  -- the sweeper

-- What the daemon runs for supervised sessions: one process a session, whatever number of times it was started.
CREATE TABLE processes (
  session_id TEXT PRIMARY KEY NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  home TEXT NOT NULL,  -- whose daemon runs it: on a shared database every daemon minds its own
  config TEXT NOT NULL,  -- JSON, without what is sealed
  secrets TEXT,  -- environment and OAuth token, sealed with the home's seal.key
  external_id TEXT NOT NULL,  -- under which the command keeps its conversation
  resumable INTEGER NOT NULL DEFAULT 0 CHECK (resumable IN (0, 1)),
  rest TEXT CHECK (rest IN ('pool', 'idle', 'restart')),  -- ended on purpose while the session lives on
  suspended_by TEXT CHECK (suspended_by IN ('owner', 'agent', 'budget', 'idle', 'output')),
  run INTEGER NOT NULL DEFAULT 0,  -- how often it was started
  pid INTEGER,  -- of the command; absent where none is known to run
  wrapper_pid INTEGER,  -- of what watches it: found again by pid, start time and boot
  wrapper_started TEXT,
  boot_id TEXT,
  started_at INTEGER,
  ended_at INTEGER,
  exit_code INTEGER,
  signal INTEGER,
  reason TEXT,
  failures INTEGER NOT NULL DEFAULT 0,  -- in a row: too many, and it is not started again
  restarts INTEGER NOT NULL DEFAULT 0,
  restart_at INTEGER,
  last_turn INTEGER NOT NULL DEFAULT 0,
  turns INTEGER NOT NULL DEFAULT 0,
  output_offset INTEGER NOT NULL DEFAULT 0,  -- bytes of output whose consequences are stored
  run_usage TEXT,  -- what this run has reported of its usage: the next report includes it
  warned_at INTEGER
);

-- Messages to those processes, one turn each. Over, a turn keeps no content.
CREATE TABLE turns (
  session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  turn INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('QUEUED', 'RUNNING', 'DONE', 'FAILED', 'INTERRUPTED', 'UNKNOWN')),
  content TEXT,
  created_at INTEGER NOT NULL,
  started_at INTEGER,
  ended_at INTEGER,
  PRIMARY KEY (session_id, turn)
);
CREATE INDEX idx_turns_not_over ON turns (session_id) WHERE state IN ('QUEUED', 'RUNNING');

-- A repeated Idempotency-Key finds the session it made; the key itself is not kept.
CREATE TABLE idempotency_keys (
  key_hash TEXT PRIMARY KEY NOT NULL,
  session_id TEXT NOT NULL,  -- no foreign key: the key outlives a session that was swept
  created_at INTEGER NOT NULL
);
CREATE INDEX idx_idempotency_keys_created_at ON idempotency_keys (created_at);

-- Other services on the machine that may ask whether a token is good. A revoked one stays: events name it.
CREATE TABLE verifiers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  credential_hash TEXT NOT NULL,  -- SHA-256 of the whole prefixed credential, in hex
  may_revoke INTEGER NOT NULL DEFAULT 0 CHECK (may_revoke IN (0, 1)),
  created_at INTEGER NOT NULL,
  revoked_at INTEGER,
  last_used_at INTEGER  -- to the minute
);
CREATE UNIQUE INDEX idx_verifiers_credential_hash ON verifiers (credential_hash);

-- Every fact, in the order in which it happened. No foreign keys: an event outlives what it is about.
CREATE TABLE audit_log (
  id INTEGER PRIMARY KEY,  -- the sequence number, without gaps: assigned by the daemon under the writer's lock
  timestamp INTEGER NOT NULL,
  event_type TEXT NOT NULL,  -- no CHECK: it would have to be rebuilt, with the whole log, for every new type
  actor TEXT NOT NULL,  -- owner, agent:<id>, verifier:<id>, system or cli
  agent_id TEXT,
  session_id TEXT,
  severity TEXT NOT NULL DEFAULT 'info' CHECK (severity IN ('info', 'warning', 'critical')),
  details TEXT NOT NULL DEFAULT '{}',  -- JSON; hashed as this very text
  request_id TEXT,
  ip_address TEXT,  -- absent over the unix socket
  prev_hash TEXT NOT NULL,
  hash TEXT NOT NULL  -- chains each event to the one before: what is changed or removed shows
);
CREATE INDEX idx_audit_log_session_id ON audit_log (session_id, id);
CREATE INDEX idx_audit_log_agent_id ON audit_log (agent_id, id);
CREATE INDEX idx_audit_log_event_type ON audit_log (event_type, id);
CREATE INDEX idx_audit_log_incidents ON audit_log (agent_id, timestamp)
  WHERE event_type IN ('TOKEN_REUSED', 'CONSTRAINT_VIOLATED', 'AUTO_STOP_TRIGGERED');  -- what auto-stop counts

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

-- Ways to reach the owner. A disabled one stays, because the log below refers to it.
CREATE TABLE notification_channels (
  id TEXT PRIMARY KEY NOT NULL,
  type TEXT NOT NULL CHECK (type IN ('TELEGRAM', 'DISCORD', 'NTFY', 'WEBHOOK')),
  name TEXT NOT NULL,
  config TEXT NOT NULL,  -- sealed whole with the home's seal.key: the file alone tells nobody's credentials
  priority INTEGER NOT NULL DEFAULT 0,  -- higher is tried first
  min_level TEXT NOT NULL DEFAULT 'INFO' CHECK (min_level IN ('INFO', 'WARNING', 'CRITICAL')),
  events TEXT,  -- JSON list; absent: all
  agents TEXT,  -- JSON list; absent: all
  enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
);

-- What the owner is still to be told, written in the transaction of its event; kept after that to know repetitions.
CREATE TABLE notification_outbox (
  id INTEGER PRIMARY KEY,
  seq INTEGER NOT NULL,  -- the event
  channel_id TEXT REFERENCES notification_channels (id),  -- absent: the first channel that succeeds
  event TEXT NOT NULL,
  level TEXT NOT NULL CHECK (level IN ('INFO', 'WARNING', 'CRITICAL')),
  agent_id TEXT,
  session_id TEXT,
  reference_id TEXT,
  dedup_key TEXT,  -- absent: never a repetition
  created_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  next_attempt_at INTEGER NOT NULL,
  done_at INTEGER
);
CREATE INDEX idx_notification_outbox_due ON notification_outbox (level, next_attempt_at) WHERE done_at IS NULL;
CREATE INDEX idx_notification_outbox_done ON notification_outbox (done_at) WHERE done_at IS NOT NULL;
CREATE INDEX idx_notification_outbox_dedup ON notification_outbox (dedup_key, created_at) WHERE dedup_key IS NOT NULL;

-- What may be answered from the phone or through a link: one single-use token a message, its hash alone.
CREATE TABLE answers (
  token_hash TEXT PRIMARY KEY NOT NULL,
  channel_id TEXT REFERENCES notification_channels (id),  -- absent: a link
  seq INTEGER NOT NULL,  -- the event that the message told of
  session_id TEXT,
  agent_id TEXT,
  actions TEXT NOT NULL,  -- JSON list
  created_at INTEGER NOT NULL,
  reject_until INTEGER,  -- rejecting is over then; the other actions at expires_at
  expires_at INTEGER NOT NULL,
  used_at INTEGER,
  used_action TEXT
);
CREATE INDEX idx_answers_session_id ON answers (session_id) WHERE used_at IS NULL;
CREATE INDEX idx_answers_expires_at ON answers (expires_at);

-- Every attempt to reach the owner.
CREATE TABLE notification_log (
  id TEXT PRIMARY KEY NOT NULL,
  channel_id TEXT REFERENCES notification_channels (id),  -- absent where all channels failed
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

-- Single values of the daemon itself: the password's hash, the signing secrets, marks that survive a restart.
CREATE TABLE key_value_store (
  key TEXT PRIMARY KEY NOT NULL,
  value TEXT NOT NULL,
  updated_at INTEGER NOT NULL
);
