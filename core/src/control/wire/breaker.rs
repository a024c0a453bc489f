//! Frozen shapes of breakers' parts, as commands, replies and records hold them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::breaker::{
    Cause, Config, Counts, Mode, Order, Outcome, Probe, Refused, Report, Stand, State, Who, Why,
};
use crate::id::{NodeId, ServiceName};
use crate::time::Timestamp;

/// A frozen shape and the two ways between it and the type that the code works with.
macro_rules! frozen {
    (struct $frozen:ident of $own:ident { $($field:ident: $type:ty),* $(,)? }) => {
        #[derive(Serialize, Deserialize)]
        pub(super) struct $frozen {
            $($field: $type,)*
        }

        impl From<$own> for $frozen {
            fn from(own: $own) -> Self {
                Self { $($field: own.$field.into(),)* }
            }
        }

        impl From<$frozen> for $own {
            fn from(frozen: $frozen) -> Self {
                Self { $($field: frozen.$field.into(),)* }
            }
        }
    };
    (enum $frozen:ident of $own:ident { $($variant:ident { $($field:ident: $type:ty),* }),* $(,)? }) => {
        #[derive(Serialize, Deserialize)]
        pub(super) enum $frozen {
            $($variant { $($field: $type),* },)*
        }

        impl From<$own> for $frozen {
            fn from(own: $own) -> Self {
                match own {
                    $($own::$variant { $($field),* } => Self::$variant { $($field: $field.into()),* },)*
                }
            }
        }

        impl From<$frozen> for $own {
            fn from(frozen: $frozen) -> Self {
                match frozen {
                    $($frozen::$variant { $($field),* } => Self::$variant { $($field: $field.into()),* },)*
                }
            }
        }
    };
}

frozen!(struct ConfigV1 of Config {
    reset_timeout_s: u32,
    failure_threshold: u32,
    window_s: u32,
    min_calls: u32,
    failure_permille: u16,
    slow_ms: Option<u32>,
    slow_permille: u16,
    success_threshold: u32,
    max_open_s: u32,
});

frozen!(struct CountsV1 of Counts { calls: u32, failures: u32, slow: u32, consecutive: u32 });

frozen!(enum CauseV1 of Cause { Consecutive {}, FailureRate {}, SlowRate {} });

frozen!(enum ModeV1 of Mode { Auto {}, ForcedOpen {}, ForcedClosed {}, Observe {} });

frozen!(enum StateV1 of State { Closed {}, Open {}, HalfOpen {} });

frozen!(enum OutcomeV1 of Outcome {
    Succeeded {},
    Failed { retry_after_ms: Option<u64> },
    Throttled { retry_after_ms: Option<u64> },
});

frozen!(struct ProbeV1 of Probe {
    node: NodeId,
    granted_at: Timestamp,
    begin_before: Timestamp,
    lease_until: Timestamp,
});

frozen!(enum WhyV1 of Why {
    Votes { unhealthy: u32, objections: u32 },
    WouldOpen { unhealthy: u32, objections: u32 },
    ProbeGranted {},
    ProbesSucceeded {},
    ProbeFailed {},
    ProbeThrottled {},
    LeaseEnded {},
    ModeSet { mode: ModeV1 },
    ModeEnded { mode: ModeV1 },
    Reset {},
    Configured {},
});

frozen!(enum WhoV1 of Who {
    Cluster {},
    Node { node: NodeId },
    Operator { actor: Arc<str>, reason: Option<Arc<str>> },
});

frozen!(enum RefusedV1 of Refused {
    Stale { current: u64 },
    NotOpen {},
    NotDue { retry_at: Timestamp },
    ProbeTaken { node: NodeId, until: Timestamp },
    NotHolder {},
    Mode { mode: ModeV1 },
    NotClosed {},
    NoEvidence {},
});

frozen!(struct OrderV1 of Order { actor: Arc<str>, reason: Option<Arc<str>>, if_epoch: Option<u64> });

frozen!(struct ReportV1 of Report {
    service: ServiceName,
    epoch: u64,
    stand: StandV1<u64>,
    counts: CountsV1,
    success_age_ms: Option<u64>,
    failure_age_ms: Option<u64>,
    retry_after_ms: Option<u64>,
});

#[derive(Serialize, Deserialize)]
pub(super) enum StandV1<T> {
    Unhealthy { cause: CauseV1, since: T },
    Healthy { success: Option<T> },
}

impl<T> From<Stand<T>> for StandV1<T> {
    fn from(stand: Stand<T>) -> Self {
        match stand {
            Stand::Unhealthy { cause, since } => Self::Unhealthy { cause: cause.into(), since },
            Stand::Healthy { success } => Self::Healthy { success },
        }
    }
}

impl<T> From<StandV1<T>> for Stand<T> {
    fn from(stand: StandV1<T>) -> Self {
        match stand {
            StandV1::Unhealthy { cause, since } => Self::Unhealthy { cause: cause.into(), since },
            StandV1::Healthy { success } => Self::Healthy { success },
        }
    }
}
