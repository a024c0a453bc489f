//! A machine small enough to see through, for the tests of this crate.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use hub_core::codec::{
    CodecError, Command, Decoded, Envelope, FLAG_IGNORABLE, Reply, decode_body, encode_body,
};
use hub_core::id::RequestId;
use hub_core::port::{Entry, MemoryMachine};
use serde::{Deserialize, Serialize};

const KIND: u16 = 60_000;
const KIND_NEWER: u16 = 60_001;

/// This process runs the version that knows `Newer`.
pub(crate) static NEWER: AtomicBool = AtomicBool::new(false);

/// Sets a key; or something that only a newer version knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    Key(String, String),
    Newer { ignorable: bool },
}

/// How often the key was set before, or that the command was skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Before(pub(crate) u64);

/// Keys with their value and how often they were set, and the answers to requests: a repeat changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Toy {
    pub(crate) keys: BTreeMap<String, (String, u64)>,
    answered: BTreeMap<RequestId, u64>,
}

impl Command for Set {
    fn encode(&self) -> Envelope {
        match self {
            Self::Key(key, value) => Envelope::required(KIND, 1, &(key, value)),
            Self::Newer { ignorable } => Envelope {
                kind: KIND_NEWER,
                version: 9,
                flags: if *ignorable { FLAG_IGNORABLE } else { 0 },
                body: Bytes::new(),
            },
        }
    }

    fn decode(envelope: Envelope) -> Result<Decoded<Self>, CodecError> {
        if envelope.kind == KIND_NEWER && NEWER.load(Ordering::Relaxed) {
            return Ok(Decoded::Value(Self::Newer { ignorable: envelope.flags & FLAG_IGNORABLE != 0 }));
        }
        if envelope.kind != KIND {
            return envelope.unknown();
        }
        let (key, value) = decode_body(&envelope.body)?;
        Ok(Decoded::Value(Self::Key(key, value)))
    }
}

impl Reply for Before {
    fn encode(&self) -> Vec<u8> {
        encode_body(&self.0).to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        decode_body(bytes).map(Self)
    }

    fn skipped() -> Self {
        Self(u64::MAX)
    }
}

impl MemoryMachine for Toy {
    type Command = Set;
    type Reply = Before;
    type View = Self;

    fn apply(&mut self, entry: &Entry<Set>) -> Vec<Before> {
        let mut replies = Vec::new();
        for submitted in &entry.commands {
            let Set::Key(key, value) = &submitted.command else {
                replies.push(Before(0));
                continue;
            };
            if let Some(before) = self.answered.get(&submitted.request) {
                replies.push(Before(*before));
                continue;
            }
            let slot = self.keys.entry(key.clone()).or_default();
            self.answered.insert(submitted.request, slot.1);
            replies.push(Before(slot.1));
            *slot = (value.clone(), slot.1 + 1);
        }
        replies
    }

    fn view(&self) -> Self {
        self.clone()
    }

    fn encode(&self) -> Vec<u8> {
        encode_body(self).to_vec()
    }

    fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        decode_body(&bytes)
    }
}
