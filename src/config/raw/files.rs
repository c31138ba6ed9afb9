//! Files that go away, and files that belong together, as written.

use crate::config::raw::{Glob, Many, Template, Time};
use schemars::JsonSchema;
use serde::Deserialize;

/// A known file went away.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRemoved {
    /// The folder.
    #[serde(rename = "in")]
    pub folder: String,
    /// Which files, by their path below the folder. Default: all, in sub-folders too.
    #[serde(rename = "match")]
    pub matching: Option<Glob>,
    /// Which files not, by their path below the folder or their name alone.
    pub ignore: Option<Many<Glob>>,
    /// Whether to look into sub-folders. Default: if `match` says so (it has a `/`), or is absent.
    pub recursive: Option<bool>,
}

/// When a file is complete.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompleteWhen {
    /// When another file of this name is there, as "{{file.stem}}.done".
    pub marker: Template,
}

/// Files that belong together make one event.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Together {
    /// How many make a set.
    #[schemars(range(min = 2, max = 1000))]
    pub count: u32,
    /// What the files of a set have in common, as "{{file.stem}}".
    pub by: Template,
    /// Time from the first to the last; then it is told which set lacks files.
    pub within: Time,
}
