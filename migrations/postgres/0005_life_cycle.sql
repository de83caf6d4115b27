ALTER TABLE sessions ADD COLUMN state text NOT NULL DEFAULT 'READY'
  CHECK (state IN (
    'CREATED', 'INITIALIZING', 'READY', 'ACTIVE', 'IDLE', 'SUSPENDED', 'CLOSING', 'CLOSED', 'ERROR'
  ));
ALTER TABLE sessions ADD COLUMN state_changed_at timestamptz;
ALTER TABLE sessions ADD COLUMN started_at timestamptz;
ALTER TABLE sessions ADD COLUMN revoked_reason text;
ALTER TABLE sessions ADD COLUMN expired_at timestamptz;
ALTER TABLE sessions ADD COLUMN idle_timeout bigint;

-- What ended before this version emits no event of its end any more. The time of the migration is taken from its
-- row in the ledger, so that all of it, and the daemon, go by one clock.
UPDATE sessions SET expired_at = expires_at
WHERE revoked_at IS NULL
  AND expires_at <= (SELECT applied_at FROM schema_migrations WHERE version = 5);
UPDATE sessions SET state = 'CLOSED' WHERE revoked_at IS NOT NULL OR expired_at IS NOT NULL;

-- Older versions stored constraints unchecked: what cannot be parsed names no idle timeout.
DO $$
DECLARE
  stored record;
  wanted text;
BEGIN
  FOR stored IN SELECT id, constraints FROM sessions WHERE constraints IS NOT NULL LOOP
    BEGIN
      wanted := CASE json_typeof(stored.constraints::json -> 'idleTimeout')
        WHEN 'number' THEN stored.constraints::json ->> 'idleTimeout'
      END;
    EXCEPTION WHEN data_exception THEN
      CONTINUE;
    END;
    IF wanted ~ '^[0-9]{2,6}$' AND wanted::bigint BETWEEN 60 AND 604800 THEN
      UPDATE sessions SET idle_timeout = wanted::bigint WHERE id = stored.id;
    END IF;
  END LOOP;
END;
$$;

CREATE INDEX idx_sessions_alive_by_agent ON sessions (agent_id, expires_at) WHERE revoked_at IS NULL;
CREATE INDEX idx_sessions_to_expire ON sessions (expires_at) WHERE revoked_at IS NULL AND expired_at IS NULL;
CREATE INDEX idx_sessions_revoked_at ON sessions (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX idx_sessions_expired_at ON sessions (expired_at) WHERE expired_at IS NOT NULL;
CREATE INDEX idx_sessions_active ON sessions (state) WHERE state = 'ACTIVE';
CREATE INDEX idx_sessions_idle_timeout ON sessions (idle_timeout)
  WHERE idle_timeout IS NOT NULL AND revoked_at IS NULL AND expired_at IS NULL;
CREATE INDEX idx_sessions_created_at ON sessions (created_at, id);
