//! The message stores, the queues and the shared cache: every SQL, AMQP and Redis word of the hub.

pub mod copy;
mod listing;
pub mod memory;
pub mod postgres;
pub mod rabbitmq;
pub mod redis;
pub mod sqlite;
pub mod suite;
