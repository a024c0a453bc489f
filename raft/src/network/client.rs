//! openraft's network: appends stream, heartbeats and votes have a connection of their own, and so have snapshots.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use hub_core::id::NodeId;
use hub_core::port::AppliedMark;
use openraft::RaftNetworkFactory;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption, RPCTypes,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use prost::Message;
use tokio::io::AsyncReadExt;
use tonic::{Code, Request, Status};

use super::dial::Lane;
use super::transport::Inner;
use super::{MAX_MESSAGE, SNAPSHOT_PART};
use crate::metrics::GroupMetrics;
use crate::proto::raft_client::RaftClient;
use crate::proto::{self as pb, Malformed};
use crate::state_machine::{CopyFile, SnapshotSource};
use crate::type_config::{C, LeaderId, NodeAddr, Vote};

type Client = RaftClient<tonic::transport::Channel>;

/// Makes the clients of one group.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) transport: Arc<Inner>,
    pub(crate) group: Arc<str>,
    pub(crate) metrics: Arc<GroupMetrics>,
}

/// A client of one group to one node over one lane.
pub(crate) struct Peer {
    network: Network,
    target: NodeId,
    lane: Lane,
}

impl RaftNetworkFactory<C> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &NodeAddr) -> Peer {
        self.peer(target, node, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &NodeAddr) -> Peer {
        self.peer(target, node, Lane::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &NodeAddr) -> Peer {
        self.peer(target, node, Lane::Snapshot)
    }
}

impl Network {
    fn peer(&self, target: u64, node: &NodeAddr, lane: Lane) -> Peer {
        let target = NodeId(target);
        self.transport.hint(target, &node.addr);
        Peer { network: self.clone(), target, lane }
    }
}

fn rpc_error(status: &Status) -> RPCError<C> {
    match status.code() {
        Code::DeadlineExceeded | Code::Cancelled | Code::Internal | Code::DataLoss => {
            RPCError::Network(NetworkError::from_string(status))
        }
        _ => RPCError::Unreachable(Unreachable::from_string(status)),
    }
}

fn malformed(error: Malformed) -> RPCError<C> {
    RPCError::Network(NetworkError::from_string(error))
}

impl Peer {
    fn client(&self, lane: Lane) -> Client {
        // Asked anew each time: the connection is made afresh when the node's address changes.
        let channel = self.network.transport.channel(self.target, lane);
        RaftClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    }

    fn timeout(&self, action: RPCTypes, timeout: Duration) -> Timeout<C> {
        Timeout { action, id: self.network.transport.node.0, target: self.target.0, timeout }
    }

    async fn within<T>(
        &self,
        action: RPCTypes,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, RPCError<C>> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(rpc_error(&status)),
            Err(_) => Err(self.timeout(action, limit).into()),
        }
    }

    fn vote_request(&self, request: &VoteRequest<C>) -> pb::VoteRequest {
        pb::VoteRequest {
            group: self.network.group.to_string(),
            vote: Some(pb::vote_to(&request.vote)),
            last_log_id: request.last_log_id.as_ref().map(pb::log_id_to),
            leadership_transfer: request.leadership_transfer,
        }
    }

    /// One request, one answer: for heartbeats.
    fn one_by_one<'s, S>(&'s self, input: S, limit: Duration) -> Answers<'s>
    where
        S: Stream<Item = AppendEntriesRequest<C>> + Send + Unpin + 'static,
    {
        let answers = futures::stream::unfold(Some(input), move |input| async move {
            let mut input = input?;
            let request = pb::append_request_to(&self.network.group, input.next().await?);
            let mut client = self.client(Lane::Heartbeat);
            let reply = self.within(RPCTypes::AppendEntries, limit, client.heartbeat(request)).await;
            let result = reply.and_then(|reply| pb::append_reply_from(&reply).map_err(malformed));
            let more = matches!(result, Ok(Ok(_))).then_some(input);
            Some((result, more))
        });
        answers.boxed()
    }
}

type Answers<'s> = BoxStream<'s, Result<StreamAppendResult<C>, RPCError<C>>>;

/// Opening a stream may include connecting; this long is enough for that, however short the heartbeat is.
const OPEN_STREAM: Duration = Duration::from_secs(2);

impl NetStreamAppend<C> for Peer {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<Answers<'s>, RPCError<C>>>
    where
        S: Stream<Item = AppendEntriesRequest<C>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            if self.lane == Lane::Heartbeat {
                return Ok(self.one_by_one(input, option.hard_ttl()));
            }
            let group = Arc::clone(&self.network.group);
            let requests = input.map(move |request| pb::append_request_to(&group, request));
            let mut client = self.client(self.lane);
            let call = client.append(Request::new(requests));
            let replies = self.within(RPCTypes::AppendEntries, OPEN_STREAM, call).await?;
            let replies = replies.map(|reply| match reply {
                Ok(reply) => pb::append_reply_from(&reply).map_err(malformed),
                Err(status) => Err(rpc_error(&status)),
            });
            Ok(replies.boxed())
        })
    }
}

impl NetVote<C> for Peer {
    async fn vote(&mut self, rpc: VoteRequest<C>, option: RPCOption) -> Result<VoteResponse<C>, RPCError<C>> {
        let mut client = self.client(Lane::Heartbeat);
        let call = client.vote(self.vote_request(&rpc));
        let reply = self.within(RPCTypes::Vote, option.soft_ttl(), call).await?;
        pb::vote_reply_from(&reply).map_err(malformed)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let mut client = self.client(Lane::Heartbeat);
        let call = client.pre_vote(self.vote_request(&rpc));
        let reply = self.within(RPCTypes::Vote, option.soft_ttl(), call).await?;
        pb::vote_reply_from(&reply).map_err(malformed)
    }
}

impl NetTransferLeader<C> for Peer {
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<C>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        let mut client = self.client(Lane::Heartbeat);
        let call = client.transfer(pb::TransferRequest {
            group: self.network.group.to_string(),
            from_leader: Some(pb::vote_to(req.from_leader())),
            to: *req.to_node_id(),
            last_log_id: req.last_log_id().map(pb::log_id_to),
        });
        let reply = self.within(RPCTypes::TransferLeader, option.soft_ttl().max(OPEN_STREAM), call).await?;
        pb::transfer_reply_from(&reply, req.from_leader()).map_err(malformed)
    }
}

impl NetBackoff<C> for Peer {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(Duration::from_millis(100))))
    }
}

impl NetSnapshot<C> for Peer {
    type SnapshotData = SnapshotSource;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<LeaderId, u64, NodeAddr, SnapshotSource>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let send = self.send_snapshot(vote, snapshot, option.hard_ttl());
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = send => sent,
        }
    }
}

impl Peer {
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot<LeaderId, u64, NodeAddr, SnapshotSource>,
        limit: Duration,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let SnapshotSource::Export(export) = snapshot.snapshot else {
            return Err(NetworkError::from_string("there is no copy of the state to send").into());
        };
        let copy = export.await.map_err(NetworkError::from_string)?;
        let AppliedMark { index, opaque } = &copy.file.mark;
        if *index < snapshot.meta.last_log_id.as_ref().map_or(0, crate::type_config::LogId::index) {
            return Err(NetworkError::from_string("the copy of the state is older than it should be").into());
        }
        let state = pb::AppliedState::decode(opaque.clone()).map_err(|error| NetworkError::new(&error))?;
        let header = pb::SnapshotHeader {
            group: self.network.group.to_string(),
            vote: Some(pb::vote_to(&vote)),
            state: Some(state),
            bytes: copy.file.bytes,
            crc32c: copy.file.crc32c,
        };
        // At least 2 MiB/s, else something is wrong.
        let limit = limit + Duration::from_secs(copy.file.bytes >> 21);
        tracing::info!(group = %self.network.group, to = %self.target, bytes = copy.file.bytes, index, "sending a snapshot");
        let mut client = self.client(Lane::Snapshot);
        let call = client.snapshot(Request::new(parts(header, copy)));
        let reply = self.within(RPCTypes::InstallSnapshot, limit, call).await?;
        self.network.metrics.snapshots_sent.inc();
        Ok(SnapshotResponse::new(pb::vote_from(reply.vote.as_ref()).map_err(malformed)?))
    }
}

/// The header, then the file. When reading fails the stream ends early, and the receiver finds the length wrong.
fn parts(header: pb::SnapshotHeader, copy: Arc<CopyFile>) -> impl Stream<Item = pb::SnapshotPart> + Send {
    use pb::snapshot_part::Part;
    let part = |part| pb::SnapshotPart { part: Some(part) };
    let file = futures::stream::unfold((None, copy), move |(file, copy)| async move {
        let mut file = match file {
            Some(file) => file,
            None => open(&copy).await?,
        };
        let data = read_part(&mut file).await?;
        Some((part(Part::Data(data)), (Some(file), copy)))
    });
    futures::stream::once(async move { part(Part::Header(header)) }).chain(file)
}

async fn open(copy: &CopyFile) -> Option<tokio::fs::File> {
    match tokio::fs::File::open(&copy.file.path).await {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::error!(%error, "copy of the state cannot be read");
            None
        }
    }
}

async fn read_part(file: &mut tokio::fs::File) -> Option<Bytes> {
    let mut data = BytesMut::with_capacity(SNAPSHOT_PART);
    loop {
        match file.read_buf(&mut data).await {
            Ok(0) => break,
            Ok(_) if data.len() >= SNAPSHOT_PART => break,
            Ok(_) => {}
            Err(error) => {
                tracing::error!(%error, "copy of the state cannot be read");
                return None;
            }
        }
    }
    (!data.is_empty()).then(|| data.freeze())
}
