-- The targets with messages whose publishing is overdue: how many are said to be in the broker, and how many of them are
-- overdue. Nothing is counted while none is.
WITH moment AS MATERIALIZED (SELECT hub_now() AS now)
SELECT d.target, count(*), count(*) FILTER (WHERE d.publish_after <= m.now)
FROM deliveries d CROSS JOIN moment m
WHERE d.owner IS NULL AND d.publish_after IS NOT NULL AND (d.expires_at IS NULL OR d.expires_at > m.now)
    AND EXISTS (
        SELECT 1 FROM deliveries o WHERE o.owner IS NULL AND o.publish_after <= (SELECT now FROM moment)
    )
GROUP BY d.target
HAVING count(*) FILTER (WHERE d.publish_after <= m.now) > 0
