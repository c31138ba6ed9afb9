//! `case`: which one an event opens or closes, and what may be said of it.

use crate::event::{Event, Kind};

/// `case`: what stays open until it is over.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CaseFacts {
    /// Which.
    pub key: String,
    /// Since when, RFC 3339.
    pub opened: String,
    /// For how long, seconds.
    pub open_for: i64,
    /// The number of this reminder; 0 in any other mail.
    pub reminder: u32,
    /// The number of this rung of `escalate`, from 1; 0 in any other mail.
    pub escalation: usize,
}

/// The case an event opens or closes. A job that fails is taken for a case of its name, until it ends well.
/// The end of the rule's own work is none: it brings the case it answers, if there is one.
pub fn case_key(event: &Event, rule: &str) -> Option<String> {
    let happening = &event.happening;
    let own = happening
        .origin
        .as_ref()
        .is_some_and(|origin| origin.rule == rule);
    match (&happening.case, happening.kind) {
        (Some(step), _) => Some(step.key.clone()),
        (None, Kind::JobFails | Kind::JobSucceeds) if !own => Some(format!("job:{}", happening.subject)),
        (None, _) => None,
    }
}
