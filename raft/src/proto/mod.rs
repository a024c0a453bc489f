//! The messages between nodes and in the log, and their way to and from openraft's types. No openraft type is ever
//! serialised: it always passes through here.

mod convert;
#[cfg(test)]
mod golden;

pub(crate) use convert::{
    Malformed, append_reply_from, append_reply_to, append_request_from, append_request_to, log_id_from,
    log_id_to, membership_from, membership_to, state_from, state_to, transfer_reply_from, transfer_reply_to,
    vote_from, vote_reply_from, vote_reply_to, vote_to,
};

#[expect(
    unreachable_pub,
    clippy::allow_attributes,
    clippy::doc_markdown,
    clippy::all,
    clippy::too_many_lines,
    reason = "generated from proto/hub_raft.proto, which says what each message means"
)]
mod generated {
    tonic::include_proto!("hub.raft.v1");
}
pub(crate) use generated::*;
