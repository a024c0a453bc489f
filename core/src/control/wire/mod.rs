//! How the control group is written down: frozen shapes, apart from the types that the code works with.
//!
//! Nothing here may change once released. A change is a new version of a kind, beside the old one.

mod breaker;
mod breaker_command;
mod command;
mod record;
mod reply;
mod shared;
mod snapshot;

pub(super) use snapshot::{decode_snapshot, encode_snapshot};

use crate::codec::Kind;

pub(super) const KIND_FOUND: Kind = 10;
pub(super) const KIND_ADMIT: Kind = 11;
pub(super) const KIND_REMOVE: Kind = 12;
pub(super) const KIND_SET_DRAINING: Kind = 13;
pub(super) const KIND_REGISTER: Kind = 14;
pub(super) const KIND_DEREGISTER: Kind = 15;
pub(super) const KIND_DEREGISTER_INSTANCE: Kind = 16;
pub(super) const KIND_SET_PAUSED: Kind = 17;
pub(super) const KIND_SET_MAINTENANCE: Kind = 18;
pub(super) const KIND_SET_HEALTH: Kind = 19;
pub(super) const KIND_ROTATE_SECRET: Kind = 20;
pub(super) const KIND_BREAKER_REPORTS: Kind = 21;
pub(super) const KIND_BREAKER_ADVANCE: Kind = 22;
pub(super) const KIND_BREAKER_ASK_PROBE: Kind = 23;
pub(super) const KIND_BREAKER_PROBE_DONE: Kind = 24;
pub(super) const KIND_BREAKER_ORDER: Kind = 25;
pub(super) const KIND_BREAKER_DEFAULTS: Kind = 26;
pub(super) const KIND_REPLY: Kind = 60;
pub(super) const KIND_SNAPSHOT: Kind = 80;
pub(super) const KIND_SNAPSHOT_MEMBER: Kind = 81;
pub(super) const KIND_SNAPSHOT_SERVICE: Kind = 82;
pub(super) const KIND_SNAPSHOT_REQUESTS: Kind = 83;
pub(super) const KIND_SNAPSHOT_BREAKER: Kind = 84;
