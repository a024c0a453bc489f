//! The delivery queue of a node that an operator may drain: while it drains, its dispatcher is told to stop. (Where a group
//! keeps the messages, a draining node hands the leadership over, and that stops it.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use hub_core::control::State;
use hub_core::delivery::Settlement;
use hub_core::id::{NodeId, ServiceName};
use hub_core::port::{Claimed, DeliveryQueue, QueueSignal, StoreError, Want};
use hub_core::time::Timestamp;
use tokio::sync::watch;

/// A queue that rests while the node drains.
pub(super) struct DrainedQueue {
    inner: Arc<dyn DeliveryQueue>,
    node: NodeId,
    state: watch::Receiver<State>,
    /// The queue itself has started.
    started: AtomicBool,
    /// The dispatcher was told to rest.
    resting: AtomicBool,
}

impl DrainedQueue {
    /// Over `inner`, for `node` as the control state has it.
    #[must_use]
    pub(super) const fn new(
        inner: Arc<dyn DeliveryQueue>,
        node: NodeId,
        state: watch::Receiver<State>,
    ) -> Self {
        Self { inner, node, state, started: AtomicBool::new(false), resting: AtomicBool::new(false) }
    }

    /// What a drain, or its end, is to the dispatcher; `None` if nothing changed for it.
    fn turn(&self, drains: bool) -> Option<QueueSignal> {
        let turned = self.resting.swap(drains, Ordering::AcqRel) != drains;
        let told = turned && self.started.load(Ordering::Acquire);
        told.then_some(if drains { QueueSignal::Stopped } else { QueueSignal::Started })
    }

    /// A signal as the dispatcher gets it. What is dropped is asked for again at the next start.
    fn pass(&self, signal: QueueSignal) -> Option<QueueSignal> {
        match &signal {
            QueueSignal::Started => self.started.store(true, Ordering::Release),
            QueueSignal::Stopped => self.started.store(false, Ordering::Release),
            // Claims that came with a message are the dispatcher's to give back.
            QueueSignal::Claimed(_) => return Some(signal),
            QueueSignal::Due(_) | QueueSignal::Later(_) => {}
        }
        (!self.resting.load(Ordering::Acquire)).then_some(signal)
    }
}

#[async_trait]
impl DeliveryQueue for DrainedQueue {
    async fn next(&self) -> QueueSignal {
        let mut state = self.state.clone();
        loop {
            let drains =
                state.borrow_and_update().members.get(&self.node).is_some_and(|member| member.draining);
            if let Some(signal) = self.turn(drains) {
                return signal;
            }
            let signal = tokio::select! {
                signal = self.inner.next() => self.pass(signal),
                Ok(()) = state.changed() => None,
            };
            if let Some(signal) = signal {
                return signal;
            }
        }
    }

    async fn claim(&self, wants: Vec<Want>, deadline: Instant) -> Result<Vec<Claimed>, StoreError> {
        self.inner.claim(wants, deadline).await
    }

    async fn settle(&self, settlements: Vec<Settlement>, deadline: Instant) -> Result<Vec<bool>, StoreError> {
        self.inner.settle(settlements, deadline).await
    }

    async fn due(&self) -> Result<(Vec<ServiceName>, Option<Timestamp>), StoreError> {
        self.inner.due().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hub_core::control::Member;
    use tokio::sync::{Mutex, mpsc};

    use super::*;

    /// A queue whose signals a test sends.
    struct Told(Mutex<mpsc::UnboundedReceiver<QueueSignal>>);

    #[async_trait]
    impl DeliveryQueue for Told {
        async fn next(&self) -> QueueSignal {
            match self.0.lock().await.recv().await {
                Some(signal) => signal,
                None => std::future::pending().await,
            }
        }
        async fn claim(&self, _: Vec<Want>, _: Instant) -> Result<Vec<Claimed>, StoreError> {
            Ok(Vec::new())
        }
        async fn settle(&self, _: Vec<Settlement>, _: Instant) -> Result<Vec<bool>, StoreError> {
            Ok(Vec::new())
        }
        async fn due(&self) -> Result<(Vec<ServiceName>, Option<Timestamp>), StoreError> {
            Ok((Vec::new(), None))
        }
    }

    async fn next(queue: &DrainedQueue) -> QueueSignal {
        tokio::time::timeout(Duration::from_secs(60), queue.next()).await.expect("a signal in time")
    }

    #[tokio::test]
    async fn a_drain_stops_the_dispatcher_and_its_end_starts_it() {
        let member = |draining| Member {
            id: NodeId(1),
            incarnation: 1,
            raft_addr: "127.0.0.1:1".into(),
            rest_url: "http://127.0.0.1:2".into(),
            version: "1".into(),
            draining,
            joined_at: Timestamp::EPOCH,
        };
        let (state, seen) = watch::channel(State::default());
        let drain =
            |draining| state.send_modify(|state| drop(state.members.insert(NodeId(1), member(draining))));
        let (tell, told) = mpsc::unbounded_channel();
        let queue = DrainedQueue::new(Arc::new(Told(Mutex::new(told))), NodeId(1), seen);
        let target: ServiceName = "combat".parse().unwrap();

        drain(true);
        tell.send(QueueSignal::Started).unwrap();
        tell.send(QueueSignal::Claimed(Vec::new())).unwrap();
        assert_eq!(next(&queue).await, QueueSignal::Claimed(Vec::new()), "it does not start while it drains");
        drain(false);
        assert_eq!(next(&queue).await, QueueSignal::Started);
        tell.send(QueueSignal::Due(target.clone())).unwrap();
        assert_eq!(next(&queue).await, QueueSignal::Due(target.clone()));
        drain(true);
        assert_eq!(next(&queue).await, QueueSignal::Stopped);
        tell.send(QueueSignal::Due(target)).unwrap();
        tell.send(QueueSignal::Stopped).unwrap();
        tell.send(QueueSignal::Claimed(Vec::new())).unwrap();
        assert_eq!(next(&queue).await, QueueSignal::Claimed(Vec::new()));
        drain(false);
        tell.send(QueueSignal::Started).unwrap();
        assert_eq!(next(&queue).await, QueueSignal::Started, "the queue itself decides when it starts again");
    }
}
