//! Actions: what a rule may ask for. Each prepares an effect that is whole in itself, and performs
//! it later. A closed list, one file a kind.
//!
//! | action | prepared as | performed by |
//! |---|---|---|
//! | [`email`] | a [`Mail`]: envelope and frozen bytes | `sender` |
//! | [`run`] | a [`Step::Run`] of a [`Work`] | a process group of its own |
//! | [`mod@file`] | a [`Step::File`] of a [`Work`] | the file system |
//!
//! [`spare`] lets the news of an account's trouble leave by another account.
//! [`work`] does the steps of a [`Work`] in order; [`process`] and [`output`] are what a command needs.

pub mod attach;
pub mod email;
pub mod file;
mod frozen;
pub mod output;
pub mod process;
pub mod recipients;
pub mod run;
pub mod spare;
pub mod work;

use crate::entry::Reason;
use crate::event::{EventId, FileRef};
use crate::mail::Envelope;
use crate::mail::address::Address;
use crate::template::Text;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Effect of a mail; its bytes are the entry's body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mail {
    /// Which account sends it.
    pub account: String,
    /// All that may, in order, where the rule names several. None any more once somebody may have the mail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<String>,
    /// Whose mailbox it leaves from: the From address.
    pub sender: Address,
    /// Who is told to the server. After a partial refusal: only those still to be tried.
    pub envelope: Envelope,
    /// Fixed when it was composed.
    pub message_id: String,
    /// Recipients that were refused for good in earlier attempts, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<(Address, Reason)>,
}

/// Effect of a rule's work: steps in order, the first failure decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The job's name: the rule's.
    pub job: String,
    /// What to do.
    pub steps: Vec<Step>,
    /// Facts of the event that asked for it, handed on to the outcome.
    pub facts: Map<String, Value>,
    /// The event that asked for it.
    pub event: Option<EventId>,
    /// The file it is about; a move changes it for the steps and the outcome that follow.
    #[serde(default, with = "file_ref", skip_serializing_if = "Option::is_none")]
    pub file: Option<FileRef>,
    /// Whether its end is an event: true for a rule's work, false for the files an outcome moves.
    pub reports: bool,
    /// What happens when the same job still runs.
    pub overlap: Overlap,
}

/// One step of some work, all texts rendered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Run a command.
    Run(Run),
    /// Move, copy or delete the event's file.
    File(FileStep),
}

/// A command to run, all texts rendered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Program and arguments; never a shell.
    pub command: Vec<String>,
    /// Longest time for one attempt.
    pub timeout: Duration,
    /// Further attempts after a failure.
    pub retries: u32,
    /// Wait before a further attempt; doubled each time.
    pub retry_wait: Duration,
    /// Working folder, absolute.
    pub folder: PathBuf,
    /// Variables added to the small environment it gets.
    pub env: BTreeMap<String, String>,
    /// Cap of the log file kept of its output.
    pub log_limit: u64,
}

/// What happens when the same job still runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Wait for it to end, then run.
    #[default]
    Queue,
    /// Leave this one out, and say so.
    Skip,
    /// Run beside it.
    Parallel,
}

/// What to do with the event's file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileStep {
    /// Into a folder (the path ends in `/`) or to a full path, absolute. Never overwrites.
    Move(PathBuf),
    /// The same, and the file stays.
    Copy(PathBuf),
    /// Away with it.
    Delete,
}

/// One step of work, as the rule says it: texts are templates.
#[derive(Clone, Debug)]
pub enum StepSpec {
    /// `run:`
    Run(RunSpec),
    /// `move:` a folder (ends in `/`) or a path; relative ones start at the setup folder.
    Move(Text),
    /// `copy:`
    Copy(Text),
    /// `delete: true`
    Delete,
}

/// `run:`, as the rule says it.
#[derive(Clone, Debug)]
pub struct RunSpec {
    /// Program and arguments. A relative program with a slash starts at the setup folder.
    pub command: Vec<Text>,
    /// Longest time for one attempt.
    pub timeout: Duration,
    /// Further attempts after a failure.
    pub retries: u32,
    /// Wait before a further attempt.
    pub retry_wait: Duration,
    /// Working folder, absolute; the setup folder unless said.
    pub folder: PathBuf,
    /// Variables, beside `TIDINGS_*`.
    pub env: BTreeMap<String, Text>,
    /// Cap of the log file.
    pub log_limit: u64,
}

mod file_ref {
    //! A `FileRef` as JSON: paths are bytes, so they travel as base64.
    use super::FileRef;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    use std::path::{Path, PathBuf};

    #[derive(Serialize, Deserialize)]
    struct Wire {
        root: String,
        relative: String,
        size: u64,
        mtime_ns: i64,
    }

    pub(super) fn serialize<S: Serializer>(file: &Option<FileRef>, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = |path: &Path| STANDARD.encode(path.as_os_str().as_bytes());
        file.as_ref()
            .map(|file| Wire {
                root: bytes(&file.root),
                relative: bytes(&file.relative),
                size: file.size,
                mtime_ns: file.mtime_ns,
            })
            .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<FileRef>, D::Error> {
        let path = |text: &str| {
            STANDARD
                .decode(text)
                .map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
                .map_err(D::Error::custom)
        };
        let Some(wire) = Option::<Wire>::deserialize(deserializer)? else {
            return Ok(None);
        };
        Ok(Some(FileRef {
            root: path(&wire.root)?,
            relative: path(&wire.relative)?,
            size: wire.size,
            mtime_ns: wire.mtime_ns,
        }))
    }
}
