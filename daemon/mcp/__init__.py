"""The MCP server: what an agent's model may do with the agent's own session, and how MCP clients learn of it."""
