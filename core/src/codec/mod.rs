//! The versioned envelope of everything that is kept in the log or in a snapshot, and of what travels between nodes.

mod batch;
mod envelope;

pub use batch::{Batch, decode_batch, encode_batch};
pub use envelope::{
    CodecError, Decoded, ENVELOPE_HEADER, Envelope, FLAG_IGNORABLE, decode_body, encode_body,
};

/// The number of a kind of envelope. Never used again for something else.
pub type Kind = u16;

/// A command of a replicated state machine.
pub trait Command: Clone + std::fmt::Debug + Send + Sync + Sized + 'static {
    /// Its kind, kind version, flags and body. Released shapes are frozen: a change is a new version.
    fn encode(&self) -> Envelope;
    /// Back from an envelope: every version ever released. `Decoded::Ignorable` for what this node may skip.
    fn decode(envelope: Envelope) -> Result<Decoded<Self>, CodecError>;
    /// About how many bytes it takes, to cut batches.
    fn size_hint(&self) -> usize {
        256
    }
}

/// A reply of a replicated state machine; it travels from the leader to the node that was asked.
pub trait Reply: Clone + std::fmt::Debug + Send + Sync + Sized + 'static {
    /// As bytes.
    fn encode(&self) -> Vec<u8>;
    /// From bytes.
    fn decode(bytes: &[u8]) -> Result<Self, CodecError>;
    /// The answer to a command that was skipped as ignorable.
    fn skipped() -> Self;
}
