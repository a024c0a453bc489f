-- The embedded message store: one file on each node, written only by applying the log, the same rows on every node.
-- Times are milliseconds since the Unix epoch; ids are the 16 bytes of a UUIDv7.

-- How far the log was applied, in the same transaction as what it did. One row.
CREATE TABLE machine (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    applied      INTEGER NOT NULL,
    opaque       BLOB    NOT NULL,
    clock        INTEGER NOT NULL,
    next_seq     INTEGER NOT NULL,
    late_settles INTEGER NOT NULL,
    checksum     INTEGER NOT NULL
) STRICT;
INSERT INTO machine VALUES (1, 0, x'', 0, 1, 0, 0);

-- What was sent, and how it ended. Written when it is accepted and once when it ends; while a row of `deliveries` exists,
-- that row says where the message stands. The wide columns come last, so that the others are read without them.
CREATE TABLE messages (
    seq              INTEGER PRIMARY KEY,
    id               BLOB    NOT NULL,
    sender_service   TEXT    NOT NULL,
    target_service   TEXT    NOT NULL,
    message_type     TEXT    NOT NULL,
    priority         INTEGER NOT NULL,
    status           TEXT    NOT NULL,
    created_at       INTEGER NOT NULL,
    processed_at     INTEGER,
    retry_count      INTEGER NOT NULL DEFAULT 0,
    attempt          INTEGER NOT NULL DEFAULT 0,
    may_have_arrived INTEGER NOT NULL DEFAULT 0,
    deliver_at       INTEGER,
    expires_at       INTEGER,
    too_old_at       INTEGER NOT NULL,
    max_retries      INTEGER,
    dead_reason      TEXT,
    last_request     BLOB,
    checksum         INTEGER NOT NULL,
    correlation_id   TEXT,
    traceparent      TEXT,
    error_message    TEXT,
    metadata         TEXT,
    content          TEXT    NOT NULL
) STRICT;
CREATE UNIQUE INDEX messages_id ON messages (id);
CREATE INDEX messages_target ON messages (target_service, id);
CREATE INDEX messages_sender ON messages (sender_service, id);
CREATE INDEX messages_correlation ON messages (correlation_id, id) WHERE correlation_id IS NOT NULL;
-- The rare ends: lists of them must not walk over millions of delivered messages.
CREATE INDEX messages_rare ON messages (status, id)
    WHERE status IN ('dead_letter', 'cancelled', 'expired', 'discarded');
CREATE INDEX messages_dead ON messages (target_service, id) WHERE status = 'dead_letter';
-- For retention.
CREATE INDEX messages_final ON messages (processed_at)
    WHERE status IN ('delivered', 'cancelled', 'expired', 'discarded');

-- One narrow row for each open message; claims touch only these, and the end of a message deletes its row.
CREATE TABLE deliveries (
    id               BLOB    PRIMARY KEY,
    seq              INTEGER NOT NULL,
    target           TEXT    NOT NULL,
    priority         INTEGER NOT NULL,
    status           TEXT    NOT NULL,
    created_at       INTEGER NOT NULL,
    due              INTEGER NOT NULL,
    expires_at       INTEGER,
    too_old_at       INTEGER NOT NULL,
    ends_at          INTEGER NOT NULL,
    attempt          INTEGER NOT NULL,
    retry_count      INTEGER NOT NULL,
    may_have_arrived INTEGER NOT NULL,
    owner            INTEGER,
    term             INTEGER,
    claimed_at       INTEGER,
    lease_end        INTEGER,
    error_message    TEXT,
    checksum         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- A message that is inserted claimed and delivered at once touches none of the indexes of waiting ones.
CREATE INDEX deliveries_due ON deliveries (target, priority, due, id) WHERE owner IS NULL;
CREATE INDEX deliveries_end ON deliveries (ends_at, id) WHERE owner IS NULL;
CREATE INDEX deliveries_target ON deliveries (target, id) WHERE owner IS NULL;
CREATE INDEX deliveries_lease ON deliveries (lease_end, id) WHERE owner IS NOT NULL;

-- Attempts as they ended.
CREATE TABLE attempts (
    id          BLOB    NOT NULL,
    number      INTEGER NOT NULL,
    node        INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    outcome     TEXT    NOT NULL,
    http_status INTEGER,
    instance    TEXT,
    error_class TEXT,
    response    TEXT,
    PRIMARY KEY (id, number)
) STRICT, WITHOUT ROWID;

-- A caller's keys of the last 24 hours.
CREATE TABLE idempotency (
    caller      TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,
    message     BLOB    NOT NULL,
    accepted_at INTEGER NOT NULL,
    stored_at   INTEGER NOT NULL,
    PRIMARY KEY (caller, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_age ON idempotency (stored_at);

-- Counters of each target, kept in the transactions that change what they count.
CREATE TABLE backlog (
    target          TEXT    PRIMARY KEY,
    depth           INTEGER NOT NULL,
    in_flight       INTEGER NOT NULL,
    accepted_total  INTEGER NOT NULL,
    delivered_total INTEGER NOT NULL,
    dead_letters    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
