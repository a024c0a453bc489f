//! What a token allows.

use std::str::FromStr;

/// One right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Send messages as oneself.
    MessagesSend,
    /// Read messages whose sender or target one is.
    MessagesRead,
    /// Send as anyone, read and change every message.
    MessagesAdmin,
    /// Register and change oneself.
    ServicesRegister,
    /// Read the registry.
    ServicesRead,
    /// Begin and join transactions.
    Transactions,
    /// Operate circuit breakers.
    BreakersAdmin,
    /// Operate the cluster; register and change any service.
    ClusterAdmin,
}

/// A word that names no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a scope")]
pub struct UnknownScope;

impl Scope {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::MessagesSend,
        Self::MessagesRead,
        Self::MessagesAdmin,
        Self::ServicesRegister,
        Self::ServicesRead,
        Self::Transactions,
        Self::BreakersAdmin,
        Self::ClusterAdmin,
    ];

    /// The word in a token's `scope`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MessagesSend => "messages:send",
            Self::MessagesRead => "messages:read",
            Self::MessagesAdmin => "messages:admin",
            Self::ServicesRegister => "services:register",
            Self::ServicesRead => "services:read",
            Self::Transactions => "transactions",
            Self::BreakersAdmin => "breakers:admin",
            Self::ClusterAdmin => "cluster:admin",
        }
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(UnknownScope)
    }
}
