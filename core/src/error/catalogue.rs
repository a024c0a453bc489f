//! The catalogue of coded errors. Codes are never renumbered and never reused.

use std::{fmt, io};

/// A stable error code: `HUB-nnnn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u16);

impl Code {
    /// The code for an I/O error on the data folder.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::StorageFull | Kind::QuotaExceeded => code::DISK_FULL,
            Kind::ReadOnlyFilesystem | Kind::PermissionDenied => code::NOT_WRITABLE,
            _ => code::IO,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HUB-{:04}", self.0)
    }
}

/// What a code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The code.
    pub code: Code,
    /// A short title, the same for every occurrence.
    pub title: &'static str,
    /// The HTTP status it is answered with; 0 for errors of the command line and of the start.
    pub status: u16,
    /// Why it happens.
    pub cause: &'static str,
    /// What to do.
    pub cure: &'static str,
}

macro_rules! catalogue {
    ($($number:literal $name:ident $status:literal $title:literal $cause:literal $cure:literal)*) => {
        /// The codes by name.
        pub mod code {
            use super::Code;
            $(#[doc = $title] pub const $name: Code = Code($number);)*
        }

        /// Every code, in order.
        pub const CATALOGUE: &[Explanation] = &[
            $(Explanation { code: Code($number), title: $title, status: $status, cause: $cause, cure: $cure },)*
        ];
    };
}

catalogue! {
    1001 NOT_JSON 400 "Body is not JSON" "The request's body could not be parsed as JSON." "Send well-formed JSON; the detail names the line and column."
    1002 BAD_REQUEST 400 "Malformed request" "The path, the query or a header could not be parsed." "See the detail for the part that is wrong."
    1003 INVALID_FIELDS 422 "Some fields are not valid" "One or more fields are missing, unknown, of the wrong type or out of range." "Mend every field listed in `errors`; each has a JSON pointer."
    1004 TOO_LARGE 413 "Too large" "The body, the content or the metadata is larger than the limit." "Send less, or raise MAX_CONTENT_BYTES (at most 3 MiB)."
    1005 MEDIA_TYPE 415 "Unsupported media type" "The body's content type is not one that this call takes." "Send `Content-Type: application/json` (a batch also takes application/x-ndjson)."
    1006 NOT_BUILT 422 "Known, but not supported by this version" "The field or value belongs to a later version of message-hub." "Leave it out; it is refused so that it is never silently ignored."
    1007 NO_ROUTE 404 "No such path" "Nothing is served under this path." "See /docs for all calls."
    1008 METHOD 405 "Method not allowed" "The path exists, but not with this method." "See the `Allow` header, or /docs."
    1009 HEADER_TIMEOUT 408 "Request took too long to arrive" "The request's header or body did not arrive in time." "Send the whole request at once; check the network."
    1010 INTERNAL 500 "Internal error" "A fault in message-hub." "Report it with the trace id; the request may be repeated with the same Idempotency-Key."
    1101 NO_TOKEN 401 "Token missing" "The call needs a bearer token." "Send `Authorization: Bearer TOKEN`; `message-hub token` makes one."
    1102 BAD_TOKEN 401 "Token not valid" "The token is malformed, unsigned, or signed with another key or algorithm." "Make a new one with the cluster's SECRET_KEY: `message-hub token`."
    1103 EXPIRED_TOKEN 401 "Token expired" "The token's `exp` has passed, or its `nbf` has not come." "Get a new token; check the clocks."
    1104 SCOPE 403 "Scope missing" "The token lacks the scope that this call needs." "Get a token with the scope named in the detail."
    1105 FOREIGN_SERVICE 403 "Not your service" "A service may only send, register and read as itself." "Use the service's own token, or one with an admin scope."
    1201 NO_MESSAGE 404 "No such message" "No message with this id exists here, or its retention has passed." "Check the id."
    1202 UNKNOWN_TARGET 404 "Target is not registered" "No service of this name is registered." "Register it, mend the name, or send with `?allow_unregistered=true`."
    1203 MESSAGE_CONFLICT 409 "Message is in another state" "The message is no longer in a state that allows this." "See `message_status` in the problem; while `delivering`, try again when the attempt has ended."
    1204 KEY_REUSED 422 "Idempotency key used with another body" "The same key stood for another request before." "Use a new key for a new request; repeat a request with exactly the same body."
    1205 KEY_IN_PROGRESS 409 "The first request with this key is still running" "An earlier request with the same key has not ended." "Repeat the same request a little later."
    1206 BACKLOG_FULL 429 "Target's backlog is full" "Too many messages wait for this target." "Wait for `Retry-After`; see `/services/{name}/backlog` for why it does not drain."
    1207 TYPE_REFUSED 422 "Target does not take this message type" "The target registered the message types it takes, and this is not one." "Mend the type, or let the target register it."
    1208 EXPIRED 409 "Message has expired" "Its `expires_at` has passed: it cannot be replayed." "Send it anew, or discard it."
    1209 BATCH_REFUSED 422 "Batch refused" "The batch is atomic and at least one of its messages was refused." "Mend the messages that have a problem in `results`; nothing was stored."
    1210 RATE_LIMITED 429 "Messages come too fast" "The caller, or all callers together for one target, sent more messages than the cluster's rate limit lets pass." "Send again after `Retry-After`, and more slowly; the `RateLimit` headers tell what is left. The limits are set by limits.caller_per_second and limits.target_per_second."
    1301 NO_SERVICE 404 "No such service" "No service of this name is registered." "Check the name; `message-hub services list` shows all."
    1302 NO_INSTANCE 404 "No such instance" "The service has no instance of this id." "Register it again."
    1303 REVISION 412 "Changed meanwhile" "`If-Match` names another revision than the current one." "Read it again and repeat the change on what it is now."
    1304 URL_REFUSED 422 "Address not allowed" "The URL leads to an address that message-hub never calls, or that ALLOWED_TARGETS does not include." "Register a reachable address of the service; see ALLOWED_TARGETS."
    1305 REGISTRY_FULL 429 "Registry is full" "The limit on services or instances is reached." "Deregister what is no longer used."
    1306 BACKLOG_LEFT 409 "Messages still wait" "The service was to be removed once its backlog is gone, and it was not in time." "Ask again later, or remove it without `drain`: its messages wait for it to register again."
    1401 NO_LEADER 503 "No leader" "The cluster has no leader at the moment: an election is running, or a majority of nodes is down." "Try again after `Retry-After`; if it stays, start the missing nodes."
    1402 UNKNOWN_OUTCOME 504 "Outcome unknown" "The deadline passed after the write was sent: it may or may not have been done." "Ask again with the same Idempotency-Key, or look the message up by its id."
    1403 OVERLOADED 503 "Node is too busy" "Too many requests wait in this node." "Try again after `Retry-After`."
    1404 DRAINING 503 "Node is draining" "This node is about to stop." "Use another node."
    1405 DISK_LOW 503 "Disk space is low" "Free disk is below max(256 MiB, 5 %): no new messages are taken." "Free disk; the node recovers by itself."
    1406 STORE_UNAVAILABLE 503 "Message store is not reachable" "The store did not answer." "Try again after `Retry-After`; see the node's log."
    1407 NODE_BEHIND 503 "Node is behind" "This node did not catch up in time for a fresh read." "Try again, use another node, or read with `?consistency=stale`."
    1408 NO_NODE 404 "No such node" "No node of this id belongs to the cluster." "`message-hub cluster status` shows all."
    1409 UNSAFE 409 "Not safe now" "The change would cost the cluster its majority." "Bring the other nodes back first."
    1410 NOT_READY 503 "Node is not ready" "A check of this node fails: it should get no traffic." "See the detail, or `/readyz?verbose`; use another node meanwhile."
    1411 NO_GROUP 404 "No such group" "The group `messages` exists only where the nodes themselves keep the messages; here a database does." "Leave it alone: only `control` has a leader here."
    1501 BREAKER_EPOCH 412 "Breaker changed meanwhile" "The breaker is at another epoch than the one the change was made for: it opened, closed, or somebody else changed it." "Read it again and repeat the change on what it is now."
    2001 CONFIG 0 "Configuration is not valid" "One or more settings are unknown or wrong." "Mend each listed setting; `message-hub config default` shows all with their meaning."
    2002 NO_KEY 0 "No key for tokens" "`serve` needs a SECRET_KEY of at least 32 bytes, or the keys of an identity provider (JWKS_FILE, JWKS_URL), and has neither." "Make one: `openssl rand -base64 48`, and set SECRET_KEY or SECRET_KEY_FILE; or see whether the identity provider answers."
    2003 PORT_IN_USE 0 "Port in use" "Another process listens on the address." "Stop it, or choose another port."
    2004 OTHER_CLUSTER 0 "Data folder of another cluster" "The folder's identity and the cluster that was asked to be joined differ." "Use the right folder, or `serve --rejoin` to set it aside and join anew."
    2005 IDENTITY_TAKEN 0 "Two nodes with one identity" "Another process runs with this data folder, or a copy of it joined from another address." "Stop the other one; never copy a data folder to make a node: start with an empty one."
    2006 DAMAGED 0 "Data is damaged" "The log or the database ends before what was certainly synced, or a checksum does not fit." "`serve --rejoin` sets the folder aside and joins as a new node; a lone node: `cluster recover --accept-loss`."
    2007 DISK_FULL 0 "Disk is full" "The data folder cannot be written." "Free disk and start again; nothing accepted is lost."
    2008 CLUSTER_KEY 0 "Cluster key differs" "A peer proved another CLUSTER_KEY." "Give all nodes the same CLUSTER_KEY (default: derived from SECRET_KEY)."
    2009 NOT_REACHABLE 0 "No peer reachable" "None of the addresses to join answered." "Start the first node, check the addresses and the network."
    2010 PLAIN_PEERS 0 "Peers outside loopback are not encrypted" "Node-to-node traffic is plain text, and an address is not loopback." "Use a private network and say so with `--plain-peers`."
    2011 CLOCK 0 "Clock is off" "This machine's clock is more than 5 s from the cluster's." "Mend the clock (NTP). Until then this node's clock is not counted."
    2012 NEWER_DATA 0 "Data of a newer version" "The log or a snapshot holds a kind that this version does not know." "Run the version named in the message, or a newer one."
    2013 IO 0 "Disk error" "Reading or writing the data folder failed; after a failed sync nothing more is trusted." "Check the disk; then start again, or `serve --rejoin`."
    2014 ABORTED 0 "Ended before it was drained" "A second signal, or the drain limit, ended the node while deliveries or requests were running." "Nothing accepted is lost; what ran is tried again. Give it more time: node.drain_limit."
    2015 NOT_WRITABLE 0 "Data folder not writable" "This user may not write the data folder, or the file system is mounted read-only." "Give the folder to the user that runs the node, or name another one: --data."
    2016 OTHERS_ANSWER 0 "Other voters answer" "`cluster recover` makes a cluster of one, and another voter of the old cluster is running." "If a majority runs, start this node as it is: nothing is lost. Else stop the others first, and recover only one node."
    2017 DATABASE_LOGIN 0 "Database refuses the login" "The user, the password or the name of the database in DATABASE_URL is wrong, or the server's pg_hba.conf does not let this machine in." "Mend DATABASE_URL; `psql` with the same URL must work."
    2018 DATABASE_OLD 0 "Database server is too old" "The PostgreSQL server is older than version 13." "Upgrade it; 15 or newer is recommended."
    2019 DATABASE_NEWER 0 "Database of a newer version" "A newer message-hub has migrated the database." "Run the version named in the message, or a newer one."
    2020 DATABASE_FOREIGN 0 "Database holds other tables" "The tables in the database are not those that this version made." "Give the hub a database of its own, or mend what was changed by hand."
    2021 DATABASE_RIGHTS 0 "A right is missing in the database" "The user in DATABASE_URL may not do what the hub needs." "Grant it: CREATE on the schema, and the hub's user owns its tables; or run `message-hub migrate` as the owner first."
    2022 OTHER_STORE 0 "Another kind of message store" "The data folder, or the cluster, keeps its messages elsewhere than this node is configured to." "Give every node of a cluster the same DATABASE_URL, or none. `message-hub store copy --from embedded --to postgres` moves messages from a data folder into a database; the nodes go on there."
    2023 DATABASE_SILENT 0 "Database does not answer" "Nobody answers at the address in DATABASE_URL, or the server cannot work at the moment." "Start the server; check the address and the network. A running node waits for it."
    2024 BROKER_LOGIN 0 "Broker refuses the login" "The user, the password or the virtual host in RABBITMQ_URL is wrong, or the user has no right to the virtual host." "Mend RABBITMQ_URL; `rabbitmqctl list_permissions` shows who may do what."
    2025 BROKER_RIGHTS 0 "A right is missing at the broker" "The user in RABBITMQ_URL may not make, write to or read from the hub's queues." "Grant configure and read on the queues of QUEUE_PREFIX, and write on `amq.default`: `rabbitmqctl set_permissions -p VHOST USER '^message-hub\\..*' '^amq\\.default$' '^message-hub\\..*'`."
    2026 BROKER_QUEUE 0 "Queue has other arguments" "A queue of this name exists that is not the hub's, or that an earlier version made in another way." "Delete the queue: what was in it is published again. Or choose another QUEUE_PREFIX."
    2027 BROKER_SILENT 0 "Broker does not answer" "Nobody answers at the address in RABBITMQ_URL, or the broker failed." "Start the broker; check the address and the network. A running node waits for it and takes messages meanwhile."
    2028 COPY_SOURCE 0 "Messages cannot be copied from this folder" "It may not hold everything that was accepted, or its messages were copied before." "Do what the detail says. In a cluster, `message-hub cluster remove` the other nodes while all run: the last one then holds everything."
    2029 COPY_TARGET 0 "Database cannot take in the copy" "It holds messages that this copy did not bring, or hubs work with it." "Name an empty database, and stop hubs that use it. `store copy --start-over` throws away what an unfinished copy left there."
    2030 COPY_UNFINISHED 0 "Copy into the database is not finished" "`message-hub store copy` has begun to move messages into the database and has not come to its end." "Run the same `store copy` again: it goes on where it stopped."
    2031 COPY_INTERRUPTED 0 "Copy was interrupted" "The database, or the connection to it, failed in the middle." "Mend what the detail says and run the same `store copy` again: it goes on where it stopped. The data folder is unchanged, or the copy is whole."
    3001 USAGE 0 "Wrong use" "The command line is not valid." "See `message-hub help`."
    3002 UNREACHABLE 0 "No node reachable" "None of the URLs answered." "Check --url or MESSAGE_HUB_URL."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_somebody_else_is_no_full_disk() {
        let coded = |kind: io::ErrorKind| Code::of_io(&kind.into());
        assert_eq!(coded(io::ErrorKind::PermissionDenied), code::NOT_WRITABLE);
        assert_eq!(coded(io::ErrorKind::ReadOnlyFilesystem), code::NOT_WRITABLE);
        assert_eq!(coded(io::ErrorKind::StorageFull), code::DISK_FULL);
        assert_eq!(coded(io::ErrorKind::QuotaExceeded), code::DISK_FULL);
        assert_eq!(coded(io::ErrorKind::InvalidData), code::IO);
    }

    #[test]
    fn codes_rise_and_are_unique() {
        assert!(CATALOGUE.windows(2).all(|pair| pair[0].code < pair[1].code));
    }
}
