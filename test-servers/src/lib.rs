//! PostgreSQL, RabbitMQ and Redis for tests, in containers of the images of `deploy/images`.
//!
//! [`Server::launch`] gives a test a server of its own, to break as it likes. [`Place::on_shared`] gives it a place on
//! the one server that all tests of a run share, which costs a fraction. Nobody cleans up: a container goes when its
//! handle is dropped, and at the latest a second after the process that it belongs to, however that ended.

mod engine;
mod kind;
mod launch;
mod owner;
mod probe;
mod server;
mod shared;

/// The variable that names another version of PostgreSQL, `13` to `16`: the image `message-hub/postgres:13` must be there
/// (`docker tag postgres:13 message-hub/postgres:13`).
pub const POSTGRES_VERSION: &str = "HUB_TEST_POSTGRES";

pub use kind::Kind;
pub use server::Server;
pub use shared::Place;
