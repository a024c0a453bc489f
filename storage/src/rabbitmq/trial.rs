//! Tries what a hub does with its queues on a queue of this connection alone, which goes with it.

use hub_core::id::RequestId;
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection};

use super::connection::{CALL, channel, in_time};
use super::error::Error;
use super::options::Options;

/// Makes a queue, writes to it and reads from it. No service has a name of this form, and no two trials share one.
///
/// # Errors
/// [`Error::Rights`] names what is not permitted.
pub(super) async fn run(options: &Options, connection: &Connection, mark: RequestId) -> Result<(), Error> {
    let channel = channel(connection).await?;
    in_time("turn confirmations on", channel.confirm_select(ConfirmSelectOptions::default())).await?;
    let queue = format!("{}.=trial.{}", options.prefix, mark.0);
    step("make", &queue, make(&channel, &queue)).await?;
    step("write to", &queue, write(&channel, &queue)).await?;
    let take = BasicGetOptions { no_ack: true };
    step("read from", &queue, channel.basic_get(queue.as_str().into(), take)).await?;
    drop(in_time("close a channel", channel.close(200, "done".into())).await);
    Ok(())
}

async fn make(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    // Whatever the virtual host makes by default: only this kind can belong to one connection.
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
    channel.queue_declare(queue.into(), own, arguments).await.map(drop)
}

async fn write(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let sent = channel.basic_publish("".into(), queue.into(), options, b"{}", BasicProperties::default());
    sent.await?.await.map(drop)
}

async fn step<T>(
    during: &'static str,
    queue: &str,
    work: impl Future<Output = lapin::Result<T>>,
) -> Result<(), Error> {
    match tokio::time::timeout(CALL, work).await {
        Ok(done) => done.map(drop).map_err(|source| Error::with_queue(during, queue, source)),
        Err(_) => Err(Error::Timeout(during)),
    }
}
