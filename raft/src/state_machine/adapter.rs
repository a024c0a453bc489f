//! Drives a core `StateMachine` as openraft asks: entries are decoded and applied in batches as they come; a routine snapshot
//! is only the machine's own checkpoint, and a copy is made when a follower needs one.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use hub_core::codec::{Batch, CodecError, Reply, decode_batch};
use hub_core::error::code;
use hub_core::port::{AppliedMark, Entry as CoreEntry, SnapshotFile, StateMachine, StateMachineError};
use hub_core::time::Timestamp;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use prost::Message;
use tokio::sync::watch;

use super::copy::{CopyFile, Export, SnapshotSource, clean_folder};
use crate::failure::FirstFault;
use crate::log_store::payload_bytes;
use crate::metrics::GroupMetrics;
use crate::proto::{self as pb, state_from, state_to};
use crate::type_config::{C, Entry, EntryBytes, LogId, Payload, Replies, SnapshotMeta, StoredMembership};

/// The most that one `apply` of the machine gets; a single larger entry goes alone.
const BATCH_COMMANDS: usize = 1_000;
const BATCH_BYTES: usize = 1 << 20;

/// How far this node has applied, as waiters see it.
pub(crate) type Applied = watch::Receiver<Option<LogId>>;

/// What an adapter is made of besides the machine.
pub(crate) struct AdapterParts {
    pub(crate) metrics: Arc<GroupMetrics>,
    /// Set when openraft runs: before that, a snapshot is asked for its mark only.
    pub(crate) running: Arc<AtomicBool>,
    /// Where copies are made.
    pub(crate) copies: PathBuf,
    /// Told what goes wrong.
    pub(crate) fault: FirstFault,
}

/// Lets openraft share the adapter between threads although the machine may not be: it is only ever reached through `&mut`.
struct Exclusive<M>(Mutex<M>);

impl<M> Exclusive<M> {
    fn get(&mut self) -> &mut M {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A machine under openraft.
pub(crate) struct Adapter<M> {
    machine: Exclusive<M>,
    parts: AdapterParts,
    applied: watch::Sender<Option<LogId>>,
    membership: StoredMembership,
    checkpoint: SnapshotMeta,
    copy: Option<(SnapshotMeta, Export)>,
}

type Wanted = (Option<ApplyResponder<C>>, usize, Vec<bool>);

impl<M: StateMachine> Adapter<M> {
    /// Takes the machine as it was found.
    pub(crate) async fn open(mut machine: M, parts: AdapterParts) -> Result<(Self, Applied), io::Error> {
        clean_folder(&parts.copies)?;
        let (applied, membership) = read_mark(&machine.applied())?;
        // Only what is certainly durable may be purged from the log.
        let mark = machine.checkpoint().await.map_err(|error| parts.failed(error))?;
        let checkpoint = meta_of(&mark)?;
        let (applied, watch) = watch::channel(applied);
        let machine = Exclusive(Mutex::new(machine));
        Ok((Self { machine, parts, applied, membership, checkpoint, copy: None }, watch))
    }

    async fn apply_batch(&mut self, batch: Vec<EntryResponder<C>>) -> Result<(), io::Error> {
        let Some(last) = batch.last().map(|(entry, _)| entry.log_id) else { return Ok(()) };
        let mut entries = Vec::with_capacity(batch.len());
        let mut wanted: Vec<Wanted> = Vec::with_capacity(batch.len());
        for (entry, responder) in batch {
            let (entry, skipped) = self.decode(entry)?;
            wanted.push((responder, entry.commands.len(), skipped));
            entries.push(entry);
        }
        let opaque = Bytes::from(state_to(Some(&last), &self.membership).encode_to_vec());
        let mark = AppliedMark { index: last.index(), opaque };
        let applied = self.machine.get().apply(entries, mark).await;
        let replies = applied.map_err(|error| self.parts.failed(error))?;
        self.applied.send_replace(Some(last));
        if replies.len() != wanted.len() {
            return Err(io::Error::other(
                "state machine answered another number of entries than it was given",
            ));
        }
        for ((responder, commands, skipped), replies) in wanted.into_iter().zip(replies) {
            if replies.len() != commands {
                return Err(io::Error::other(
                    "state machine answered another number of commands than it was given",
                ));
            }
            if let Some(responder) = responder {
                responder.send(weave(&skipped, replies));
            }
        }
        Ok(())
    }

    fn decode(&mut self, entry: Entry) -> Result<(CoreEntry<M::Command>, Vec<bool>), io::Error> {
        let (index, term) = (entry.log_id.index(), entry.log_id.committed_leader_id().term);
        let empty = CoreEntry { index, term, now: Timestamp::EPOCH, commands: Vec::new() };
        match entry.payload {
            Payload::Blank => Ok((empty, Vec::new())),
            Payload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Ok((empty, Vec::new()))
            }
            Payload::Normal(EntryBytes(bytes)) => {
                let decoded = decode_batch::<M::Command>(bytes);
                let Batch { now, commands } =
                    decoded.map_err(|error| self.parts.unreadable(index, &error))?;
                let skipped: Vec<bool> = commands.iter().map(Option::is_none).collect();
                let count = skipped.iter().filter(|skipped| **skipped).count();
                self.parts.metrics.skipped.inc_by(count as u64);
                Ok((
                    CoreEntry { index, term, now, commands: commands.into_iter().flatten().collect() },
                    skipped,
                ))
            }
        }
    }

    async fn make_checkpoint(&mut self) -> Result<SnapshotMeta, io::Error> {
        let made = self.machine.get().checkpoint().await;
        self.checkpoint = meta_of(&made.map_err(|error| self.parts.failed(error))?)?;
        // A copy from before it is of no use any more: the log may be purged beyond it.
        self.copy.take_if(|(meta, _)| meta.last_log_id < self.checkpoint.last_log_id);
        Ok(self.checkpoint.clone())
    }

    /// A copy at least as new as what was applied now, or as the last checkpoint: the log reaches back to that. It is
    /// written while it is waited for, and entries are applied meanwhile.
    fn make_copy(&mut self) -> (SnapshotMeta, Export) {
        if let Some((meta, copy)) = &self.copy
            && meta.last_log_id >= self.checkpoint.last_log_id
            && !matches!(copy.peek(), Some(Err(_)))
        {
            return (meta.clone(), copy.clone());
        }
        let meta =
            SnapshotMeta { last_log_id: *self.applied.borrow(), last_membership: self.membership.clone() };
        let export = self.machine.get().export(&self.parts.copies);
        let export = async move { Ok(Arc::new(CopyFile { file: export.await.map_err(Arc::new)? })) };
        let copy = (meta, export.boxed().shared());
        self.copy = Some(copy.clone());
        copy
    }
}

/// Puts the answers of skipped commands where the commands stood.
fn weave<R: Reply>(skipped: &[bool], replies: Vec<R>) -> Replies {
    let mut replies = replies.into_iter();
    skipped
        .iter()
        .filter_map(|skipped| if *skipped { Some(R::skipped()) } else { replies.next() })
        .map(|reply| Bytes::from(reply.encode()))
        .collect()
}

impl AdapterParts {
    fn failed(&self, error: StateMachineError) -> io::Error {
        self.fault.note_machine(&error);
        io::Error::other(error)
    }

    fn unreadable(&self, index: u64, error: &CodecError) -> io::Error {
        let newer = matches!(error, CodecError::Unknown { .. });
        self.fault.note(if newer { code::NEWER_DATA } else { code::DAMAGED });
        let text = format!("log entry {index} cannot be applied: {error}");
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

pub(crate) fn read_mark(mark: &AppliedMark) -> Result<(Option<LogId>, StoredMembership), io::Error> {
    if mark.opaque.is_empty() {
        return Ok((None, StoredMembership::default()));
    }
    let invalid =
        |error: &dyn std::error::Error| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    let state = pb::AppliedState::decode(mark.opaque.clone()).map_err(|error| invalid(&error))?;
    state_from(&state).map_err(|error| invalid(&error))
}

fn meta_of(mark: &AppliedMark) -> Result<SnapshotMeta, io::Error> {
    let (last_log_id, last_membership) = read_mark(mark)?;
    Ok(SnapshotMeta { last_log_id, last_membership })
}

/// The mark of a snapshot that arrives with `meta`.
pub(crate) fn mark_of(meta: &SnapshotMeta) -> AppliedMark {
    let opaque = Bytes::from(state_to(meta.last_log_id.as_ref(), &meta.last_membership).encode_to_vec());
    AppliedMark { index: meta.last_log_id.as_ref().map_or(0, LogId::index), opaque }
}

impl<M: StateMachine> RaftStateMachine<C> for Adapter<M> {
    type SnapshotData = SnapshotSource;
    type SnapshotBuilder = Checkpointed;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((*self.applied.borrow(), self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<C>, io::Error>> + Unpin + Send,
    {
        let mut carried = None;
        loop {
            let first = match carried.take() {
                Some(first) => first,
                None => match entries.next().await {
                    Some(first) => first?,
                    None => return Ok(()),
                },
            };
            let mut bytes = payload_bytes(&first.0.payload);
            let mut batch = vec![first];
            while batch.len() < BATCH_COMMANDS && bytes < BATCH_BYTES {
                let Some(Some(next)) = entries.next().now_or_never() else { break };
                let next = next?;
                bytes += payload_bytes(&next.0.payload);
                if bytes > BATCH_BYTES {
                    carried = Some(next);
                    break;
                }
                batch.push(next);
            }
            self.parts.metrics.apply_batch.observe(batch.len() as f64);
            self.apply_batch(batch).await?;
        }
    }

    async fn get_snapshot_builder(&mut self) -> Checkpointed {
        Checkpointed(Some(self.make_checkpoint().await))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotSource,
    ) -> Result<(), io::Error> {
        let copy = match snapshot {
            SnapshotSource::Received(copy) => copy,
            SnapshotSource::Export(export) => export.await.map_err(io::Error::other)?,
            SnapshotSource::Mark => return Err(io::Error::other("a mark alone cannot be installed")),
        };
        let file = SnapshotFile { mark: mark_of(meta), ..copy.file.clone() };
        let installed = self.machine.get().install(file).await;
        installed.map_err(|error| self.parts.failed(error))?;
        self.membership = meta.last_membership.clone();
        self.checkpoint = meta.clone();
        self.copy = None;
        self.applied.send_replace(meta.last_log_id);
        self.parts.metrics.snapshots_installed.inc();
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<
        Option<Snapshot<crate::type_config::LeaderId, u64, crate::type_config::NodeAddr, SnapshotSource>>,
        io::Error,
    > {
        if self.applied.borrow().is_none() {
            return Ok(None);
        }
        if self.parts.running.load(Ordering::Acquire) {
            let (meta, copy) = self.make_copy();
            return Ok(Some(Snapshot { meta, snapshot: SnapshotSource::Export(copy) }));
        }
        if self.checkpoint.last_log_id.is_none() {
            return Ok(None);
        }
        Ok(Some(Snapshot { meta: self.checkpoint.clone(), snapshot: SnapshotSource::Mark }))
    }
}

/// A checkpoint that was made already: openraft learns from it how far the log may be purged.
pub(crate) struct Checkpointed(Option<Result<SnapshotMeta, io::Error>>);

impl RaftSnapshotBuilder<C> for Checkpointed {
    type SnapshotData = SnapshotSource;

    async fn build_snapshot(
        &mut self,
    ) -> Result<
        Snapshot<crate::type_config::LeaderId, u64, crate::type_config::NodeAddr, SnapshotSource>,
        io::Error,
    > {
        let meta = self.0.take().ok_or_else(|| io::Error::other("a checkpoint is reported once"))??;
        Ok(Snapshot { meta, snapshot: SnapshotSource::Mark })
    }
}
