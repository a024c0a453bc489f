//! Invariants: written once, used by property tests, cluster tests and `debug_assert!`.
