-- Attempts after which the message waits again, each only under its claim. `wait` is in milliseconds from now; null leaves the
-- due time as it was.
WITH moment AS MATERIALIZED (SELECT hub_now() AS now),
input AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::int4[], $3::int8[], $4::int4[], $5::text[], $6::bool[], $7::bool[], $8::int8[],
        $9::int8[], $10::int8[], $11::text[], $12::int4[], $13::text[], $14::text[], $15::text[], $16::int8[])
        AS u(id, attempt, wait, counted, error, unanswered, noted, node, started, duration, outcome, http_status,
             instance, error_class, response, owner)
),
waits AS (
    UPDATE deliveries d SET
        status = CASE WHEN i.wait IS NOT NULL OR d.retry_count > 0 THEN 'retrying' ELSE 'pending' END,
        due = CASE WHEN i.wait IS NULL THEN d.due ELSE n.now + i.wait * interval '1 millisecond' END,
        retry_count = d.retry_count + i.counted, may_have_arrived = d.may_have_arrived OR i.unanswered,
        error_message = CASE WHEN i.wait IS NULL THEN d.error_message ELSE i.error END,
        owner = NULL, claimed_at = NULL, lease_end = NULL, publish_after = NULL
    FROM input i CROSS JOIN moment n WHERE d.id = ANY (ARRAY[i.id]) AND d.owner = i.owner AND d.attempt = i.attempt
    RETURNING d.id, d.target, i.attempt, i.noted, i.node, i.started, i.duration, i.outcome, i.http_status, i.instance,
        i.error_class, i.response
),
noted AS (
    INSERT INTO attempts (id, number, node, started_at, duration_ms, outcome, http_status, instance, error_class,
        response)
    SELECT w.id, w.attempt, w.node, hub_time(w.started), w.duration, w.outcome, w.http_status, w.instance, w.error_class,
        w.response
    FROM waits w WHERE w.noted
    ON CONFLICT (id, number) DO NOTHING
),
counted AS (
    INSERT INTO backlog AS b (target, slot, in_flight, touched_at)
    SELECT w.target, $17::int8, -count(*), max(n.now) FROM waits w CROSS JOIN moment n GROUP BY w.target
    ON CONFLICT (target, slot) DO UPDATE SET in_flight = b.in_flight + excluded.in_flight,
        touched_at = excluded.touched_at
)
SELECT w.id, w.attempt, w.target FROM waits w
