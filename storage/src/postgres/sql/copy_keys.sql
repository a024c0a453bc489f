-- Idempotency keys of another store, as far as they still hold.
INSERT INTO idempotency (caller, key, fingerprint, message, accepted_at, stored_at)
SELECT u.caller, u.key, u.fingerprint, u.message, hub_time(u.accepted), hub_time(u.stored)
FROM unnest($1::text[], $2::text[], $3::bytea[], $4::uuid[], $5::int8[], $6::int8[])
     AS u(caller, key, fingerprint, message, accepted, stored)
WHERE hub_time(u.stored) > hub_now() - interval '24 hours'
