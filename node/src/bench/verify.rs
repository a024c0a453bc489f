//! Looks into the store for what did not arrive, or was not meant to.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{Error, Stage};
use crate::client::{self, Call, push_query};

#[derive(Deserialize)]
struct Item {
    id: uuid::Uuid,
    #[serde(default)]
    status: String,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Item>,
    #[serde(default)]
    next_cursor: Option<String>,
}

/// How many of the accepted messages the store has: all lists page by page, then one by one what they did not show,
/// since lists may lag.
pub(super) async fn stored(stage: &Stage) -> Result<u64, Error> {
    let accepted: Vec<u128> = stage.ledger.lock().accepted().collect();
    let mut found = BTreeSet::new();
    for target in &stage.targets {
        list(stage, target, &mut found).await?;
    }
    let mut count = 0;
    for id in accepted {
        if found.contains(&id) || get(stage, id).await?.is_some() {
            count += 1;
        }
    }
    Ok(count)
}

async fn list(stage: &Stage, target: &str, found: &mut BTreeSet<u128>) -> Result<(), Error> {
    let mut cursor: Option<String> = None;
    loop {
        let mut path = "/api/v1/messages?limit=500".to_owned();
        push_query(&mut path, "target_service", target);
        if let Some(cursor) = &cursor {
            push_query(&mut path, "cursor", cursor);
        }
        let page: Page = stage.client.send(Call::get(path)).await?.json()?;
        found.extend(page.items.iter().map(|item| item.id.as_u128()));
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(()),
        }
    }
}

/// The message's status; `None` if there is no such message.
async fn get(stage: &Stage, id: u128) -> Result<Option<String>, Error> {
    let id = uuid::Uuid::from_u128(id);
    match stage.client.send(Call::get(format!("/api/v1/messages/{id}"))).await {
        Ok(answer) => Ok(Some(answer.json::<Item>()?.status)),
        Err(client::Error::Refused(problem)) if problem.status == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What the store says about the first ids that did not arrive: whoever reads the report wants to know.
pub(super) async fn statuses(stage: &Stage, most: usize) -> Vec<String> {
    let missing: Vec<u128> = stage.ledger.lock().missing().take(most).collect();
    let mut lines = Vec::with_capacity(missing.len());
    for id in missing {
        let status = match get(stage, id).await {
            Ok(Some(status)) => status,
            Ok(None) => "not in the store".to_owned(),
            Err(error) => error.to_string(),
        };
        lines.push(format!("{} {status}", uuid::Uuid::from_u128(id)));
    }
    lines
}
