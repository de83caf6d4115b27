CREATE INDEX idx_audit_log_incidents ON audit_log (agent_id, timestamp)
  WHERE event_type IN ('TOKEN_REUSED', 'CONSTRAINT_VIOLATED', 'AUTO_STOP_TRIGGERED');
