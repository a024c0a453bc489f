-- What is known of these messages: by their ids, and by their callers' keys.
SELECT 0 AS by, m.id AS asked, m.id, hub_millis(m.created_at), NULL::bytea, d.owner, d.attempt
FROM unnest($1::uuid[]) AS u(id) JOIN messages m ON m.id = ANY (ARRAY[u.id])
    LEFT JOIN deliveries d ON d.id = ANY (ARRAY[m.id])
UNION ALL
SELECT 1, u.id, k.message, hub_millis(k.accepted_at), k.fingerprint, NULL, NULL
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS u(id, caller, key)
JOIN idempotency k ON k.caller = ANY (ARRAY[u.caller]) AND k.key = ANY (ARRAY[u.key])
WHERE k.stored_at > hub_now() - interval '24 hours'
