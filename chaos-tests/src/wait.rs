//! Waiting for a state, with a deadline.

use std::time::Duration;

use anyhow::Context;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until there is something to see. An error of a look counts as "not yet"; the last one is told.
///
/// # Errors
/// Nothing was seen within `limit`.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let mut last = None;
    let looking = async {
        loop {
            match look().await {
                Ok(Some(seen)) => return seen,
                Ok(None) => last = None,
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    match tokio::time::timeout(limit, looking).await {
        Ok(seen) => Ok(seen),
        Err(late) => match last {
            Some(error) => Err(error).with_context(|| format!("not within {limit:?}: {what}")),
            None => Err(late).with_context(|| format!("not within {limit:?}: {what}")),
        },
    }
}
