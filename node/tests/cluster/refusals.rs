//! Starts that are refused: each with its code, and nothing changed.

use std::path::Path;

use hub_core::error::code;
use serde_json::json;

use crate::support::{Http, TestNode, refused};

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_is_refused() -> anyhow::Result<()> {
    let (folder, http) = (tempfile::tempdir()?, Http::new());
    let one = folder.path().join("1");
    let mut node = TestNode::start(&one, &[]).await?;
    node.ready(&http).await?;
    let address = node.url.trim_start_matches("http://").to_owned();
    assert_eq!(refused(&one, &[]).await?.code, code::IDENTITY_TAKEN);
    let two = folder.path().join("2");
    assert_eq!(refused(&two, &[("rest.listen", &address)]).await?.code, code::PORT_IN_USE);
    assert_eq!(refused(&two, &[("raft.listen", &node.raft)]).await?.code, code::PORT_IN_USE);
    node.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_another_cluster_and_another_key_are_refused() -> anyhow::Result<()> {
    let (folder, http) = (tempfile::tempdir()?, Http::new());
    let (one, two, three) = (folder.path().join("1"), folder.path().join("2"), folder.path().join("3"));
    let mut node = TestNode::start(&one, &[]).await?;
    node.ready(&http).await?;
    let mut other = TestNode::start(&two, &[]).await?;
    other.ready(&http).await?;
    other.stop().await;
    assert_eq!(refused(&two, &[("raft.join", &node.raft)]).await?.code, code::OTHER_CLUSTER);
    let stranger = [
        ("raft.join", node.raft.as_str()),
        ("raft.cluster_key", "another key that is long enough for a test"),
    ];
    assert_eq!(refused(&three, &stranger).await?.code, code::CLUSTER_KEY);
    let nobody = [("raft.join", "127.0.0.1:1"), ("raft.join_timeout", "1s")];
    assert_eq!(refused(&three, &nobody).await?.code, code::NOT_REACHABLE);
    node.ready(&http).await?;
    node.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_folder_is_no_second_node() -> anyhow::Result<()> {
    let (folder, http) = (tempfile::tempdir()?, Http::new());
    let one = folder.path().join("1");
    let mut first = TestNode::start(&one, &[]).await?;
    first.ready(&http).await?;
    let two = folder.path().join("2");
    let mut second = TestNode::start(&two, &[("raft.join", &first.raft)]).await?;
    second.ready(&http).await?;
    let twin = folder.path().join("twin");
    copy(&two, &twin)?;
    assert_eq!(refused(&twin, &[("raft.join", &first.raft)]).await?.code, code::IDENTITY_TAKEN);
    second.ready(&http).await?;
    second.stop().await;
    first.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_are_never_called_are_refused_when_they_are_registered() -> anyhow::Result<()> {
    let (folder, http) = (tempfile::tempdir()?, Http::new());
    // As it is without a setting: everything but loopback. And with loopback, as `dev` has it.
    let mut plain = TestNode::start(&folder.path().join("1"), &[("targets.allowed", "")]).await?;
    let mut open = TestNode::start(&folder.path().join("2"), &[]).await?;
    let (own_rest, own_raft) = (open.url.clone(), format!("http://{}", open.raft));
    for (node, urls) in [
        (
            &plain,
            vec![
                "http://127.0.0.1:9000",
                "http://[::1]:9000",
                "http://localhost:9000",
                "http://0.0.0.0:9000",
            ],
        ),
        (&plain, vec!["http://169.254.169.254/latest", "http://[fe80::1]", "http://[::ffff:127.0.0.1]:9000"]),
        (&open, vec![own_rest.as_str(), own_raft.as_str(), "http://169.254.169.254"]),
    ] {
        node.ready(&http).await?;
        for url in urls {
            let body = json!({"name": "target", "url": url});
            let (status, answer) = http.post(&format!("{}/api/v1/services/register", node.url), body).await?;
            assert_eq!(status.as_u16(), 422, "{url}: {answer}");
            assert_eq!(answer["code"], code::URL_REFUSED.to_string(), "{url}: {answer}");
        }
    }
    let (_, services) = http.get(&format!("{}/api/v1/services", open.url)).await?;
    assert_eq!(services["items"], json!([]));
    plain.stop().await;
    open.stop().await;
    Ok(())
}
