//! The load generator with real processes: it counts what it should, and a lost message does not escape it.

use std::process::Command;

use serde_json::Value;

/// One node, a short load; the exit code and the one object it prints.
fn bench(arguments: &[&str]) -> anyhow::Result<(Option<i32>, Value)> {
    let output = Command::new(env!("CARGO_BIN_EXE_message-hub"))
        .args(["bench", "messages", "--nodes", "1", "--clients", "8", "--duration", "1s", "--warm-up", "0s"])
        // Not the system's temporary folder, which may lie in memory.
        .args(["--output", "json", "--data", env!("CARGO_TARGET_TMPDIR")])
        .args(arguments)
        .output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    let report =
        serde_json::from_slice(&output.stdout).map_err(|error| anyhow::anyhow!("{error}: {words}"))?;
    Ok((output.status.code(), report))
}

#[test]
fn a_lost_delivery_is_seen() -> anyhow::Result<()> {
    let (exit, report) = bench(&["--self-check-drop", "--quiet", "15s"])?;
    assert_eq!((exit, &report["lost"]), (Some(1), &Value::from(1)), "{report}");
    let accepted = report["accepted"].as_u64().unwrap_or(0);
    assert!(accepted > 1 && report["delivered"] == accepted - 1, "{report}");
    assert_eq!(report["missing"].as_array().map(Vec::len), Some(1), "the lost one is named: {report}");
    Ok(())
}

#[test]
fn what_is_not_delivered_is_found_in_the_store() -> anyhow::Result<()> {
    let (exit, report) = bench(&["--deliver", "off"])?;
    assert_eq!((exit, &report["lost"]), (Some(0), &Value::from(0)), "{report}");
    assert!(report["accepted"].as_u64() > Some(0) && report["delivered"] == report["accepted"], "{report}");
    assert!(report["delivered_per_s"].is_null(), "{report}");
    assert!(
        report["file_system"]["kind"].is_string() && report["node_usage"][0]["rss_bytes"].as_u64() > Some(0)
    );
    Ok(())
}

#[test]
fn a_target_that_hangs_is_measured_beside_the_others() -> anyhow::Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_message-hub"))
        .args(["bench", "isolation", "--nodes", "1", "--targets", "3", "--clients", "1", "--rate", "30"])
        .args(["--rounds", "1", "--round", "2s", "--output", "json", "--data", env!("CARGO_TARGET_TMPDIR")])
        .output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| anyhow::anyhow!("{error}: {words}"))?;
    assert_eq!((output.status.code(), &report["lost"]), (Some(0), &Value::from(0)), "{report}");
    assert!(report["tried"].as_u64() > Some(0), "nothing was tried at the one that hung: {report}");
    assert!(report["caught_up_s"].is_number(), "{report}");
    for half in ["all_well", "one_hangs"] {
        assert!(report[half]["count"].as_u64() > Some(20), "{report}");
    }
    Ok(())
}
