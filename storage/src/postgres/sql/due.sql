-- The earliest due time of each target that has waiting messages (one look into the index for each priority), and when the
-- first lease ends; the time of the look with both.
SELECT hub_millis(hub_now()), b.target, (
    SELECT hub_millis(min(x.due)) FROM generate_series(0, 9) AS level(priority) CROSS JOIN LATERAL (
        SELECT d.due FROM deliveries d
        WHERE d.target = b.target AND d.priority = level.priority AND d.owner IS NULL AND d.due > '-infinity' ORDER BY d.due LIMIT 1
    ) AS x)
FROM (SELECT target FROM backlog GROUP BY target HAVING sum(depth) > sum(in_flight)) AS b
UNION ALL
SELECT hub_millis(hub_now()), NULL, (
    SELECT hub_millis(d.lease_end) FROM deliveries d
    WHERE d.owner IS NOT NULL AND d.lease_end > '-infinity' AND d.lease_end > hub_time($1) ORDER BY d.lease_end LIMIT 1)
