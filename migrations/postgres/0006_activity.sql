ALTER TABLE sessions ADD COLUMN last_activity timestamptz;
ALTER TABLE sessions ADD COLUMN request_count bigint NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN user_id text;
ALTER TABLE sessions ADD COLUMN workspace_id text;
ALTER TABLE sessions ADD COLUMN metadata text NOT NULL DEFAULT '{}';
ALTER TABLE sessions ADD COLUMN created_by text NOT NULL DEFAULT 'api'
  CHECK (created_by IN ('api', 'cli', 'run', 'process'));
