-- Where the open ones of them stand: nobody holds a claim, and no broker has them.
INSERT INTO deliveries (id, target, priority, status, created_at, due, expires_at, ends_at, attempt, retry_count,
    may_have_arrived, error_message)
SELECT u.id, u.target, u.priority, u.status, hub_time(u.created), hub_time(u.due), hub_time(u.expires), hub_time(u.ends),
    u.attempt, u.retry_count, u.may_have_arrived, u.error
FROM unnest($1::uuid[], $2::text[], $3::int2[], $4::text[], $5::int8[], $6::int8[], $7::int8[], $8::int8[], $9::int4[],
            $10::int4[], $11::bool[], $12::text[])
     AS u(id, target, priority, status, created, due, expires, ends, attempt, retry_count, may_have_arrived, error)
