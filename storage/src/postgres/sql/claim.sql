-- Claims due messages of several targets, highest priority first, then by the time they became due. One stretch of the index
-- for each target and priority: what is not due yet is not walked over.
WITH moment AS MATERIALIZED (SELECT hub_now() AS now),
picked AS MATERIALIZED (
    SELECT p.id, w.lease, w.place, row_number() OVER () AS rank
    FROM unnest($1::text[], $2::int8[], $3::int8[]) WITH ORDINALITY AS w(target, wanted, lease, place)
    CROSS JOIN moment m
    CROSS JOIN LATERAL (
        SELECT x.id FROM generate_series(9, 0, -1) AS level(priority) CROSS JOIN LATERAL (
            SELECT d.id FROM deliveries d
            WHERE d.target = w.target AND d.priority = level.priority AND d.owner IS NULL AND d.due > '-infinity' AND d.due <= m.now
                AND (d.expires_at IS NULL OR d.expires_at > m.now)
            ORDER BY d.due, d.id LIMIT w.wanted
            FOR UPDATE SKIP LOCKED
        ) AS x
        LIMIT w.wanted
    ) AS p
),
claimed AS (
    UPDATE deliveries d SET status = 'delivering', attempt = d.attempt + 1, owner = $4, claimed_at = m.now,
        lease_end = m.now + p.lease * interval '1 millisecond', publish_after = NULL
    FROM picked p CROSS JOIN moment m WHERE d.id = ANY (ARRAY[p.id])
    RETURNING d.id, d.target, d.attempt, d.retry_count, p.rank, p.place
),
counted AS (
    INSERT INTO backlog AS b (target, slot, in_flight, touched_at)
    SELECT c.target, $5::int8, count(*), max(m.now) FROM claimed c CROSS JOIN moment m GROUP BY c.target
    ON CONFLICT (target, slot) DO UPDATE SET in_flight = b.in_flight + excluded.in_flight,
        touched_at = excluded.touched_at
)
SELECT m.id, m.sender_service, m.target_service, m.message_type, m.content::text, m.metadata_text, m.priority,
    hub_millis(m.created_at), hub_millis(m.expires_at), m.max_retries, m.traceparent, c.attempt, c.retry_count, c.place
FROM claimed c JOIN messages m ON m.id = ANY (ARRAY[c.id])
ORDER BY c.rank
