-- The message store on Postgres 13 and newer. Every hub writes here; there is no leader among them.
-- Ids are UUIDv7, so that they sort, and are partitioned, by the time at which they were made.

-- The one clock of due times, leases and ends: whole milliseconds. One moment a statement.
CREATE FUNCTION hub_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS
    $$ SELECT date_trunc('milliseconds', statement_timestamp()) $$;

-- Milliseconds since the Unix epoch, as the hub keeps times, and back.
CREATE FUNCTION hub_time(millis bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    $$ SELECT to_timestamp(millis / 1000.0::double precision) $$;
CREATE FUNCTION hub_millis(moment timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    $$ SELECT round(extract(epoch FROM moment) * 1000)::bigint $$;

-- The smallest id made at or after a time.
CREATE FUNCTION hub_id_at(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    $$ SELECT rpad(lpad(to_hex(hub_millis(moment)), 12, '0'), 32, '0')::uuid $$;

-- JSON that jsonb cannot hold (\u0000, lone surrogates, numbers beyond all measure) is null there; its text is kept elsewhere.
CREATE FUNCTION hub_jsonb(value text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN value::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN NULL;
END $$;

-- What was sent, and how it ended. Written when it is accepted and once when it ends (and when a dead letter is replayed or
-- discarded); while a row of `deliveries` exists, that row says where the message stands. No index holds a column that an
-- end changes, so an end writes no index.
CREATE TABLE messages (
    id               uuid        NOT NULL,
    sender_service   text COLLATE "C"       NOT NULL,
    target_service   text COLLATE "C"       NOT NULL,
    message_type     text        NOT NULL,
    content          json        NOT NULL,
    created_at       timestamptz NOT NULL,
    processed_at     timestamptz,
    status           text        NOT NULL DEFAULT 'pending',
    retry_count      integer     NOT NULL DEFAULT 0,
    error_message    text,
    metadata         jsonb,
    -- Ours: the metadata as it came, and what delivering needs.
    metadata_text    text,
    correlation_id   text COLLATE "C",
    traceparent      text,
    priority         smallint    NOT NULL,
    max_retries      smallint,
    deliver_at       timestamptz,
    expires_at       timestamptz,
    too_old_at       timestamptz NOT NULL,
    attempt          integer     NOT NULL DEFAULT 0,
    may_have_arrived boolean     NOT NULL DEFAULT false,
    dead_reason      text,
    last_request     uuid,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX messages_target ON messages (target_service, id);
CREATE INDEX messages_sender ON messages (sender_service, id);
CREATE INDEX messages_correlation ON messages (correlation_id, id) WHERE correlation_id IS NOT NULL;

-- The rare ends, so that lists of them do not walk over millions of delivered messages.
CREATE TABLE endings (
    id       uuid        PRIMARY KEY,
    target   text COLLATE "C"       NOT NULL,
    status   text        NOT NULL,
    ended_at timestamptz NOT NULL
);
CREATE INDEX endings_status ON endings (status, id);
CREATE INDEX endings_dead ON endings (target, id) WHERE status = 'dead_letter';
CREATE INDEX endings_age ON endings (ended_at) WHERE status <> 'dead_letter';

-- One narrow row for each open message. Claims touch only these; the end of a message deletes its row.
CREATE TABLE deliveries (
    id               uuid        PRIMARY KEY,
    target           text COLLATE "C"       NOT NULL,
    priority         smallint    NOT NULL,
    status           text        NOT NULL,
    created_at       timestamptz NOT NULL,
    due              timestamptz NOT NULL,
    expires_at       timestamptz,
    -- When it ends if it still waits then: its `expires_at`, or when it is too old.
    ends_at          timestamptz NOT NULL,
    attempt          integer     NOT NULL DEFAULT 0,
    retry_count      integer     NOT NULL DEFAULT 0,
    may_have_arrived boolean     NOT NULL DEFAULT false,
    -- The claim: which node, since when, until when.
    owner            bigint,
    claimed_at       timestamptz,
    lease_end        timestamptz,
    error_message    text,
    -- With a broker: when the sweeper publishes it, unless that was confirmed or the message was claimed. Null: not in the
    -- broker, and to be published when there is room.
    publish_after    timestamptz,
    CHECK ((owner IS NULL) = (lease_end IS NULL) AND (owner IS NULL) = (claimed_at IS NULL)),
    CHECK ((owner IS NULL) = (status <> 'delivering'))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);
-- A message that is inserted claimed and delivered at once touches none of the indexes of waiting ones. Each of those is for one
-- kind of statement, which repeats its condition word for word: the planner, which may have seen the table empty, has no other
-- one to choose. For the same reason rows are joined by `id = ANY (ARRAY[x])`, which can be looked up and nothing else.
CREATE INDEX deliveries_due ON deliveries (target, priority DESC, due, id) WHERE owner IS NULL AND due > '-infinity';
CREATE INDEX deliveries_waiting ON deliveries (target, id)
    WHERE owner IS NULL AND id > '00000000-0000-0000-0000-000000000000';
CREATE INDEX deliveries_end ON deliveries (ends_at) WHERE owner IS NULL AND ends_at > '-infinity';
CREATE INDEX deliveries_lease ON deliveries (lease_end) WHERE owner IS NOT NULL AND lease_end > '-infinity';
CREATE INDEX deliveries_publish ON deliveries (publish_after, target) WHERE owner IS NULL AND publish_after > '-infinity';

-- Attempts as they ended; in the partition of their message's day.
CREATE TABLE attempts (
    id          uuid        NOT NULL,
    number      integer     NOT NULL,
    node        bigint      NOT NULL,
    started_at  timestamptz NOT NULL,
    duration_ms bigint      NOT NULL,
    outcome     text        NOT NULL,
    http_status integer,
    instance    text,
    error_class text,
    response    text,
    PRIMARY KEY (id, number)
) PARTITION BY RANGE (id);

-- A caller's keys of the last 24 hours, written with their messages.
CREATE TABLE idempotency (
    caller      text COLLATE "C"       NOT NULL,
    key         text COLLATE "C"       NOT NULL,
    fingerprint bytea       NOT NULL,
    message     uuid        NOT NULL,
    accepted_at timestamptz NOT NULL,
    stored_at   timestamptz NOT NULL,
    PRIMARY KEY (caller, key)
) PARTITION BY HASH (caller, key);
CREATE INDEX idempotency_age ON idempotency (stored_at);
CREATE TABLE idempotency_0 PARTITION OF idempotency FOR VALUES WITH (MODULUS 8, REMAINDER 0);
CREATE TABLE idempotency_1 PARTITION OF idempotency FOR VALUES WITH (MODULUS 8, REMAINDER 1);
CREATE TABLE idempotency_2 PARTITION OF idempotency FOR VALUES WITH (MODULUS 8, REMAINDER 2);
CREATE TABLE idempotency_3 PARTITION OF idempotency FOR VALUES WITH (MODULUS 8, REMAINDER 3);
CREATE TABLE idempotency_4 PARTITION OF idempotency FOR VALUES WITH (MODULUS 8, REMAINDER 4);
CREATE TABLE idempotency_5 PARTITION OF idempotency FOR VALUES WITH (MODULUS 8, REMAINDER 5);
CREATE TABLE idempotency_6 PARTITION OF idempotency FOR VALUES WITH (MODULUS 8, REMAINDER 6);
CREATE TABLE idempotency_7 PARTITION OF idempotency FOR VALUES WITH (MODULUS 8, REMAINDER 7);

-- Counters of each target, in parts that nobody shares: whoever changes what they count adds to a part of its own, in the
-- same transaction. The sum over the parts is the counter; part 0 holds what was folded together.
CREATE TABLE backlog (
    target          text COLLATE "C"       NOT NULL,
    slot            bigint      NOT NULL,
    depth           bigint      NOT NULL DEFAULT 0,
    in_flight       bigint      NOT NULL DEFAULT 0,
    accepted_total  bigint      NOT NULL DEFAULT 0,
    delivered_total bigint      NOT NULL DEFAULT 0,
    dead_letters    bigint      NOT NULL DEFAULT 0,
    touched_at      timestamptz NOT NULL,
    PRIMARY KEY (target, slot)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);

-- Makes the partitions of the days from one moment to another (UTC), as far as they are not there. Attaching them holds up
-- neither readers nor writers.
CREATE FUNCTION hub_make_partitions(first timestamptz, last timestamptz) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    midnight timestamp := date_trunc('day', first AT TIME ZONE 'UTC');
    parent   text;
    child    text;
    made     integer := 0;
BEGIN
    WHILE midnight <= last AT TIME ZONE 'UTC' LOOP
        FOREACH parent IN ARRAY ARRAY['messages', 'attempts'] LOOP
            child := parent || '_' || to_char(midnight, 'YYYYMMDD');
            IF to_regclass(child) IS NULL THEN
                -- The same lock for all hubs: only one makes them, the others then find them.
                PERFORM pg_advisory_xact_lock(4854, 1);
                -- Asked by a query: after a lock of this kind, names are still looked up as they were before it.
                IF NOT EXISTS (SELECT 1 FROM pg_class c JOIN pg_class p USING (relnamespace)
                               WHERE c.relname = child AND p.oid = parent::regclass) THEN
                    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
                    IF parent = 'messages' THEN
                        -- Room for the end of a message on the page of its beginning.
                        EXECUTE format('ALTER TABLE %I SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05)', child);
                    END IF;
                    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child,
                        hub_id_at(midnight AT TIME ZONE 'UTC'),
                        hub_id_at((midnight + interval '1 day') AT TIME ZONE 'UTC'));
                    made := made + 1;
                END IF;
            END IF;
        END LOOP;
        midnight := midnight + interval '1 day';
    END LOOP;
    RETURN made;
END $$;

-- Drops the partitions of days that ended before `before` and hold nothing any more; how many days. Waits for nobody: while
-- some session still looks at them, they stay for another time.
CREATE FUNCTION hub_drop_partitions(before timestamptz) RETURNS integer LANGUAGE plpgsql SET lock_timeout = '100ms' AS $$
DECLARE
    child   regclass;
    suffix  text;
    holds   boolean;
    dropped integer := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(4854, 1) THEN
        RETURN 0;
    END IF;
    FOR child, suffix IN
        SELECT c.oid, substring(c.relname FROM '[0-9]{8}$') FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'messages'::regclass ORDER BY c.relname
    LOOP
        CONTINUE WHEN suffix IS NULL OR to_date(suffix, 'YYYYMMDD') + 1 > (before AT TIME ZONE 'UTC')::date;
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM %s)', child) INTO holds;
        CONTINUE WHEN holds;
        BEGIN
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', child);
            EXECUTE format('SELECT EXISTS (SELECT 1 FROM %s)', child) INTO holds;
            CONTINUE WHEN holds;
            EXECUTE format('DROP TABLE %s', child);
            EXECUTE format('DROP TABLE IF EXISTS %I', 'attempts_' || suffix);
            dropped := dropped + 1;
        EXCEPTION WHEN lock_not_available THEN
            EXIT;
        END;
    END LOOP;
    RETURN dropped;
END $$;
