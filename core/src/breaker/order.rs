//! What operators may do to a breaker.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Closed, Config, Context, Mode, Phase, Record, Refused, Who, Why};
use crate::error::FieldError;
use crate::time::Timestamp;

/// How long a mode lasts if nothing is said: no override is forgotten.
const DEFAULT_MODE: Duration = Duration::from_secs(3_600);
/// The longest that a mode can last.
pub const MAX_MODE: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Longest reason and actor, in bytes.
const MAX_TEXT: usize = 200;

/// Who orders what, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Order {
    /// The operator: 1 to 200 bytes.
    pub actor: Arc<str>,
    /// Up to 200 bytes; a mode other than auto needs one.
    pub reason: Option<Arc<str>>,
    /// Only at this epoch.
    pub if_epoch: Option<u64>,
}

impl Order {
    fn check(&self) -> Option<FieldError> {
        let fits = |text: &str| !text.trim().is_empty() && text.len() <= MAX_TEXT;
        if !fits(&self.actor) {
            return Some(FieldError::invalid("/actor", "must be 1 to 200 bytes"));
        }
        let bad = self.reason.as_deref().is_some_and(|reason| !fits(reason));
        bad.then(|| FieldError::invalid("/reason", "must be 1 to 200 bytes"))
    }

    fn who(&self) -> Who {
        Who::Operator { actor: self.actor.clone(), reason: self.reason.clone() }
    }

    /// Whether a mode may be set so, as the edge and `apply` check it. `clock` is the time that `until` must lie after.
    #[must_use]
    pub fn check_mode(&self, mode: Mode, until: Option<Timestamp>, clock: Timestamp) -> Option<FieldError> {
        if let Some(error) = self.check() {
            return Some(error);
        }
        if mode != Mode::Auto && self.reason.is_none() {
            return Some(FieldError::invalid("/reason", "is missing: say why traffic is to have no say"));
        }
        let until = until?;
        if mode == Mode::Auto {
            return Some(FieldError::invalid("/until", "has no meaning for mode auto"));
        }
        let in_range = until > clock && until <= clock.plus(MAX_MODE);
        (!in_range).then(|| FieldError::invalid("/until", "must be in the future, at most 30 days"))
    }
}

/// Why an operator's order had no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The breaker is not as the order expects it.
    Refused(Refused),
    /// A field is out of range.
    Field(FieldError),
}

impl From<Refused> for Denied {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Record {
    /// `force-open`, `force-close`, `observe`, `auto`. A breaker that was held open is probed before it closes.
    ///
    /// # Errors
    /// [`Denied`], and nothing changes but what time has brought about.
    pub fn set_mode(
        &mut self,
        cx: &Context<'_>,
        order: &Order,
        mode: Mode,
        until: Option<Timestamp>,
    ) -> Result<(), Denied> {
        self.admit(cx, order)?;
        if let Some(error) = order.check_mode(mode, until, cx.clock) {
            return Err(Denied::Field(error));
        }
        let until = (mode != Mode::Auto).then(|| until.unwrap_or_else(|| cx.clock.plus(DEFAULT_MODE)));
        let was_held = self.mode == Mode::ForcedOpen;
        self.sign(order, mode, until);
        let why = Why::ModeSet { mode };
        match (mode, until) {
            (Mode::ForcedOpen, Some(until)) => {
                // What the target asked for still counts then, and so does a probe that may be under way.
                let (opened_at, asked_until) = match &self.phase {
                    Phase::Closed(_) => (cx.clock, None),
                    Phase::Open { opened_at, asked_until, .. } => (*opened_at, *asked_until),
                    Phase::HalfOpen { opened_at, probe } => (*opened_at, Some(probe.lease_until)),
                };
                let retry_at = asked_until.map_or(until, |asked| asked.max(until));
                self.go(cx, Phase::Open { opened_at, retry_at, asked_until }, why, order.who());
            }
            (Mode::Auto, _) | (Mode::ForcedOpen, None) => {
                let phase = match &self.phase {
                    Phase::Open { opened_at, asked_until, .. } if was_held => Phase::Open {
                        opened_at: *opened_at,
                        retry_at: asked_until.map_or(cx.clock, |asked| asked.max(cx.clock)),
                        asked_until: *asked_until,
                    },
                    Phase::Closed(closed) => {
                        Phase::Closed(Closed { healthy_since: closed.healthy_since, ..Closed::default() })
                    }
                    other => other.clone(),
                };
                self.go(cx, phase, why, order.who());
            }
            (Mode::ForcedClosed | Mode::Observe, _) => self.close(cx, why, order.who()),
        }
        Ok(())
    }

    /// `reset`: closed, in mode auto, as if it had never tripped.
    ///
    /// # Errors
    /// As [`Self::set_mode`].
    pub fn reset(&mut self, cx: &Context<'_>, order: &Order) -> Result<(), Denied> {
        self.admit(cx, order)?;
        self.sign(order, Mode::Auto, None);
        self.trip_count = 0;
        self.close(cx, Why::Reset, order.who());
        Ok(())
    }

    /// `config`: own settings, or the defaults again. What nodes have seen stays; they say again what they make of it.
    ///
    /// # Errors
    /// As [`Self::set_mode`].
    pub fn configure(
        &mut self,
        cx: &Context<'_>,
        order: &Order,
        config: Option<Config>,
    ) -> Result<(), Denied> {
        self.admit(cx, order)?;
        if let Some(error) = config.as_ref().and_then(|config| config.check().into_iter().next()) {
            return Err(Denied::Field(error));
        }
        if self.config == config {
            return Ok(());
        }
        self.config = config;
        let phase = match &self.phase {
            Phase::Closed(closed) => {
                Phase::Closed(Closed { healthy_since: closed.healthy_since, ..Closed::default() })
            }
            other => other.clone(),
        };
        self.go(cx, phase, Why::Configured, order.who());
        Ok(())
    }

    fn admit(&mut self, cx: &Context<'_>, order: &Order) -> Result<(), Denied> {
        if let Some(epoch) = order.if_epoch {
            self.expect(epoch)?;
        }
        if let Some(error) = order.check() {
            return Err(Denied::Field(error));
        }
        self.touch(cx);
        if let Some(epoch) = order.if_epoch {
            self.expect(epoch)?;
        }
        Ok(())
    }

    fn sign(&mut self, order: &Order, mode: Mode, until: Option<Timestamp>) {
        (self.mode, self.mode_until) = (mode, until);
        (self.actor, self.reason) = (Some(order.actor.clone()), order.reason.clone());
    }
}
