CREATE TABLE conversations (
  agent_id text COLLATE "C" NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
  conversation_id text COLLATE "C" NOT NULL,
  provider text COLLATE "C" NOT NULL,
  model text COLLATE "C" NOT NULL,
  external_id text COLLATE "C",
  session_id text COLLATE "C" REFERENCES sessions (id) ON DELETE SET NULL,
  created_at timestamptz NOT NULL,
  last_activity timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  request_count bigint NOT NULL DEFAULT 0,
  rebind_count bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (agent_id, conversation_id)
);
CREATE INDEX idx_conversations_created_at ON conversations (created_at, agent_id, conversation_id);
CREATE INDEX idx_conversations_of_agent ON conversations (agent_id, created_at, conversation_id);
CREATE INDEX idx_conversations_provider ON conversations (provider, created_at, agent_id, conversation_id);
CREATE INDEX idx_conversations_session_id ON conversations (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX idx_conversations_expires_at ON conversations (expires_at);
