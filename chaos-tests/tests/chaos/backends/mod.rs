//! Three hubs on servers of their own: hubs and servers are killed, stopped, frozen and emptied in turn, under load.

mod backlog;
mod days;
mod held;
mod hubs;
mod postgres;
mod rabbitmq;
mod redis;
mod refused;
mod refused_broker;
mod stage;
mod unwell;

use hub_chaos_tests::servers::{Mix, Servers};
use hub_chaos_tests::{scenario, sizes};

use self::stage::Stage;

#[test]
fn every_promise_is_kept_on_postgres() -> anyhow::Result<()> {
    scenario::run("postgres-faults", async |folder| {
        let mut stage = Stage::start(folder, Mix::Postgres).await?;
        stage.send()?;
        for round in 0..sizes::of_this_run().rounds {
            hubs::killed(&mut stage, round).await?;
            postgres::restarted(&mut stage).await?;
            postgres::paused(&mut stage).await?;
            postgres::killed(&mut stage).await?;
            postgres::read_only(&mut stage).await?;
        }
        stage.finish().await
    })
}

#[test]
fn every_promise_is_kept_on_a_full_disk() -> anyhow::Result<()> {
    scenario::run("postgres-full", async |folder| {
        let servers = Servers::launch(Mix::Postgres).await?;
        postgres::on_small_disk(&servers.postgres).await?;
        let mut stage = Stage::on(folder, servers, &[]).await?;
        stage.send()?;
        for _ in 0..sizes::of_this_run().rounds {
            postgres::full(&mut stage).await?;
        }
        stage.finish().await
    })
}

#[test]
fn every_promise_is_kept_on_all_three_servers() -> anyhow::Result<()> {
    scenario::run("servers-faults", async |folder| {
        let mut stage = Stage::start_with(folder, Mix::Everything, &[redis::LIMIT]).await?;
        stage.send()?;
        for round in 0..sizes::of_this_run().rounds {
            hubs::killed(&mut stage, round).await?;
            rabbitmq::restarted(&mut stage).await?;
            rabbitmq::connections_closed(&mut stage).await?;
            rabbitmq::purged(&mut stage).await?;
            rabbitmq::wiped(&mut stage).await?;
            postgres::restarted(&mut stage).await?;
            postgres::paused(&mut stage).await?;
            redis::flushed(&mut stage).await?;
            redis::killed(&mut stage).await?;
            hubs::left_alone(&mut stage, round).await?;
        }
        stage.finish().await
    })
}

#[test]
fn one_hub_of_three_goes_on_alone() -> anyhow::Result<()> {
    scenario::run("no-quorum", async |folder| {
        let mut stage = Stage::start(folder, Mix::Postgres).await?;
        stage.send()?;
        for round in 0..sizes::of_this_run().rounds {
            hubs::left_alone(&mut stage, round).await?;
        }
        stage.finish().await
    })
}
