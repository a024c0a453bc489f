-- Undertakes once more to publish messages of a target that the broker seems to have lost, the oldest first.
WITH moment AS MATERIALIZED (SELECT hub_now() AS now),
picked AS MATERIALIZED (
    SELECT d.id FROM deliveries d CROSS JOIN moment m
    WHERE d.target = $1 AND d.owner IS NULL AND d.publish_after <= m.now
        AND (d.expires_at IS NULL OR d.expires_at > m.now)
    ORDER BY d.publish_after LIMIT $2
    FOR UPDATE OF d SKIP LOCKED
)
UPDATE deliveries d SET publish_after = m.now + $3::int8 * interval '1 millisecond'
FROM picked p CROSS JOIN moment m WHERE d.id = p.id
RETURNING d.id, d.target, d.priority
