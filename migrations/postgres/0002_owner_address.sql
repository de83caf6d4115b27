ALTER TABLE agents ADD COLUMN owner_address text COLLATE "C";
ALTER TABLE agents ADD COLUMN owner_verified boolean NOT NULL DEFAULT false;
CREATE INDEX idx_agents_owner_address ON agents (owner_address);
