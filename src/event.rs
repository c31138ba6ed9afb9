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
    /// A file has settled in a watched folder: new, back again, or a new version of one that was known (then its
    /// fact `file.changed` says so); or several that belong together are complete (fact `set`).
    FileArrives,
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
    /// Somebody handed a mail in, to leave as it is. No rule is asked about it.
    MailHandedIn,
}

impl Kind {
    /// All of them, in the order of the documentation.
    pub const ALL: [Kind; 12] = [
        Kind::FileArrives,
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
        Kind::MailHandedIn,
    ];

    /// The word for it in YAML, journal and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::FileArrives => "file_arrives",
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
            Kind::MailHandedIn => "mail_handed_in",
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

/// What of a file's facts is not its name, place, size or time: it stays true when the file moves.
const OF_CONTENT: [&str; 8] = [
    "changed",
    "sha256",
    "mime",
    "lines",
    "first_line",
    "csv",
    "text",
    "owner",
];

impl FileRef {
    /// Puts the facts of the file as it is now into `facts`. What was learned of it before and does not depend on
    /// where it lies stays.
    pub fn refresh(&self, facts: &mut Map<String, Value>) {
        let mut file = self.facts();
        if let Some(Value::Object(before)) = facts.get("file") {
            for name in OF_CONTENT {
                if let Some(value) = before.get(name) {
                    file[name] = value.clone();
                }
            }
        }
        facts.insert("file".to_owned(), file);
        self.refresh_set(facts);
    }

    /// In a set the first file is told as `file` and in `files`.
    fn refresh_set(&self, facts: &mut Map<String, Value>) {
        if let Some(Value::Array(files)) = facts.get_mut("files")
            && let Some(first) = files.first_mut()
        {
            *first = self.set_facts();
        }
    }

    /// The facts of a file among others: those of [`FileRef::facts`], and where its name is not UTF-8 also its
    /// exact bytes, so that [`members`] can find it.
    pub fn set_facts(&self) -> Value {
        use std::os::unix::ffi::OsStrExt as _;
        let mut facts = self.facts();
        facts["mtime_ns"] = json!(self.mtime_ns);
        if self.relative.to_str().is_none() {
            facts["bytes"] = json!(self.relative.as_os_str().as_bytes());
        }
        facts
    }

    /// Reads them back; a root that is shown like `root` is that.
    pub fn from_set(facts: &Value, root: &Path) -> Option<FileRef> {
        use std::os::unix::ffi::OsStringExt as _;
        let relative = match facts.get("bytes").and_then(Value::as_array) {
            Some(bytes) => {
                let bytes = bytes
                    .iter()
                    .map(|byte| u8::try_from(byte.as_u64()?).ok())
                    .collect::<Option<Vec<u8>>>()?;
                PathBuf::from(std::ffi::OsString::from_vec(bytes))
            }
            None => PathBuf::from(facts.get("relative")?.as_str()?),
        };
        let own = facts.get("root").and_then(Value::as_str)?;
        let root = match shown(root.as_os_str()) == own {
            true => root.to_owned(),
            false => PathBuf::from(own),
        };
        Some(FileRef {
            root,
            relative,
            size: facts.get("size")?.as_u64()?,
            mtime_ns: facts.get("mtime_ns")?.as_i64()?,
        })
    }
}

/// The files an event is about, exactly: `file` alone, or with `facts` that tell of a set all of its members.
///
/// `facts` must be those of an event that a source recorded: whoever may write them chooses the files.
pub fn members(facts: &Value, file: Option<&FileRef>) -> Vec<FileRef> {
    let Some(file) = file else {
        return Vec::new();
    };
    let listed = facts.get("files").and_then(Value::as_array);
    let all = listed.map(|files| {
        let rest = files.iter().skip(1);
        rest.map(|facts| FileRef::from_set(facts, &file.root))
            .collect::<Option<Vec<_>>>()
    });
    let mut found = vec![file.clone()];
    found.extend(all.flatten().unwrap_or_default());
    found
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
            Kind::FileArrives | Kind::FileRemoved => {
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
