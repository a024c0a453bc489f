//! `cluster status`: asks every node how far it is, since each knows only itself for certain.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::{Failure, Output};
use crate::client::{Call, Client};

/// How long a node may take to say how far it is.
const ONE_NODE: Duration = Duration::from_secs(2);

/// A group as one node sees it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct GroupView {
    /// Who leads, as far as the node knows.
    pub(crate) leader: Option<u64>,
    /// Its term.
    #[serde(default)]
    pub(crate) term: u64,
    /// Last entry in its log.
    #[serde(default)]
    pub(crate) last_log_index: Option<u64>,
    /// Last entry applied to its state.
    #[serde(default)]
    pub(crate) applied_index: Option<u64>,
    /// Who votes.
    #[serde(default)]
    pub(crate) voters: Vec<u64>,
}

/// A node as the cluster knows it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NodeView {
    /// Its number.
    pub(crate) id: u64,
    /// Where it listens.
    #[serde(default)]
    pub(crate) rest_url: String,
    /// `voter` or `learner`.
    #[serde(default)]
    pub(crate) role: String,
    /// Heard of lately.
    #[serde(default)]
    pub(crate) live: Option<bool>,
    /// About to stop.
    #[serde(default)]
    pub(crate) draining: bool,
    /// Its version.
    #[serde(default)]
    pub(crate) version: String,
}

/// `GET /api/v1/cluster`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ClusterView {
    /// Who answered.
    pub(crate) node_id: u64,
    /// `control` and `messages`.
    pub(crate) groups: BTreeMap<String, GroupView>,
    /// All nodes.
    #[serde(default)]
    pub(crate) nodes: Vec<NodeView>,
}

impl ClusterView {
    /// Who leads a group, as far as the node knows.
    pub(crate) fn leader(&self, group: &str) -> Option<u64> {
        self.groups.get(group).and_then(|group| group.leader)
    }
}

#[derive(Debug, Serialize)]
struct Row {
    id: u64,
    role: String,
    live: Option<bool>,
    draining: bool,
    version: String,
    rest_url: String,
    leads: Vec<String>,
    reached: bool,
    /// By group: entries that the leader has and this node has not applied; absent if the node did not answer.
    lag: BTreeMap<String, u64>,
}

pub(super) async fn run(client: &Client, output: Output) -> Result<(), Failure> {
    let first: ClusterView = client.send(Call::get("/api/v1/cluster")).await?.json()?;
    let views = ask_all(client, &first).await;
    let rows: Vec<Row> = first.nodes.iter().map(|node| row(node, &first, &views)).collect();
    let groups: Vec<&String> = first.groups.keys().collect();
    let titles = ["NODE", "ROLE", "LIVE", "LEADS"]
        .into_iter()
        .map(str::to_owned)
        .chain(groups.iter().map(|group| format!("{} LAG", group.to_uppercase())))
        .chain(["VERSION".to_owned(), "REST".to_owned()])
        .collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = rows.iter().map(|row| line(row, &groups)).collect();
    let document = serde_json::json!({
        "asked": first.node_id,
        "groups": freshest(&first, &views),
        "nodes": serde_json::to_value(&rows).map_err(Failure::failed)?,
    });
    output.rows(&titles.iter().map(String::as_str).collect::<Vec<_>>(), &lines, &document)?;
    for (group, view) in freshest(&first, &views) {
        if view.leader.is_none() {
            super::output::note(&format!("group {group} has no leader at the moment"));
        }
    }
    Ok(())
}

async fn ask_all(client: &Client, first: &ClusterView) -> BTreeMap<u64, ClusterView> {
    let mut asked = JoinSet::new();
    for node in &first.nodes {
        let Ok(url) = node.rest_url.parse() else { continue };
        let client = client.only(url).within(ONE_NODE);
        let id = node.id;
        asked.spawn(async move {
            let view = client.send(Call::get("/api/v1/cluster")).await.ok()?.json::<ClusterView>().ok()?;
            // Another process may listen there by now.
            (view.node_id == id).then_some((id, view))
        });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

/// Each group as the node with the highest term sees it; the leader itself, if it answered.
fn freshest(first: &ClusterView, views: &BTreeMap<u64, ClusterView>) -> BTreeMap<String, GroupView> {
    let mut found: BTreeMap<String, (bool, GroupView)> = BTreeMap::new();
    for view in std::iter::once(first).chain(views.values()) {
        for (name, group) in &view.groups {
            let own = group.leader == Some(view.node_id);
            let better = found.get(name).is_none_or(|(known_own, known)| {
                (group.term, own, group.last_log_index) > (known.term, *known_own, known.last_log_index)
            });
            if better {
                found.insert(name.clone(), (own, group.clone()));
            }
        }
    }
    found.into_iter().map(|(name, (_, group))| (name, group)).collect()
}

fn row(node: &NodeView, first: &ClusterView, views: &BTreeMap<u64, ClusterView>) -> Row {
    let groups = freshest(first, views);
    let own = views.get(&node.id);
    let lag = |(name, group): (&String, &GroupView)| {
        let applied = own?.groups.get(name)?.applied_index.unwrap_or(0);
        Some((name.clone(), group.last_log_index.unwrap_or(0).saturating_sub(applied)))
    };
    Row {
        id: node.id,
        role: node.role.clone(),
        live: node.live,
        draining: node.draining,
        version: node.version.clone(),
        rest_url: node.rest_url.clone(),
        leads: groups
            .iter()
            .filter(|(_, group)| group.leader == Some(node.id))
            .map(|(name, _)| name.clone())
            .collect(),
        reached: own.is_some(),
        lag: groups.iter().filter_map(lag).collect(),
    }
}

fn line(row: &Row, groups: &[&String]) -> Vec<String> {
    let live = match (row.live, row.reached, row.draining) {
        (_, true, true) => "draining",
        (Some(true), true, _) => "yes",
        (_, true, _) => "answers",
        (Some(true), false, _) => "no answer",
        (_, false, _) => "no",
    };
    let mut line = vec![row.id.to_string(), row.role.clone(), live.to_owned(), row.leads.join(", ")];
    line.extend(
        groups.iter().map(|group| row.lag.get(*group).map_or_else(|| "?".to_owned(), u64::to_string)),
    );
    line.extend([row.version.clone(), row.rest_url.clone()]);
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view(node: u64, leader: u64, term: u64, last: u64, applied: u64) -> ClusterView {
        let group = json!({"leader": leader, "term": term, "last_log_index": last, "applied_index": applied});
        serde_json::from_value(json!({
            "node_id": node,
            "groups": {"control": group},
            "nodes": [
                {"id": 1, "rest_url": "http://a", "role": "voter", "live": true},
                {"id": 2, "rest_url": "http://b", "role": "voter", "live": true},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn lag_is_measured_against_the_leader_itself() {
        let first = view(2, 1, 3, 90, 80);
        let views = BTreeMap::from([(1, view(1, 1, 3, 100, 100)), (2, view(2, 1, 3, 90, 80))]);
        let behind = row(&first.nodes[1], &first, &views);
        assert_eq!(behind.lag["control"], 20);
        assert_eq!(line(&row(&first.nodes[0], &first, &views), &[&"control".to_owned()])[3], "control");
    }

    #[test]
    fn a_deposed_leader_is_not_believed() {
        let first = view(1, 1, 3, 100, 100);
        let views = BTreeMap::from([(1, first.clone()), (2, view(2, 2, 4, 101, 101))]);
        assert_eq!(freshest(&first, &views)["control"].leader, Some(2));
    }

    #[test]
    fn a_silent_node_has_no_lag() {
        let first = view(1, 1, 3, 100, 100);
        let views = BTreeMap::from([(1, first.clone())]);
        let silent = line(&row(&first.nodes[1], &first, &views), &[&"control".to_owned()]);
        assert_eq!(silent[2], "no answer");
        assert_eq!(silent[4], "?");
    }
}
