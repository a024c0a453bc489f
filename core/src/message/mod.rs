//! Messages: what a sender gives, what the hub keeps, and how a message moves between its states.

mod draft;
mod filter;
mod idempotency;
mod new_message;
mod priority;
mod record;
mod state;
mod validate;

pub use draft::Draft;
pub use filter::{Cursor, Filter, PAGE_BYTES, Page};
pub use idempotency::{Fingerprint, IdempotencyKey};
pub use new_message::{Limits, NewMessage};
pub use priority::Priority;
pub use record::{Attempt, Message, Record};
pub use state::{Status, Transition};
pub use validate::{Acceptance, Checked};
