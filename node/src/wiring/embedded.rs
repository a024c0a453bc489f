//! The embedded message store: SQLite on each node under the group `messages`.

use std::sync::Arc;

use hub_core::port::{Group, Stamper};
use hub_raft::{GroupOptions, Transport};
use hub_storage::sqlite::{self, DiskLimit, Feed, StoreOptions, StorePorts};

use super::base::Base;
use super::groups::open_group;
use super::message_plane::MessagePlane;
use crate::coded::CodedError;
use crate::control_port::disk_check;
use crate::identity::DataFolder;
use crate::lifecycle::{OnCancel, OnError, Stage, TaskKind};
use crate::worker::delivery::Handle;

/// Entries between two checkpoints of the messages, and entries that stay in the log for followers that were away.
const MESSAGE_ENTRIES: u64 = 2_000;
/// Connections that read messages at a time.
const READERS: u32 = 4;

const KIND: TaskKind = TaskKind {
    name: "message_store",
    stage: Stage::Base,
    on_error: OnError::StopNode,
    on_cancel: OnCancel::Finish,
};

/// Opens the database and its group, and starts what they need.
///
/// # Errors
/// The data is damaged, or the disk fails.
pub async fn open(
    base: &Base,
    folder: &DataFolder,
    transport: &Transport,
    delivery: &Handle,
) -> Result<MessagePlane, CodedError> {
    let feed = Feed::new(transport.node(), Arc::new(delivery.clone()));
    let options = sqlite::Options { folder: folder.path().join("messages").join("db"), readers: READERS };
    let machine = options.open(Arc::clone(&feed)).await?;
    let reader = machine.reader();
    let mut options = GroupOptions::new("messages", folder.path().join("messages"));
    options.checkpoint_every = MESSAGE_ENTRIES;
    options.keep_entries = MESSAGE_ENTRIES;
    let stamper = Arc::clone(&feed) as Arc<dyn Stamper<sqlite::Command>>;
    let group = open_group(base, Group::Messages, options, machine, transport, Some(stamper)).await?;
    let ports = StorePorts {
        replicator: Arc::new(group.clone()),
        reader,
        feed,
        clock: base.time(),
        ids: Arc::clone(&base.ids),
    };
    let (service, store) = store_options(base, folder).build(ports);
    base.tasks.once(KIND, |tokens| async move {
        service.run(tokens.soft).await;
        Ok(())
    });
    let store = Arc::new(store);
    let disk = Arc::clone(&store);
    let checks = Arc::new(move || vec![disk_check(disk.disk_is_low())]);
    Ok(MessagePlane { queue: Arc::clone(&store) as _, store, group: Some(group), checks })
}

fn store_options(base: &Base, folder: &DataFolder) -> StoreOptions {
    let settings = &base.config.messages;
    let mut options = StoreOptions::new(folder.path().to_owned());
    options.max_backlog = settings.backlog_limit;
    options.disk_limit = DiskLimit { bytes: settings.min_free_disk.0, ..DiskLimit::default() };
    options
}
