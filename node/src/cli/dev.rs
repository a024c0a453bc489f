//! `dev`: a whole cluster on this machine, live traffic, and what happens to both.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::future::OptionFuture;
use indicatif::{ProgressBar, ProgressStyle};
use secrecy::SecretString;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::cluster_status::ClusterView;
use super::{Failure, dev_screen, output};
use crate::client::{Call, Client, source};
use crate::dev_cluster::{Demo, DevCluster, Options};

/// A killed node comes back after this.
const RESTART: Duration = Duration::from_secs(5);
/// Between two looks at who leads.
const LOOK: Duration = Duration::from_secs(1);
/// Between two lines of counters when nobody watches.
const LINE: Duration = Duration::from_secs(5);

/// Settings of the environment that name servers for the nodes to use.
const SERVERS: [&str; 7] = [
    "DATABASE_URL",
    "DATABASE_URL_FILE",
    "RABBITMQ_URL",
    "RABBITMQ_URL_FILE",
    "QUEUE_PREFIX",
    "REDIS_URL",
    "REDIS_URL_FILE",
];

/// Run a whole cluster on this machine, with a demo service and live traffic.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9), value_name = "N")]
    nodes: u8,
    /// REST on this port and the following ones, nodes among each other 100 above; 0 takes free ports.
    #[arg(long, default_value_t = 8200, value_name = "BASE")]
    port: u16,
    /// Keep the data here [default: a temporary folder, removed on exit].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// No demo service and no traffic.
    #[arg(long)]
    no_demo: bool,
    /// Messages of the demo a second.
    #[arg(long, default_value_t = 50.0, value_parser = rate, value_name = "PER_SECOND", conflicts_with = "no_demo")]
    rate: f64,
    /// Leave a node that ended down.
    #[arg(long)]
    no_restart: bool,
    /// Everybody on this machine may do everything: calls need no token.
    #[arg(long)]
    no_auth: bool,
    /// Heartbeat and election times: default, fast or wan.
    #[arg(long, value_name = "PROFILE")]
    raft_profile: Option<String>,
    /// Any setting, for every node; may be given several times.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

/// A rate that can be kept.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "is no number".to_owned())?;
    if (0.01..=1_000_000.0).contains(&rate) {
        Ok(rate)
    } else {
        Err("must be between 0.01 and 1000000".to_owned())
    }
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let began = source::instant();
    let mut stop = Stop::new()?;
    let options = Options {
        program: std::env::current_exe().map_err(Failure::failed)?,
        nodes: args.nodes.into(),
        base_port: args.port,
        data: args.data.clone(),
        auth: !args.no_auth,
        profile: args.raft_profile.clone(),
        settings: args.set.clone(),
        servers: servers(),
        ready_within: Duration::from_secs(60),
    };
    output::note(&format!("starting {} nodes…", args.nodes));
    // What was started ends, and the folder goes, when this is dropped.
    let cluster = tokio::select! {
        started = DevCluster::start(&options) => started.map_err(Failure::failed)?,
        () = stop.asked() => return Ok(()),
    };
    let client = cluster.client().map_err(Failure::failed)?;
    let view = client.send(Call::get("/api/v1/cluster")).await?.json::<ClusterView>()?;
    dev_screen::welcome(&cluster, &view, !args.no_demo, began.elapsed())?;
    let demo = if args.no_demo {
        None
    } else {
        Some(Demo::start(&cluster, args.rate).await.map_err(Failure::failed)?)
    };
    let mut session = Session::new(cluster, demo, !args.no_restart, &client, view)?;
    session.watch(&mut stop).await?;
    session.end(&mut stop).await
}

/// The servers that the environment names, as `serve` would use them.
fn servers() -> Vec<(&'static str, SecretString)> {
    let named = SERVERS.iter().filter_map(|name| Some((*name, std::env::var(name).ok()?)));
    named.filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, value.into())).collect()
}

/// Ctrl-C, SIGTERM, or the end of the terminal.
pub(super) struct Stop {
    signals: [Signal; 3],
}

impl Stop {
    pub(super) fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(Failure::failed);
        let signals = [on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?];
        Ok(Self { signals })
    }

    pub(super) async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// A cluster, its traffic, and who watches it.
struct Session {
    cluster: DevCluster,
    demo: Option<Demo>,
    /// Nodes that come back, and when.
    returning: Vec<(Instant, usize)>,
    restart: bool,
    bar: ProgressBar,
    leaders: watch::Receiver<Leaders>,
    shown: Leaders,
    _looker: JoinSet<()>,
}

/// Who leads each group.
type Leaders = BTreeMap<String, Option<u64>>;

fn leaders(view: &ClusterView) -> Leaders {
    view.groups.iter().map(|(name, group)| (name.clone(), group.leader)).collect()
}

impl Session {
    fn new(
        cluster: DevCluster,
        demo: Option<Demo>,
        restart: bool,
        client: &Client,
        view: ClusterView,
    ) -> Result<Self, Failure> {
        let bar = if output::is_watched() {
            let style = ProgressStyle::with_template("{spinner} {msg}").map_err(Failure::failed)?;
            ProgressBar::new_spinner().with_style(style)
        } else {
            ProgressBar::hidden()
        };
        let shown = leaders(&view);
        let (tell, leaders) = watch::channel(shown.clone());
        let mut looker = JoinSet::new();
        looker.spawn(look(client.within(LOOK * 2), tell));
        Ok(Self { cluster, demo, returning: Vec::new(), restart, bar, leaders, shown, _looker: looker })
    }

    /// Says what happens until somebody wants it to stop.
    async fn watch(&mut self, stop: &mut Stop) -> Result<(), Failure> {
        let watched = !self.bar.is_hidden();
        let mut tick = tokio::time::interval(if watched { Duration::from_millis(200) } else { LINE });
        loop {
            let next = self.returning.first().map(|(due, _)| tokio::time::sleep_until((*due).into()));
            tokio::select! {
                () = stop.asked() => return Ok(()),
                (index, status) = self.cluster.died() => self.died(index, status),
                Some(()) = OptionFuture::from(next) => self.bring_back()?,
                Ok(()) = self.leaders.changed() => self.say_leaders(),
                _ = tick.tick() => self.count(watched),
            }
        }
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| output::note(text));
    }

    fn died(&mut self, index: usize, status: std::process::ExitStatus) {
        let number = index + 1;
        let then = if self.restart { "it comes back in 5 s" } else { "it stays down (--no-restart)" };
        self.say(&format!("node {number} ended ({status}); {then}"));
        if self.restart {
            self.returning.push((source::instant() + RESTART, index));
        }
    }

    fn bring_back(&mut self) -> Result<(), Failure> {
        if self.returning.is_empty() {
            return Ok(());
        }
        let (_, index) = self.returning.remove(0);
        self.cluster.restart(index).map_err(Failure::failed)?;
        let pid = self.cluster.nodes().get(index).and_then(crate::dev_cluster::Node::pid);
        self.say(&format!("node {} is back: kill -9 {}", index + 1, pid.unwrap_or(0)));
        Ok(())
    }

    fn say_leaders(&mut self) {
        let now = self.leaders.borrow_and_update().clone();
        for (group, after) in &now {
            let before = self.shown.get(group).copied().flatten();
            let name = |id: Option<u64>| match id {
                None => "nobody".to_owned(),
                Some(id) => self
                    .cluster
                    .position(id)
                    .map_or_else(|| format!("node id {id}"), |index| format!("node {}", index + 1)),
            };
            if before != *after {
                self.say(&format!("leader of {group}: {} → {}", name(before), name(*after)));
            }
        }
        self.shown = now;
    }

    fn count(&self, watched: bool) {
        let Some(demo) = &self.demo else { return };
        let line = dev_screen::counters(&demo.counts());
        if watched {
            self.bar.set_message(line);
            self.bar.tick();
        } else {
            output::note(&line);
        }
    }

    /// Stops the nodes in good order; at once when asked a second time.
    async fn end(self, stop: &mut Stop) -> Result<(), Failure> {
        let last = self.demo.as_ref().map(Demo::counts);
        self.bar.finish_and_clear();
        if let Some(counts) = last {
            output::note(&dev_screen::counters(&counts));
        }
        drop(self.demo);
        output::note("stopping…");
        tokio::select! {
            stopped = self.cluster.stop() => stopped.map_err(Failure::failed),
            () = stop.asked() => Ok(()),
        }
    }
}

/// Looks every second who leads.
async fn look(client: Client, tell: watch::Sender<Leaders>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if let Ok(answer) = client.send(Call::get("/api/v1/cluster")).await
            && let Ok(view) = answer.json::<ClusterView>()
        {
            let now = leaders(&view);
            tell.send_if_modified(|known| {
                let changed = *known != now;
                *known = now;
                changed
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_sane() {
        assert!(rate("50").is_ok());
        for text in ["0", "-1", "x", "NaN", "inf"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
