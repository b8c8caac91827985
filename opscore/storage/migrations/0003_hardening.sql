-- The name under which AgentKit announced an agent that is in service: after a restart the same
-- agent comes back under a new id.
ALTER TABLE agents ADD COLUMN agentkit_name TEXT;
CREATE INDEX agents_agentkit_name ON agents (agentkit_name) WHERE agentkit_name IS NOT NULL;

-- A level tells tool steps, which only AgentKit can do, from all others, which may go straight to
-- an agent that has an endpoint of its own. Tool steps need no agent and stand in one lane.
UPDATE tasks SET level = lane || '/0' || substr(level, length(level)) WHERE level <> '';
UPDATE tasks SET lane = 'tools'
    WHERE doc LIKE '%"message_type":"tool_invocation","tool_name":%';
UPDATE tasks SET level = 'tools/1' || substr(level, length(level))
    WHERE level <> '' AND lane = 'tools';
UPDATE tasks SET flow = level || '/' || workflow_id;
ALTER TABLE agents ADD COLUMN has_endpoint BIGINT NOT NULL DEFAULT 1;
UPDATE agents SET has_endpoint = 0 WHERE doc LIKE '%"contact_endpoint":null,"metadata":%';
CREATE INDEX agents_reachable ON agents (last_used, id) WHERE in_flight < slots AND has_endpoint = 1;

-- What a task counts, while it waits, in the budget of what waits. Tasks of earlier versions count
-- nothing.
ALTER TABLE tasks ADD COLUMN queue_bytes BIGINT NOT NULL DEFAULT 0;

-- What was learned of each AgentKit, by its address.
CREATE TABLE agentkit_knowledge (
    agentkit TEXT PRIMARY KEY,
    rev BIGINT NOT NULL,
    doc TEXT NOT NULL
);
