-- Deletes messages that ended $1 milliseconds ago or earlier (dead letters stay), with their attempts. One hub at a time. Delivered ones are
-- found by their ids, which are about as old as they are: no index is written when a message is delivered.
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(4854, 2) AS mine, hub_now() - $1 * interval '1 millisecond' AS before
),
old AS MATERIALIZED (
    (SELECT m.id FROM messages m
     WHERE (SELECT mine FROM turn) AND m.id < hub_id_at((SELECT before FROM turn) + interval '1 minute') AND m.status = 'delivered'
        AND m.processed_at <= (SELECT before FROM turn)
     ORDER BY m.id LIMIT $2)
    UNION ALL
    (SELECT e.id FROM endings e
     WHERE (SELECT mine FROM turn) AND e.status <> 'dead_letter' AND e.ended_at <= (SELECT before FROM turn)
     ORDER BY e.ended_at LIMIT $2)
    LIMIT $2
),
gone AS (DELETE FROM messages m USING old o WHERE m.id = ANY (ARRAY[o.id]) RETURNING m.id),
rare AS (DELETE FROM endings e USING old o WHERE e.id = ANY (ARRAY[o.id])),
noted AS (DELETE FROM attempts a USING old o WHERE a.id = ANY (ARRAY[o.id]))
SELECT count(*) FROM gone
