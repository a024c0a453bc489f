//! The shared cache on Redis. Everything in it may vanish at any time: while it does not answer, this node decides by
//! itself.

mod endpoint;
mod fault;
mod link;
mod options;
mod probe;
mod service;
mod standing;

pub use endpoint::{Endpoint, EndpointError};
pub use fault::Fault;
pub use options::{Options, Ports};
pub use probe::{Report, probe};
pub use service::{Handle, Service};
pub use standing::{Counts, Standing};
