ALTER TABLE sessions ADD COLUMN last_activity INTEGER;
ALTER TABLE sessions ADD COLUMN request_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN user_id TEXT;
ALTER TABLE sessions ADD COLUMN workspace_id TEXT;
ALTER TABLE sessions ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
ALTER TABLE sessions ADD COLUMN created_by TEXT NOT NULL DEFAULT 'api'
  CHECK (created_by IN ('api', 'cli', 'run', 'process'));
