ALTER TABLE sessions ADD COLUMN renewal_count bigint NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN max_renewals bigint NOT NULL DEFAULT 30;
ALTER TABLE sessions ADD COLUMN last_renewed_at timestamptz;
ALTER TABLE sessions ADD COLUMN absolute_expires_at timestamptz NOT NULL DEFAULT 'epoch';

-- Seconds, since the length of a day depends on the connection's time zone.
UPDATE sessions SET absolute_expires_at = created_at + interval '2592000 seconds'
WHERE absolute_expires_at = 'epoch';
