//! Settings that are one of a few words.

use super::value::{Form, Raw, Setting};

macro_rules! words {
    ($($(#[$doc:meta])* $type:ident { $($(#[$word_doc:meta])* $name:ident = $word:literal),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type {
            $($(#[$word_doc])* $name,)*
        }

        impl $type {
            /// The word for it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }

        impl Setting for $type {
            const FORM: Form = Form::Text;
            fn parse(raw: &Raw) -> Result<Self, String> {
                match raw.text().as_str() {
                    $($word => Ok(Self::$name),)*
                    _ => Err(format!("must be one of {}", [$($word),*].join(", "))),
                }
            }
        }
    )*};
}

words! {
    /// How log lines look.
    LogFormat {
        /// Text on a terminal, JSON elsewhere.
        Auto = "auto",
        /// For people.
        Text = "text",
        /// One object a line.
        Json = "json",
    }
    /// Heartbeat and election times of both raft groups.
    RaftProfile {
        /// Heartbeat 50 ms, election 200-400 ms.
        Default = "default",
        /// Heartbeat 50 ms, election 150-250 ms: a quiet network and machines that are not overloaded.
        Fast = "fast",
        /// Heartbeat 500 ms, election 2-4 s: between sites.
        Wan = "wan",
    }
}
