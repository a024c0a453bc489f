//! The envelope: what goes in comes out; damage of any kind is an error and never a panic.

use bytes::{Bytes, BytesMut};
use hub_core::codec::{
    CodecError, Command as _, Decoded, Envelope, FLAG_IGNORABLE, Reply as _, decode_batch, encode_batch,
};
use hub_core::control::{Command, Reply};
use hub_core::id::{NodeId, RequestId};
use hub_core::port::Submitted;
use hub_core::time::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

fn commands() -> impl Strategy<Value = Vec<Submitted<Command>>> {
    let command = prop_oneof![
        any::<u128>().prop_map(|cluster| Command::Found { cluster }),
        (any::<u64>(), any::<bool>())
            .prop_map(|(node, draining)| Command::SetDraining { node: NodeId(node), draining }),
        ("[a-z]{1,9}", ".{0,40}").prop_map(|(name, secret)| Command::RotateSecret {
            service: format!("s{name}").parse().unwrap(),
            secret: secret.into()
        }),
    ];
    let submitted = (any::<u128>(), command)
        .prop_map(|(id, command)| Submitted { request: RequestId(Uuid::from_u128(id)), command });
    prop::collection::vec(submitted, 0..6)
}

proptest! {
    #[test]
    fn entries_come_back_and_damage_is_noticed(commands in commands(), now in 0_i64..1 << 46,
        at: prop::sample::Index, bit in 0_u8..8) {
        let now = Timestamp::from_millis(now);
        let bytes = encode_batch(now, &commands);
        let batch = decode_batch::<Command>(bytes.clone()).unwrap();
        prop_assert_eq!(batch.now, now);
        prop_assert_eq!(batch.commands, commands.into_iter().map(Some).collect::<Vec<_>>());
        let at = at.index(bytes.len());
        prop_assert!(decode_batch::<Command>(bytes.slice(..at)).is_err());
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << bit;
        prop_assert!(decode_batch::<Command>(flipped.into()).is_err());
    }

    #[test]
    fn any_bytes_are_safe_to_read(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u16..100) {
        let _ = decode_batch::<Command>(Bytes::from(bytes.clone()));
        let _ = Reply::decode(&bytes);
        let envelope = Envelope { kind, version: 1, flags: 0, body: Bytes::from(bytes) };
        let mut out = BytesMut::new();
        envelope.write(RequestId(Uuid::nil()), &mut out);
        let _ = Reply::decode(&out);
        let _ = Command::decode(envelope);
    }
}

#[test]
fn unknown_kinds_are_skipped_only_if_they_may_be() {
    let mut envelope = Envelope::required(77, 3, &5_u8);
    assert_eq!(Command::decode(envelope.clone()), Err(CodecError::Unknown { kind: 77, version: 3 }));
    envelope.flags = FLAG_IGNORABLE;
    assert_eq!(Command::decode(envelope), Ok(Decoded::Ignorable));
}
