//! A file somebody asks about, and all that is known of it.

use super::event::Told;
use super::suppose::Answer;
use crate::event::Event;
use crate::source::Watch;
use crate::source::file::status::WatchStatus;
use crate::store::SeenFile;
use std::path::PathBuf;

/// What lies at the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum There {
    /// Nothing.
    Nothing,
    /// Somebody keeps us from looking.
    Hidden(String),
    /// A regular file of so many bytes, and its modification time, nanoseconds since 1970.
    File(u64, i64),
    /// Something that never arrives: `a folder`, `a symbolic link to ..`.
    Other(String),
}

/// A file and all that is known of it.
#[derive(Debug)]
pub struct Found {
    /// Its absolute path, as text.
    pub path: String,
    /// What lies there now.
    pub there: There,
    /// Events about it, the newest first.
    pub came: Vec<Told>,
    /// Whether there are more.
    pub more: bool,
    /// The watches it lies below.
    pub below: Vec<Below>,
    /// All watched folders.
    pub watched: Vec<PathBuf>,
    /// A folder it lies below that was watched by an earlier setup.
    pub former: Option<PathBuf>,
    /// Arrivals of the same name elsewhere, the newest first.
    pub namesakes: Vec<Event>,
    /// What each rule would make of it.
    pub answers: Vec<Answer>,
}

/// A watch the file lies below.
#[derive(Debug)]
pub struct Below {
    /// The watch.
    pub watch: Watch,
    /// What the watch knows of the file.
    pub known: Option<SeenFile>,
    /// How the watch is.
    pub status: Option<WatchStatus>,
    /// A folder on the way that is a symbolic link.
    pub link: Option<PathBuf>,
    /// The marker that the file waits for.
    pub marker: Option<PathBuf>,
    /// For each rule that looks here, why it would not take such a file.
    pub unwanted: Vec<(String, Option<String>)>,
}
