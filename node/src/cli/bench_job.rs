//! What `bench` measures: its subcommands, and the job that follows from each.

use std::net::IpAddr;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use super::{Failure, cluster, dev};
use crate::bench::{BacklogOptions, FailoverOptions, IsolationOptions, Subject, SubjectOptions};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
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
    /// The same load twice, with all targets well and with one that hangs; measures what that does to the others.
    Isolation(IsolationArgs),
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

/// How isolation is measured.
#[derive(Debug, clap::Args)]
pub(super) struct IsolationArgs {
    /// Services that get the messages, the one that hangs among them.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(2..=1000), value_name = "N")]
    targets: u16,
    /// Clients at a time for each of them.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N")]
    clients: u16,
    /// Requests a second, to all targets together.
    #[arg(long, default_value_t = 500.0, value_parser = dev::rate, value_name = "PER_SECOND")]
    rate: f64,
    /// Rounds with all targets well, and as many with one that hangs; the median round counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..), value_name = "N")]
    rounds: u8,
    /// How long each of them is.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    round: Duration,
    /// About so many bytes of content a message.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=3_000_000), value_name = "N")]
    content_bytes: u32,
    /// Nothing more is expected when nothing arrived for so long; longer than a breaker stays open.
    #[arg(long, default_value = "150s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    quiet: Duration,
}

/// How it is loaded.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Load")]
pub(super) struct LoadArgs {
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
pub(super) struct ContentArgs {
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
pub(super) enum Job {
    Steady(SubjectOptions),
    Backlog(BacklogOptions),
    Failover(FailoverOptions),
    Isolation(IsolationOptions),
}

/// The job, the number of targets, and whether deliveries are on.
pub(super) fn job(command: &Command, receiver: IpAddr) -> Result<(Job, usize, bool), Failure> {
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
        Command::Isolation(args) => {
            let job = IsolationOptions {
                clients: usize::from(args.clients) * usize::from(args.targets),
                rate: args.rate,
                rounds: args.rounds.into(),
                round: args.round,
                content_bytes: args.content_bytes as usize,
                receiver,
                quiet: args.quiet,
            };
            return Ok((Job::Isolation(job), usize::from(args.targets) - 1, true));
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
    steady(subject, load, content)
}

/// A load that stays the same.
fn steady(
    subject: Subject,
    load: &LoadArgs,
    content: Option<&ContentArgs>,
) -> Result<(Job, usize, bool), Failure> {
    let no_content = || (256, true, Duration::ZERO, false, 1);
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    fn parse(line: &[&str]) -> Result<(Job, usize, bool), Failure> {
        let line = Line::try_parse_from(std::iter::once(&"x").chain(line)).unwrap();
        job(&line.command, IpAddr::from([127, 0, 0, 1]))
    }

    #[test]
    fn the_options_reach_the_job() {
        let found = parse(&["messages", "--clients", "8", "--rate", "200", "--deliver", "off"]);
        let (Job::Steady(first), 4, false) = found.unwrap() else { panic!("another job") };
        assert_eq!((first.clients, first.rate, first.deliver), (8, Some(200.0), false));
        let (Job::Steady(steady), ..) = parse(&["batch", "--size", "50"]).unwrap() else {
            panic!("another job")
        };
        assert_eq!(steady.subject, Subject::Batch(50));
        let found = parse(&["failover", "--group", "messages", "--kills", "3"]);
        let (Job::Failover(failover), 1, true) = found.unwrap() else { panic!("another job") };
        assert!(!failover.control && failover.kills == 3);
        let found = parse(&["isolation", "--targets", "5", "--clients", "2"]);
        let (Job::Isolation(isolation), 4, true) = found.unwrap() else { panic!("another job") };
        assert_eq!(isolation.clients, 10, "so many for each target, the one that hangs among them");
    }

    #[test]
    fn a_self_check_without_deliveries_is_refused() {
        assert!(parse(&["messages", "--self-check-drop", "--deliver", "off"]).is_err());
    }
}
