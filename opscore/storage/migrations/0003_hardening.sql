-- The name under which AgentKit announced an agent that is in service: after a restart the same
-- agent comes back under a new id.
ALTER TABLE agents ADD COLUMN agentkit_name TEXT;
CREATE INDEX agents_agentkit_name ON agents (agentkit_name) WHERE agentkit_name IS NOT NULL;
