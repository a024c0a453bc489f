-- Messages of another store, as they stand there.
INSERT INTO messages (id, sender_service, target_service, message_type, content, created_at, processed_at, status, retry_count,
    error_message, metadata, metadata_text, correlation_id, traceparent, priority, max_retries, deliver_at, expires_at,
    too_old_at, attempt, may_have_arrived, dead_reason, last_request)
SELECT u.id, u.sender, u.target, u.message_type, u.content::json, hub_time(u.created), hub_time(u.processed), u.status,
    u.retry_count, u.error, CASE WHEN u.odd THEN hub_jsonb(u.metadata) ELSE u.metadata::jsonb END, u.metadata,
    u.correlation_id, u.traceparent, u.priority, u.max_retries, hub_time(u.deliver), hub_time(u.expires),
    hub_time(u.too_old), u.attempt, u.may_have_arrived, u.dead_reason, u.last_request
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int8[], $7::int8[], $8::text[], $9::int4[],
            $10::text[], $11::text[], $12::bool[], $13::text[], $14::text[], $15::int2[], $16::int2[], $17::int8[],
            $18::int8[], $19::int8[], $20::int4[], $21::bool[], $22::text[], $23::uuid[])
     AS u(id, sender, target, message_type, content, created, processed, status, retry_count, error, metadata, odd,
          correlation_id, traceparent, priority, max_retries, deliver, expires, too_old, attempt, may_have_arrived,
          dead_reason, last_request)
