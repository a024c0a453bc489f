//! What people do with the broker: see whether it works, make the queues, look into them, empty them.

use std::sync::Arc;

use hub_core::id::{RequestId, ServiceName};
use lapin::Connection;
use lapin::options::QueuePurgeOptions;

use super::connection::{self, CALL, in_time};
use super::error::Error;
use super::name::Kind;
use super::options::Options;
use super::topology::{Declarer, Depth};
use super::trial;

/// The queues of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Whose.
    pub service: ServiceName,
    /// The name of the queue for work.
    pub work_name: String,
    /// What it holds; `None` if it is not there.
    pub work: Option<Depth>,
    /// The name of the dead-letter queue.
    pub dead_name: String,
    /// What it holds; `None` if it is not there.
    pub dead: Option<Depth>,
}

/// A connection for people's commands. Each call has a deadline of a few seconds.
pub struct Admin {
    options: Options,
    connection: Arc<Connection>,
    declarer: Declarer,
}

impl Admin {
    /// Connects.
    ///
    /// # Errors
    /// If the broker cannot be reached or does not let us in.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let connection = Arc::new(connection::open(&options, "message-hub command".to_owned()).await?);
        let declarer = Declarer::new(Arc::clone(&connection));
        Ok(Self { options, connection, declarer })
    }

    /// The broker's version, as it says; `None` where it cannot be asked without a handshake (TLS).
    pub async fn version(&self) -> Option<String> {
        tokio::time::timeout(CALL, super::greeting::version(&self.options)).await.ok()?
    }

    /// Whether the user may make, write to and read from queues of the prefix: all three are done, with a queue that goes
    /// with this connection. `mark` makes its name.
    ///
    /// # Errors
    /// [`Error::Rights`] if one is not permitted.
    pub async fn try_rights(&self, mark: RequestId) -> Result<(), Error> {
        trial::run(&self.options, &self.connection, mark).await
    }

    /// What the queues of a service hold, if those that are there are as this hub makes them.
    ///
    /// # Errors
    /// [`Error::Arguments`] if one is there with other arguments.
    pub async fn examine(&mut self, service: &ServiceName) -> Result<Queues, Error> {
        let found = self.look(service).await?;
        // To look at a queue does not compare; to make one that is there compares, and changes nothing.
        for (kind, _) in
            [(Kind::Work, found.work), (Kind::Dead, found.dead)].iter().filter(|(_, depth)| depth.is_some())
        {
            self.declarer.declare(&self.options, *kind, service).await?;
        }
        Ok(found)
    }

    /// Makes the queues of a service, as far as they are not there; what they hold.
    ///
    /// # Errors
    /// [`Error::Arguments`] if one is there with other arguments.
    pub async fn set_up(&mut self, service: &ServiceName) -> Result<Queues, Error> {
        let work = self.declarer.declare(&self.options, Kind::Work, service).await?;
        let dead = self.declarer.declare(&self.options, Kind::Dead, service).await?;
        Ok(self.queues(service, Some(work), Some(dead)))
    }

    /// What the queues of a service hold.
    ///
    /// # Errors
    /// If the broker fails or does not permit it.
    pub async fn look(&mut self, service: &ServiceName) -> Result<Queues, Error> {
        let work = self.declarer.look(&self.options, Kind::Work, service).await?;
        let dead = self.declarer.look(&self.options, Kind::Dead, service).await?;
        Ok(self.queues(service, work, dead))
    }

    fn queues(&self, service: &ServiceName, work: Option<Depth>, dead: Option<Depth>) -> Queues {
        let name = |kind| self.options.prefix.queue(kind, service);
        let (work_name, dead_name) = (name(Kind::Work), name(Kind::Dead));
        Queues { service: service.clone(), work_name, work, dead_name, dead }
    }

    /// Empties a queue; how many were in it. `None` if it is not there. Messages are not lost by it: the hub publishes those
    /// that are still to be delivered again within half a minute.
    ///
    /// # Errors
    /// If the broker fails or does not permit it.
    pub async fn purge(&mut self, kind: Kind, service: &ServiceName) -> Result<Option<u32>, Error> {
        let queue = self.options.prefix.queue(kind, service);
        let channel = connection::channel(&self.connection).await?;
        let call = channel.queue_purge(queue.as_str().into(), QueuePurgeOptions::default());
        match tokio::time::timeout(CALL, call).await {
            Ok(Ok(count)) => {
                drop(in_time("close a channel", channel.close(200, "done".into())).await);
                Ok(Some(count))
            }
            Ok(Err(source)) => match Error::with_queue("empty", &queue, source) {
                error if error.is_missing_queue() => Ok(None),
                error => Err(error),
            },
            Err(_) => Err(Error::Timeout("empty a queue")),
        }
    }

    /// Says goodbye.
    pub async fn close(self) {
        connection::close(&self.connection).await;
    }
}
