//! Accepting messages: large batches become few commands, which the group writes together with those of others.

use std::time::Instant;

use futures::future::join_all;
use hub_core::message::NewMessage;
use hub_core::port::{AcceptMode, AcceptRefusal, Accepted, StoreError};

use super::Inner;
use super::propose::unexpected;
use crate::sqlite::command::{Command, Insert, Item, Reply};

/// A command takes no more messages than this many bytes of them, if it can be cut.
const COMMAND_BYTES: usize = 512 << 10;

type Results = Vec<Result<Accepted, AcceptRefusal>>;

/// Messages in order, cut into commands.
fn cut(messages: Vec<NewMessage>, mode: AcceptMode, max_backlog: u64) -> Vec<(usize, Command)> {
    let atomic = mode == AcceptMode::Atomic;
    let mut commands = Vec::new();
    let mut items: Vec<Item> = Vec::new();
    let mut bytes = 0;
    let close = |items: Vec<Item>| (items.len(), Command::Insert(Insert { items, atomic, max_backlog }));
    for message in messages {
        let size = message.size_hint();
        if !atomic && !items.is_empty() && bytes + size > COMMAND_BYTES {
            commands.push(close(std::mem::take(&mut items)));
            bytes = 0;
        }
        bytes += size;
        items.push(Item { message, claim: None });
    }
    if !items.is_empty() {
        commands.push(close(items));
    }
    commands
}

impl Inner {
    pub(super) async fn accept(
        &self,
        messages: Vec<NewMessage>,
        mode: AcceptMode,
        deadline: Instant,
    ) -> Result<Results, StoreError> {
        if self.disk.is_low(self.ports.clock.instant())? {
            return Err(StoreError::DiskLow);
        }
        let commands = cut(messages, mode, self.options.max_backlog);
        let answers =
            join_all(commands.into_iter().map(|(count, command)| self.insert(count, command, deadline)))
                .await;
        let some_done = answers.iter().any(|answer| matches!(answer, Ok(_) | Err(StoreError::Unknown(_))));
        let mut results = Vec::new();
        for answer in answers {
            match answer {
                Ok(part) => results.extend(part),
                // A part of the batch was written: "certainly not done" would not be true of the whole.
                Err(error) if some_done => return Err(StoreError::Unknown(error.to_string())),
                Err(error) => return Err(error),
            }
        }
        Ok(results)
    }

    async fn insert(&self, count: usize, command: Command, deadline: Instant) -> Result<Results, StoreError> {
        let reply = self.propose(command, deadline).await?;
        let Reply::Inserted(mut results) = reply else { return Err(unexpected(&reply)) };
        if results.len() != count {
            return Err(StoreError::Unknown(format!("{} answers for {count} messages", results.len())));
        }
        for result in &mut results {
            if let Err(AcceptRefusal::BacklogFull { retry_after, .. }) = result {
                *retry_after = self.options.backlog_retry_after;
            }
        }
        Ok(results)
    }
}
