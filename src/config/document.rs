//! Files of a setup: read within limits, as a tree, with the places that later complaints need.

use crate::config::diagnostic::{Place, Problem};
use crate::config::yaml::{self, Node, Value};
use crate::suggest;
use std::io::Read as _;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Biggest file of a setup, bytes.
pub const LARGEST: u64 = 1_000_000;

/// A YAML file, read.
#[derive(Clone, Debug)]
pub struct Document {
    /// As a person names it: below the setup folder.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// What is in it.
    pub root: Node,
    /// Its text as it may be shown: byte for byte as long, and without secrets.
    shown: String,
    /// The YAML itself is without fault.
    whole: bool,
}

impl Document {
    /// Reads `file` below `dir`. What is wrong with it goes to `problems`; a document comes back as
    /// long as there is something to go on with.
    pub fn open(dir: &Path, file: &Path, problems: &mut Vec<Problem>) -> Option<Document> {
        match text(dir, file) {
            Ok(text) => Document::parse(file, text, problems),
            Err(problem) => {
                problems.push(*problem);
                None
            }
        }
    }

    /// Reads a text that is already here.
    pub fn parse(file: &Path, text: String, problems: &mut Vec<Problem>) -> Option<Document> {
        let tree = yaml::read(&text);
        let shown = mask(&text, &tree);
        let whole = tree.faults.is_empty();
        for fault in tree.faults {
            problems.push(
                Problem::error(file, fault.message)
                    .at(Place::of(&shown, fault.place))
                    .hint(fault.hint.unwrap_or_default()),
            );
        }
        Some(Document {
            file: file.to_owned(),
            root: tree.root?,
            text,
            shown,
            whole,
        })
    }

    /// The place of some bytes of it, fit to be shown.
    pub fn place(&self, range: Range<usize>) -> Place {
        Place::of(&self.shown, range)
    }

    /// Whether the YAML itself is without fault: another reader would find the same in it.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// The place of a line and column, both from 1, fit to be shown.
    pub fn line(&self, line: usize, column: usize) -> Place {
        let text = self.shown.lines().nth(line.saturating_sub(1));
        Place::at(line, column, text.unwrap_or_default())
    }

    /// Some bytes of it, fit to be shown.
    pub fn written(&self, range: Range<usize>) -> &str {
        self.shown.get(range).unwrap_or_default()
    }

    /// The whole of it.
    pub fn at(&self) -> At<'_> {
        At {
            document: self,
            node: Some(&self.root),
            place: self.root.place.clone(),
        }
    }
}

/// The text of a file, if it is one: regular, small, UTF-8. Never blocks on a FIFO, and never reads
/// more than the limit.
pub fn text(dir: &Path, file: &Path) -> Result<String, Box<Problem>> {
    let unreadable = |error: std::io::Error| {
        let problem = Problem::error(file, format!("cannot read this file: {error}"));
        Box::new(match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                problem.hint("it must be readable for the user tidings runs as")
            }
            _ => problem,
        })
    };
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(dir.join(file))
        .map_err(unreadable)?;
    let about = opened.metadata().map_err(unreadable)?;
    if !about.is_file() {
        let what = if about.is_dir() {
            "a folder"
        } else {
            "no regular file"
        };
        return Err(Box::new(
            Problem::error(file, format!("this is {what}, and a YAML file should be here"))
                .hint("remove it, or give it another ending"),
        ));
    }
    let too_big = |size: u64| {
        Box::new(
            Problem::error(
                file,
                format!("this file has {size} bytes; {LARGEST} are the most"),
            )
            .hint("split it over several files under rules/, or move what does not belong here"),
        )
    };
    if about.len() > LARGEST {
        return Err(too_big(about.len()));
    }
    let mut bytes = Vec::new();
    opened
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(too_big(bytes.len() as u64));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let shown = String::from_utf8_lossy(error.as_bytes());
        // Up to the bad byte the lossy text is the same; there it has one character of three bytes.
        Box::new(
            Problem::error(file, "this file is not UTF-8 text")
                .at(Place::of(&shown, good..good + 3))
                .hint("save it as UTF-8 (in most editors: File, Save with encoding)"),
        )
    })
}

/// Keys whose values nobody may see in a complaint about the line.
const SECRETS: [&str; 6] = [
    "secret",
    "client_secret",
    "password",
    "assertion",
    "service_account",
    "signing_key",
];

/// A file's text with stars for everything that may be a secret, misspelled keys included. Without a
/// tree (the YAML is broken) the lines themselves are looked at.
fn mask(text: &str, tree: &yaml::Tree) -> String {
    let mut hidden: Vec<Range<usize>> = Vec::new();
    match &tree.root {
        Some(root) => {
            hide(root, false, &mut hidden);
            for entry in &tree.dropped {
                hide_entry(entry, false, &mut hidden);
            }
        }
        None => {
            let mut start = 0;
            for line in text.split_inclusive('\n') {
                for key in ["secret", "password", " url:", "{url:"] {
                    if let Some(at) = line.to_ascii_lowercase().find(key) {
                        hidden.push(start + at + key.len()..start + line.trim_end().len());
                    }
                }
                start += line.len();
            }
        }
    }
    let mut bytes = text.as_bytes().to_vec();
    for range in hidden {
        for byte in bytes.get_mut(range).into_iter().flatten() {
            if *byte != b'\n' {
                *byte = b'*';
            }
        }
    }
    // Whole scalars were overwritten, so this is UTF-8 still; should it not be, nothing is shown.
    String::from_utf8(bytes).unwrap_or_default()
}

fn hide(node: &Node, secret: bool, hidden: &mut Vec<Range<usize>>) {
    match &node.value {
        Value::Map(entries) => entries.iter().for_each(|entry| hide_entry(entry, secret, hidden)),
        Value::List(items) => items.iter().for_each(|item| hide(item, secret, hidden)),
        _ if secret => hidden.push(node.place.clone()),
        _ => {}
    }
}

fn hide_entry(entry: &yaml::Entry, secret: bool, hidden: &mut Vec<Range<usize>>) {
    let harmless = match entry.key.as_str() {
        "env" | "file" | "command" => secret,
        "user" => true,
        _ => false,
    };
    // The address of a dead-man's switch is as good as a password.
    let alike = entry.key == "url" || suggest::nearest(&entry.key, SECRETS).is_some();
    hide(&entry.value, !harmless && (secret || alike), hidden);
}

/// A spot in a document: a value that is there, or the place where it would be. Later checks walk
/// along with the typed values and complain through it.
#[derive(Clone, Debug)]
pub struct At<'a> {
    document: &'a Document,
    node: Option<&'a Node>,
    place: Range<usize>,
}

impl<'a> At<'a> {
    /// The value of `key`; where there is none, the place of the map that lacks it.
    pub fn key(&self, key: &str) -> At<'a> {
        match self.node.and_then(|node| node.entry(key)) {
            Some(entry) => At {
                document: self.document,
                node: Some(&entry.value),
                // A value of many lines is shown by its key.
                place: match &entry.value.value {
                    Value::Map(_) | Value::List(_) | Value::Null => entry.key_place.clone(),
                    _ => entry.value.place.clone(),
                },
            },
            None => At {
                document: self.document,
                node: None,
                place: self.place.clone(),
            },
        }
    }

    /// The key `key` itself.
    pub fn name(&self, key: &str) -> At<'a> {
        let place = self
            .node
            .and_then(|node| node.entry(key))
            .map(|entry| entry.key_place.clone());
        At {
            document: self.document,
            node: None,
            place: place.unwrap_or_else(|| self.place.clone()),
        }
    }

    /// Element `index` of a list, or the value itself where one may stand for a list.
    pub fn item(&self, index: usize) -> At<'a> {
        match self.node.map(|node| &node.value) {
            Some(Value::List(items)) => match items.get(index) {
                Some(node) => At {
                    document: self.document,
                    node: Some(node),
                    place: match &node.value {
                        Value::Map(entries) => entries
                            .first()
                            .map_or_else(|| node.place.clone(), |entry| entry.key_place.clone()),
                        _ => node.place.clone(),
                    },
                },
                None => self.clone(),
            },
            _ => self.clone(),
        }
    }

    /// Whether `key` is written here.
    pub fn has(&self, key: &str) -> bool {
        self.node.is_some_and(|node| node.entry(key).is_some())
    }

    /// The part of a text that begins at its byte `offset`, to the end of the word. Where the text
    /// is written with escapes or over several lines, the whole of it.
    pub fn within(&self, offset: usize) -> At<'a> {
        let mut at = self.clone();
        let Some(Value::Text(text)) = self.node.map(|node| &node.value) else {
            return at;
        };
        let written = self.document.text.get(self.place.clone()).unwrap_or_default();
        let quote = usize::from(written.starts_with(['"', '\'']));
        if written
            .get(quote..)
            .is_some_and(|rest| rest.starts_with(text.as_str()))
            && let Some(rest) = text.get(offset..)
        {
            let word = rest
                .find(|character: char| !(character.is_alphanumeric() || matches!(character, '_' | '.')))
                .unwrap_or(rest.len());
            let start = self.place.start + quote + offset;
            at.place = start..start + word;
        }
        at
    }

    /// The place, to keep.
    pub fn place(&self) -> Place {
        self.document.place(self.place.clone())
    }

    /// `rules/invoices.yaml:3`.
    pub fn shown(&self) -> String {
        format!("{}:{}", self.document.file.display(), self.place().line)
    }

    /// Something wrong here.
    pub fn error(&self, message: impl AsRef<str>) -> Problem {
        Problem::error(&self.document.file, message).at(self.place())
    }

    /// Something to know about here.
    pub fn warning(&self, message: impl AsRef<str>) -> Problem {
        Problem::warning(&self.document.file, message).at(self.place())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        mask(text, &yaml::read(text))
    }

    #[test]
    fn secrets_are_hidden_whatever_is_wrong_around_them() {
        for text in [
            "password: { user: u, secret: hunter2 }",
            "password: hunter2",
            "oauth2: { clientsecret: hunter2 }",
            "oauth2:\n  client_secret:\n    kyring: hunter2",
            "a: 1\npassword:\n  secrt: |\n    hunter2\n",
            "password: { secret: hunter2, secret: hunter2 }",
            "password: { secret: hunter2, ",
            "password: { \"secret\": 'hunter2' ]",
            "alive: { url: https://example.org/hunter2, evry: 5m }",
            "alive:\n  url: https://example.org/hunter2\n  every: [",
        ] {
            let masked = masked(text);
            assert!(!masked.contains("hunter2"), "{masked}");
            assert_eq!(masked.len(), text.len());
        }
        let kept = "user: u\nsecret: { env: NAME, file: a/b }\n";
        assert_eq!(masked(kept), kept);
    }
}
