//! What brokers do: close connections, lose queues, restart, forget everything, run out of memory. Nothing is lost by it.

use hub_core::port::{Clock, DeliveryQueue};
use hub_test_servers::{Kind as Engine, Server};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use secrecy::SecretString;

use super::hub::{Hub, database, number, options, service, until, virtual_host};
use crate::rabbitmq::admin::Admin;
use crate::rabbitmq::{Error, Kind, Options, Prefix, connection};
use crate::suite::RealClock;

async fn depth(options: &Options, target: &str) -> Option<u32> {
    let mut admin = Admin::connect(options.clone()).await.ok()?;
    let depth = admin.look(&service(target)).await.ok()?.work;
    admin.close().await;
    Some(depth?.messages)
}

/// As many as there are are in the broker again, within the time that is promised.
async fn is_published_again(options: &Options, count: u32) {
    let begun = RealClock.instant();
    until("published again", || async { depth(options, "target").await == Some(count) }).await;
    let took = RealClock.instant().duration_since(begun);
    println!("published again after {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_queue_is_filled_again() {
    let (database, broker) = (database().await, virtual_host().await);
    let settings = options(&broker);
    let mut hub = Hub::start(1, &database, settings.clone());
    hub.is_connected().await;
    let ids = hub.accept("target", 300).await;
    until("all are there", || async { depth(&settings, "target").await == Some(300) }).await;
    let mut admin = Admin::connect(settings.clone()).await.unwrap();
    assert_eq!(admin.purge(Kind::Work, &service("target")).await.unwrap(), Some(300), "the fault");
    admin.close().await;
    is_published_again(&settings, 300).await;
    assert!(hub.metric("republished_total") >= 300);
    hub.deliver(50);
    hub.has_delivered(&ids).await;
    hub.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_queue_is_made_again() {
    let (database, broker) = (database().await, virtual_host().await);
    let settings = options(&broker);
    let mut hub = Hub::start(1, &database, settings.clone());
    hub.is_connected().await;
    hub.deliver(50);
    let first = hub.accept("target", 10).await;
    hub.has_delivered(&first).await;
    let connection = connection::open(&settings, "test".to_owned()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let queue = settings.prefix.queue(Kind::Work, &service("target"));
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    let mut ids = first;
    ids.extend(hub.accept("target", 200).await);
    hub.has_delivered(&ids).await;
    connection::close(&connection).await;
    hub.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_other_arguments_is_said() {
    let broker = virtual_host().await;
    let mut settings = options(&broker);
    settings.prefix = "other".parse::<Prefix>().unwrap();
    let connection = connection::open(&settings, "test".to_owned()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let classic = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("other.target".into(), classic, FieldTable::default()).await.unwrap();
    let mut admin = Admin::connect(settings.clone()).await.unwrap();
    let error = admin.set_up(&service("target")).await.unwrap_err();
    assert!(matches!(&error, Error::Arguments { queue, .. } if queue == "other.target"), "{error:?}");
    assert!(error.is_lasting());
    // The others are not concerned, and are made over the same connection.
    assert_eq!(admin.set_up(&service("another")).await.unwrap().work.unwrap().messages, 0);
    admin.close().await;

    let database = database().await;
    let mut hub = Hub::start(1, &database, settings);
    hub.is_connected().await;
    hub.deliver(10);
    let stuck = hub.accept("target", 3).await;
    let ids = hub.accept("another", 20).await;
    hub.has_delivered(&ids).await;
    assert_eq!(number(&database, "SELECT count(*) FROM deliveries").await, 3, "{stuck:?} wait");
    connection::close(&connection).await;
    hub.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_address_or_password_is_said() {
    let broker = virtual_host().await;
    let connect = async |url: String| match Admin::connect(options(&url)).await {
        Ok(_) => panic!("connected to {url}"),
        Err(error) => error,
    };
    let wrong = connect(broker.replace("message_hub:message_hub@", "message_hub:wrong@")).await;
    assert!(matches!(wrong, Error::Credentials(_)) && wrong.is_lasting(), "{wrong:?}");
    let wrong = connect(format!("{broker}_not_there")).await;
    assert!(matches!(wrong, Error::VirtualHost(_)) && wrong.is_lasting(), "{wrong:?}");
    let wrong = connect("amqp://127.0.0.1:1/%2f".to_owned()).await;
    assert!(matches!(wrong, Error::Unreachable(_)) && !wrong.is_lasting(), "{wrong:?}");
    let wrong = options("http://secret@host").uri().unwrap_err();
    assert!(matches!(&wrong, Error::Url(_)) && !wrong.to_string().contains("secret"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_closed_by_the_broker_come_back_and_lose_nothing() {
    let (database, server) = (database().await, Server::launch(Engine::RabbitMq).await.unwrap());
    let mut hub = Hub::start(1, &database, options(&server.url()));
    hub.is_connected().await;
    hub.deliver(20);
    let mut ids = Vec::new();
    for round in 1..=3 {
        ids.extend(hub.accept("target", 400).await);
        let before = hub.metric("connections_total");
        server.exec(&["rabbitmqctl", "close_all_connections", "bye"]).await.unwrap();
        ids.extend(hub.accept("target", 400).await);
        until("connected anew", || async { hub.metric("connections_total") > before }).await;
        println!("round {round}: {} of {} delivered", hub.delivered().len(), ids.len());
    }
    hub.has_delivered(&ids).await;
    hub.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_and_a_wiped_broker_lose_nothing() {
    let (database, server) = (database().await, Server::launch(Engine::RabbitMq).await.unwrap());
    let settings = options(&server.url());
    let mut hub = Hub::start(1, &database, settings.clone());
    hub.is_connected().await;
    let mut ids = hub.accept("target", 200).await;
    until("all are there", || async { depth(&settings, "target").await == Some(200) }).await;

    server.stop().await.unwrap();
    until("the connection is gone", || async { hub.metric("connected") == 0 }).await;
    ids.extend(hub.accept("target", 100).await);
    server.start().await.unwrap();
    hub.is_connected().await;
    assert_eq!(depth(&settings, "target").await, Some(200), "what was confirmed outlives a restart");

    server.wipe().await.unwrap();
    hub.is_connected().await;
    until("the queue is empty", || async { depth(&settings, "target").await.is_some() }).await;
    hub.deliver(20);
    hub.has_delivered(&ids).await;
    assert!(hub.metric("republished_total") > 0, "the fault");
    hub.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_broker_is_given_up_and_found_again() {
    let (database, server) = (database().await, Server::launch(Engine::RabbitMq).await.unwrap());
    let mut hub = Hub::start(1, &database, options(&server.url()));
    hub.is_connected().await;
    hub.deliver(20);
    let mut ids = hub.accept("target", 50).await;
    hub.has_delivered(&ids).await;
    server.pause().await.unwrap();
    ids.extend(hub.accept("target", 200).await);
    until("the connection is given up", || async { hub.metric("connected") == 0 }).await;
    assert!(hub.delivered().len() < ids.len(), "the fault");
    ids.extend(hub.accept("target", 50).await);
    server.unpause().await.unwrap();
    hub.has_delivered(&ids).await;
    hub.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_memory_pauses_publishing_and_not_accepting() {
    let (database, server) = (database().await, Server::launch(Engine::RabbitMq).await.unwrap());
    let mut hub = Hub::start(1, &database, options(&server.url()));
    hub.is_connected().await;
    hub.deliver(20);
    let mut ids = hub.accept("target", 20).await;
    hub.has_delivered(&ids).await;
    server.exec(&["rabbitmqctl", "set_vm_memory_high_watermark", "0"]).await.unwrap();
    // It says so to those who publish.
    ids.extend(hub.accept("target", 5).await);
    until("blocked", || async { hub.metric("blocked") == 1 }).await;
    let confirmed = hub.metric("confirmed_total");
    ids.extend(hub.accept("target", 300).await);
    let waiting = "SELECT count(*) FROM deliveries";
    assert!(number(&database, waiting).await >= 300, "accepted and not delivered");
    assert_eq!(hub.metric("confirmed_total"), confirmed, "nothing is taken");
    assert!(hub.queue.due().await.is_ok_and(|(due, _)| due == [service("target")]));
    server.exec(&["rabbitmqctl", "set_vm_memory_high_watermark", "0.6"]).await.unwrap();
    hub.has_delivered(&ids).await;
    hub.end().await;
}

#[test]
fn secrets_are_not_shown() {
    let options = Options::new(SecretString::from("amqp://user:hidden@host".to_owned()), Prefix::default());
    assert!(!format!("{options:?}").contains("hidden"));
}
