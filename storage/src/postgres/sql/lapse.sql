-- Takes away claims whose leases have run out. Their nodes may have died in the middle of an attempt: nobody knows whether
-- the target got the message. Leases that ended
-- before $1 are not looked at: an earlier look found all of those. Always gives the time of the look.
WITH moment AS MATERIALIZED (SELECT hub_now() AS now),
picked AS MATERIALIZED (
    SELECT d.id, d.attempt, d.owner, d.claimed_at, d.lease_end FROM deliveries d
    WHERE d.owner IS NOT NULL AND d.lease_end > '-infinity' AND d.lease_end > hub_time($1) AND d.lease_end <= hub_now()
    ORDER BY d.lease_end LIMIT $2
    FOR UPDATE SKIP LOCKED
),
lapsed AS (
    UPDATE deliveries d SET status = CASE WHEN d.retry_count > 0 THEN 'retrying' ELSE 'pending' END, owner = NULL,
        claimed_at = NULL, lease_end = NULL, may_have_arrived = true,
        error_message = 'the node that made the attempt did not report how it ended'
    FROM picked p WHERE d.id = ANY (ARRAY[p.id])
    RETURNING d.id, d.target
),
noted AS (
    INSERT INTO attempts (id, number, node, started_at, duration_ms, outcome, error_class)
    SELECT p.id, p.attempt, p.owner, p.claimed_at, hub_millis(p.lease_end) - hub_millis(p.claimed_at), 'no_answer',
        'lease_expired'
    FROM picked p
    ON CONFLICT (id, number) DO NOTHING
),
counted AS (
    INSERT INTO backlog AS b (target, slot, in_flight, touched_at)
    SELECT l.target, $3::int8, -count(*), max(m.now) FROM lapsed l CROSS JOIN moment m GROUP BY l.target
    ON CONFLICT (target, slot) DO UPDATE SET in_flight = b.in_flight + excluded.in_flight,
        touched_at = excluded.touched_at
)
SELECT hub_millis(m.now), l.target, l.count
FROM moment m LEFT JOIN (SELECT target, count(*) AS count FROM lapsed GROUP BY target) l ON true
