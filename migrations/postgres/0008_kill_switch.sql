-- Who suspended an agent: recovery from the kill switch brings back those that the switch suspended, and no other.
ALTER TABLE agents ADD COLUMN suspended_by text CHECK (suspended_by IN ('owner', 'kill_switch', 'auto_stop'));
UPDATE agents SET suspended_by = 'owner' WHERE status = 'SUSPENDED';
CREATE INDEX idx_agents_status ON agents (status);
