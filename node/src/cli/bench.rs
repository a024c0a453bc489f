//! `bench`: measures speed and safety with real processes.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::ProgressBar;
use secrecy::SecretString;
use url::Url;

use super::args::OutputArgs;
use super::bench_job::{Command, Job, job};
use super::{Exit, Failure, Output, dev, output};
use crate::bench::{self, Stage, StageOptions};

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

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let output = Output::new(args.output.output);
    let (job, targets, deliver) = job(&args.command, args.place.receiver)?;
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
        Job::Isolation(job) => {
            let report = bench::run_isolation(&stage, job, &|text| voice.say(text)).await.map_err(failed)?;
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
