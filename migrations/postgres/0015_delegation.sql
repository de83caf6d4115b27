-- No foreign keys: a child is over before its parent is deleted, and a row whose parent is gone is over itself.
ALTER TABLE sessions ADD COLUMN parent_id text COLLATE "C";
ALTER TABLE sessions ADD COLUMN root_id text COLLATE "C";
ALTER TABLE sessions ADD COLUMN depth bigint NOT NULL DEFAULT 0 CHECK (depth BETWEEN 0 AND 3);
CREATE INDEX idx_sessions_parent_id ON sessions (parent_id)
  WHERE parent_id IS NOT NULL AND revoked_at IS NULL AND expired_at IS NULL;
CREATE INDEX idx_sessions_root_id ON sessions (root_id)
  WHERE root_id IS NOT NULL AND revoked_at IS NULL AND expired_at IS NULL;
