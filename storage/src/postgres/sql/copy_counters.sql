-- The counters of a copied store: what can be counted is counted here, what only grows comes along.
INSERT INTO backlog AS b (target, slot, depth, accepted_total, delivered_total, dead_letters, touched_at)
SELECT c.target, 0, sum(c.depth)::int8, sum(c.accepted)::int8, sum(c.delivered)::int8, sum(c.dead)::int8, max(hub_now())
FROM (
    SELECT u.target, 0 AS depth, u.accepted, u.delivered, 0 AS dead
    FROM unnest($1::text[], $2::int8[], $3::int8[]) AS u(target, accepted, delivered)
    UNION ALL
    SELECT d.target, count(*), 0, 0, 0 FROM deliveries d GROUP BY d.target
    UNION ALL
    SELECT e.target, 0, 0, 0, count(*) FROM endings e WHERE e.status = 'dead_letter' GROUP BY e.target
) c GROUP BY c.target
ON CONFLICT (target, slot) DO UPDATE SET depth = b.depth + excluded.depth,
    accepted_total = b.accepted_total + excluded.accepted_total,
    delivered_total = b.delivered_total + excluded.delivered_total,
    dead_letters = b.dead_letters + excluded.dead_letters, touched_at = excluded.touched_at
