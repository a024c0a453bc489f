//! The message stores and queues: every SQL and AMQP word of the hub.

mod listing;
pub mod postgres;
pub mod rabbitmq;
pub mod sqlite;
pub mod suite;
