//! RabbitMQ.

use hub_core::error::chain;
use hub_core::id::ServiceName;
use hub_core::port::IdSource as _;
use hub_storage::rabbitmq::admin::Admin;
use hub_storage::rabbitmq::{Error, Options};

use super::Finding;
use crate::broker::{code_of, options};
use crate::config::Config;
use crate::ids::Ids;

const PART: &str = "rabbitmq";

/// Looks at the broker, and at the queues of these services.
pub(super) async fn examine(config: &Config, services: &[ServiceName]) -> Vec<Finding> {
    let Some(options) = options(config) else { return Vec::new() };
    let mut admin = match Admin::connect(options.clone()).await {
        Ok(admin) => admin,
        Err(error) => return vec![failing(&error)],
    };
    let found = match admin.version().await {
        Some(version) => format!("RabbitMQ {version} answers"),
        None => "the broker answers".to_owned(),
    };
    let mut findings = vec![Finding::ok(PART, found)];
    match admin.try_rights(Ids::new().request_id()).await {
        Ok(()) => {
            findings.push(Finding::ok(PART, "the user has the rights that the hub needs"));
            findings.extend(queues(&mut admin, &options, services).await);
        }
        Err(error) => findings.push(failing(&error)),
    }
    admin.close().await;
    findings
}

/// One line for each queue that will not do, and one for all that will.
async fn queues(admin: &mut Admin, options: &Options, services: &[ServiceName]) -> Vec<Finding> {
    let (mut findings, mut made, mut waiting) = (Vec::new(), 0, 0_u64);
    for service in services {
        match admin.examine(service).await {
            Ok(queues) => {
                made += usize::from(queues.work.is_some());
                waiting += queues.work.map_or(0, |depth| u64::from(depth.messages));
            }
            Err(error) => {
                findings.push(failing(&error));
                if !error.is_lasting() {
                    return findings;
                }
            }
        }
    }
    if findings.is_empty() {
        let (all, window) = (services.len(), options.window);
        let found = format!(
            "{made} of {all} services have their queue, each for up to {window} ids; {waiting} wait in them"
        );
        findings.push(Finding::ok(PART, found));
    }
    findings
}

fn failing(error: &Error) -> Finding {
    Finding::failing(PART, code_of(error), chain(error))
}
