//! RabbitMQ.

use hub_core::error::chain;
use hub_core::id::ServiceName;
use hub_storage::rabbitmq::Error;
use hub_storage::rabbitmq::admin::Admin;

use super::Finding;
use crate::broker::{code_of, options};
use crate::config::Config;

const PART: &str = "rabbitmq";
/// A service that need not exist: to look for its queues takes the rights that the hub needs.
const NOBODY: &str = "doctor";

pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    let Some(options) = options(config) else { return Vec::new() };
    let failing = |error: &Error| Finding::failing(PART, code_of(error), chain(error));
    let mut admin = match Admin::connect(options).await {
        Ok(admin) => admin,
        Err(error) => return vec![failing(&error)],
    };
    let found = match admin.version().await {
        Some(version) => format!("RabbitMQ {version} answers"),
        None => "the broker answers".to_owned(),
    };
    let mut findings = vec![Finding::ok(PART, found)];
    if let Ok(nobody) = NOBODY.parse::<ServiceName>() {
        findings.push(match admin.look(&nobody).await {
            Ok(_) => Finding::ok(PART, "the user has rights to the hub's queues"),
            Err(error) => failing(&error),
        });
    }
    admin.close().await;
    findings
}
