//! The test servers themselves: what the other tests rely on when they break them.

use std::time::Duration;

use hub_test_servers::{Kind, Place, Server};

/// Puts something into a server that it has promised to keep.
async fn put(kind: Kind, server: &Server) -> anyhow::Result<()> {
    match kind {
        Kind::Postgres => server.sql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)").await?,
        Kind::RabbitMq => server.exec(&["rabbitmqctl", "-q", "add_vhost", "kept"]).await?,
        Kind::Redis => {
            server.redis(&["SET", "kept", "7"]).await?;
            // Until it is on disk.
            server.redis(&["WAITAOF", "1", "0", "0"]).await?
        }
    };
    Ok(())
}

async fn is_there(kind: Kind, server: &Server) -> anyhow::Result<bool> {
    let seen = match kind {
        Kind::Postgres => server.sql("SELECT count(*) FROM pg_tables WHERE tablename = 'kept'").await?,
        Kind::RabbitMq => server.exec(&["rabbitmqctl", "-q", "list_vhosts"]).await?,
        Kind::Redis => server.redis(&["EXISTS", "kept"]).await?,
    };
    Ok(seen.lines().any(|line| line == "1" || line == "kept"))
}

async fn survives_all_but_a_wipe(kind: Kind) -> anyhow::Result<()> {
    let server = Server::launch(kind).await?;
    let url = server.url();
    assert!(!is_there(kind, &server).await?, "it starts empty");
    put(kind, &server).await?;

    server.stop().await?;
    assert!(!server.is_ready().await, "it is down");
    server.start().await?;
    assert!(is_there(kind, &server).await?, "after a restart");

    server.kill().await?;
    assert!(!server.is_ready().await, "it is down");
    server.start().await?;
    assert!(is_there(kind, &server).await?, "after a kill");

    server.wipe().await?;
    assert!(!is_there(kind, &server).await?, "after a wipe");
    assert_eq!(server.url(), url);
    Ok(())
}

#[tokio::test]
async fn postgres_survives_all_but_a_wipe() -> anyhow::Result<()> {
    survives_all_but_a_wipe(Kind::Postgres).await
}

#[tokio::test]
async fn rabbitmq_survives_all_but_a_wipe() -> anyhow::Result<()> {
    survives_all_but_a_wipe(Kind::RabbitMq).await
}

#[tokio::test]
async fn redis_survives_all_but_a_wipe() -> anyhow::Result<()> {
    survives_all_but_a_wipe(Kind::Redis).await
}

#[tokio::test]
async fn a_paused_server_takes_connections_and_says_nothing() -> anyhow::Result<()> {
    let server = Server::launch(Kind::Redis).await?;
    server.pause().await?;
    tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await?;
    let answer = tokio::time::timeout(Duration::from_millis(300), server.is_ready()).await;
    assert!(answer.is_err(), "it hangs");

    server.unpause().await?;
    server.wait_until_ready().await?;
    Ok(())
}

#[tokio::test]
async fn arguments_reach_the_program() -> anyhow::Result<()> {
    let server = Server::launch_with(Kind::Postgres, &["-c", "max_connections=23"]).await?;
    assert_eq!(server.sql("SHOW max_connections").await?, "23");
    assert!(server.sql("SELECT nonsense").await.is_err(), "a command that fails is an error");
    Ok(())
}

/// The part of a URL before its last slash.
fn server_of(place: &Place) -> &str {
    place.url().rsplit_once('/').map_or("", |(server, _)| server)
}

async fn places_are_apart_on_one_server(kind: Kind) -> anyhow::Result<()> {
    let (one, other) = tokio::try_join!(Place::on_shared(kind), Place::on_shared(kind))?;
    assert_ne!(one.url(), other.url());
    assert_eq!(server_of(&one), server_of(&other));
    Ok(())
}

#[tokio::test]
async fn postgres_is_shared() -> anyhow::Result<()> {
    places_are_apart_on_one_server(Kind::Postgres).await
}

#[tokio::test]
async fn rabbitmq_is_shared() -> anyhow::Result<()> {
    places_are_apart_on_one_server(Kind::RabbitMq).await
}

#[tokio::test]
async fn redis_is_shared() -> anyhow::Result<()> {
    places_are_apart_on_one_server(Kind::Redis).await
}
