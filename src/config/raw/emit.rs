//! Events that are emitted, and the proof of life, as written.

use crate::config::raw::{Glob, Many, Secret, Template, Time};
use schemars::JsonSchema;
use serde::Deserialize;

/// Somebody emitted an event (`tidings emit`, a dropped file, a rule).
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Its type, or a pattern for types: "com.example.backup.*". Any of a list.
    #[serde(rename = "type")]
    pub kind: Many<Glob>,
    /// Whose: its source, or a pattern. Default: anybody's.
    pub source: Option<Glob>,
}

/// An event for other rules.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Emit {
    /// Its type, as com.example.report.done.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is about.
    pub subject: Option<Template>,
    /// What it says; texts are filled in. A text that is one fact and nothing else keeps its kind.
    pub data: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Where others drop events.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Emitted {
    /// A folder for files *.json, each with one CloudEvent, renamed into place. They are taken out of it.
    pub folder: Option<String>,
}

/// Whom to call while all is well.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alive {
    /// The address that is called, https (http to this machine), or a secret that holds it.
    pub url: Secret,
    /// Time from one call to the next. Default: 5m.
    pub every: Option<Time>,
}
