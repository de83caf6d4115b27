CREATE TABLE processes (
  session_id text COLLATE "C" PRIMARY KEY NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  home text COLLATE "C" NOT NULL,
  config text COLLATE "C" NOT NULL,
  secrets text COLLATE "C",
  external_id text COLLATE "C" NOT NULL,
  resumable boolean NOT NULL DEFAULT false,
  rest text COLLATE "C" CHECK (rest IN ('pool', 'idle', 'restart')),
  suspended_by text COLLATE "C" CHECK (suspended_by IN ('owner', 'agent', 'budget', 'idle', 'output')),
  run bigint NOT NULL DEFAULT 0,
  pid bigint,
  wrapper_pid bigint,
  wrapper_started text COLLATE "C",
  boot_id text COLLATE "C",
  started_at timestamptz,
  ended_at timestamptz,
  exit_code bigint,
  signal bigint,
  reason text COLLATE "C",
  failures bigint NOT NULL DEFAULT 0,
  restarts bigint NOT NULL DEFAULT 0,
  restart_at timestamptz,
  last_turn bigint NOT NULL DEFAULT 0,
  turns bigint NOT NULL DEFAULT 0,
  output_offset bigint NOT NULL DEFAULT 0,
  run_usage text COLLATE "C",
  warned_at timestamptz
);

CREATE TABLE turns (
  session_id text COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  turn bigint NOT NULL,
  state text COLLATE "C" NOT NULL CHECK (state IN ('QUEUED', 'RUNNING', 'DONE', 'FAILED', 'INTERRUPTED', 'UNKNOWN')),
  content text COLLATE "C",
  created_at timestamptz NOT NULL,
  started_at timestamptz,
  ended_at timestamptz,
  PRIMARY KEY (session_id, turn)
);
CREATE INDEX idx_turns_not_over ON turns (session_id) WHERE state IN ('QUEUED', 'RUNNING');

CREATE INDEX idx_sessions_supervised ON sessions (id) WHERE created_by = 'process' AND state <> 'CLOSED';
