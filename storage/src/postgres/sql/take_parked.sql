-- Undertakes to publish messages of a target that are due and not in the broker: highest priority first, then by the time
-- they became due.
WITH moment AS MATERIALIZED (SELECT hub_now() AS now),
picked AS MATERIALIZED (
    SELECT x.id FROM generate_series(9, 0, -1) AS level(priority) CROSS JOIN moment m CROSS JOIN LATERAL (
        SELECT d.id FROM deliveries d
        WHERE d.target = $1 AND d.priority = level.priority AND d.owner IS NULL AND d.due > '-infinity' AND d.due <= m.now
            AND d.publish_after IS NULL AND (d.expires_at IS NULL OR d.expires_at > m.now)
        ORDER BY d.due, d.id LIMIT $2
        FOR UPDATE SKIP LOCKED
    ) AS x
    LIMIT $2
)
UPDATE deliveries d SET publish_after = m.now + $3::int8 * interval '1 millisecond'
FROM picked p CROSS JOIN moment m WHERE d.id = ANY (ARRAY[p.id])
RETURNING d.id, d.target, d.priority
