//! Tests: every statement finds its rows by an index that fits it, however the tables looked when the plan was made.
//!
//! Plans are made once a connection. One that walks all waiting rows is as fast as any other while there are none, and stops
//! delivery once there are many.

use std::time::Duration;

use hub_core::port::Clock;
use hub_test_servers::{Kind, Place};
use secrecy::SecretString;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, raw_sql};

use super::accept::judge;
use super::{claim, link, list, operator, outbox, prepare, record, settle, sweep};
use crate::suite::RealClock;

const STATEMENTS: [(&str, &str); 27] = [
    ("claim", claim::CLAIM),
    ("lapse", claim::LAPSE),
    ("due", claim::DUE),
    ("claim these", outbox::CLAIM_THESE),
    ("take parked", outbox::TAKE_PARKED),
    ("take overdue", outbox::TAKE_OVERDUE),
    ("undertaken", outbox::UNDERTAKEN_BY_TARGET),
    ("parked", outbox::PARKED),
    ("park", outbox::PARK),
    ("end", settle::END),
    ("give back", settle::GIVE_BACK),
    ("ended targets", sweep::ENDED_TARGETS),
    ("end of time", sweep::END_OF_TIME),
    ("next end", sweep::NEXT),
    ("prune", sweep::PRUNE),
    ("old keys", sweep::OLD_KEYS),
    ("settled before", settle::SETTLED_BEFORE),
    ("one", record::ONE),
    ("many", record::MANY),
    ("known", judge::KNOWN),
    ("open", operator::OPEN),
    ("message", operator::MESSAGE),
    ("lapse of one", operator::LAPSE),
    ("cancel", operator::CANCEL),
    ("replay", operator::REPLAY),
    ("discard", operator::DISCARD),
    ("sizes", list::SIZES),
];

/// Of one all rows are wanted, of the other the first.
const MEANT: [(&str, &str); 2] = [("undertaken", "deliveries_publish"), ("next end", "deliveries_end")];

/// Rows as they are when nothing waits, and statistics of that moment.
const ALL_CLAIMED: &str = "INSERT INTO deliveries (id, target, priority, status, created_at, due, ends_at, owner, claimed_at, \
      lease_end) \
     SELECT gen_random_uuid(), 'a', 4, 'delivering', now(), now(), now() + interval '1 day', 1, now(), \
      now() + interval '20 s' FROM generate_series(1, 2000); \
     ANALYZE deliveries";
const CLEARED: &str = "DELETE FROM deliveries";
const LOOKED_AT: &str = "VACUUM ANALYZE";

#[tokio::test]
async fn waiting_rows_are_not_walked_over() {
    let place = Place::on_shared(Kind::Postgres).await.unwrap();
    let deadline = RealClock.instant() + Duration::from_secs(60);
    prepare(&SecretString::from(place.url().to_owned()), deadline).await.unwrap();
    let mut connection = PgConnection::connect(place.url()).await.unwrap();
    connection.execute(link::SESSION).await.unwrap();
    let mut walks = look(&mut connection, "empty").await;
    connection.execute(ALL_CLAIMED).await.unwrap();
    walks.extend(look(&mut connection, "all claimed").await);
    connection.execute(CLEARED).await.unwrap();
    connection.execute(LOOKED_AT).await.unwrap();
    walks.extend(look(&mut connection, "empty again").await);
    assert!(walks.is_empty(), "{walks:#?}");
}

/// The plan that a session uses for it, whatever the arguments.
async fn explain(connection: &mut PgConnection, statement: &str) -> Value {
    connection.execute(raw_sql(AssertSqlSafe(format!("PREPARE it AS {statement}")))).await.unwrap();
    let count = "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = 'it'";
    let count: i32 = connection.fetch_one(count).await.unwrap().get(0);
    let arguments = vec!["NULL"; usize::try_from(count).unwrap()].join(", ");
    let arguments = if count > 0 { format!("({arguments})") } else { String::new() };
    let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE it {arguments}");
    let plan = connection.fetch_one(raw_sql(AssertSqlSafe(explain))).await.unwrap().get(0);
    connection.execute("DEALLOCATE it").await.unwrap();
    plan
}

/// What walks over whole indexes.
async fn look(connection: &mut PgConnection, when: &str) -> Vec<String> {
    let mut walks = Vec::new();
    for (name, statement) in STATEMENTS {
        let plan = explain(connection, statement).await;
        let mut scans = 0;
        walk(&plan, &mut |node| {
            let of = |key: &str| node.get(key).and_then(Value::as_str).unwrap_or_default();
            let (kind, index) = (of("Node Type"), of("Index Name"));
            // An argument that is null may leave every partition out.
            scans += usize::from(node.get("Subplans Removed").is_some());
            let large = ["deliveries_", "messages_", "attempts_", "idempotency_"];
            if kind == "Seq Scan" || large.iter().any(|name| index.starts_with(name)) {
                scans += 1;
                if node.get("Index Cond").is_none() && !MEANT.contains(&(name, index)) {
                    walks.push(format!(
                        "{when}: {name} walks {} {index} {}",
                        of("Relation Name"),
                        of("Filter")
                    ));
                }
            }
        });
        assert!(scans > 0, "{name} does not look at the table: {plan:#}");
    }
    walks
}

fn walk(value: &Value, visit: &mut impl FnMut(&Value)) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| walk(value, visit)),
        Value::Object(fields) => {
            if fields.contains_key("Node Type") {
                visit(value);
            }
            fields.values().for_each(|value| walk(value, visit));
        }
        _ => {}
    }
}
