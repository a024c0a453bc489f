//! What other nodes can ask of this one.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};
use tonic::{Request, Response, Status, Streaming};

use super::handshake::Purpose;
use super::incoming::Peer;
use super::transport::Inner;
use crate::proto::hub_server::Hub;
use crate::proto::raft_server::Raft;
use crate::proto::{self as pb, Malformed};
use crate::type_config::C;

/// Parts of a snapshot as they arrive.
pub(crate) type Parts = BoxStream<'static, Result<bytes::Bytes, Status>>;

/// One group, as the server reaches it.
#[async_trait]
pub(crate) trait Endpoint: Send + Sync {
    fn append(
        &self,
        requests: BoxStream<'static, AppendEntriesRequest<C>>,
    ) -> BoxStream<'static, Result<StreamAppendResult<C>, Status>>;
    async fn heartbeat(&self, request: AppendEntriesRequest<C>) -> Result<StreamAppendResult<C>, Status>;
    async fn vote(&self, request: VoteRequest<C>) -> Result<VoteResponse<C>, Status>;
    async fn pre_vote(&self, request: VoteRequest<C>) -> Result<VoteResponse<C>, Status>;
    async fn transfer(&self, request: TransferLeaderRequest<C>) -> Result<TransferLeaderResponse<C>, Status>;
    async fn snapshot(&self, header: pb::SnapshotHeader, parts: Parts) -> Result<pb::SnapshotReply, Status>;
    async fn propose(&self, request: pb::ProposeRequest) -> Result<pb::ProposeReply, Status>;
    async fn read_index(&self, request: pb::ReadIndexRequest) -> Result<pb::ReadIndexReply, Status>;
    async fn hand_over(&self, request: pb::CommandRequest) -> Result<pb::CommandReply, Status>;
    fn status(&self) -> pb::GroupStatus;
}

/// Who lets nodes join.
#[async_trait]
pub(crate) trait Admission: Send + Sync {
    async fn join(&self, request: pb::JoinRequest) -> pb::JoinReply;
}

#[derive(Clone)]
pub(super) struct Service {
    pub(super) transport: Arc<Inner>,
}

impl From<Malformed> for Status {
    fn from(malformed: Malformed) -> Self {
        Self::invalid_argument(malformed.to_string())
    }
}

impl Service {
    fn group(&self, name: &str) -> Result<Arc<dyn Endpoint>, Status> {
        self.transport
            .group(name)
            .ok_or_else(|| Status::failed_precondition(format!("group {name} is not open here")))
    }

    fn member<T>(request: &Request<T>) -> Result<(), Status> {
        match request.extensions().get::<Peer>() {
            Some(Peer { purpose: Purpose::Member, .. }) => Ok(()),
            _ => Err(Status::permission_denied("only members may ask this")),
        }
    }
}

fn vote_request(request: &pb::VoteRequest) -> Result<VoteRequest<C>, Malformed> {
    Ok(VoteRequest {
        vote: pb::vote_from(request.vote.as_ref())?,
        last_log_id: request.last_log_id.as_ref().map(pb::log_id_from),
        leadership_transfer: request.leadership_transfer,
    })
}

#[async_trait]
impl Raft for Service {
    type AppendStream = BoxStream<'static, Result<pb::AppendReply, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        Self::member(&request)?;
        let mut stream = request.into_inner();
        let service = self.clone();
        // The caller waits for the answer's header before it sends anything, so nothing is waited for here.
        let replies = futures::stream::once(async move {
            let first = stream.message().await?.ok_or_else(|| Status::invalid_argument("empty stream"))?;
            let group = service.group(&first.group)?;
            // A message that cannot be read ends the stream, and with it the answers.
            let requests =
                futures::stream::once(async { Ok(first) }).chain(stream).scan((), |(), request| {
                    let request = request.and_then(|request| Ok(pb::append_request_from(request)?));
                    if let Err(status) = &request {
                        tracing::debug!(%status, "append stream ended");
                    }
                    futures::future::ready(request.ok())
                });
            let replies = group.append(requests.boxed());
            Ok::<_, Status>(replies.map_ok(|result| pb::append_reply_to(&result)))
        });
        Ok(Response::new(replies.try_flatten().boxed()))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendReply>, Status> {
        Self::member(&request)?;
        let request = request.into_inner();
        let group = self.group(&request.group)?;
        let result = group.heartbeat(pb::append_request_from(request)?).await?;
        Ok(Response::new(pb::append_reply_to(&result)))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteReply>, Status> {
        Self::member(&request)?;
        let request = request.into_inner();
        let reply = self.group(&request.group)?.vote(vote_request(&request)?).await?;
        Ok(Response::new(pb::vote_reply_to(&reply)))
    }

    async fn pre_vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteReply>, Status> {
        Self::member(&request)?;
        let request = request.into_inner();
        let reply = self.group(&request.group)?.pre_vote(vote_request(&request)?).await?;
        Ok(Response::new(pb::vote_reply_to(&reply)))
    }

    async fn transfer(
        &self,
        request: Request<pb::TransferRequest>,
    ) -> Result<Response<pb::TransferReply>, Status> {
        Self::member(&request)?;
        let request = request.into_inner();
        let group = self.group(&request.group)?;
        let from = pb::vote_from(request.from_leader.as_ref())?;
        let last = request.last_log_id.as_ref().map(pb::log_id_from);
        let reply = group.transfer(TransferLeaderRequest::new(from, request.to, last)).await?;
        Ok(Response::new(pb::transfer_reply_to(&reply)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotPart>>,
    ) -> Result<Response<pb::SnapshotReply>, Status> {
        use pb::snapshot_part::Part;
        Self::member(&request)?;
        let mut stream = request.into_inner();
        let Some(pb::SnapshotPart { part: Some(Part::Header(header)) }) = stream.message().await? else {
            return Err(Status::invalid_argument("a snapshot starts with its header"));
        };
        let parts = stream.map(|part| match part?.part {
            Some(Part::Data(data)) => Ok(data),
            _ => Err(Status::invalid_argument("a part of a snapshot has no data")),
        });
        let reply = self.group(&header.group)?.snapshot(header, parts.boxed()).await?;
        Ok(Response::new(reply))
    }
}

#[async_trait]
impl Hub for Service {
    async fn propose(
        &self,
        request: Request<pb::ProposeRequest>,
    ) -> Result<Response<pb::ProposeReply>, Status> {
        Self::member(&request)?;
        let request = request.into_inner();
        let group = self.group(&request.group)?;
        Ok(Response::new(group.propose(request).await?))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexReply>, Status> {
        Self::member(&request)?;
        let request = request.into_inner();
        let group = self.group(&request.group)?;
        Ok(Response::new(group.read_index(request).await?))
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinReply>, Status> {
        let admission = self.transport.admission.get();
        let admission =
            admission.ok_or_else(|| Status::unavailable("this node does not let others join yet"))?;
        Ok(Response::new(admission.join(request.into_inner()).await))
    }

    async fn wall_clock(
        &self,
        request: Request<pb::WallClockRequest>,
    ) -> Result<Response<pb::WallClockReply>, Status> {
        Self::member(&request)?;
        Ok(Response::new(pb::WallClockReply { wall_ms: self.transport.clock.wall().as_millis() }))
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusReply>, Status> {
        Ok(Response::new(pb::StatusReply {
            node: self.transport.node.0,
            cluster: self.transport.cluster.to_be_bytes().to_vec().into(),
            version: self.transport.version.to_string(),
            groups: self.transport.groups().iter().map(|group| group.status()).collect(),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::CommandRequest>,
    ) -> Result<Response<pb::CommandReply>, Status> {
        Self::member(&request)?;
        let request = request.into_inner();
        let group = self.group(&request.group)?;
        Ok(Response::new(group.hand_over(request).await?))
    }
}
