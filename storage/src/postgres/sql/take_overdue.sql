-- Undertakes once more to publish messages of a target that the broker seems to have lost, the oldest first.
WITH picked AS MATERIALIZED (
    SELECT d.id FROM deliveries d
    WHERE d.target = $1 AND d.owner IS NULL AND d.publish_after > '-infinity' AND d.publish_after <= hub_now()
        AND (d.expires_at IS NULL OR d.expires_at > hub_now())
    ORDER BY d.publish_after LIMIT $2
    FOR UPDATE SKIP LOCKED
)
UPDATE deliveries d SET publish_after = hub_now() + $3::int8 * interval '1 millisecond'
FROM picked p WHERE d.id = ANY (ARRAY[p.id])
RETURNING d.id, d.target, d.priority
