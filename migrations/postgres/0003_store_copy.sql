-- A copy of an embedded store into this database: whose, and how far it came, written with the rows that it speaks of. One
-- row at most. No hub works with the database while it is not finished.
CREATE TABLE store_copy (
    one          boolean     PRIMARY KEY DEFAULT true CHECK (one),
    -- What is copied: the node's cluster, the node, and the log entry that its database reaches.
    cluster      text        NOT NULL,
    node         bigint      NOT NULL,
    entry        bigint      NOT NULL,
    -- How far: the last message, in the order of the source, and how many keys were looked at.
    seq          bigint      NOT NULL DEFAULT 0,
    keys_seen    bigint      NOT NULL DEFAULT 0,
    -- What was written.
    messages     bigint      NOT NULL DEFAULT 0,
    open         bigint      NOT NULL DEFAULT 0,
    dead_letters bigint      NOT NULL DEFAULT 0,
    attempts     bigint      NOT NULL DEFAULT 0,
    keys         bigint      NOT NULL DEFAULT 0,
    begun_at     timestamptz NOT NULL DEFAULT hub_now(),
    -- All of it is here.
    copied_at    timestamptz,
    -- The source does not start on its own copy any more: the hubs may use this one.
    finished_at  timestamptz
);
