//! The query of a list of messages.

use hub_core::access::Scope;
use hub_core::error::code;
use hub_core::id::MessageId;
use hub_core::message::{Cursor, Filter, Status};

use crate::extract::{Caller, Params};
use crate::problem::Problem;

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 500;
const MAX_LABEL: usize = 255;

/// What a list is asked for.
#[derive(Debug)]
pub(crate) struct ListQuery {
    /// Conditions.
    pub(crate) filter: Filter,
    /// Where the page starts.
    pub(crate) after: Option<Cursor>,
    /// Its size.
    pub(crate) limit: u32,
}

/// Reads the query of a list. `target` is the name of the parameter for the target; dead letters have no `status`.
pub(crate) fn list_query(
    mut params: Params,
    caller: &Caller,
    target: &str,
    status: Option<Status>,
) -> Result<ListQuery, Problem> {
    caller.require_any(&[Scope::MessagesRead, Scope::MessagesAdmin])?;
    let visible_to = if caller.0.has(Scope::MessagesAdmin) {
        None
    } else {
        let own = caller.0.service.clone();
        Some(own.ok_or_else(|| Problem::new(code::FOREIGN_SERVICE, "the token's subject is not a service"))?)
    };
    const TIME: &str = "a time as in 2026-11-23T08:55:00Z";
    const NAME: &str = "a service's name";
    let filter = Filter {
        status: match status {
            Some(only) => Some(only),
            None => params.parsed("status", "a message's status"),
        },
        target: params.parsed(target, NAME),
        sender: params.parsed("sender_service", NAME),
        visible_to,
        message_type: label(&mut params, "message_type"),
        correlation_id: label(&mut params, "correlation_id"),
        created_after: params.parsed("created_after", TIME),
        created_before: params.parsed("created_before", TIME),
    };
    let after = params.parsed::<MessageId>("cursor", "the `next_cursor` of the page before").map(Cursor);
    let limit = params.number("limit", 1, MAX_LIMIT).unwrap_or(DEFAULT_LIMIT);
    params.finish()?;
    Ok(ListQuery { filter, after, limit })
}

fn label(params: &mut Params, name: &str) -> Option<std::sync::Arc<str>> {
    let text = params.text(name)?;
    if text.len() > MAX_LABEL {
        params.wrong(format!("`{name}` is longer than any"));
        return None;
    }
    Some(text.into())
}
