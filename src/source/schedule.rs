//! Schedules.

use jiff::tz::TimeZone;
use std::time::Duration;

/// When a schedule is due.
#[derive(Clone, Debug)]
pub struct Schedule {}

/// Stand-in.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ScheduleSpec {
    pub when: When,
    pub timezone: TimeZone,
    pub missed: Missed,
}

/// Stand-in.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum When {
    Cron(String),
    Every(Duration),
}

/// Stand-in.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub enum Missed {
    #[default]
    Once,
    All,
    Skip,
}

/// Stand-in.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ScheduleError {
    pub message: String,
    pub hint: Option<String>,
}

#[allow(missing_docs)]
impl Schedule {
    pub fn compile(_spec: &ScheduleSpec) -> Result<Schedule, ScheduleError> {
        Ok(Schedule {})
    }
}
