//! The database as text.

use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

/// What is seen of a message: status, retries, attempts claimed, doubt, end, reason, and the outcomes of its attempts.
pub(crate) type Shown = (String, u32, u32, bool, Option<i64>, Option<String>, Vec<(u32, String)>);

/// Everything that is compared with the model.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// By id.
    pub(crate) messages: Vec<(Vec<u8>, Shown)>,
    /// By target: depth, in flight, accepted, delivered, dead letters.
    pub(crate) backlog: Vec<(String, [i64; 5])>,
    /// Settlements that came too late.
    pub(crate) late: i64,
}

pub(crate) async fn open(folder: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(folder.join("messages-0.db")).read_only(true);
    SqliteConnection::connect_with(&options).await.unwrap()
}

/// Every row of every table but the applied marks themselves.
pub(crate) async fn dump(folder: &Path) -> String {
    let mut connection = open(folder).await;
    let mut text = String::new();
    for table in ["messages", "deliveries", "attempts", "idempotency", "backlog", "machine"] {
        let names: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info(?) ORDER BY cid")
            .bind(table)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let columns: Vec<String> = names.iter().map(|name| format!("quote({name})")).collect();
        let query = format!("SELECT {} FROM {table} ORDER BY 1, 2", columns.join(" || ',' || "));
        let query = query.replace("ORDER BY 1, 2", "ORDER BY 1");
        let rows: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(&mut connection).await.unwrap();
        text.push_str(&format!("{table}\n{}\n", rows.join("\n")));
    }
    text
}

/// The state as it is compared.
pub(crate) async fn shown(folder: &Path) -> State {
    let mut connection = open(folder).await;
    let mut state = State::default();
    let rows = sqlx::query(
        "SELECT m.id, coalesce(d.status, m.status), coalesce(d.retry_count, m.retry_count), \
         coalesce(d.attempt, m.attempt), coalesce(d.may_have_arrived, m.may_have_arrived), m.processed_at, \
         m.dead_reason FROM messages m LEFT JOIN deliveries d USING (id) ORDER BY m.id",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    for row in rows {
        let id: Vec<u8> = row.get(0);
        let attempts = sqlx::query("SELECT number, outcome FROM attempts WHERE id = ? ORDER BY number")
            .bind(id.clone())
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let attempts = attempts.iter().map(|row| (row.get(0), row.get(1))).collect();
        let shown = (
            row.get(1),
            row.get(2),
            row.get(3),
            row.get(4),
            row.get(5),
            row.get::<Option<String>, _>(6),
            attempts,
        );
        state.messages.push((id, shown));
    }
    let rows = sqlx::query("SELECT * FROM backlog ORDER BY target").fetch_all(&mut connection).await.unwrap();
    for row in rows {
        state.backlog.push((row.get(0), [1, 2, 3, 4, 5].map(|column| row.get(column))));
    }
    state.late =
        sqlx::query_scalar("SELECT late_settles FROM machine").fetch_one(&mut connection).await.unwrap();
    state
}
