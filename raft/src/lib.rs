//! Replicated groups over openraft. No other crate names openraft.
