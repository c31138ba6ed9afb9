//! The index.

/// Which outcome of a rule's own work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Branch {
    /// `on_success`
    Success,
    /// `on_failure`
    Failure,
    /// `on_recovery`
    Recovery,
}
