//! Schedules.
/// When a schedule is due.
#[derive(Clone, Debug)]
pub struct Schedule {}
