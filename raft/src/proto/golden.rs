//! Frozen bytes of the messages that lie on disk.

use prost::Message;

use super::*;
use crate::type_config::{self as t, Membership, NodeAddr, StoredMembership};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn applied_state_is_frozen() {
    let nodes =
        [(1, NodeAddr { addr: "127.0.0.1:8300".into() }), (2, NodeAddr { addr: "127.0.0.1:8301".into() })];
    let membership = Membership::new(
        vec![[1].into(), [1, 2].into()],
        nodes.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    )
    .unwrap();
    let stored = StoredMembership::new(Some(t::log_id(3, 1, 7)), membership);
    let state = state_to(Some(&t::log_id(4, 2, 300)), &stored);
    let bytes = state.encode_to_vec();
    assert_eq!(
        hex(&bytes),
        "0a0708041002 18ac02 123d 0a06 0803 1001 1807 1233 0a03 0a0101 0a04 0a020102 1212 0801 120e 3132372e302e302e313a38333030 1212 0802 120e 3132372e302e302e313a38333031"
            .replace(' ', "")
    );
    let decoded = AppliedState::decode(bytes.as_slice()).unwrap();
    assert_eq!(state_from(&decoded).unwrap(), (Some(t::log_id(4, 2, 300)), stored));
}
