//! What goes to the broker: ids and routing data, nothing of the content.

use std::time::Instant;

use hub_core::id::MessageId;
use hub_core::message::Priority;
use lapin::BasicProperties;
use lapin::message::Delivery;

use super::name::{Kind, Prefix};
use crate::postgres::{Burial, Outgoing};

/// The word in the property `type` of what is to be delivered.
const DELIVERY: &str = "delivery";
/// A message in the broker survives its restart.
const PERSISTENT: u8 = 2;

/// Something to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A message to be delivered.
    Outgoing(Outgoing),
    /// A copy of a dead letter.
    Burial(Burial),
}

/// Something to be published, and until when trying makes sense.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) content: Content,
    pub(super) until: Instant,
}

impl Content {
    /// Into which queue.
    pub(super) fn queue(&self, prefix: &Prefix) -> String {
        match self {
            Self::Outgoing(parcel) => prefix.queue(Kind::Work, &parcel.target),
            Self::Burial(burial) => prefix.queue(Kind::Dead, &burial.target),
        }
    }

    /// The properties. They say all that the hub reads.
    pub(super) fn properties(&self) -> BasicProperties {
        let (id, kind) = match self {
            Self::Outgoing(parcel) => (parcel.id, DELIVERY),
            Self::Burial(burial) => (burial.id, burial.reason.as_str()),
        };
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type("application/json".into())
            .with_app_id("message-hub".into())
            .with_type(kind.into())
            .with_message_id(id.to_string().into());
        match self {
            Self::Outgoing(parcel) => properties.with_priority(parcel.priority.get()),
            Self::Burial(_) => properties,
        }
    }

    /// The body, for people who look into a queue. Names and ids need no escapes.
    pub(super) fn body(&self) -> String {
        match self {
            Self::Outgoing(parcel) => format!(r#"{{"id":"{}","target":"{}"}}"#, parcel.id, parcel.target),
            Self::Burial(burial) => {
                let reason = burial.reason.as_str();
                format!(r#"{{"id":"{}","target":"{}","reason":"{reason}"}}"#, burial.id, burial.target)
            }
        }
    }
}

/// The message that a delivery is about, and its place; `None` if this hub did not write it.
pub(super) fn read(delivery: &Delivery) -> Option<(MessageId, Priority)> {
    let properties = &delivery.properties;
    if properties.kind().as_ref().map(|kind| kind.as_str()) != Some(DELIVERY) {
        return None;
    }
    let id = properties.message_id().as_ref()?.as_str().parse().ok()?;
    let priority = (*properties.priority()).and_then(Priority::new).unwrap_or_default();
    Some((id, priority))
}

/// A parcel that the broker gave back because there was no queue for it; `None` for anything else.
pub(super) fn returned(prefix: &Prefix, delivery: &Delivery) -> Option<Outgoing> {
    let (Kind::Work, target) = prefix.owner(delivery.routing_key.as_str())? else { return None };
    let (id, priority) = read(delivery)?;
    Some(Outgoing { id, target, priority })
}

#[cfg(test)]
mod tests {
    use hub_core::delivery::DeadReason;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_parcel_is_read_back_and_a_burial_is_not() {
        let prefix: Prefix = "hub".parse().unwrap();
        let parcel = Outgoing {
            id: MessageId(Uuid::from_u128(7)),
            target: "orders".parse().unwrap(),
            priority: Priority::new(9).unwrap(),
        };
        let burial = Burial { id: parcel.id, target: parcel.target.clone(), reason: DeadReason::Gone };
        let sent = |content: &Content| {
            let queue = content.queue(&prefix);
            let mut delivery = Delivery::mock(1, "".into(), queue.into(), false, content.body().into_bytes());
            delivery.properties = content.properties();
            delivery
        };
        let delivery = sent(&Content::Outgoing(parcel.clone()));
        assert_eq!(returned(&prefix, &delivery), Some(parcel));
        assert_eq!(delivery.properties.delivery_mode(), &Some(2));
        let body = String::from_utf8(delivery.data).unwrap();
        assert_eq!(body, r#"{"id":"00000000-0000-0000-0000-000000000007","target":"orders"}"#);
        let delivery = sent(&Content::Burial(burial));
        assert_eq!((returned(&prefix, &delivery), read(&delivery)), (None, None));
        assert_eq!(delivery.routing_key.as_str(), "hub.dlq.orders");
        assert!(String::from_utf8(delivery.data).unwrap().ends_with(r#""reason":"gone"}"#));
    }
}
