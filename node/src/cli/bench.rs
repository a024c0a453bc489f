//! `bench`: measures speed and safety with real processes.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use indicatif::ProgressBar;
use secrecy::SecretString;
use url::Url;

use super::args::OutputArgs;
use super::{Exit, Failure, Output, cluster, dev, output};
use crate::bench::{self, BacklogOptions, FailoverOptions, Stage, StageOptions, Subject, SubjectOptions};

/// Measure speed and safety with real processes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Nodes, load generator and receiver share this machine. Data lies on a real disk: a file system in \
memory is refused. Exit code 1 if anything accepted was lost."
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: OutputArgs,
}

/// Where it is measured.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Nodes")]
struct Place {
    /// Nodes to start.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9), global = true, value_name = "N")]
    nodes: u8,
    /// Folder for their data, on a disk [default: the system's temporary folder].
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Heartbeat and election times: default, fast or wan.
    #[arg(long, global = true, value_name = "PROFILE")]
    raft_profile: Option<String>,
    /// Any setting, for every node; may be given several times.
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// PostgreSQL as the message store of the nodes. The measured messages stay in it.
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<SecretString>,
    /// RabbitMQ as the delivery queue of the nodes, beside --database-url.
    #[arg(long, global = true, value_name = "URL")]
    rabbitmq_url: Option<SecretString>,
    /// Redis as the shared cache of the nodes.
    #[arg(long, global = true, value_name = "URL")]
    redis_url: Option<SecretString>,
    /// Measure a cluster that runs already; repeat it for each node.
    #[arg(long = "url", global = true, value_delimiter = ',', value_name = "URL")]
    urls: Vec<Url>,
    /// Token with all scopes for that cluster.
    #[arg(long, env = "MESSAGE_HUB_TOKEN", hide_env_values = true, global = true)]
    token: Option<SecretString>,
    /// Address of this machine under which the nodes reach the receiver.
    #[arg(long, default_value = "127.0.0.1", global = true, value_name = "IP")]
    receiver: IpAddr,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Messages, one a request.
    Messages {
        #[command(flatten)]
        load: LoadArgs,
        #[command(flatten)]
        content: ContentArgs,
    },
    /// Messages, many a request.
    Batch {
        #[command(flatten)]
        load: LoadArgs,
        #[command(flatten)]
        content: ContentArgs,
        /// Messages a request.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N")]
        size: u16,
    },
    /// Registrations that change something.
    Control {
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Reads of a service through all nodes.
    Reads {
        #[command(flatten)]
        load: LoadArgs,
        /// From each node's own view, without asking the leader.
        #[arg(long)]
        stale: bool,
    },
    /// Piles messages up for services that are paused; measures the accept rate on the way, then lets them go.
    Backlog {
        /// Until so many messages wait.
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000), value_name = "N")]
        up_to: u64,
        /// Measured after so many more.
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
        step: u64,
        /// For how long, each time.
        #[arg(long, default_value = "5s", value_parser = humantime::parse_duration, value_name = "DURATION")]
        probe: Duration,
        /// Clients at a time.
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000), value_name = "N")]
        clients: u16,
        /// About so many bytes of content a message.
        #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=3_000_000), value_name = "N")]
        content_bytes: u32,
        /// Services that get the messages, in turn.
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N")]
        targets: u16,
        /// Nothing more is expected when nothing arrived for so long.
        #[arg(long, default_value = "30s", value_parser = humantime::parse_duration, value_name = "DURATION")]
        quiet: Duration,
    },
    /// Kills the leader again and again; measures the gap until the next committed write.
    Failover {
        /// Whose leader.
        #[arg(long, value_enum, default_value_t = cluster::Group::Control)]
        group: cluster::Group,
        /// How often.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000), value_name = "N")]
        kills: u16,
        /// Between the return of a killed node and the next kill.
        #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration, value_name = "DURATION")]
        pause: Duration,
    },
}

/// How it is loaded.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Load")]
struct LoadArgs {
    /// Clients at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000), value_name = "N")]
    clients: u16,
    /// For how long it is measured.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    duration: Duration,
    /// Before that, not counted.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    warm_up: Duration,
    /// Requests a second, all clients together [default: as fast as answers come].
    #[arg(long, value_parser = dev::rate, value_name = "PER_SECOND")]
    rate: Option<f64>,
}

/// What the messages are.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Messages")]
struct ContentArgs {
    /// Deliver while accepting.
    #[arg(long, value_enum, default_value_t = Switch::On)]
    deliver: Switch,
    /// About so many bytes of content a message.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=3_000_000), value_name = "N")]
    content_bytes: u32,
    /// Services that get the messages, in turn.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N")]
    targets: u16,
    /// Nothing more is expected when nothing arrived for so long.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    quiet: Duration,
    /// Loses one arrival on purpose, to show that it is seen.
    #[arg(long, hide = true)]
    self_check_drop: bool,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// What to do once the nodes are up.
enum Job {
    Steady(SubjectOptions),
    Backlog(BacklogOptions),
    Failover(FailoverOptions),
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let output = Output::new(args.output.output);
    let (job, targets, deliver) = job(&args.command)?;
    let program = std::env::current_exe().map_err(Failure::failed)?;
    let place = args.place;
    let servers = [
        ("DATABASE_URL", place.database_url),
        ("RABBITMQ_URL", place.rabbitmq_url),
        ("REDIS_URL", place.redis_url),
    ];
    let servers = servers.into_iter().filter_map(|(name, url)| Some((name, url?))).collect();
    let options = StageOptions {
        urls: place.urls,
        token: place.token,
        program,
        nodes: place.nodes.into(),
        data: place.data,
        profile: place.raft_profile,
        settings: place.set,
        servers,
        receiver: place.receiver,
        targets,
        deliver,
    };
    let voice = Voice::new();
    let mut stop = dev::Stop::new()?;
    // Whatever was started ends, and its data goes, when this is dropped.
    tokio::select! {
        done = measure(&options, &job, &voice, output) => done,
        () = stop.asked() => Err(Failure::failed(anyhow::anyhow!("stopped"))),
    }
}

async fn measure(options: &StageOptions, job: &Job, voice: &Voice, output: Output) -> Result<(), Failure> {
    if options.urls.is_empty() {
        voice.say(&format!("starting {} nodes", options.nodes));
    }
    let mut stage = Stage::build(options).await.map_err(failed)?;
    let (lines, document, lost) = match job {
        Job::Steady(job) => {
            let report = bench::run(&stage, job, &|text| voice.say(text)).await.map_err(failed)?;
            (report.lines(), serde_json::to_value(&report), report.lost)
        }
        Job::Backlog(job) => {
            let report = bench::run_backlog(&stage, job, &|text| voice.say(text)).await.map_err(failed)?;
            (report.lines(), serde_json::to_value(&report), report.lost)
        }
        Job::Failover(job) => {
            let report =
                bench::run_failover(&mut stage, job, &|text| voice.say(text)).await.map_err(failed)?;
            (report.lines(), serde_json::to_value(&report), report.lost)
        }
    };
    voice.end();
    stage.close().await.map_err(failed)?;
    let rows: Vec<Vec<String>> = lines.into_iter().map(|(name, value)| vec![name, value]).collect();
    output.rows(&[], &rows, &document.map_err(Failure::failed)?)?;
    if lost > 0 {
        output::note(&format!("{lost} accepted messages were lost"));
        return Err(Failure::Told(Exit::Failed));
    }
    Ok(())
}

fn failed(error: bench::Error) -> Failure {
    match error {
        bench::Error::Usage(_) | bench::Error::InMemory { .. } => Failure::Usage(error.to_string()),
        bench::Error::Call(error) => Failure::Client(error),
        error => Failure::failed(error),
    }
}

/// The job, the number of targets, and whether deliveries are on.
fn job(command: &Command) -> Result<(Job, usize, bool), Failure> {
    let no_content = || (256, true, Duration::ZERO, false, 1);
    let (subject, load, content) = match command {
        Command::Messages { load, content } => (Subject::Messages, load, Some(content)),
        Command::Batch { load, content, size } => (Subject::Batch((*size).into()), load, Some(content)),
        Command::Control { load } => (Subject::Control, load, None),
        Command::Reads { load, stale } => (Subject::Reads { stale: *stale }, load, None),
        Command::Backlog { up_to, step, probe, clients, content_bytes, targets, quiet } => {
            let job = BacklogOptions {
                up_to: *up_to,
                step: *step,
                probe: *probe,
                clients: (*clients).into(),
                content_bytes: *content_bytes as usize,
                quiet: *quiet,
            };
            return Ok((Job::Backlog(job), (*targets).into(), false));
        }
        Command::Failover { group, kills, pause } => {
            let job = FailoverOptions {
                kills: (*kills).into(),
                control: *group == cluster::Group::Control,
                pause: *pause,
                quiet: Duration::from_secs(60),
            };
            return Ok((Job::Failover(job), 1, true));
        }
    };
    let (content_bytes, deliver, quiet, lose_one, targets) = content.map_or_else(no_content, |content| {
        let deliver = content.deliver == Switch::On;
        (
            content.content_bytes as usize,
            deliver,
            content.quiet,
            content.self_check_drop,
            content.targets.into(),
        )
    });
    if lose_one && !deliver {
        return Err(Failure::Usage("--self-check-drop needs deliveries".to_owned()));
    }
    let job = SubjectOptions {
        subject,
        clients: load.clients.into(),
        duration: load.duration,
        warm_up: load.warm_up,
        rate: load.rate,
        content_bytes,
        deliver,
        quiet,
        lose_one,
    };
    Ok((Job::Steady(job), targets, deliver))
}

/// Says what is going on: a spinner for who watches, lines for a log.
struct Voice {
    bar: ProgressBar,
}

impl Voice {
    fn new() -> Self {
        if !output::is_watched() {
            return Self { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(150));
        Self { bar }
    }

    fn say(&self, text: &str) {
        if self.bar.is_hidden() {
            output::note(text);
        } else {
            self.bar.set_message(text.to_owned());
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &[&str]) -> Args {
        Line::try_parse_from(std::iter::once(&"x").chain(line)).unwrap().args
    }

    #[test]
    fn the_options_reach_the_job() {
        let args =
            parse(&["messages", "--clients", "8", "--rate", "200", "--deliver", "off", "--nodes", "1"]);
        assert_eq!(args.place.nodes, 1);
        let (Job::Steady(first), 4, false) = job(&args.command).unwrap() else { panic!("another job") };
        assert_eq!((first.clients, first.rate, first.deliver), (8, Some(200.0), false));
        let args = parse(&["batch", "--size", "50"]);
        let (Job::Steady(steady), ..) = job(&args.command).unwrap() else { panic!("another job") };
        assert_eq!(steady.subject, Subject::Batch(50));
        let args = parse(&["failover", "--group", "messages", "--kills", "3"]);
        let (Job::Failover(failover), 1, true) = job(&args.command).unwrap() else { panic!("another job") };
        assert!(!failover.control && failover.kills == 3);
    }

    #[test]
    fn a_self_check_without_deliveries_is_refused() {
        let args = parse(&["messages", "--self-check-drop", "--deliver", "off"]);
        assert!(job(&args.command).is_err());
    }
}
