//! The replicated state machine, as the consensus layer drives it.

use std::future::Future;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::codec::{Command, Reply};
use crate::id::RequestId;
use crate::time::Timestamp;

/// A command with the request it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted<C> {
    /// The same for every repeat of one request.
    pub request: RequestId,
    /// What to do.
    pub command: C,
}

/// One committed log entry.
#[derive(Clone, Debug)]
pub struct Entry<C> {
    /// Its log index.
    pub index: u64,
    /// The term it was written in.
    pub term: u64,
    /// The leader's time when it was proposed.
    pub now: Timestamp,
    /// Its commands, in order. Empty for entries of the consensus layer itself.
    pub commands: Vec<Submitted<C>>,
}

/// How far a state machine has applied. Stored in one step with the state it describes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedMark {
    /// Index of the last applied entry; 0 when none was.
    pub index: u64,
    /// The consensus layer's own bookkeeping (log id, membership), given back as it was.
    pub opaque: Bytes,
}

/// A whole copy of the state in one file.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    /// Where it lies.
    pub path: PathBuf,
    /// What it holds.
    pub mark: AppliedMark,
    /// Length in bytes.
    pub bytes: u64,
    /// CRC32C of the whole file.
    pub crc32c: u32,
}

/// The state machine cannot go on; the node must stop.
#[derive(Debug, thiserror::Error)]
pub enum StateMachineError {
    /// Reading or writing the state failed.
    #[error("state machine i/o failed during {during}")]
    Io {
        /// What was being done.
        during: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The stored state contradicts itself or its checksum.
    #[error("state is damaged: {0}")]
    Corrupt(String),
}

/// A deterministic machine over a replicated log. It is driven by one task, in order.
pub trait StateMachine: Send + 'static {
    /// What can be proposed to it.
    type Command: Command;
    /// What it answers.
    type Reply: Reply;

    /// How far the state found at start had applied.
    fn applied(&self) -> AppliedMark;

    /// Applies entries in order and, in the same step, stores `mark`. One list of replies for each entry, one reply for
    /// each command. A refusal is a reply; an error stops the node.
    fn apply(
        &mut self,
        entries: Vec<Entry<Self::Command>>,
        mark: AppliedMark,
    ) -> impl Future<Output = Result<Vec<Vec<Self::Reply>>, StateMachineError>> + Send;

    /// Makes what was applied survive a power loss, and says up to where: the log may be purged up to there.
    fn checkpoint(&mut self) -> impl Future<Output = Result<AppliedMark, StateMachineError>> + Send;

    /// Writes a whole copy of the state into `dir`, for a node that the log can no longer bring up. The future borrows
    /// nothing: entries may be applied while the copy is written, and its mark says what it holds.
    fn export(
        &mut self,
        dir: &Path,
    ) -> impl Future<Output = Result<SnapshotFile, StateMachineError>> + Send + 'static + use<Self>;

    /// Replaces the state by a copy, atomically also in a crash. The file is checked first, and may be moved away.
    fn install(&mut self, file: SnapshotFile) -> impl Future<Output = Result<(), StateMachineError>> + Send;
}

/// A pure machine in memory; the consensus layer keeps its snapshots in files.
pub trait MemoryMachine: Default + Send + 'static {
    /// What can be proposed to it.
    type Command: Command;
    /// What it answers.
    type Reply: Reply;
    /// What readers see: cheap to clone, consistent.
    type View: Clone + Send + Sync + 'static;

    /// Applies one entry: one reply for each command. Cannot fail; a refusal is a reply.
    fn apply(&mut self, entry: &Entry<Self::Command>) -> Vec<Self::Reply>;
    /// The state as readers see it.
    fn view(&self) -> Self::View;
    /// The whole state, in versioned envelopes.
    fn encode(&self) -> Vec<u8>;
    /// Back from [`Self::encode`] of this or an earlier released version.
    fn decode(bytes: bytes::Bytes) -> Result<Self, crate::codec::CodecError>;
}
