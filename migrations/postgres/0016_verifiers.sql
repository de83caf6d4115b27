CREATE TABLE verifiers (
  id text COLLATE "C" PRIMARY KEY NOT NULL,
  name text NOT NULL,
  credential_hash text COLLATE "C" NOT NULL,
  may_revoke boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL,
  revoked_at timestamptz,
  last_used_at timestamptz
);
CREATE UNIQUE INDEX idx_verifiers_credential_hash ON verifiers (credential_hash);
