//! Databases that cannot be used are refused with a reason, and migrations run once.

use hub_storage::postgres::{SetupError, prepare};
use secrecy::SecretString;

use crate::base::{Base, deadline};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_hubs_may_migrate_at_once() {
    let base = Base::empty().await;
    let secret = base.secret();
    let all = futures::future::join_all((0..4).map(|_| prepare(&secret, deadline()))).await;
    let applied: usize = all.into_iter().map(|prepared| prepared.unwrap().applied).sum();
    assert!(applied > 0);
    assert_eq!(prepare(&secret, deadline()).await.unwrap().applied, 0, "nothing is left to do");
    let tables = base
        .number(
            "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p') AND relname IN ('messages', 'deliveries', \
             'attempts', 'idempotency', 'backlog', 'circuit_breaker_state', 'transactions')",
        )
        .await;
    assert_eq!(tables, 7);
    let ahead = base.number("SELECT count(*) FROM pg_inherits WHERE inhparent = 'messages'::regclass").await;
    assert_eq!(ahead, 8, "today and a week");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_newer_hub_migrated_is_left_alone() {
    let base = Base::migrated().await;
    base.sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9000, 'of the future', true, '', 0)",
    )
    .await;
    let error = prepare(&base.secret(), deadline()).await.unwrap_err();
    assert!(matches!(error, SetupError::Newer { found: 9_000, .. }), "{error}");
    assert!(error.is_final());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_address_or_login_is_told_apart() {
    let base = Base::empty().await;
    let (server, name) = base.url.rsplit_once('/').unwrap();
    let missing = SecretString::from(format!("{server}/{name}_missing"));
    let error = prepare(&missing, deadline()).await.unwrap_err();
    assert!(matches!(error, SetupError::Login { .. }) && error.is_final(), "{error}");
    let place = server.rsplit_once('@').unwrap().1;
    let stranger = SecretString::from(format!("postgres://stranger:nonsense@{place}/{name}"));
    let error = prepare(&stranger, deadline()).await.unwrap_err();
    assert!(matches!(error, SetupError::Login { .. }), "{error}");
    assert!(!error.to_string().contains("nonsense"), "{error}");
    let nobody = SecretString::from("postgres://hub:secret@127.0.0.1:1/hub");
    let error = prepare(&nobody, deadline()).await.unwrap_err();
    assert!(matches!(error, SetupError::Unreachable { .. }) && !error.is_final(), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_right_is_named() {
    let base = Base::empty().await;
    let (server, name) = base.url.rsplit_once('/').unwrap();
    let role = format!("{name}_poor");
    base.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'poor'; REVOKE CREATE ON SCHEMA public FROM PUBLIC"
    ))
    .await;
    let place = server.rsplit_once('@').unwrap().1;
    let poor = SecretString::from(format!("postgres://{role}:poor@{place}/{name}"));
    let error = prepare(&poor, deadline()).await.unwrap_err();
    assert!(matches!(error, SetupError::Denied(_)) && error.is_final(), "{error}");
}
