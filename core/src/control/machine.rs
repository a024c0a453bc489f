//! The control state machine: pure, total, and the same on every replica.

use bytes::Bytes;
use uuid::Uuid;

use super::requests::{Remembered, RequestTable, Told, fingerprint};
use super::wire::{decode_snapshot, encode_snapshot};
use super::{Command, Refusal, Reply, State, members, services};
use crate::codec::CodecError;
use crate::id::RequestId;
use crate::port::{Entry, MemoryMachine, Submitted};

/// The control group's state and what it told in the last minute. Leader and follower run the same code; every command
/// is checked here, whatever the edge checked before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub(super) state: State,
    pub(super) requests: RequestTable,
}

impl Machine {
    /// The state as it is.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Requests remembered now, and the most that may be.
    #[must_use]
    pub fn remembered(&self) -> (usize, usize) {
        (self.requests.len(), self.requests.capacity())
    }

    /// Every remembered request is due to be forgotten at its time, once.
    #[must_use]
    pub fn requests_consistent(&self) -> bool {
        self.requests.is_consistent()
    }

    /// Applies one command, unless its request was answered already. The nil request is never remembered.
    fn answer(&mut self, index: u64, submitted: &Submitted<Command>) -> Told {
        let Submitted { request, command } = submitted;
        if *request == RequestId(Uuid::nil()) {
            return self.perform(index, command);
        }
        let fingerprint = fingerprint(command);
        match self.requests.get(request) {
            Some(known) if known.fingerprint == fingerprint => return known.told.clone(),
            Some(_) => return Told::Refused(Refusal::RequestReused),
            None if self.requests.is_full() => return Told::Refused(Refusal::RequestTableFull),
            None => {}
        }
        let told = self.perform(index, command);
        let expires_at = self.state.clock.plus(RequestTable::KEPT);
        self.requests.push(*request, Remembered { fingerprint, expires_at, told: told.clone() });
        told
    }

    fn perform(&mut self, index: u64, command: &Command) -> Told {
        let state = &mut self.state;
        let result = match command {
            Command::Found { cluster } => Ok(Told::Cluster(*state.cluster.get_or_insert(*cluster))),
            Command::Admit { .. } => members::admit(state, index, command),
            Command::Remove { node } => members::remove(state, *node),
            Command::SetDraining { node, draining } => members::set_draining(state, *node, *draining),
            Command::Register(registration) => services::register(state, index, registration),
            Command::Deregister { service } => services::deregister(state, service),
            Command::DeregisterInstance { service, instance } => {
                services::deregister_instance(state, index, service, instance)
            }
            Command::SetPaused { service, paused } => services::set_paused(state, index, service, *paused),
            Command::SetMaintenance { service, instance, maintenance } => {
                services::set_maintenance(state, index, service, instance, *maintenance)
            }
            Command::SetHealth(changes) => services::set_health(state, index, changes),
            Command::RotateSecret { service, secret } => {
                services::rotate_secret(state, index, service, secret)
            }
        };
        result.unwrap_or_else(Told::Refused)
    }
}

impl MemoryMachine for Machine {
    type Command = Command;
    type Reply = Reply;
    type View = State;

    fn apply(&mut self, entry: &Entry<Command>) -> Vec<Reply> {
        self.state.clock = self.state.clock.max(entry.now);
        self.state.revision = self.state.revision.max(entry.index);
        self.requests.expire(self.state.clock);
        let told: Vec<Told> =
            entry.commands.iter().map(|submitted| self.answer(entry.index, submitted)).collect();
        told.iter().map(|told| told.reply(&self.state)).collect()
    }

    fn view(&self) -> State {
        self.state.clone()
    }

    fn encode(&self) -> Vec<u8> {
        encode_snapshot(self)
    }

    fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        decode_snapshot(bytes)
    }
}
