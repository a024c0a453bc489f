//! Servers that a hub cannot work with: it refuses to start, with a code, once; a server that is not there is waited for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use hub_chaos_tests::client::Client;
use hub_chaos_tests::folder::Folder;
use hub_chaos_tests::node::Node;
use hub_chaos_tests::{doctor, scenario, shim, wait};
use hub_test_servers::{Kind, Server};

/// Until a hub has ended, or is ready.
pub(super) const ENDS: Duration = Duration::from_secs(120);

/// A refusal is a few lines, whatever else is logged at a start; not a loop.
const FEW: usize = 12;

/// What a hub is told of its servers.
pub(super) type Environment = [(&'static str, String)];

/// Hubs that are started one after the other, each with a disk of its own.
pub(super) struct Hubs<'a> {
    folder: &'a Folder,
    library: PathBuf,
    made: usize,
}

impl<'a> Hubs<'a> {
    pub(super) fn new(folder: &'a Folder) -> anyhow::Result<Self> {
        Ok(Self { folder, library: shim::compile(folder.path())?, made: 0 })
    }

    /// A hub that was never started, with this in its environment.
    pub(super) fn hub(&mut self, environment: &Environment) -> anyhow::Result<Node> {
        self.made += 1;
        let mut node = Node::new(self.made, &self.library, self.folder.path(), &[])?;
        environment.iter().for_each(|(name, value)| node.set(name, value));
        Ok(node)
    }

    /// A hub with this in its environment ends at once, and says why.
    pub(super) async fn refuses(
        &mut self,
        environment: &Environment,
        code: &str,
        says: &str,
    ) -> anyhow::Result<()> {
        refuses(&mut self.hub(environment)?, environment, code, says).await
    }
}

/// The hub ends by itself, without success; it says why in few lines, and tells no password. `doctor` says the same in one.
pub(super) async fn refuses(
    node: &mut Node,
    environment: &Environment,
    code: &str,
    says: &str,
) -> anyhow::Result<()> {
    let before = node.log().map_or(0, |log| log.lines().count());
    node.launch(&[])?;
    let status = node.ended(ENDS).await?;
    let log = node.log()?;
    let lines: Vec<_> = log.lines().skip(before).collect();
    let told = lines.join("\n");
    anyhow::ensure!(!status.success(), "it ended with success: {told}");
    anyhow::ensure!(told.contains(code) && told.contains(says), "no {code} with {says:?}: {told}");
    anyhow::ensure!(lines.len() <= FEW, "{} lines: {told}", lines.len());
    tells_no_secret(&told)?;

    let found = doctor::examine(&node.data(), environment).await?;
    let complaints: Vec<_> = found.iter().filter(|finding| finding.is_complaint()).collect();
    // That tables are missing is no reason against a start.
    let failing: Vec<_> = complaints.iter().filter(|finding| finding.status == "failing").collect();
    let [one] = failing.as_slice() else { anyhow::bail!("{code} is not one line of doctor: {found:#?}") };
    anyhow::ensure!(one.code.as_deref() == Some(code), "doctor does not say {code}: {one:#?}");
    tells_no_secret(&format!("{found:?}"))
}

/// No password, and nothing that only those who wrote the hub can read.
pub(super) fn tells_no_secret(told: &str) -> anyhow::Result<()> {
    let leaks: Vec<_> =
        ["panicked", "stack backtrace", "hunter2"].into_iter().filter(|word| told.contains(word)).collect();
    anyhow::ensure!(leaks.is_empty(), "it tells {leaks:?}: {told}");
    Ok(())
}

/// Runs SQL in one database, as the superuser.
pub(super) async fn sql(server: &Server, database: &str, sql: &str) -> anyhow::Result<String> {
    let (database, command) = (format!("--dbname={database}"), format!("--command={sql}"));
    server
        .exec(&["psql", "--username=message_hub", &database, "-v", "ON_ERROR_STOP=1", "-qAt", &command])
        .await
}

fn url(server: &Server, user: &str, password: &str, database: &str) -> [(&'static str, String); 1] {
    let port = server.port();
    [("DATABASE_URL", format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}"))]
}

#[test]
fn a_database_that_will_not_do_is_refused_with_a_code() -> anyhow::Result<()> {
    scenario::run("refused-postgres", async |folder| {
        let server = Server::launch(Kind::Postgres).await?;
        let mut hubs = Hubs::new(folder)?;
        let word = "message_hub";
        let no_url = [("DATABASE_URL", "mysql://hub:hunter2@127.0.0.1/hub".to_owned())];
        hubs.refuses(&no_url, "HUB-2001", "postgres://").await?;
        hubs.refuses(&url(&server, word, "hunter2", word), "HUB-2017", "password").await?;
        hubs.refuses(&url(&server, word, word, "elsewhere"), "HUB-2017", "elsewhere").await?;

        // No server of so old a version is to be had: this one says that it is one, before its own words are heard.
        sql(&server, word, "CREATE DATABASE aged").await?;
        sql(
            &server,
            "aged",
            "CREATE SCHEMA aged; CREATE FUNCTION aged.current_setting(text) RETURNS text LANGUAGE sql AS \
             $$ SELECT CASE $1 WHEN 'server_version_num' THEN '120022' WHEN 'server_version' THEN '12.22' \
                ELSE pg_catalog.current_setting($1) END $$; \
             ALTER DATABASE aged SET search_path = aged, pg_catalog, public",
        )
        .await?;
        hubs.refuses(&url(&server, word, word, "aged"), "HUB-2018", "12.22").await?;

        sql(&server, word, "CREATE ROLE poor LOGIN PASSWORD 'hunter2'").await?;
        hubs.refuses(&url(&server, "poor", "hunter2", word), "HUB-2021", "permission").await?;
        Ok(())
    })
}

#[test]
fn a_database_of_a_newer_hub_is_refused() -> anyhow::Result<()> {
    scenario::run("refused-newer", async |folder| {
        let server = Server::launch(Kind::Postgres).await?;
        let environment = [("DATABASE_URL", server.url())];
        let mut node = Hubs::new(folder)?.hub(&environment)?;
        node.start(&[]).await?;
        is_ready(&node).await?;
        node.stop().await?;
        server
            .sql(
                "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'of a newer hub', true, '\\x00', 0)",
            )
            .await?;
        refuses(&mut node, &environment, "HUB-2019", "9999").await?;
        server.sql("DELETE FROM _sqlx_migrations WHERE version = 9999").await?;
        node.start(&[]).await?;
        is_ready(&node).await
    })
}

pub(super) fn ready(node: &Node) -> anyhow::Result<String> {
    Ok(format!("{}/readyz", node.url()?.trim_end_matches('/')))
}

pub(super) async fn is_ready(node: &Node) -> anyhow::Result<()> {
    let client = Client::new("sender")?;
    wait::until("the hub is ready", ENDS, async || {
        client.get(&ready(node)?).await?.success()?;
        Ok(Some(()))
    })
    .await
}

/// Warnings and errors of a log.
pub(super) fn complaints(log: &str) -> Vec<&str> {
    let levels = ["\"level\":\"WARN\"", "\"level\":\"ERROR\""];
    log.lines().filter(|line| levels.iter().any(|level| line.contains(level))).collect()
}

#[test]
fn a_database_that_is_not_there_is_waited_for() -> anyhow::Result<()> {
    scenario::run("refused-silent", async |folder| {
        let server = Server::launch(Kind::Postgres).await?;
        server.stop().await?;
        let mut node = Hubs::new(folder)?.hub(&[("DATABASE_URL", server.url())])?;
        node.start(&[]).await?;
        let client = Client::new("sender")?;
        let ready = ready(&node)?;
        wait::until("the hub says what it waits for", ENDS, async || {
            let answer = client.get(&ready).await?;
            let says = answer.status == 503 && answer.body.to_string().contains("waits for Postgre");
            anyhow::ensure!(says, "{answer:?}");
            Ok(Some(()))
        })
        .await?;
        let complained = complaints(&node.log()?).len();
        anyhow::ensure!(complained > 0, "it does not say that it waits");
        // It asks about every second: if each time were a line, there would be many by now.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let log = node.log()?;
        let told = complaints(&log);
        anyhow::ensure!(told.len() <= complained + 2, "{} complaints: {told:#?}", told.len());
        server.start().await?;
        is_ready(&node).await?;
        anyhow::ensure!(node.runs().context("its process")?, "it has ended");
        Ok(())
    })
}
