//! How the mails of a rule are gathered before they leave, as written.

use crate::config::raw::{Many, Template, Time};
use schemars::JsonSchema;
use serde::Deserialize;

/// Many events, one mail.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Events for which this gives the same text belong together, as "{{file.folder}}". Default: all of them.
    pub by: Option<Template>,
    /// How long after its first event a group is told. Default: 5m.
    pub wait: Option<Time>,
    /// Times of day at which groups are told instead, as "09:00".
    pub at: Option<Many<TimeOfDay>>,
    /// Zone of `at`, as Europe/Berlin. Default: that of the settings.
    pub timezone: Option<String>,
    /// A group with so many events is told at once. Default: 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub max: Option<u32>,
}

/// How many mails at most.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// How many mails may go in that time.
    #[schemars(range(min = 1, max = 1000))]
    pub at_most: u32,
    /// In which time, as 1h. What is more is counted, and the next mail says how many.
    pub per: Time,
    /// Counted apart for each text this gives, as "{{job.name}}". Default: all together.
    pub by: Option<Template>,
}

/// When nobody is told: what happens then is told at the end, together.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuietHours {
    /// They begin, as "20:00".
    pub from: TimeOfDay,
    /// They end, as "07:00"; on the next day if that is not later.
    pub to: TimeOfDay,
    /// Days on which they begin, as mon-fri or [sat, sun]. Default: every day.
    pub days: Option<Many<String>>,
    /// Whose wall clock, as Europe/Berlin. Default: that of the settings.
    pub timezone: Option<String>,
}

/// A time of day, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct TimeOfDay(pub String);

impl JsonSchema for TimeOfDay {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TimeOfDay".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A time of day: \"07:00\"",
            "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$",
        })
    }
}
