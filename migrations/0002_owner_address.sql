ALTER TABLE agents ADD COLUMN owner_address TEXT;
ALTER TABLE agents ADD COLUMN owner_verified INTEGER NOT NULL DEFAULT 0 CHECK (owner_verified IN (0, 1));
CREATE INDEX idx_agents_owner_address ON agents (owner_address);
