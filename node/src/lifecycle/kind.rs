//! What a task is to the node.

/// What the failure of a task means. A panic is a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It is logged, and the task starts again after a growing wait.
    Restart,
    /// The node stops: it could not keep its promises without it.
    StopNode,
}

/// What the end of the task's stage does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCancel {
    /// It sees its soft token and ends by itself; it is waited for, up to the drain limit.
    Finish,
    /// It is dropped wherever it waits.
    Drop,
}

/// When a stopping node lets a task go; earlier stages first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// What starts new work by itself: deliveries, checks, sweeps.
    Work,
    /// What answers others: the REST interface.
    Serve,
    /// What the rest stands on: consensus, clock, membership.
    Base,
}

impl Stage {
    /// All, in the order in which they end.
    pub const ALL: [Self; 3] = [Self::Work, Self::Serve, Self::Base];
}

/// A kind of task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskKind {
    /// In logs and labels.
    pub name: &'static str,
    /// When it ends.
    pub stage: Stage,
    /// What its failure means.
    pub on_error: OnError,
    /// How it ends.
    pub on_cancel: OnCancel,
}
