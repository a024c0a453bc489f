-- Claims these messages, as far as they are due and nobody holds them.
WITH moment AS MATERIALIZED (SELECT hub_now() AS now),
picked AS MATERIALIZED (
    SELECT p.id, w.lease, w.place
    FROM unnest($1::uuid[], $2::int8[]) WITH ORDINALITY AS w(id, lease, place)
    CROSS JOIN moment m
    CROSS JOIN LATERAL (
        SELECT d.id FROM deliveries d
        WHERE d.id = ANY (ARRAY[w.id]) AND d.owner IS NULL AND d.due <= m.now AND (d.expires_at IS NULL OR d.expires_at > m.now)
        FOR UPDATE SKIP LOCKED
    ) AS p
),
claimed AS (
    UPDATE deliveries d SET status = 'delivering', attempt = d.attempt + 1, owner = $3, claimed_at = m.now,
        lease_end = m.now + p.lease * interval '1 millisecond', publish_after = NULL
    FROM picked p CROSS JOIN moment m WHERE d.id = ANY (ARRAY[p.id])
    RETURNING d.id, d.target, d.attempt, d.retry_count, p.place
),
counted AS (
    INSERT INTO backlog AS b (target, slot, in_flight, touched_at)
    SELECT c.target, $4::int8, count(*), max(m.now) FROM claimed c CROSS JOIN moment m GROUP BY c.target
    ON CONFLICT (target, slot) DO UPDATE SET in_flight = b.in_flight + excluded.in_flight,
        touched_at = excluded.touched_at
)
SELECT m.id, m.sender_service, m.target_service, m.message_type, m.content::text, m.metadata_text, m.priority,
    hub_millis(m.created_at), hub_millis(m.expires_at), m.max_retries, m.traceparent, c.attempt, c.retry_count, c.place
FROM claimed c JOIN messages m ON m.id = ANY (ARRAY[c.id])
ORDER BY c.place
