-- A level is a lane, a choice of routes and a priority, as one text; a flow is a workflow on a
-- level. What is chosen by three columns at once cannot be skipped through.
ALTER TABLE tasks ADD COLUMN level TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN flow TEXT NOT NULL DEFAULT '';
UPDATE tasks SET level = lane || '/' || direct || priority;
UPDATE tasks SET flow = level || '/' || workflow_id;
DROP INDEX tasks_queue;
DROP INDEX tasks_flow;
CREATE INDEX tasks_queue ON tasks (level, turn, arrival) WHERE status = 'queued';
CREATE INDEX tasks_flow ON tasks (flow, turn) WHERE status = 'queued';
CREATE INDEX tasks_lane ON tasks (lane) WHERE status = 'queued';
ALTER TABLE tasks DROP COLUMN direct;
ALTER TABLE tasks DROP COLUMN priority;

CREATE TABLE turns (
    level TEXT PRIMARY KEY,
    turn BIGINT NOT NULL
);
INSERT INTO turns (level, turn)
    SELECT lane || '/' || direct || priority, turn FROM served_turns;
DROP TABLE served_turns;

-- Nobody would forget events of sessions that are gone: nobody's events are forgotten by age.
UPDATE events SET session_id = NULL WHERE session_id IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.id = events.session_id);

-- How many records there are, kept by whoever adds or removes some.
CREATE TABLE tallies (
    name TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO tallies (name, value) SELECT 'agents', count(*) FROM agents;
INSERT INTO tallies (name, value) SELECT 'sessions', count(*) FROM sessions;
INSERT INTO tallies (name, value) SELECT 'events', count(*) FROM events;
INSERT INTO tallies (name, value) SELECT 'tasks.' || status, count(*) FROM tasks GROUP BY status;

-- An agent's tasks are looked up among very many.
CREATE INDEX tasks_agent ON tasks (agent_id, created_at, id) WHERE agent_id IS NOT NULL;

CREATE INDEX agents_free ON agents (last_used, id) WHERE in_flight < slots;
DROP INDEX sessions_ended;
CREATE INDEX sessions_ended ON sessions (ended_at, id) WHERE ended_at IS NOT NULL;
DROP INDEX agents_gone;
CREATE INDEX agents_gone ON agents (gone_at, id) WHERE gone_at IS NOT NULL;
CREATE INDEX sessions_definition ON sessions (definition);
CREATE INDEX workflows_definition ON workflows (definition);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);
CREATE INDEX webhook_receipts_expiry ON webhook_receipts (expires_at);

-- The processes that share this database, and the duties that only one of them does.
CREATE TABLE replicas (
    id TEXT PRIMARY KEY,
    beat_at BIGINT NOT NULL,
    doc TEXT NOT NULL
);
CREATE TABLE duties (
    name TEXT PRIMARY KEY,
    replica_id TEXT NOT NULL,
    until BIGINT NOT NULL
);

-- The number of each writer's last batch: after a broken connection it tells what was committed.
CREATE TABLE commits (
    writer TEXT PRIMARY KEY,
    number BIGINT NOT NULL,
    at BIGINT NOT NULL
);
