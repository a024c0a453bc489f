//! Statements over many rows: one prepared statement for each number of rows up to [`MAX_ROWS`], so that a batch costs few
//! crossings to the connection's thread and nothing is compiled twice.

use std::sync::{Arc, OnceLock};

use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection};

use super::fault::Fault;

/// Most rows of one statement.
const MAX_ROWS: usize = 64;

/// A query with its arguments.
pub(super) type Query = sqlx::query::Query<'static, Sqlite, SqliteArguments>;

/// A statement whose middle part repeats once for each row.
pub(super) struct Bulk {
    during: &'static str,
    head: &'static str,
    row: &'static str,
    tail: &'static str,
    texts: [OnceLock<Arc<str>>; MAX_ROWS],
}

impl Bulk {
    /// `head`, then `row` for each row with commas between, then `tail`. `during` names it in errors.
    pub(super) const fn new(
        during: &'static str,
        head: &'static str,
        row: &'static str,
        tail: &'static str,
    ) -> Self {
        Self { during, head, row, tail, texts: [const { OnceLock::new() }; MAX_ROWS] }
    }

    fn build(&self, rows: usize) -> Arc<str> {
        let mut text = String::with_capacity(self.head.len() + rows * (self.row.len() + 1) + self.tail.len());
        text.push_str(self.head);
        for row in 0..rows {
            if row > 0 {
                text.push(',');
            }
            text.push_str(self.row);
        }
        text.push_str(self.tail);
        text.into()
    }

    fn query(&self, rows: usize) -> Query {
        let text = match self.texts.get(rows.saturating_sub(1)) {
            Some(cell) => Arc::clone(cell.get_or_init(|| self.build(rows))),
            None => self.build(rows),
        };
        sqlx::query(AssertSqlSafe(text))
    }

    /// Runs it over all `items`; how many rows changed.
    pub(super) async fn execute<T: Sync>(
        &self,
        connection: &mut SqliteConnection,
        items: &[T],
        bind: impl Fn(Query, &T) -> Query + Send,
    ) -> Result<u64, Fault> {
        let mut changed = 0;
        for chunk in items.chunks(MAX_ROWS) {
            let query = chunk.iter().fold(self.query(chunk.len()), &bind);
            changed +=
                query.execute(&mut *connection).await.map_err(Fault::sql(self.during))?.rows_affected();
        }
        Ok(changed)
    }

    /// Runs it over all `items`; the rows it gave.
    pub(super) async fn fetch<T: Sync>(
        &self,
        connection: &mut SqliteConnection,
        items: &[T],
        bind: impl Fn(Query, &T) -> Query + Send,
    ) -> Result<Vec<sqlx::sqlite::SqliteRow>, Fault> {
        let mut rows = Vec::new();
        for chunk in items.chunks(MAX_ROWS) {
            let query = chunk.iter().fold(self.query(chunk.len()), &bind);
            rows.extend(query.fetch_all(&mut *connection).await.map_err(Fault::sql(self.during))?);
        }
        Ok(rows)
    }
}
