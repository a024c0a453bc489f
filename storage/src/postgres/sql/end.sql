-- Ends messages whose attempts have ended for good, each only under its claim.
WITH moment AS MATERIALIZED (SELECT hub_now() AS now),
input AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::int4[], $3::text[], $4::text[], $5::text[], $6::bool[], $7::bool[], $8::int8[],
        $9::int8[], $10::int8[], $11::text[], $12::int4[], $13::text[], $14::text[], $15::text[], $16::int8[])
        AS u(id, attempt, status, reason, error, unanswered, noted, node, started, duration, outcome, http_status,
             instance, error_class, response, owner)
),
gone AS (
    DELETE FROM deliveries d USING input i WHERE d.id = ANY (ARRAY[i.id]) AND d.owner = i.owner AND d.attempt = i.attempt
    RETURNING d.id, d.target, d.retry_count, d.may_have_arrived, d.error_message, i.attempt, i.status, i.reason, i.error,
        i.unanswered, i.noted, i.node, i.started, i.duration, i.outcome, i.http_status, i.instance, i.error_class,
        i.response
),
ended AS (
    UPDATE messages m SET status = g.status, processed_at = n.now, retry_count = g.retry_count, attempt = g.attempt,
        may_have_arrived = g.may_have_arrived OR g.unanswered, dead_reason = g.reason,
        error_message = CASE WHEN g.status = 'delivered' THEN g.error ELSE coalesce(g.error, g.error_message) END
    FROM gone g CROSS JOIN moment n WHERE m.id = ANY (ARRAY[g.id])
),
rare AS (
    INSERT INTO endings (id, target, status, ended_at)
    SELECT g.id, g.target, g.status, n.now FROM gone g CROSS JOIN moment n WHERE g.status <> 'delivered'
),
noted AS (
    INSERT INTO attempts (id, number, node, started_at, duration_ms, outcome, http_status, instance, error_class,
        response)
    SELECT g.id, g.attempt, g.node, hub_time(g.started), g.duration, g.outcome, g.http_status, g.instance, g.error_class,
        g.response
    FROM gone g WHERE g.noted
    ON CONFLICT (id, number) DO NOTHING
),
counted AS (
    INSERT INTO backlog AS b (target, slot, depth, in_flight, delivered_total, dead_letters, touched_at)
    SELECT g.target, $17::int8, -count(*), -count(*), count(*) FILTER (WHERE g.status = 'delivered'),
        count(*) FILTER (WHERE g.status = 'dead_letter'), max(n.now)
    FROM gone g CROSS JOIN moment n GROUP BY g.target
    ON CONFLICT (target, slot) DO UPDATE SET depth = b.depth + excluded.depth,
        in_flight = b.in_flight + excluded.in_flight, delivered_total = b.delivered_total + excluded.delivered_total,
        dead_letters = b.dead_letters + excluded.dead_letters, touched_at = excluded.touched_at
)
SELECT g.id, g.attempt, g.target FROM gone g
