//! The process itself: refused starts with their codes and exit codes, and an orderly end on a signal.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const KEY: &str = "a secret key that is long enough for a test";

fn serve(folder: &Path) -> Command {
    serve_at(folder, "127.0.0.1:0", "127.0.0.1:0")
}

fn serve_at(folder: &Path, rest: &str, raft: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_message-hub"));
    command
        .args(["serve", "--rest", rest, "--raft", raft, "--log-format", "json", "--data"])
        .arg(folder)
        .env_clear()
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn refused(command: &mut Command, code: &str, exit: i32) -> anyhow::Result<()> {
    let Output { status, stderr, .. } = command.output()?;
    let text = String::from_utf8(stderr)?;
    ensure!(text.contains(code), "{code} is missing: {text}");
    ensure!(status.code() == Some(exit), "{status} instead of {exit}: {text}");
    Ok(())
}

#[test]
fn refused_starts_say_why_with_a_code() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    refused(&mut serve(&data), "HUB-2002", 2)?;
    refused(serve(&data).env("SECRET_KEY", "short"), "HUB-2002", 2)?;
    refused(serve(&data).env("SECRET_KEY", KEY).args(["--set", "rest.lissten=1"]), "HUB-2001", 2)?;
    refused(serve(&data).env("SECRET_KEY", KEY).env("DATABASE_URL", "mysql://x"), "HUB-2001", 2)?;
    refused(serve(&data).env("SECRET_KEY", KEY).env("TRANSACTION_TIMEOUT", "1s"), "HUB-1006", 2)?;
    refused(serve_at(&data, "127.0.0.1:0", "0.0.0.0:0").env("SECRET_KEY", KEY), "HUB-2010", 3)?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    refused(serve_at(&data, &address, "127.0.0.1:0").env("SECRET_KEY", KEY), "HUB-2003", 3)?;
    let file = tempfile::NamedTempFile::new()?;
    refused(serve(&file.path().join("below")).env("SECRET_KEY", KEY), "HUB-2013", 1)?;
    Ok(())
}

/// Waits until the node says where it is reached.
fn up(child: &mut Child, folder: &Path) -> anyhow::Result<()> {
    for _ in 0..600 {
        if folder.join("endpoints.json").exists() {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            let mut text = String::new();
            child.stderr.take().context("no stderr")?.read_to_string(&mut text)?;
            anyhow::bail!("{status}: {text}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("not up in time")
}

#[test]
fn a_signal_ends_it_in_good_order_and_a_second_at_once() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    for (drain_delay, signals, exit) in [("0s", 1, 0), ("60s", 2, 1)] {
        let mut child = serve(&data)
            .env("SECRET_KEY", KEY)
            .args(["--set", &format!("node.drain_delay={drain_delay}"), "--set", "node.drain_limit=120s"])
            .spawn()?;
        up(&mut child, &data)?;
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::TERM)?;
        if signals == 2 {
            // The first must have been taken as one, else both are one.
            wait_for_line(&mut child, "draining")?;
            kill_process(pid, Signal::INT)?;
        }
        let status = child.wait()?;
        ensure!(status.code() == Some(exit), "{status} after {signals} signals");
        // An end without a drain leaves the file behind; the next start replaces it.
        let _unless_gone = std::fs::remove_file(data.join("endpoints.json"));
    }
    Ok(())
}

/// One request over a connection of its own; the head of its answer, if there is one.
fn post(address: &str, path: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\ncontent-type: application/json\r\n"
    );
    stream.write_all(format!("{head}content-length: {length}\r\n\r\n{body}").as_bytes()).ok()?;
    let mut answer = [0; 64];
    let read = stream.read(&mut answer).ok()?;
    Some(String::from_utf8_lossy(answer.get(..read)?).into_owned()).filter(|answer| !answer.is_empty())
}

#[test]
fn a_disk_that_fails_ends_it_at_once_with_a_code() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    // Files may grow to 2 MiB; what is beyond fails as a broken disk does.
    let mut child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 4096; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_message-hub")])
        .args([
            "serve",
            "--rest",
            "127.0.0.1:0",
            "--raft",
            "127.0.0.1:0",
            "--no-auth",
            "--log-format",
            "json",
        ])
        // Who waited for the drain limit would not end in this test's time.
        .args(["--set", "node.drain_limit=3600s", "--set", "targets.allowed=127.0.0.0/8", "--data"])
        .arg(&data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    up(&mut child, &data)?;
    let endpoints: serde_json::Value = serde_json::from_slice(&std::fs::read(data.join("endpoints.json"))?)?;
    let address = endpoints["rest_url"].as_str().context("no url")?.trim_start_matches("http://").to_owned();
    let mut stderr = child.stderr.take().context("no stderr")?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    // A delivery that is never answered runs when it happens.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let service = format!(r#"{{"name":"silent","url":"http://{}"}}"#, silent.local_addr()?);
    let registered = (0..300).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        post(&address, "/api/v1/services/register", &service).is_some_and(|answer| answer.contains(" 201"))
    });
    ensure!(registered, "the service was not registered");
    let content = "x".repeat(100_000);
    let message = format!(
        r#"{{"sender_service":"t","target_service":"silent","message_type":"t.made","content":"{content}"}}"#
    );
    let deadline = 120;
    for _ in 0..deadline {
        if child.try_wait()?.is_some() {
            break;
        }
        if post(&address, "/api/v1/messages", &message).is_none() {
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    let status = child.try_wait()?;
    if status.is_none() {
        child.kill()?;
    }
    let text = reader.join().map_err(|_| anyhow::anyhow!("reading failed"))??;
    ensure!(status.and_then(|status| status.code()) == Some(1), "{status:?}: {text}");
    ensure!(text.contains("HUB-2013"), "{text}");
    Ok(())
}

fn wait_for_line(child: &mut Child, wanted: &str) -> anyhow::Result<()> {
    let mut stderr = child.stderr.take().context("no stderr")?;
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stderr.read(&mut buffer)?;
        ensure!(read > 0, "it ended without {wanted:?}: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(buffer.get(..read).unwrap_or_default());
        if String::from_utf8_lossy(&seen).contains(wanted) {
            // What comes after must not meet a closed pipe.
            child.stderr = Some(stderr);
            return Ok(());
        }
    }
}

/// The status of one GET.
fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split(' ').nth(1).context("no status")?.to_owned())
}

#[test]
fn requests_have_their_line_when_that_is_wanted() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    for (wanted, lines) in
        [("false", vec!["/nowhere 404"]), ("true", vec!["/openapi.json 200", "/nowhere 404"])]
    {
        let mut child = serve(&data).args(["--no-auth"]).env("LOG_REQUESTS", wanted).spawn()?;
        up(&mut child, &data)?;
        let endpoints: Value = serde_json::from_slice(&std::fs::read(data.join("endpoints.json"))?)?;
        let url = endpoints["rest_url"].as_str().context("no url")?;
        let address = url.trim_start_matches("http://");
        for (path, status) in [("/livez", "200"), ("/openapi.json", "200"), ("/nowhere", "404")] {
            assert_eq!(get(address, path)?, status, "{path}");
        }
        kill_process(Pid::from_child(&child), Signal::TERM)?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8(output.stderr)?;
        let logged = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let requests = logged.filter(|line| line["target"] == "hub_api::request" && line["level"] == "INFO");
        let found: Vec<String> = requests
            .map(|line| format!("{} {}", line["path"].as_str().unwrap_or(""), line["status"]))
            .collect();
        assert_eq!(found, lines, "{text}");
    }
    Ok(())
}
