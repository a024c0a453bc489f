//! Clients that fire one request after another (closed loop), or at a fixed rate.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::Error;
use super::histogram::{Latencies, Quantiles};
use crate::client::source;

/// One client's way to fire.
pub trait Shot {
    /// Fires once; `Ok` says how many units of work the answer stands for, `Err` why there was none.
    fn fire(&mut self) -> impl Future<Output = Result<u64, String>>;
}

/// How to fire.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// For how long, the warm-up not counted.
    pub duration: Duration,
    /// All clients together, a second; as fast as answers come if `None`.
    pub rate: Option<f64>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Answers with 2xx.
    pub answers: u64,
    /// Units of work in them.
    pub units: u64,
    /// Others, by reason.
    pub failures: BTreeMap<String, u64>,
    /// From the request (or from when it was due, if the client was late) to its answer.
    pub latency: Quantiles,
    /// How long it was fired.
    pub elapsed: Duration,
}

/// What all clients share.
struct State {
    next: u64,
    latencies: Latencies,
    outcome: Outcome,
}

impl State {
    fn note(&mut self, result: Result<u64, String>, took: Duration) {
        match result {
            Ok(units) => {
                self.outcome.answers += 1;
                self.outcome.units += units;
                self.latencies.record(took);
            }
            Err(reason) => *self.outcome.failures.entry(reason).or_default() += 1,
        }
    }
}

impl Load {
    /// Fires with every client at once until the time is over, then waits for the last answers.
    ///
    /// # Errors
    /// When latencies cannot be counted.
    pub async fn run<S: Shot>(&self, shots: &mut [S]) -> Result<Outcome, Error> {
        let start = source::instant();
        let end = start + self.duration;
        let state = State { next: 0, latencies: Latencies::new()?, outcome: Outcome::default() };
        let state = std::cell::RefCell::new(state);
        let clients: FuturesUnordered<_> =
            shots.iter_mut().map(|shot| self.client(shot, &state, start, end)).collect();
        clients.collect::<()>().await;
        let State { latencies, mut outcome, .. } = state.into_inner();
        outcome.latency = latencies.quantiles();
        outcome.elapsed = start.elapsed();
        Ok(outcome)
    }

    async fn client<S: Shot>(
        &self,
        shot: &mut S,
        state: &std::cell::RefCell<State>,
        start: Instant,
        end: Instant,
    ) {
        loop {
            let turn = {
                let mut state = state.borrow_mut();
                state.next += 1;
                state.next - 1
            };
            let Some(began) = self.wait(turn, start, end).await else { return };
            let result = shot.fire().await;
            let took = source::instant().saturating_duration_since(began);
            let failed = result.is_err();
            state.borrow_mut().note(result, took);
            if failed {
                // A node that refuses everything shall not be stormed.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Waits for a turn; the moment from which its latency counts, or `None` when the time is over.
    async fn wait(&self, turn: u64, start: Instant, end: Instant) -> Option<Instant> {
        let now = source::instant();
        let Some(rate) = self.rate else { return (now < end).then_some(now) };
        let due = start + Duration::from_secs_f64(turn as f64 / rate);
        if due >= end {
            return None;
        }
        if due <= now {
            // Late: what waited in the client is part of the latency.
            return Some(due);
        }
        tokio::time::sleep_until(due.into()).await;
        Some(source::instant())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Answer(Result<u64, String>);

    impl Shot for Answer {
        async fn fire(&mut self) -> Result<u64, String> {
            tokio::task::yield_now().await;
            self.0.clone()
        }
    }

    #[tokio::test]
    async fn a_fixed_rate_is_kept() {
        let load = Load { duration: Duration::from_millis(500), rate: Some(100.0) };
        let mut shots = [Answer(Ok(2)), Answer(Ok(2))];
        let outcome = load.run(&mut shots).await.unwrap();
        assert_eq!((outcome.answers, outcome.units), (50, 100));
        assert_eq!(outcome.latency.count, 50);
    }

    #[tokio::test]
    async fn failures_are_counted_by_reason() {
        let load = Load { duration: Duration::from_millis(50), rate: None };
        let mut shots = [Answer(Ok(1)), Answer(Err("503".to_owned()))];
        let outcome = load.run(&mut shots).await.unwrap();
        assert!(outcome.answers > 0 && outcome.failures["503"] > 0);
        assert_eq!(outcome.latency.count, outcome.answers);
    }
}
