ALTER TABLE sessions ADD COLUMN expiry_warned_at timestamptz;
