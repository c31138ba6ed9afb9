//! `remind:` and `escalate:` of a rule, as written.

use crate::config::raw::mail::Mail;
use crate::config::raw::{Many, Time};
use schemars::JsonSchema;
use serde::Deserialize;

/// The rule's `mail` again, while the case is open.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Remind {
    /// Time from the first mail to the first reminder, and from one to the next.
    pub every: Time,
    /// Time of day before which none is sent, as "08:00". Default, with `until`: 08:00.
    pub from: Option<String>,
    /// Time of day after which none is sent until the next day, as "18:00".
    pub until: Option<String>,
    /// At most so many. Default: until it is over.
    #[schemars(range(min = 1))]
    pub at_most: Option<u32>,
}

/// A further mail for a case that is still open: a rung of the ladder.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rung {
    /// How long after the first mail; longer than that of the rung before.
    pub after: Time,
    /// Whom to tell then.
    pub mail: Many<Mail>,
}
