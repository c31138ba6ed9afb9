//! Events: what happened, once, under a key that the same happening always gets.
//!
//! This module knows nothing else of ours. Sources make [`NewEvent`]s, the store records them and
//! hands back [`Event`]s; rules and templates see only the facts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Number the journal gave an event; grows with the order of recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(pub i64);

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What kind of thing happened. The words are those of `when:` in a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A file has settled in a watched folder.
    FileArrives,
    /// A file that was known has settled with another content.
    FileChanges,
    /// A file that was known is gone, as a complete scan saw.
    FileRemoved,
    /// A file that was expected by a deadline has not come, or came late.
    FileMissing,
    /// Too many files, or too old ones, lie in a folder, or no longer do.
    FolderBacklog,
    /// A calendar time came due.
    Schedule,
    /// A job, ours or reported, ended well.
    JobSucceeds,
    /// A job, ours or reported, ended badly: exit code, signal, time limit, or lost in a crash.
    JobFails,
    /// A job that should have reported by a deadline has not, or did late.
    JobMissing,
    /// A job still runs after the time it should need, or has ended since.
    JobRunsLong,
    /// Somebody emitted an event of a type of his own.
    Event,
    /// Something of ours needs a person: a watch, an account, a mail, a rule.
    Trouble,
}

impl Kind {
    /// All of them, in the order of the documentation.
    pub const ALL: [Kind; 12] = [
        Kind::FileArrives,
        Kind::FileChanges,
        Kind::FileRemoved,
        Kind::FileMissing,
        Kind::FolderBacklog,
        Kind::Schedule,
        Kind::JobSucceeds,
        Kind::JobFails,
        Kind::JobMissing,
        Kind::JobRunsLong,
        Kind::Event,
        Kind::Trouble,
    ];

    /// The word for it in YAML, journal and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::FileArrives => "file_arrives",
            Kind::FileChanges => "file_changes",
            Kind::FileRemoved => "file_removed",
            Kind::FileMissing => "file_missing",
            Kind::FolderBacklog => "folder_backlog",
            Kind::Schedule => "schedule",
            Kind::JobSucceeds => "job_succeeds",
            Kind::JobFails => "job_fails",
            Kind::JobMissing => "job_missing",
            Kind::JobRunsLong => "job_runs_long",
            Kind::Event => "event",
            Kind::Trouble => "trouble",
        }
    }

    /// Reads the word back; `None` for one a newer version wrote.
    pub fn parse(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// The file an event is about, exactly: what facts can only show escaped is here as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRef {
    /// The watched folder, absolute. Everything is opened below it.
    pub root: PathBuf,
    /// The file's path below `root`, byte for byte as the file system gave it.
    pub relative: PathBuf,
    /// Bytes when it settled.
    pub size: u64,
    /// Modification time when it settled, nanoseconds since 1970.
    pub mtime_ns: i64,
}

impl FileRef {
    /// `root` and `relative` joined.
    pub fn path(&self) -> PathBuf {
        self.root.join(&self.relative)
    }

    /// The `file` facts: `path name stem extension folder folder_name relative root size modified`.
    ///
    /// Names that are not UTF-8 show each bad byte as `%XX`; control characters stay, since every
    /// place that prints or mails them escapes for itself.
    pub fn facts(&self) -> Value {
        let path = self.path();
        let folder = path.parent().unwrap_or(Path::new(""));
        let part = |p: Option<&std::ffi::OsStr>| p.map(shown).unwrap_or_default();
        let modified = Timestamp::from_nanosecond(i128::from(self.mtime_ns))
            .map(|t| t.to_string())
            .unwrap_or_default();
        json!({
            "path": shown(path.as_os_str()),
            "name": part(path.file_name()),
            "stem": part(path.file_stem()),
            "extension": part(path.extension()),
            "folder": shown(folder.as_os_str()),
            "folder_name": part(folder.file_name()),
            "relative": shown(self.relative.as_os_str()),
            "root": shown(self.root.as_os_str()),
            "size": self.size,
            "modified": modified,
        })
    }
}

/// A file name as text: UTF-8 as it is, every byte that is not part of UTF-8 as `%XX`.
pub fn shown(name: &std::ffi::OsStr) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let mut out = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Whose work an outcome event reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The rule that asked for the work.
    pub rule: String,
    /// The event that made it ask.
    pub event: EventId,
}

/// What an event does to a case: an absence or a trouble that is opened once, told again while it is open,
/// and closed when it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseStep {
    /// Which case. At most one of a key is open.
    pub key: String,
    /// Opens or closes it.
    pub does: Does,
    /// What is wrong, or what mended it; one sentence.
    pub text: String,
}

/// Opens or closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Does {
    /// It begins. Where the case is open already, the event is not recorded.
    Opens,
    /// It is over. Where the case is not open, the event is not recorded.
    Closes,
}

impl Does {
    /// The word for it in the store and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Does::Opens => "opens",
            Does::Closes => "closes",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Does> {
        [Does::Opens, Does::Closes]
            .into_iter()
            .find(|does| does.as_str() == word)
    }
}

/// A happening, not yet recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// Same happening, same key: across restarts, rescans and repeated reports. The journal takes a
    /// key once.
    pub key: String,
    /// What happened.
    pub kind: Kind,
    /// Which watch or schedule noticed it (`source::file::Watch::id`, the rule's name for a
    /// schedule); empty where only the subject matters.
    pub source: String,
    /// What it happened to, for people: a path, a job name, a rule name.
    pub subject: String,
    /// When it happened, which may be before it was recorded.
    pub time: Timestamp,
    /// What may be said of it, by name: `{"file": {..}}`, `{"job": {..}}`.
    pub facts: Map<String, Value>,
    /// The file it is about.
    pub file: Option<FileRef>,
    /// The rule whose work this is the outcome of.
    pub origin: Option<Origin>,
    /// The case it opens or closes.
    pub case: Option<CaseStep>,
}

impl NewEvent {
    /// What happened, whoever noticed it: the key, for a file without the watch that saw it. A rule is asked
    /// once about it, though it moved to another watch meanwhile.
    pub fn asked(&self) -> &str {
        match self.kind {
            Kind::FileArrives => {
                let arrival = self.key.strip_suffix(self.source.as_str());
                arrival.and_then(|key| key.strip_suffix(':'))
            }
            _ => None,
        }
        .unwrap_or(&self.key)
    }
}

/// A recorded happening.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its number in the journal.
    pub id: EventId,
    /// The happening itself.
    pub happening: NewEvent,
    /// When it was recorded.
    pub recorded: Timestamp,
    /// The end of something bad: the first success of a job after a failure, or a case closed.
    pub recovers: bool,
}
