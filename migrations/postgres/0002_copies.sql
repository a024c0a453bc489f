-- Copies of the control state for those who ask the database; never read back for a decision.

CREATE TABLE circuit_breaker_state (
    service_name      text        PRIMARY KEY,
    state             text        NOT NULL CHECK (state IN ('closed', 'open', 'half_open')),
    failure_count     integer     NOT NULL DEFAULT 0,
    last_failure_time timestamptz,
    last_success_time timestamptz,
    -- Seconds.
    reset_timeout     integer     NOT NULL DEFAULT 60,
    failure_threshold integer     NOT NULL DEFAULT 5,
    metadata          jsonb       NOT NULL DEFAULT '{}',
    -- The state of which log index this is: an older copy never replaces a newer one.
    revision          bigint      NOT NULL DEFAULT 0
);

CREATE TABLE transactions (
    id             uuid        PRIMARY KEY,
    status         text        NOT NULL CHECK (status IN
        ('active', 'preparing', 'prepared', 'committing', 'committed', 'aborting', 'aborted')),
    -- Of each branch: id, service, path, vote, state, note.
    participants   jsonb       NOT NULL DEFAULT '[]',
    -- Ids of the messages that travel only if it commits.
    messages       jsonb       NOT NULL DEFAULT '[]',
    outcome        text,
    reason         text,
    created_at     timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL,
    decided_at     timestamptz,
    finished_at    timestamptz,
    version        bigint      NOT NULL DEFAULT 0,
    epoch          bigint      NOT NULL DEFAULT 0,
    decision_index bigint,
    metadata       jsonb       NOT NULL DEFAULT '{}',
    -- The state of which log index this is: an older copy never replaces a newer one.
    revision       bigint      NOT NULL DEFAULT 0
);
CREATE INDEX transactions_open ON transactions (created_at) WHERE status NOT IN ('committed', 'aborted');
CREATE INDEX transactions_age ON transactions (finished_at) WHERE finished_at IS NOT NULL;
