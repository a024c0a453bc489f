//! The query: every parameter is known, well-formed, and given once.

use std::str::FromStr;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use hub_core::error::{FieldError, code};
use hub_core::port::Consistency;

use crate::problem::Problem;

/// Most parameters in a query.
const MAX_PARAMETERS: usize = 32;

/// The parameters that no one has taken yet, and what was wrong with those taken.
#[derive(Debug, Default)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    wrong: Vec<String>,
    later: Vec<String>,
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        if parts.uri.query().is_none_or(str::is_empty) {
            return Ok(Self::default());
        }
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|error| Problem::new(code::BAD_REQUEST, format!("the query cannot be read: {error}")))?;
        if pairs.len() > MAX_PARAMETERS {
            let detail = format!("the query has more than {MAX_PARAMETERS} parameters");
            return Err(Problem::new(code::BAD_REQUEST, detail));
        }
        Ok(Self { pairs, wrong: Vec::new(), later: Vec::new() })
    }
}

impl Params {
    /// Takes a parameter; an empty one counts as absent.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(key, _)| key == name)?;
        let (_, value) = self.pairs.swap_remove(at);
        if self.pairs.iter().any(|(key, _)| key == name) {
            self.pairs.retain(|(key, _)| key != name);
            self.wrong.push(format!("`{name}` is given more than once"));
        }
        Some(value).filter(|value| !value.is_empty())
    }

    /// Takes a parameter of type `T`; `what` names it for people.
    pub(crate) fn parsed<T: FromStr>(&mut self, name: &str, what: &str) -> Option<T> {
        let text = self.text(name)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.wrong.push(format!("`{name}` must be {what}"));
        }
        value
    }

    /// Takes a number within bounds.
    pub(crate) fn number(&mut self, name: &str, min: u32, max: u32) -> Option<u32> {
        let text = self.text(name)?;
        let value = text.parse().ok().filter(|number| (min..=max).contains(number));
        if value.is_none() {
            self.wrong.push(format!("`{name}` must be a whole number from {min} to {max}"));
        }
        value
    }

    /// Takes a switch: `true`, `false`, or the bare name.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let Some(at) = self.pairs.iter().position(|(key, _)| key == name) else { return false };
        if self.pairs.get(at).is_some_and(|(_, value)| value.is_empty()) {
            self.pairs.swap_remove(at);
            return true;
        }
        self.parsed(name, "true or false").unwrap_or(false)
    }

    /// Takes `consistency`.
    pub(crate) fn consistency(&mut self) -> Consistency {
        match self.text("consistency").as_deref() {
            None | Some("linearizable") => Consistency::Linearizable,
            Some("stale") => Consistency::Stale,
            Some(_) => {
                self.wrong.push("`consistency` must be `stale` or `linearizable`".to_owned());
                Consistency::Linearizable
            }
        }
    }

    /// Reports a parameter whose value is wrong.
    pub(crate) fn wrong(&mut self, detail: impl Into<String>) {
        self.wrong.push(detail.into());
    }

    /// Refuses a parameter that belongs to a later version.
    pub(crate) fn later(&mut self, name: &str) {
        if self.pairs.iter().any(|(key, _)| key == name) {
            self.pairs.retain(|(key, _)| key != name);
            self.later.push(name.to_owned());
        }
    }

    /// Refuses what was wrong, and what nobody took.
    pub(crate) fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in &self.pairs {
            self.wrong.push(format!("`{name}` is not a known parameter"));
        }
        if !self.wrong.is_empty() {
            return Err(Problem::new(code::BAD_REQUEST, format!("in the query: {}", self.wrong.join("; "))));
        }
        if self.later.is_empty() {
            return Ok(());
        }
        let detail = format!("not supported by this version: the parameter {}", self.later.join(", "));
        Err(Problem::new(code::NOT_BUILT, detail))
    }
}

/// A path parameter that is wrong.
pub(crate) fn bad_path(detail: impl Into<String>) -> Problem {
    Problem::new(code::BAD_REQUEST, detail.into())
}

/// One wrong field.
pub(crate) fn bad_field(pointer: &str, detail: impl Into<String>) -> Problem {
    Problem::fields(vec![FieldError::invalid(pointer, detail)])
}
