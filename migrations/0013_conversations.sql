CREATE TABLE conversations (
  agent_id TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
  conversation_id TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  external_id TEXT,
  session_id TEXT REFERENCES sessions (id) ON DELETE SET NULL,
  created_at INTEGER NOT NULL,
  last_activity INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  request_count INTEGER NOT NULL DEFAULT 0,
  rebind_count INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (agent_id, conversation_id)
);
CREATE INDEX idx_conversations_created_at ON conversations (created_at, agent_id, conversation_id);
CREATE INDEX idx_conversations_of_agent ON conversations (agent_id, created_at, conversation_id);
CREATE INDEX idx_conversations_provider ON conversations (provider, created_at, agent_id, conversation_id);
CREATE INDEX idx_conversations_session_id ON conversations (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX idx_conversations_expires_at ON conversations (expires_at);
