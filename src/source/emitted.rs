//! Events that somebody emits: CloudEvents 1.0, each once. Pure but for the drop folder.
//!
//! A [`CloudEvent`] comes from `tidings emit`, from a file dropped into a folder, or from a rule that
//! emits. [`CloudEvent::read`] takes the structured JSON form and refuses what the specification
//! refuses, in words for whoever wrote it. Source and id together are the happening: the journal takes
//! them once, whichever way and however often they come.
//!
//! The drop folder is for whoever can only write a file: `NAME.json`, renamed into place.
//!
//! ```text
//!   NAME.json --good--> recorded, then removed        (a crash between: the key is taken, removed again)
//!             --bad---> refused/NAME.json, and why in refused/NAME.json.txt; a trouble tells
//! ```

use crate::event::{Kind, NewEvent, shown};
use crate::store::{Batch, NewCase, Store, StoreError};
use crate::visible;
use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Largest event, bytes of its JSON.
pub const LARGEST: usize = 1_000_000;

/// Longest `id`, `source`, `type`, .. in bytes.
const LONGEST: usize = 1_000;

/// Most extension attributes.
const EXTENSIONS: usize = 50;

/// The drop folder that is always there, below the state folder.
pub const FOLDER: &str = "events";

/// Where files come that are no events, below the drop folder.
const REFUSED: &str = "refused";

/// How the keys of cases about drop folders begin.
const CASE: &str = "events:";

/// Most files taken in one look.
const MANY: usize = 500;

/// A file that is no JSON yet is left alone for so long: its writer may not be done.
const PATIENCE: Duration = Duration::from_secs(10);

/// An event in the form of CloudEvents 1.0.
#[derive(Clone, Debug, PartialEq)]
pub struct CloudEvent {
    /// Unique for its source.
    pub id: String,
    /// Who says it: a URI reference.
    pub source: String,
    /// What kind of thing happened: `com.example.backup.finished`.
    pub kind: String,
    /// What it happened to.
    pub subject: Option<String>,
    /// When; where it does not say, when it was recorded.
    pub time: Option<Timestamp>,
    /// What `data` looks like: an address of a schema.
    pub schema: Option<String>,
    /// Whatever else was said about it.
    pub extensions: Map<String, Value>,
    /// What it says.
    pub data: Value,
}

/// Why something is no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// One sentence.
    pub message: String,
    /// It may be the beginning of an event.
    pub unfinished: bool,
}

fn refused(message: impl Into<String>) -> Refused {
    Refused {
        message: message.into(),
        unfinished: false,
    }
}

impl CloudEvent {
    /// Reads the structured JSON form (CloudEvents 1.0, JSON event format), and checks it as [`sound`](CloudEvent::sound) does.
    pub fn read(bytes: &[u8]) -> Result<CloudEvent, Refused> {
        if bytes.len() > LARGEST {
            return Err(too_large());
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|error| Refused {
            message: format!("this is not JSON: {error}"),
            unfinished: error.is_eof(),
        })?;
        let mut map = match value {
            Value::Object(map) => map,
            Value::Array(_) => return Err(refused("this is a list; one event each, please")),
            _ => {
                return Err(refused(
                    "an event is a JSON object with `specversion`, `id`, `source` and `type`",
                ));
            }
        };
        // In this format a null says that the attribute is not set.
        map.retain(|name, value| name == "data" || !value.is_null());
        match map.remove("specversion") {
            Some(Value::String(version)) if version == "1.0" => {}
            Some(other) => {
                let other = brief(&other);
                return Err(refused(format!(
                    "`specversion` is {other}; only \"1.0\" is understood"
                )));
            }
            None => {
                return Err(refused(
                    "`specversion` is missing; write \"specversion\": \"1.0\"",
                ));
            }
        }
        let mut text = |name: &str| match map.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(refused(format!(
                "`{name}` must be a text, and is {}",
                brief(&other)
            ))),
        };
        let needed =
            |name: &str, text: Option<String>| text.ok_or_else(|| refused(format!("`{name}` is missing")));
        let id = needed("id", text("id")?)?;
        let source = needed("source", text("source")?)?;
        let kind = needed("type", text("type")?)?;
        let subject = text("subject")?;
        let time = text("time")?.map(|time| moment(&time)).transpose()?;
        let schema = text("dataschema")?;
        let content_type = text("datacontenttype")?;
        if let Some(content_type) = &content_type
            && !is_json(content_type)
        {
            return Err(refused(format!(
                "`datacontenttype` is {}; only JSON is understood: application/json",
                brief(&Value::from(content_type.as_str()))
            )));
        }
        let encoded = text("data_base64")?;
        let data = match (map.remove("data"), encoded) {
            (Some(_), Some(_)) => {
                return Err(refused(
                    "there is `data` and `data_base64`; only one may be there",
                ));
            }
            (Some(data), None) => data,
            (None, None) => Value::Null,
            (None, Some(encoded)) => {
                let bytes = base64::engine::general_purpose::STANDARD
                    .decode(encoded)
                    .map_err(|error| refused(format!("`data_base64` is not base64: {error}")))?;
                serde_json::from_slice(&bytes)
                    .map_err(|error| refused(format!("`data_base64` holds no JSON: {error}")))?
            }
        };
        let event = CloudEvent {
            id,
            source,
            kind,
            subject,
            time,
            schema,
            extensions: map,
            data,
        };
        event.sound()?;
        Ok(event)
    }

    /// Whether everything in it is as the specification wants it, and within our limits.
    pub fn sound(&self) -> Result<(), Refused> {
        for (name, text) in [
            ("id", Some(&self.id)),
            ("source", Some(&self.source)),
            ("type", Some(&self.kind)),
            ("subject", self.subject.as_ref()),
            ("dataschema", self.schema.as_ref()),
        ] {
            let Some(text) = text else { continue };
            if text.is_empty() {
                return Err(refused(format!("`{name}` is empty")));
            }
            self::text(name, text)?;
            let address = matches!(name, "source" | "dataschema");
            if address && text.contains(|c: char| c.is_whitespace() || "<>\"{}|\\^`".contains(c)) {
                return Err(refused(format!(
                    "`{name}` is {}, and must be a URI or part of one: //host/program",
                    brief(&Value::from(text.as_str()))
                )));
            }
        }
        if self.extensions.len() > EXTENSIONS {
            return Err(refused(format!(
                "there are more than {EXTENSIONS} further attributes"
            )));
        }
        for (name, value) in &self.extensions {
            let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            if name.is_empty() || name.len() > 100 || !name.chars().all(fine) {
                return Err(refused(format!(
                    "{} cannot be the name of an attribute: small letters and digits; what the event says belongs into `data`",
                    brief(&Value::from(name.as_str()))
                )));
            }
            match value {
                Value::Bool(_) => {}
                Value::Number(number)
                    if number
                        .as_i64()
                        .is_some_and(|number| i32::try_from(number).is_ok()) => {}
                Value::String(value) => text(name, value)?,
                other => {
                    return Err(refused(format!(
                        "`{name}` is {}; an attribute is a text, a whole number (32 bits), or true or false; \
                         what the event says belongs into `data`",
                        brief(other)
                    )));
                }
            }
        }
        Ok(())
    }

    /// The structured JSON form.
    pub fn written(&self) -> Value {
        let mut map = self.extensions.clone();
        map.insert("specversion".to_owned(), json!("1.0"));
        map.insert("id".to_owned(), json!(self.id));
        map.insert("source".to_owned(), json!(self.source));
        map.insert("type".to_owned(), json!(self.kind));
        let further = [
            ("subject", self.subject.clone()),
            ("time", self.time.map(|time| time.to_string())),
            ("dataschema", self.schema.clone()),
        ];
        for (name, value) in further {
            if let Some(value) = value {
                map.insert(name.to_owned(), json!(value));
            }
        }
        if !self.data.is_null() {
            map.insert("datacontenttype".to_owned(), json!("application/json"));
            map.insert("data".to_owned(), self.data.clone());
        }
        Value::Object(map)
    }

    /// The happening, under a key made of source and id.
    pub fn happening(&self, now: Timestamp) -> NewEvent {
        // The length keeps `a` + `b:c` and `a:b` + `c` apart.
        let key = format!("event:{}:{}:{}", self.source.len(), self.source, self.id);
        self.happening_as(key, 0, now)
    }

    /// The same under a key of the caller's, said by so many rules one after the other.
    pub fn happening_as(&self, key: String, depth: u64, now: Timestamp) -> NewEvent {
        let time = self.time.unwrap_or(now);
        let mut facts = Map::new();
        facts.insert(
            "cloudevent".to_owned(),
            json!({
                "id": self.id,
                "source": self.source,
                "type": self.kind,
                "subject": self.subject.as_deref().unwrap_or_default(),
                "time": time.to_string(),
                "dataschema": self.schema.as_deref().unwrap_or_default(),
                "extensions": self.extensions,
                "data": self.data,
                "depth": depth,
            }),
        );
        NewEvent {
            key,
            kind: Kind::Event,
            source: self.source.clone(),
            subject: self.kind.clone(),
            time,
            facts,
            file: None,
            origin: None,
            case: None,
        }
    }
}

/// An attribute's text: no control characters (CloudEvents 1.0, 3.1), and not endless.
fn text(name: &str, text: &str) -> Result<(), Refused> {
    if text.len() > LONGEST {
        return Err(refused(format!("`{name}` is longer than {LONGEST} bytes")));
    }
    if let Some(bad) = text.chars().find(|c| c.is_control()) {
        return Err(refused(format!(
            "`{name}` holds the control character {}",
            bad.escape_unicode()
        )));
    }
    Ok(())
}

/// Reads a time as CloudEvents writes it.
pub fn moment(text: &str) -> Result<Timestamp, Refused> {
    text.parse().map_err(|_| {
        refused(format!(
            "`time` is {}, and must be a time with its offset: 2026-03-02T08:30:00Z",
            brief(&Value::from(text))
        ))
    })
}

/// An id that nobody had before.
pub fn fresh_id() -> Result<String, Refused> {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0_u8; 16];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| refused("this machine gives no random numbers; name an --id"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn too_large() -> Refused {
    refused(format!(
        "the event is larger than {LARGEST} bytes; put what is large into a file and name it in `data`"
    ))
}

fn is_json(content_type: &str) -> bool {
    let media = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    media == "application/json" || media == "text/json" || media.ends_with("+json")
}

/// A value for a message: short, and safe to print.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    let safe = |c: &char| !c.is_control() && !visible::is_hidden(*c);
    let mut short: String = text.chars().filter(safe).take(60).collect();
    if text.chars().count() > 60 {
        short.push_str("..");
    }
    short
}

/// Leaves an event as a file in a drop folder, durable when this returns. Blocks.
pub fn leave(folder: &Path, event: &CloudEvent) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let name = blake3::hash(format!("{}\0{}", event.source, event.id).as_bytes()).to_hex();
    let name = format!("{}-{}", &name.as_str()[..16], std::process::id());
    // Under a name that nobody picks up until it is whole.
    let temporary = folder.join(format!(".{name}.part"));
    let path = folder.join(format!("{name}.json"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&temporary)?;
    file.write_all(&serde_json::to_vec(&event.written())?)?;
    file.sync_all()?;
    std::fs::rename(&temporary, &path)?;
    File::open(folder)?.sync_all()?;
    Ok(path)
}

/// What one look into a drop folder came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Picked {
    /// Events that are new.
    pub recorded: usize,
    /// Files that were no events.
    pub refused: usize,
}

/// What lies in a drop folder.
#[derive(Debug, Default)]
struct Look {
    good: Vec<(PathBuf, CloudEvent)>,
    /// Set aside just now, by name, and why.
    bad: Vec<(String, String)>,
    /// Something that needs a person, although no file was refused.
    wrong: Option<String>,
    /// How many lie in `refused/`.
    aside: usize,
}

/// Records the events that lie in `folder`, removes their files, and sets aside what is no event. What
/// needs a person is told as a trouble, which closes when the folder can be read and `refused/` is empty.
///
/// `needed`: that the folder is not there is a trouble.
pub async fn pick_up(
    folder: &Path,
    needed: bool,
    store: &Store,
    now: Timestamp,
) -> Result<Picked, StoreError> {
    let place = folder.to_owned();
    let look = match tokio::task::spawn_blocking(move || look(&place, needed)).await {
        Ok(look) => look,
        Err(error) => Look {
            wrong: Some(format!("a fault of ours ended the look: {error}")),
            ..Look::default()
        },
    };
    let mut picked = Picked {
        refused: look.bad.len(),
        ..Picked::default()
    };
    let mut wrong = look.wrong;
    if !look.good.is_empty() {
        let events = look.good.iter().map(|(_, event)| event.happening(now)).collect();
        let recorded = store
            .record(Batch {
                events,
                ..Batch::default()
            })
            .await?;
        picked.recorded = recorded.iter().filter(|recorded| recorded.fresh).count();
        let files = look.good.into_iter().map(|(path, _)| path);
        let removed = tokio::task::spawn_blocking(move || remove(files)).await;
        if let Ok(Some(words)) = removed {
            wrong = Some(words);
        }
    }
    for (name, why) in &look.bad {
        tracing::error!(folder = %folder.display(), name, why, "a file is no event; it is set aside in refused/");
    }
    tell(folder, &look.bad, wrong, look.aside, store).await?;
    Ok(picked)
}

fn remove(files: impl Iterator<Item = PathBuf>) -> Option<String> {
    let mut wrong = None;
    for path in files {
        if let Err(error) = std::fs::remove_file(&path) {
            wrong = Some(format!(
                "{} is recorded and cannot be removed: {error}",
                path.display()
            ));
        }
    }
    wrong
}

/// The case about a drop folder.
pub fn case_of(folder: &Path) -> String {
    format!("{CASE}{}", shown(folder.as_os_str()))
}

/// Whether a case is about a drop folder.
pub fn is_of_folder(case: &str) -> bool {
    case.starts_with(CASE)
}

async fn tell(
    folder: &Path,
    bad: &[(String, String)],
    wrong: Option<String>,
    aside: usize,
    store: &Store,
) -> Result<(), StoreError> {
    let key = case_of(folder);
    let refused = folder.join(REFUSED);
    let (text, steps) = match (wrong, bad.first()) {
        (Some(words), _) => (
            words,
            vec![
                "The user tidings runs as must be able to read the folder, and to take files out of it."
                    .to_owned(),
            ],
        ),
        (None, Some((name, why))) => (
            match bad.len() {
                1 => format!("the file {name} is no event: {why}"),
                more => format!("{more} files are no events; the first, {name}: {why}"),
            },
            vec![
                format!(
                    "Mend it and move it back from {}, or delete it there.",
                    refused.display()
                ),
                "Beside each file lies a text with the reason.".to_owned(),
            ],
        ),
        (None, None) => {
            if aside == 0 && store.open_case_of(&key).await?.is_some() {
                store.close_case(&key).await?;
            }
            return Ok(());
        }
    };
    let case = NewCase {
        key,
        kind: "watch".to_owned(),
        subject: shown(folder.as_os_str()),
        reason: crate::entry::Reason {
            text,
            steps,
            ..crate::entry::Reason::default()
        },
    };
    // A look each second writes nothing while nothing changes.
    let known = store.open_case_of(&case.key).await?;
    if known.is_some_and(|known| known.reason == case.reason) {
        return Ok(());
    }
    store.open_case(case).await.map(drop)
}

fn look(folder: &Path, needed: bool) -> Look {
    let mut look = Look::default();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !needed => return look,
        Err(error) => {
            look.wrong = Some(format!("cannot look into {}: {error}", folder.display()));
            return look;
        }
    };
    let mut files: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let hidden = path
                .file_name()
                .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            !hidden && path.extension().is_some_and(|extension| extension == "json")
        })
        .filter_map(|path| {
            let about = std::fs::symlink_metadata(&path).ok()?;
            (!about.is_dir()).then(|| (about.modified().unwrap_or(SystemTime::UNIX_EPOCH), path))
        })
        .collect();
    // As they were written, as far as that can be told.
    files.sort();
    for (written, path) in files.into_iter().take(MANY) {
        let fresh = written.elapsed().is_ok_and(|age| age < PATIENCE);
        match read(&path) {
            Ok(event) => look.good.push((path, event)),
            Err(refused) if refused.unfinished && fresh => {}
            Err(refused) => match set_aside(folder, &path, &refused.message) {
                Ok(name) => look.bad.push((name, refused.message)),
                // Taken away meanwhile: somebody else cared for it.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !path.exists() => {}
                Err(error) => {
                    look.wrong = Some(format!(
                        "{} is no event ({}) and cannot be set aside: {error}",
                        shown(path.as_os_str()),
                        refused.message
                    ));
                }
            },
        }
    }
    look.aside = std::fs::read_dir(folder.join(REFUSED)).map_or(0, |entries| {
        let json = |path: PathBuf| path.extension().is_none_or(|extension| extension != "txt");
        entries.flatten().filter(|entry| json(entry.path())).count()
    });
    look
}

/// One file, opened so that neither a link nor a pipe in its place can lead us astray.
fn read(path: &Path) -> Result<CloudEvent, Refused> {
    use rustix::fs::OFlags;
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC)
        .bits()
        .cast_signed();
    let cannot = |error: io::Error| refused(format!("it cannot be read: {error}"));
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err(refused("it is no plain file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    CloudEvent::read(&bytes)
}

/// Moves a file to `refused/`, and writes beside it why. Never over another one.
fn set_aside(folder: &Path, path: &Path, why: &str) -> io::Result<String> {
    let refused = folder.join(REFUSED);
    match DirBuilder::new().mode(0o755).create(&refused) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let name = path.file_name().unwrap_or_default().to_owned();
    let mut to = refused.join(&name);
    let mut number = 1;
    while std::fs::symlink_metadata(&to).is_ok() {
        number += 1;
        let mut other = std::ffi::OsString::from(format!("{number}-"));
        other.push(&name);
        to = refused.join(other);
    }
    std::fs::rename(path, &to)?;
    let mut text = to.clone().into_os_string();
    text.push(".txt");
    // The reason is in the log and in the trouble as well.
    if let Err(error) = std::fs::write(&text, format!("{why}\n")) {
        tracing::warn!(%error, "cannot write why a file was refused");
    }
    Ok(shown(to.file_name().unwrap_or_default()))
}

#[cfg(test)]
mod tests;
