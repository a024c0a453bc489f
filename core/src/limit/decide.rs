//! The decision over all demands of a request.

use std::time::Duration;

use super::ask::{Ask, Demand, Fate, Ruling, Verdict};
use super::meter::Meter;

/// Decides at the moment `now` (nanoseconds of the clock that the meters run on). `meters` are in the order of
/// [`Ask::demands`], and are changed where permits are taken; a missing one counts as full.
pub fn decide(ask: &Ask, meters: &mut [Meter], now: u64) -> Verdict {
    let callers = usize::from(ask.caller.is_some());
    let meter = |meters: &[Meter], at: usize| meters.get(at).copied().unwrap_or_default();
    let has: Vec<bool> = ask
        .targets
        .iter()
        .enumerate()
        .map(|(at, demand)| meter(meters, callers + at).has(demand.permits, demand.rate, now))
        .collect();
    let refused: u32 =
        ask.targets.iter().zip(&has).filter(|(_, has)| !**has).map(|(demand, _)| demand.permits).sum();
    let price = ask
        .caller
        .as_ref()
        .map_or(0, |demand| if ask.whole { demand.permits } else { demand.permits.saturating_sub(refused) });
    let caller_has =
        ask.caller.as_ref().is_none_or(|demand| price == 0 || meter(meters, 0).has(price, demand.rate, now));
    let passes = caller_has && !(ask.whole && has.contains(&false));
    let fate = |has: bool, permits: u32| match (has, passes && permits > 0) {
        (false, _) => Fate::Refused,
        (true, true) => Fate::Taken,
        (true, false) => Fate::Spared,
    };
    let mut rule = |at: usize, demand: &Demand, permits: u32, has: bool| {
        let fate = fate(has, permits);
        if fate == Fate::Taken
            && let Some(meter) = meters.get_mut(at)
        {
            *meter = meter.take(permits, demand.rate, now);
        }
        let meter = meter(meters, at);
        let wait = if fate == Fate::Refused { meter.wait(permits, demand.rate, now) } else { 0 };
        Ruling {
            fate,
            left: meter.left(demand.rate, now),
            wait: Duration::from_nanos(wait),
            full_in: Duration::from_nanos(meter.debt(demand.rate, now)),
        }
    };
    let caller = ask.caller.as_ref().map(|demand| rule(0, demand, price, caller_has));
    let targets = ask.targets.iter().zip(&has).enumerate();
    let targets =
        targets.map(|(at, (demand, has))| rule(callers + at, demand, demand.permits, *has)).collect();
    Verdict { caller, targets }
}
