ALTER TABLE sessions ADD COLUMN renewal_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN max_renewals INTEGER NOT NULL DEFAULT 30;
ALTER TABLE sessions ADD COLUMN last_renewed_at INTEGER;
ALTER TABLE sessions ADD COLUMN absolute_expires_at INTEGER NOT NULL DEFAULT 0;
UPDATE sessions SET absolute_expires_at = created_at + 2592000 WHERE absolute_expires_at = 0;
