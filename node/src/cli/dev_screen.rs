//! What `dev` shows: where everything is, what to try, and the running counters.

use std::fmt::Write as _;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::cluster_status::ClusterView;
use super::{Exit, Failure, Output, output};
use crate::cli::args::Format;
use crate::dev_cluster::{Counts, DevCluster};

/// Where everything is, and what to try.
pub(super) fn welcome(
    cluster: &DevCluster,
    view: &ClusterView,
    demo: bool,
    took: Duration,
) -> Result<(), Failure> {
    let count = cluster.nodes().len();
    let nodes = if count == 1 { "1 node is".to_owned() } else { format!("{count} nodes are") };
    let fate = if cluster.is_temporary() { "removed on exit" } else { "kept" };
    let head = format!(
        "{nodes} up after {:.1} s. Data and logs: {} ({fate})\n",
        took.as_secs_f64(),
        cluster.path().display()
    );
    output::print(head.as_bytes())?;
    let rows: Vec<Vec<String>> = (0..count).filter_map(|position| row(cluster, view, position)).collect();
    Output::new(Format::Table).rows(
        &["NODE", "ID", "URL", "PID", "LEADS", "LOG"],
        &rows,
        &serde_json::Value::Null,
    )?;
    output::print(things_to_try(cluster, demo)?.as_bytes())
}

fn row(cluster: &DevCluster, view: &ClusterView, position: usize) -> Option<Vec<String>> {
    let node = cluster.nodes().get(position)?;
    let id = cluster.node_id(position);
    let leads = view
        .groups
        .iter()
        .filter(|(_, group)| id.is_some() && group.leader == id)
        .map(|(name, _)| name.as_str());
    Some(vec![
        node.number().to_string(),
        id.map_or_else(String::new, |id| id.to_string()),
        node.url()?.as_str().trim_end_matches('/').to_owned(),
        node.pid()?.to_string(),
        leads.collect::<Vec<_>>().join(", "),
        node.log().display().to_string(),
    ])
}

fn things_to_try(cluster: &DevCluster, demo: bool) -> Result<String, Failure> {
    let urls: Vec<String> =
        cluster.urls().iter().map(|url| url.as_str().trim_end_matches('/').to_owned()).collect();
    let (Some(first), Some(last)) = (urls.first(), urls.last()) else {
        return Err(Failure::Told(Exit::Failed));
    };
    let sender = "operator";
    let name = sender.parse().map_err(Failure::failed)?;
    let token = cluster.token(&name).map_err(Failure::failed)?;
    let token = token.as_ref().map(|token| token.expose_secret());
    let mut text = String::new();
    let mut put = |line: &str| {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "{line}");
    };
    put("\nSend a message through any node:");
    put(&format!(
        "  curl -sS '{last}/api/v1/messages{}' \\",
        if demo { "" } else { "?allow_unregistered=true" }
    ));
    if let Some(token) = token {
        put(&format!("    -H 'Authorization: Bearer {token}' \\"));
    }
    put("    -H 'Content-Type: application/json' \\");
    put(&format!(
        "    -d '{{\"sender_service\":\"{sender}\",\"target_service\":\"demo\",\"message_type\":\"greeting\",\"content\":{{\"text\":\"hello\"}}}}'"
    ));
    put("\nOr by command line, in another terminal:");
    put(&format!("  export MESSAGE_HUB_URL={}", urls.join(",")));
    if let Some(token) = token {
        put(&format!("  export MESSAGE_HUB_TOKEN={token}"));
    }
    // With its path: where it was built, no shell looks for it.
    let program = cluster.nodes().first().map(|node| node.program().display().to_string());
    put(&format!("  {} cluster status", quoted(&program.unwrap_or_default())));
    put("\nKill a node and watch the others carry on:");
    for node in cluster.nodes() {
        put(&format!("  kill -9 {}   # node {}", node.pid().unwrap_or(0), node.number()));
    }
    put(&format!("\nEvery call, to read and to try: {first}/docs"));
    if token.is_none() {
        put("\nACCESS CONTROL IS OFF (--no-auth): every process on this machine may do everything.");
    }
    put("Ctrl-C ends it.\n");
    Ok(text)
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// The running counters.
pub(super) fn counters(counts: &Counts) -> String {
    let ledger = &counts.ledger;
    format!(
        "sent {}  accepted {}  delivered {}  waiting {}  duplicates {}  failed {}  (asked again {})",
        counts.sent,
        ledger.accepted,
        ledger.delivered,
        ledger.missing(),
        ledger.duplicates,
        counts.failed,
        counts.repeated,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Totals;

    #[test]
    fn a_path_is_one_word() {
        assert_eq!(quoted("/a/target/message-hub"), "/a/target/message-hub");
        assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
    }

    #[test]
    fn counters_are_one_line() {
        let ledger = Totals { accepted: 9, delivered: 7, duplicates: 1, unanswered: 0 };
        let line = counters(&Counts { sent: 10, failed: 1, repeated: 2, ledger });
        assert_eq!(
            line,
            "sent 10  accepted 9  delivered 7  waiting 2  duplicates 1  failed 1  (asked again 2)"
        );
    }
}
