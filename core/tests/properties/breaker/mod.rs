//! Circuit breakers: the replicated record against a plain model, a node's window against a list of calls, and a small
//! cluster that lives through an outage.

mod cluster;
mod plain;
mod record;
mod window;
