-- Times are microseconds since 1970 in UTC. `doc` is the record as JSON; what stands beside it
-- is what statements search by, kept in step by the one store that writes both.

CREATE TABLE agents (
    id TEXT PRIMARY KEY,
    rev BIGINT NOT NULL,
    standing TEXT NOT NULL,
    slots BIGINT NOT NULL,
    in_flight BIGINT NOT NULL DEFAULT 0,
    last_used BIGINT NOT NULL DEFAULT 0,
    seen_at BIGINT NOT NULL,
    gone_at BIGINT,
    due_at BIGINT,
    doc TEXT NOT NULL
);
CREATE INDEX agents_due ON agents (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX agents_gone ON agents (gone_at) WHERE gone_at IS NOT NULL;
CREATE INDEX agents_seen ON agents (seen_at) WHERE standing = 'registered';

CREATE TABLE agent_lanes (
    lane TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    PRIMARY KEY (lane, agent_id)
);
CREATE INDEX agent_lanes_agent ON agent_lanes (agent_id);

CREATE TABLE definitions (
    hash TEXT PRIMARY KEY,
    doc TEXT NOT NULL
);

CREATE TABLE workflows (
    id TEXT NOT NULL,
    revision BIGINT NOT NULL,
    saved_at BIGINT NOT NULL,
    definition TEXT NOT NULL,
    PRIMARY KEY (id, revision)
);

CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    rev BIGINT NOT NULL,
    workflow_id TEXT NOT NULL,
    agent_id TEXT,
    status TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at BIGINT,
    due_at BIGINT,
    search TEXT NOT NULL,
    definition TEXT NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX sessions_age ON sessions (created_at, id);
CREATE INDEX sessions_status ON sessions (status, created_at, id);
CREATE INDEX sessions_ended ON sessions (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX sessions_due ON sessions (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    rev BIGINT NOT NULL,
    session_id TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    agent_id TEXT,
    status TEXT NOT NULL,
    lane TEXT NOT NULL,
    direct BIGINT NOT NULL,
    priority BIGINT NOT NULL,
    turn BIGINT NOT NULL,
    arrival BIGINT NOT NULL,
    preferred TEXT,
    waiting_since BIGINT NOT NULL,
    dispatched_at BIGINT,
    owner TEXT,
    due_at BIGINT,
    created_at BIGINT NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX tasks_age ON tasks (created_at, id);
CREATE INDEX tasks_status ON tasks (status, created_at, id);
CREATE INDEX tasks_session ON tasks (session_id);
CREATE INDEX tasks_due ON tasks (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX tasks_queue ON tasks (lane, direct, priority, turn, arrival) WHERE status = 'queued';
CREATE INDEX tasks_flow ON tasks (lane, direct, priority, workflow_id, turn)
    WHERE status = 'queued';
CREATE INDEX tasks_in_flight ON tasks (agent_id, dispatched_at)
    WHERE status = 'dispatched' OR status = 'running';
CREATE INDEX tasks_waiting ON tasks (lane) WHERE status = 'queued' OR status = 'delayed';

CREATE TABLE events (
    seq BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    type TEXT NOT NULL,
    agent_id TEXT,
    session_id TEXT,
    task_id TEXT,
    data TEXT NOT NULL
);
CREATE INDEX events_loose ON events (seq) WHERE session_id IS NULL;
CREATE INDEX events_session ON events (session_id, seq) WHERE session_id IS NOT NULL;
CREATE INDEX events_task ON events (task_id, seq) WHERE task_id IS NOT NULL;
CREATE INDEX events_state ON events (agent_id, seq) WHERE type = 'agent.state';

CREATE TABLE early_reports (
    agent_id TEXT PRIMARY KEY,
    received_at BIGINT NOT NULL,
    doc TEXT NOT NULL
);

CREATE TABLE webhook_receipts (
    signature TEXT PRIMARY KEY,
    expires_at BIGINT NOT NULL
);

CREATE TABLE idempotency_keys (
    key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    session_id TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- Numbers of events and of arrivals in queues; the row is locked until the writer commits, so
-- that no reader of the log sees a higher number before a lower one.
CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('events', 0);
INSERT INTO counters (name, value) VALUES ('arrivals', 0);

-- The last turn that was served at each level of a lane: new workflows begin after it.
CREATE TABLE served_turns (
    lane TEXT NOT NULL,
    direct BIGINT NOT NULL,
    priority BIGINT NOT NULL,
    turn BIGINT NOT NULL,
    PRIMARY KEY (lane, direct, priority)
);
