-- The targets with messages whose publishing is overdue: how many are said to be in the broker, and how many of them are
-- overdue. Nothing is counted while none is.
SELECT d.target, count(*), count(*) FILTER (WHERE d.publish_after <= hub_now())
FROM deliveries d
WHERE d.owner IS NULL AND d.publish_after > '-infinity' AND (d.expires_at IS NULL OR d.expires_at > hub_now())
    AND EXISTS (
        SELECT 1 FROM deliveries o
        WHERE o.owner IS NULL AND o.publish_after > '-infinity' AND o.publish_after <= hub_now()
    )
GROUP BY d.target
HAVING count(*) FILTER (WHERE d.publish_after <= hub_now()) > 0
