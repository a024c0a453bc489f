//! What handlers take from a request, each with its own problem.

mod body;
mod caller;
mod conditions;
mod params;
mod trace;

pub(crate) use body::{Media, read_body, refuse_body};
pub(crate) use caller::Caller;
pub(crate) use conditions::{
    fingerprint, idempotency_key, if_match, message_id, no_condition, no_preference, request_id, service_name,
};
pub(crate) use params::Params;
pub(crate) use trace::{REQUEST_ID, Trace};
