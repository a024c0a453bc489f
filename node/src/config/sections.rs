//! Every setting, with its default and what it does.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hub_storage::rabbitmq::Prefix;
use ipnet::IpNet;

use super::schema::settings;
use super::value::{ByteSize, HostPort, Secret};
use super::words::{LogFormat, RaftProfile};

settings! {
    /// This process.
    node: Node {
        /// The data folder: identity, logs, snapshots, database. One process a folder.
        data: PathBuf = "message-hub-data",
        /// How long a stopping node still takes requests after `/readyz` turned to 503, so that load balancers notice.
        drain_delay: Duration = "1s",
        /// The most a stopping node spends on running deliveries, hand-over and open requests before it stops hard.
        drain_limit: Duration = "30s",
    }

    /// The REST interface.
    rest: Rest {
        /// Address and port to listen on.
        listen: SocketAddr = "127.0.0.1:8200",
        /// Base URL under which clients and other nodes reach this node; made from `listen` when empty.
        advertise: Option<String> = "",
        /// Most open connections; further ones wait to be accepted.
        max_connections: usize = "8192",
        /// Most requests in work at a time; further ones get 503 at once.
        max_in_flight: usize = "4096",
        /// Until a request's header must have arrived.
        header_timeout: Duration = "10s",
        /// Until a request's body must have arrived.
        body_timeout: Duration = "30s",
        /// The deadline of a request without one of its own.
        request_timeout: Duration = "10s",
        /// `/metrics` needs no token.
        open_metrics: bool = "true",
        /// `/docs` and `/openapi.json` need no token.
        open_docs: bool = "true",
    }

    /// Consensus and traffic between nodes.
    raft: Raft {
        /// Address and port to listen on for other nodes.
        listen: SocketAddr = "127.0.0.1:8300",
        /// `host:port` under which other nodes reach this node; made from `listen` when empty.
        advertise: Option<HostPort> = "",
        /// Heartbeat and election times: `default` (50 ms, 200-400 ms), `fast` (50 ms, 150-250 ms) or `wan` (500 ms, 2-4 s).
        profile: RaftProfile = "default",
        /// Nodes of the cluster to join, `host:port` each; any of them will do. With none, the node is a cluster of one.
        join: Vec<HostPort> = "",
        /// How long a node that starts tries to reach the cluster it joins or forms.
        join_timeout: Duration = "60s",
        /// Form a new cluster of so many nodes out of `peers`: the first of them in sorted order founds it. 0 for no.
        expect: u16 = "0",
        /// The nodes that form the cluster, this one included: `host:port` each, or one name that resolves to all.
        peers: Vec<HostPort> = "",
        /// The second node becomes a voter at once: the cluster of two then stops when either stops.
        two_nodes: bool = "false",
        /// A voter that is silent for this long is removed for good if the cluster can bear more failures without it:
        /// in practice, once another node votes in its place. 0s for never.
        remove_dead_after: Duration = "10m",
        /// Traffic between nodes is not encrypted; said aloud, it may leave the loopback interface.
        plain_peers: bool = "false",
        /// The key that nodes prove to each other; derived from `auth.secret_key` when empty. At least 32 bytes.
        cluster_key: Option<Secret> = "" as "CLUSTER_KEY",
        /// Most bytes of writes that wait in one node for their commit; further ones get 503.
        max_waiting: ByteSize = "128MiB",
    }

    /// Who may call.
    auth: Auth {
        /// Calls need a token. Off, everybody may do everything.
        enabled: bool = "true",
        /// The key that signs and checks tokens (HS256), at least 32 bytes: `openssl rand -base64 48`.
        secret_key: Option<Secret> = "" as "SECRET_KEY",
        /// A JSON Web Key Set with public keys (RS256, ES256, EdDSA) that also sign tokens; read again when it changes.
        jwks_file: Option<PathBuf> = "" as "JWKS_FILE",
        /// The same, fetched from an identity provider: every five minutes, and soon after a token names a key not known yet.
        jwks_url: Option<String> = "" as "JWKS_URL",
        /// Tokens must have this `iss`, when set.
        issuer: Option<String> = "",
        /// Tokens must have this `aud`, when set.
        audience: Option<String> = "",
    }

    /// What messages may be, and how long they are kept.
    messages: Messages {
        /// Largest content of a message, at most 3 MiB.
        max_content_bytes: ByteSize = "1MiB" as "MAX_CONTENT_BYTES",
        /// An open message older than this becomes a dead letter, unless its service says otherwise.
        max_age: Duration = "7d",
        /// Final messages are kept this long.
        retention: Duration = "7d",
        /// Most open messages of one target; further ones get 429.
        backlog_limit: u64 = "100000",
        /// Below this much free disk, or below 5 % of it if that is more, no new messages are taken (where the nodes keep them).
        min_free_disk: ByteSize = "256MiB",
    }

    /// PostgreSQL as the message store: every node takes and delivers messages, and no leader is needed for it.
    postgres: Postgres {
        /// `postgres://user:password@host:5432/database`, version 13 or newer; the hub makes its tables by itself. Empty: the
        /// nodes keep the messages themselves.
        url: Option<Secret> = "" as "DATABASE_URL",
        /// Most connections of one node to it.
        connections: u32 = "20",
    }

    /// RabbitMQ as the delivery queue in front of PostgreSQL: the messages stay in the database, the broker carries their ids.
    rabbitmq: RabbitMq {
        /// `amqp://user:password@host:5672/vhost` (`amqps://` for TLS). Empty: the database is the queue, too.
        url: Option<Secret> = "" as "RABBITMQ_URL",
        /// The first part of the names of the queues: 1 to 64 of a-z, A-Z, 0-9, `_` and `-`.
        queue_prefix: Prefix = "message-hub" as "QUEUE_PREFIX",
    }

    /// How fast messages are taken from senders, over the whole cluster. With Redis the nodes count together; without it, or
    /// while it does not answer, each lets its share pass: the limit divided by the live nodes. Every message that is
    /// well-formed and allowed counts, one of a batch too, and a repeat under an Idempotency-Key; what a limit refuses (429)
    /// does not.
    limits: Limits {
        /// Messages a second of each caller (a token's `sub`), whatever it sends to whom; 0 for no limit.
        caller_per_second: u32 = "0",
        /// How many of them may come at once after a pause; 0 for one second's worth.
        caller_burst: u32 = "0",
        /// Messages a second for each target, from all callers together; 0 for no limit.
        target_per_second: u32 = "0",
        /// How many of them may come at once after a pause; 0 for one second's worth.
        target_burst: u32 = "0",
    }

    /// Redis, which the nodes share besides their stores: it counts rates, and keeps messages that have come to their end
    /// for a minute after they were asked for. Emptied or gone, no outcome changes.
    redis: Redis {
        /// `redis://` or, with TLS, `rediss://`: `redis://USER:PASSWORD@HOST:6379/DATABASE`. Empty for none.
        url: Option<Secret> = "" as "REDIS_URL",
        /// What all keys begin with; the cluster's id follows, so that clusters may share a Redis.
        prefix: String = "message-hub",
        /// How long a request waits for it. Then the node decides by itself for a while.
        timeout: Duration = "100ms",
        /// Certificate authorities (PEM) that a `rediss` server may be signed by, instead of the public ones.
        ca_file: Option<PathBuf> = "",
    }

    /// How messages are delivered.
    delivery: Delivery {
        /// Retries after the first attempt, 0 to 100, unless the message or its service says otherwise.
        max_retries: u8 = "12" as "MAX_RETRIES",
        /// Deliveries at a time on one node; no target gets more than a quarter of them.
        slots: u32 = "1024",
        /// Until a connection to a target must be up.
        connect_timeout: Duration = "5s",
        /// Health checks at a time on one node.
        health_checks: usize = "64",
        /// Certificate authorities (PEM) that `https` targets (and `JWKS_URL`) may be signed by, besides the public ones.
        ca_file: Option<PathBuf> = "",
    }

    /// Which addresses deliveries and health checks may call.
    targets: Targets {
        /// Networks that may be called, such as 10.0.0.0/8. Empty: everything but loopback, which must be named as such
        /// (127.0.0.0/8). Link-local and cloud metadata addresses and the hub's own ports are always refused.
        allowed: Vec<IpNet> = "" as "ALLOWED_TARGETS",
    }

    /// Log lines.
    log: Log {
        /// `error`, `warn`, `info`, `debug` or `trace`, also by module: `info,hub_raft=debug`.
        level: String = "info" as "LOG_LEVEL",
        /// `text`, `json`, or `auto`: text on a terminal, JSON elsewhere.
        format: LogFormat = "auto",
        /// One line for every request, except for probes and metrics. Off, only requests that are refused or fail have their
        /// line (the others at `debug`): a busy node answers ten thousand a second.
        requests: bool = "false" as "LOG_REQUESTS",
    }
}
