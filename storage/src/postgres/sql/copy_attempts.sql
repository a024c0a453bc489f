-- Attempts of messages of another store. Of two with the same number the first counts.
INSERT INTO attempts (id, number, node, started_at, duration_ms, outcome, http_status, instance, error_class, response)
SELECT u.id, u.number, u.node, hub_time(u.started), u.duration, u.outcome, u.http_status, u.instance, u.error_class,
    u.response
FROM unnest($1::uuid[], $2::int4[], $3::int8[], $4::int8[], $5::int8[], $6::text[], $7::int4[], $8::text[], $9::text[],
            $10::text[])
     AS u(id, number, node, started, duration, outcome, http_status, instance, error_class, response)
ON CONFLICT (id, number) DO NOTHING
