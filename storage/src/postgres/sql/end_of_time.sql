-- Ends messages that have reached their end while they waited: expired, or too old. Gives each; the dead ones with a reason.
WITH moment AS MATERIALIZED (SELECT hub_now() AS now),
picked AS MATERIALIZED (
    SELECT d.id FROM deliveries d
    WHERE d.owner IS NULL AND d.ends_at > '-infinity' AND d.ends_at <= hub_now()
    ORDER BY d.ends_at, d.id LIMIT $1
    FOR UPDATE SKIP LOCKED
),
gone AS (
    DELETE FROM deliveries d USING picked p WHERE d.id = ANY (ARRAY[p.id])
    RETURNING d.id, d.target, d.retry_count, d.attempt, d.may_have_arrived, d.error_message, d.expires_at
),
fate AS MATERIALIZED (
    SELECT g.*, m.now, CASE WHEN g.expires_at <= m.now THEN 'expired' ELSE 'dead_letter' END AS status,
        CASE WHEN g.expires_at <= m.now THEN NULL WHEN g.target = ANY($2) THEN 'no_target' ELSE 'too_old' END AS reason
    FROM gone g CROSS JOIN moment m
),
ended AS (
    UPDATE messages m SET status = f.status, processed_at = f.now, retry_count = f.retry_count, attempt = f.attempt,
        may_have_arrived = f.may_have_arrived, dead_reason = f.reason, error_message = f.error_message
    FROM fate f WHERE m.id = ANY (ARRAY[f.id])
),
rare AS (
    INSERT INTO endings (id, target, status, ended_at) SELECT f.id, f.target, f.status, f.now FROM fate f
),
counted AS (
    INSERT INTO backlog AS b (target, slot, depth, dead_letters, touched_at)
    SELECT f.target, $3::int8, -count(*), count(*) FILTER (WHERE f.status = 'dead_letter'), max(f.now)
    FROM fate f GROUP BY f.target
    ON CONFLICT (target, slot) DO UPDATE SET depth = b.depth + excluded.depth,
        dead_letters = b.dead_letters + excluded.dead_letters, touched_at = excluded.touched_at
)
SELECT f.id, f.target, f.reason FROM fate f
