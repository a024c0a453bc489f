//! Why a group cannot go on.

use std::io;
use std::sync::{Arc, OnceLock};

use hub_core::error::{Code, code, find_cause};
use hub_core::port::StateMachineError;

/// Why a group cannot go on. The process must stop: what is in memory may be ahead of what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFailure {
    /// The catalogue's code.
    pub code: Code,
    /// What happened.
    pub reason: Arc<str>,
}

/// What first went wrong in the log or in the state machine. The consensus layer passes on no more than its text.
#[derive(Clone, Debug, Default)]
pub(crate) struct FirstFault(Arc<OnceLock<Code>>);

impl FirstFault {
    pub(crate) fn note(&self, code: Code) {
        // Later ones are consequences.
        let _first = self.0.set(code);
    }

    pub(crate) fn note_io(&self, error: &io::Error) {
        self.note(Code::of_io(error));
    }

    pub(crate) fn note_machine(&self, error: &StateMachineError) {
        self.note(match error {
            StateMachineError::Corrupt(_) => code::DAMAGED,
            StateMachineError::Io { source, .. } => find_cause(&**source).map_or(code::IO, Code::of_io),
        });
    }

    pub(crate) fn code(&self) -> Option<Code> {
        self.0.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_says_what_it_was() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let fault = FirstFault::default();
        fault.note_machine(&StateMachineError::Io { during: "applying", source: Box::new(full()) });
        fault.note_io(&io::Error::other("a consequence"));
        assert_eq!(fault.code(), Some(code::DISK_FULL));
        let fault = FirstFault::default();
        fault.note_machine(&StateMachineError::Corrupt("a page".to_owned()));
        assert_eq!(fault.code(), Some(code::DAMAGED));
    }
}
