CREATE TABLE processes (
  session_id TEXT PRIMARY KEY NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  home TEXT NOT NULL,
  config TEXT NOT NULL,
  secrets TEXT,
  external_id TEXT NOT NULL,
  resumable INTEGER NOT NULL DEFAULT 0 CHECK (resumable IN (0, 1)),
  rest TEXT CHECK (rest IN ('pool', 'idle', 'restart')),
  suspended_by TEXT CHECK (suspended_by IN ('owner', 'agent', 'budget', 'idle', 'output')),
  run INTEGER NOT NULL DEFAULT 0,
  pid INTEGER,
  wrapper_pid INTEGER,
  wrapper_started TEXT,
  boot_id TEXT,
  started_at INTEGER,
  ended_at INTEGER,
  exit_code INTEGER,
  signal INTEGER,
  reason TEXT,
  failures INTEGER NOT NULL DEFAULT 0,
  restarts INTEGER NOT NULL DEFAULT 0,
  restart_at INTEGER,
  last_turn INTEGER NOT NULL DEFAULT 0,
  turns INTEGER NOT NULL DEFAULT 0,
  output_offset INTEGER NOT NULL DEFAULT 0,
  run_usage TEXT,
  warned_at INTEGER
);

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

CREATE INDEX idx_sessions_supervised ON sessions (id) WHERE created_by = 'process' AND state <> 'CLOSED';
