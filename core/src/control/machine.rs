//! The control state machine: pure, total, and the same on every replica.

use bytes::Bytes;
use uuid::Uuid;

use super::requests::{Remembered, RequestTable, Told, fingerprint};
use super::wire::{decode_snapshot, encode_snapshot};
use super::{Command, Refusal, Reply, State, breakers, members, services};
use crate::codec::CodecError;
use crate::id::RequestId;
use crate::invariant;
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
            Command::Breaker(command) => breakers::perform(state, command),
        };
        result.unwrap_or_else(Told::Refused)
    }
}

impl MemoryMachine for Machine {
    type Command = Command;
    type Reply = Reply;
    type View = State;

    fn apply(&mut self, entry: &Entry<Command>) -> Vec<Reply> {
        let before = cfg!(debug_assertions).then(|| self.state.clone());
        self.state.clock = self.state.clock.max(entry.now);
        self.state.revision = self.state.revision.max(entry.index);
        self.requests.expire(self.state.clock);
        let told: Vec<Told> =
            entry.commands.iter().map(|submitted| self.answer(entry.index, submitted)).collect();
        debug_assert_eq!(
            before.map_or(Ok(()), |before| invariant::control_step(&before, &self.state)),
            Ok(()),
            "an entry broke the control state"
        );
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::time::Timestamp;

    const T: i64 = 1_800_000_000_000;

    /// Applies one entry at `T + millis` with the same harmless command under each request.
    fn apply(machine: &mut Machine, index: u64, millis: i64, requests: &[u128]) -> Vec<Reply> {
        let submitted = |request: &u128| Submitted {
            request: RequestId(Uuid::from_u128(*request)),
            command: Command::Remove { node: NodeId(77) },
        };
        let commands = requests.iter().map(submitted).collect();
        machine.apply(&Entry { index, term: 1, now: Timestamp::from_millis(T + millis), commands })
    }

    #[test]
    fn a_full_table_refuses_and_keeps_what_it_told_for_a_minute() {
        const GONE: Reply = Reply::Refused(Refusal::NoNode);
        const FULL: Reply = Reply::Refused(Refusal::RequestTableFull);
        let mut machine = Machine::default();
        machine.requests.set_capacity(2);
        assert_eq!(apply(&mut machine, 1, 0, &[1]), [GONE]);
        // The second entry of the table is a second younger.
        assert_eq!(apply(&mut machine, 2, 1_000, &[2, 3]), [GONE, FULL]);
        assert_eq!(machine.remembered(), (2, 2));
        // A refused request is not remembered, a repeat is still answered, and the nil request needs no room.
        assert_eq!(apply(&mut machine, 3, 59_999, &[3, 1, 2, 0]), [FULL, GONE, GONE, GONE]);
        let reused = Submitted {
            request: RequestId(Uuid::from_u128(1)),
            command: Command::Remove { node: NodeId(78) },
        };
        let entry = |index, millis, commands| Entry {
            index,
            term: 1,
            now: Timestamp::from_millis(T + millis),
            commands,
        };
        assert_eq!(
            machine.apply(&entry(4, 59_999, vec![reused.clone()])),
            [Reply::Refused(Refusal::RequestReused)]
        );
        // A minute of state time after the first: its place is free, once.
        assert_eq!(apply(&mut machine, 5, 60_000, &[3, 4]), [GONE, FULL]);
        assert_eq!(machine.remembered(), (2, 2));
        // A leader whose clock is behind does not take the state's time back.
        assert_eq!(apply(&mut machine, 6, 0, &[4]), [FULL]);
        assert_eq!(apply(&mut machine, 7, 61_000, &[4]), [GONE]);
        assert_eq!(machine.remembered(), (2, 2));
        assert!(machine.requests_consistent());
        // All gone after a pause; an id that was forgotten is a new one.
        assert_eq!(machine.apply(&entry(8, 300_000, vec![reused])), [GONE]);
        assert_eq!(machine.remembered(), (1, 2));
    }
}
