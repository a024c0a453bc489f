-- Everything that accepting writes, in one statement: keys, messages, open rows, counters. Gives the ids that were new.
WITH moment AS MATERIALIZED (SELECT hub_now() AS now),
input AS MATERIALIZED (
    SELECT u.id, u.sender, u.target, u.message_type, u.content, u.metadata, u.odd, u.correlation_id, u.traceparent,
           u.priority, u.max_retries, hub_time(u.created) AS created_at, hub_time(u.deliver) AS deliver_at,
           hub_time(u.expires) AS expires_at, hub_time(u.too_old) AS too_old_at, u.caller, u.key, u.fingerprint, u.lease,
           u.publish
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bool[], $8::text[],
                $9::text[], $10::int2[], $11::int2[], $12::int8[], $13::int8[], $14::int8[], $15::int8[], $16::text[],
                $17::text[], $18::bytea[], $19::int8[], $20::int8[])
         AS u(id, sender, target, message_type, content, metadata, odd, correlation_id, traceparent, priority,
              max_retries, created, deliver, expires, too_old, caller, key, fingerprint, lease, publish)
),
-- In the order of the keys, so that two statements never wait for each other.
keyed AS (
    INSERT INTO idempotency AS k (caller, key, fingerprint, message, accepted_at, stored_at)
    SELECT i.caller, i.key, i.fingerprint, i.id, i.created_at, m.now FROM input i CROSS JOIN moment m
    WHERE i.key IS NOT NULL ORDER BY i.caller, i.key
    ON CONFLICT (caller, key) DO UPDATE SET fingerprint = excluded.fingerprint, message = excluded.message,
        accepted_at = excluded.accepted_at, stored_at = excluded.stored_at
        WHERE k.stored_at <= excluded.stored_at - interval '24 hours'
    RETURNING message
),
fresh AS MATERIALIZED (
    SELECT i.* FROM input i WHERE i.key IS NULL OR i.id IN (SELECT message FROM keyed)
),
stored AS (
    INSERT INTO messages (id, sender_service, target_service, message_type, content, created_at, metadata, metadata_text,
        correlation_id, traceparent, priority, max_retries, deliver_at, expires_at, too_old_at)
    SELECT f.id, f.sender, f.target, f.message_type, f.content::json, f.created_at,
        CASE WHEN f.odd THEN hub_jsonb(f.metadata) ELSE f.metadata::jsonb END, f.metadata, f.correlation_id,
        f.traceparent, f.priority, f.max_retries, f.deliver_at, f.expires_at, f.too_old_at
    FROM fresh f
    ON CONFLICT (id) DO NOTHING
    RETURNING id
),
opened AS (
    INSERT INTO deliveries (id, target, priority, status, created_at, due, expires_at, ends_at, attempt, owner,
        claimed_at, lease_end, publish_after)
    SELECT f.id, f.target, f.priority, CASE WHEN f.lease IS NULL THEN 'pending' ELSE 'delivering' END, f.created_at,
        coalesce(f.deliver_at, m.now), f.expires_at, least(f.expires_at, f.too_old_at),
        CASE WHEN f.lease IS NULL THEN 0 ELSE 1 END, CASE WHEN f.lease IS NOT NULL THEN $21::int8 END,
        CASE WHEN f.lease IS NOT NULL THEN m.now END, m.now + f.lease * interval '1 millisecond',
        m.now + f.publish * interval '1 millisecond'
    FROM fresh f CROSS JOIN moment m
    -- Not as a join: that would compare each with each.
    WHERE (f.id IN (SELECT s.id FROM stored s)) IS TRUE
),
counted AS (
    INSERT INTO backlog AS b (target, slot, depth, in_flight, accepted_total, touched_at)
    SELECT f.target, $22::int8, count(*), count(f.lease), count(*), max(m.now)
    FROM fresh f CROSS JOIN moment m
    WHERE (f.id IN (SELECT s.id FROM stored s)) IS TRUE
    GROUP BY f.target
    ON CONFLICT (target, slot) DO UPDATE SET depth = b.depth + excluded.depth,
        in_flight = b.in_flight + excluded.in_flight, accepted_total = b.accepted_total + excluded.accepted_total,
        touched_at = excluded.touched_at
)
SELECT s.id FROM stored s
