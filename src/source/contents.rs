//! What stands in a file, as facts: read only when somebody asks, and only of the version that settled.
//!
//! | fact | is | read at most |
//! |---|---|---|
//! | `sha256` | the hash, as hex | [`HASHED`] |
//! | `mime` | the media type, by its first bytes, else by its name | 8 kB |
//! | `lines` | how many lines | [`COUNTED`] |
//! | `first_line` | the first one, at most [`LINE`] characters | [`TEXT`] |
//! | `csv` | `header`, at most [`csv::COLUMNS`] names, and `rows` below it | [`COUNTED`] |
//! | `text` | its first [`TEXT`] bytes | [`TEXT`] |
//! | `owner` | whose it is: a name of `/etc/passwd`, else a number | |
//!
//! The file is opened below its root without following a link, and must have the size and the time of change it
//! settled with, before and after. It is read once, in pieces, whatever is asked. A file larger than what may be
//! read for a fact, and one that took longer than [`LONGEST`] to read, have null for it: files are other people's,
//! and must neither fill the memory nor hold up the mails of everybody else. Nothing is unpacked. Bytes that are
//! not UTF-8 become U+FFFD.
//!
//! This module blocks; it belongs on a thread where that hurts nobody.

pub mod csv;

use crate::event::FileRef;
use crate::ground::Ground;
use crate::mail::attachment;
use crate::source::root::{Away, Look, Meta, Root, judge};
use csv::Rows;
use rustix::io::Errno;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Largest file that is hashed.
pub const HASHED: u64 = 2_000_000_000;

/// Largest file whose lines and rows are counted.
pub const COUNTED: u64 = 256_000_000;

/// How much of a file is its `text`.
pub const TEXT: usize = 64_000;

/// Longest `first_line`, characters.
pub const LINE: usize = 1_000;

/// How long a file may take to be read.
pub const LONGEST: Duration = Duration::from_secs(20);

/// Read in one go.
const PIECE: usize = 256 * 1024;

/// One thing to know of what stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the table above says it")]
pub enum Part {
    Sha256,
    Mime,
    Lines,
    FirstLine,
    Csv,
    Text,
    Owner,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 7] = [
        Part::Sha256,
        Part::Mime,
        Part::Lines,
        Part::FirstLine,
        Part::Csv,
        Part::Text,
        Part::Owner,
    ];

    /// The word for it, below `file`.
    pub fn as_str(self) -> &'static str {
        match self {
            Part::Sha256 => "sha256",
            Part::Mime => "mime",
            Part::Lines => "lines",
            Part::FirstLine => "first_line",
            Part::Csv => "csv",
            Part::Text => "text",
            Part::Owner => "owner",
        }
    }
}

/// Why a file could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// Nothing, or no regular file, is there.
    #[error("it is no longer there")]
    Gone,
    /// It is not the version that settled, or did not stay it.
    #[error("it has changed since it settled: it had {then} bytes then, and has {now} now")]
    Changed {
        /// Bytes when it settled.
        then: u64,
        /// Bytes now.
        now: u64,
    },
    /// Its folder cannot be looked at.
    #[error("{0}")]
    Away(Away),
    /// The file system refused.
    #[error("the file system answered: {0}")]
    Failed(String),
}

/// Reads what is asked of `file`, which lies on `ground`: each fact under its word.
pub fn read(file: &FileRef, parts: &BTreeSet<Part>, ground: &Ground) -> Result<Map<String, Value>, Unread> {
    read_within(file, &ground.at(&file.root), parts, LONGEST)
}

fn read_within(
    file: &FileRef,
    place: &Path,
    parts: &BTreeSet<Part>,
    longest: Duration,
) -> Result<Map<String, Value>, Unread> {
    let root = Root::open(place).map_err(Unread::Away)?;
    let mut handle = root.file(&file.relative).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV => Unread::Gone,
        other => Unread::Failed(other.to_string()),
    })?;
    let failed = |error: std::io::Error| Unread::Failed(error.to_string());
    let owner = settled(&handle, file)?;
    let mut reading = Reading::new(parts, file.size);
    let begun = Instant::now();
    let mut piece = vec![0; PIECE];
    let mut head = Vec::new();
    let mut ended = false;
    // The first bytes come whole: what they look like decides how the rest is counted.
    while head.len() < TEXT && reading.needs_any {
        match handle.read(&mut piece).map_err(failed)? {
            0 => {
                ended = true;
                break;
            }
            read => head.extend_from_slice(&piece[..read]),
        }
    }
    reading.begin(&head);
    let mut in_time = true;
    while !ended && reading.needs_all() {
        match handle.read(&mut piece).map_err(failed)? {
            0 => ended = true,
            read => reading.take(&piece[..read]),
        }
        in_time = begun.elapsed() < longest;
        if !in_time {
            break;
        }
    }
    settled(&handle, file)?;
    if !in_time {
        tracing::warn!(path = ?file.path(), "reading the file takes too long, some of its facts are null");
    }
    Ok(reading.facts(file, &head, ended, owner))
}

/// Whose the file is, if it is the version that settled.
fn settled(handle: &std::fs::File, file: &FileRef) -> Result<u32, Unread> {
    let stat = rustix::fs::fstat(handle).map_err(|errno| Unread::Failed(errno.to_string()))?;
    match judge(&stat) {
        Look::File(Meta { size, mtime_ns, .. }) if (size, mtime_ns) == (file.size, file.mtime_ns) => {
            Ok(stat.st_uid)
        }
        Look::File(meta) => Err(Unread::Changed {
            then: file.size,
            now: meta.size,
        }),
        _ => Err(Unread::Gone),
    }
}

/// What is kept while a file is read.
struct Reading<'a> {
    parts: &'a BTreeSet<Part>,
    needs_any: bool,
    hash: Option<ring::digest::Context>,
    lines: Option<Lines>,
    rows: Option<Rows>,
}

#[derive(Default)]
struct Lines {
    ends: u64,
    open: bool,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) {
        self.ends += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.open = bytes.last().map_or(self.open, |last| *last != b'\n');
    }
}

impl<'a> Reading<'a> {
    fn new(parts: &'a BTreeSet<Part>, size: u64) -> Reading<'a> {
        let counted = |part| parts.contains(&part) && size <= COUNTED;
        Reading {
            parts,
            needs_any: parts.iter().any(|part| *part != Part::Owner),
            hash: (parts.contains(&Part::Sha256) && size <= HASHED)
                .then(|| ring::digest::Context::new(&ring::digest::SHA256)),
            lines: counted(Part::Lines).then(Lines::default),
            rows: counted(Part::Csv).then(Rows::default),
        }
    }

    fn needs_all(&self) -> bool {
        self.hash.is_some() || self.lines.is_some() || self.rows.is_some()
    }

    fn begin(&mut self, head: &[u8]) {
        if head.contains(&0) {
            // No text at all: it has no rows.
            self.rows = None;
        }
        if let Some(rows) = &mut self.rows {
            *rows = Rows::new(csv::delimiter(without_mark(head)));
        }
        self.take(head);
    }

    fn take(&mut self, bytes: &[u8]) {
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        if let Some(lines) = &mut self.lines {
            lines.take(bytes);
        }
        if let Some(rows) = &mut self.rows {
            rows.take(bytes);
        }
    }

    fn facts(self, file: &FileRef, head: &[u8], ended: bool, owner: u32) -> Map<String, Value> {
        let text = || {
            lossy(
                without_mark(&head[..head.len().min(TEXT)]),
                !ended || head.len() > TEXT,
            )
        };
        let mut hash = self.hash;
        let mut facts = Map::new();
        for part in self.parts {
            let value = match part {
                Part::Sha256 => json!(hash.take().filter(|_| ended).map(hex)),
                Part::Mime => {
                    let name = file.relative.file_name().unwrap_or_default();
                    json!(attachment::content_type(&name.to_string_lossy(), head))
                }
                Part::Lines => {
                    let lines = self.lines.as_ref().filter(|_| ended);
                    json!(lines.map(|lines| lines.ends + u64::from(lines.open)))
                }
                Part::FirstLine => json!(first_line(&text())),
                Part::Csv => {
                    let binary = head.contains(&0);
                    let header = if binary { Vec::new() } else { csv::header(&text()) };
                    json!({
                        "header": header,
                        "rows": self.rows.as_ref().filter(|_| ended).map(Rows::below_header),
                    })
                }
                Part::Text => json!(text()),
                Part::Owner => json!(user(owner)),
            };
            facts.insert(part.as_str().to_owned(), value);
        }
        facts
    }
}

fn hex(hash: ring::digest::Context) -> String {
    let mut out = String::with_capacity(64);
    for byte in hash.finish().as_ref() {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// Without the mark that says "this is UTF-8".
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)
}

/// Bytes as text. Where they were `cut` off, a character that lost its end is left out.
fn lossy(bytes: &[u8], cut: bool) -> String {
    let mut end = bytes.len();
    if cut {
        for back in 1..=bytes.len().min(3) {
            let byte = bytes[bytes.len() - back];
            let long = match byte {
                0xC0..=0xDF => 2,
                0xE0..=0xEF => 3,
                0xF0..=0xFF => 4,
                0x80..=0xBF => continue,
                _ => 1,
            };
            if long > back {
                end = bytes.len() - back;
            }
            break;
        }
    }
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn first_line(text: &str) -> String {
    let line = text.split('\n').next().unwrap_or_default();
    line.strip_suffix('\r')
        .unwrap_or(line)
        .chars()
        .take(LINE)
        .collect()
}

/// A user's name; the number where this machine's own list has none.
fn user(id: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(id)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| id.to_string())
}

#[cfg(test)]
mod tests;
