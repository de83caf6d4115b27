CREATE TABLE verifiers (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  credential_hash TEXT NOT NULL,
  may_revoke INTEGER NOT NULL DEFAULT 0 CHECK (may_revoke IN (0, 1)),
  created_at INTEGER NOT NULL,
  revoked_at INTEGER,
  last_used_at INTEGER
);
CREATE UNIQUE INDEX idx_verifiers_credential_hash ON verifiers (credential_hash);
