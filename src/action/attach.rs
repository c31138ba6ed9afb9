//! Attachments of a mail: which file is meant, opened so that nobody can get another one attached, and what
//! becomes of those that are too big.
//!
//! | what the rule says | opened |
//! |---|---|
//! | a template that gives the event's file | below the watched folder's handle, no link followed, and only if size and time are still those that settled |
//! | another template | the same way, below the watched folder or the setup folder |
//! | a path written out | any regular file; its last step is no link |
//! | `{{files}}` | each file of the event's set, in the same way as the event's file |
//! | `job.log` | the log of the job this mail is about |

use crate::config::settings::Settings;
use crate::entry::Reason;
use crate::event::{FileRef, members, shown};
use crate::mail::attachment::{SNIFF, media_type, safe_name};
use crate::mail::message::encoded_size;
use crate::mail::zip::Archive;
use crate::template::{Attached, Omitted, Text};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::fs::File;
use std::io::{self, Seek as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

/// What attaches all files of a set.
const ALL: &str = "{{files}}";

/// Where attachments are looked for.
#[derive(Clone, Copy)]
pub struct Places<'a> {
    /// The setup folder, the zone, the folder for scratch files.
    pub settings: &'a Settings,
    /// What templates may say.
    pub facts: &'a serde_json::Value,
    /// The file the event is about.
    pub file: Option<&'a FileRef>,
    /// The log of the job the event is about.
    pub job_log: Option<&'a Path>,
}

/// What is attached, and what is not.
pub struct Attachments {
    /// In the order of the rule.
    pub files: Vec<Open>,
    /// Left out, to be told in the mail.
    pub omitted: Vec<Omitted>,
}

/// A file in hand.
pub struct Open {
    /// Where it lies, for people; empty for an archive we made.
    pub path: String,
    /// What a template sees.
    pub shown: Attached,
    /// The file, at its start.
    pub file: File,
    mtime: (i64, i64),
}

impl Open {
    fn new(file: File, path: &Path) -> io::Result<Open> {
        let data = file.metadata()?;
        if !data.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let name = safe_name(path.file_name().unwrap_or_default());
        let mut first = vec![0; SNIFF];
        let length = file.read_at(&mut first, 0)?;
        Ok(Open {
            path: safe_path(path),
            shown: Attached {
                content_type: media_type(&name, &first[..length]),
                name,
                size: data.len(),
            },
            file,
            mtime: (data.mtime(), data.mtime_nsec()),
        })
    }

    /// Whether it is still as it was when it was opened.
    pub fn is_unchanged(&self) -> bool {
        self.file.metadata().is_ok_and(|data| {
            data.len() == self.shown.size && (data.mtime(), data.mtime_nsec()) == self.mtime
        })
    }
}

/// A path for people: control characters made visible.
fn safe_path(path: &Path) -> String {
    shown(path.as_os_str())
        .split('/')
        .map(|step| {
            if matches!(step, "" | "." | "..") {
                step.to_owned()
            } else {
                safe_name(step.as_ref())
            }
        })
        .collect::<Vec<_>>()
        .join("/")
}

/// Opens what `attach:` means. An error is why the mail is held.
pub fn open(texts: &[Text], places: &Places<'_>) -> Result<Attachments, Reason> {
    let mut opened = Attachments {
        files: Vec::new(),
        omitted: Vec::new(),
    };
    for text in texts {
        find(text, places, &mut opened)?;
    }
    Ok(opened)
}

/// Most files opened for one mail of several events.
const MOST: usize = 100;

/// Opens what `attach:` means for a mail of several events: what is written out once, what a template gives for
/// each of them. A file that cannot be had is left out, and why is told in the mail; an error is a template's.
pub fn open_each<'a>(
    texts: &[Text],
    all: &Places<'_>,
    each: impl Iterator<Item = Places<'a>>,
) -> Result<Attachments, Reason> {
    let mut opened = Attachments {
        files: Vec::new(),
        omitted: Vec::new(),
    };
    let is_log = |text: &Text| text.literal() == Some("job.log");
    let (once, often): (Vec<&Text>, Vec<&Text>) = texts
        .iter()
        .partition(|text| text.literal().is_some() && !is_log(text));
    for text in once {
        find(text, all, &mut opened)?;
    }
    for places in each {
        for text in &often {
            let path = match is_log(text) {
                true => "job.log".to_owned(),
                false => render(text, &places)?,
            };
            if path.is_empty() {
                continue;
            }
            let why = if opened.files.len() >= MOST {
                "there are too many files for one mail".to_owned()
            } else {
                match find(text, &places, &mut opened) {
                    Ok(()) => continue,
                    Err(reason) => reason.text,
                }
            };
            opened.omitted.push(Omitted {
                name: safe_name(Path::new(&path).file_name().unwrap_or_default()),
                size: 0,
                path: String::new(),
                why,
            });
        }
    }
    Ok(opened)
}

fn render(text: &Text, places: &Places<'_>) -> Result<String, Reason> {
    text.render(places.facts)
        .map_err(|error| Reason::new(format!("`attach: {}`: {error}", text.source())))
}

/// Bytes of files as encoded in a message.
pub fn encoded(files: &[Open]) -> u64 {
    files.iter().fold(0, |sum: u64, file| {
        sum.saturating_add(encoded_size(file.shown.size))
    })
}

/// Keeps, in the order of the rule, what fits.
pub fn leave_out(gathered: &mut Attachments, max_size: u64, why: &str) {
    let mut room = max_size;
    for file in std::mem::take(&mut gathered.files) {
        match room.checked_sub(encoded_size(file.shown.size)) {
            Some(left) => {
                room = left;
                gathered.files.push(file);
            }
            None => gathered.omitted.push(Omitted {
                name: file.shown.name,
                size: file.shown.size,
                path: file.path,
                why: why.to_owned(),
            }),
        }
    }
}

/// Packs files into an archive that has no name on disk.
pub fn pack(files: &[Open], settings: &Settings) -> io::Result<Open> {
    let scratch = scratch(&settings.ground.at(&settings.state))?;
    let mut archive = Archive::new(io::BufWriter::new(&scratch));
    for open in files {
        let time = jiff::Timestamp::from_second(open.mtime.0)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            .to_zoned(settings.defaults.timezone.clone())
            .datetime();
        archive.add(&open.shown.name, time, &open.file)?;
        if !open.is_unchanged() {
            return Err(io::Error::other(format!(
                "{} changed while it was read",
                open.shown.name
            )));
        }
        (&open.file).rewind()?;
    }
    archive.finish()?;
    (&scratch).rewind()?;
    let name = match files {
        [one] => format!("{}.zip", one.shown.name),
        _ => "attachments.zip".to_owned(),
    };
    let mut open = Open::new(scratch, Path::new(&name))?;
    open.shown.content_type = "application/zip".to_owned();
    open.path = String::new();
    Ok(open)
}

/// A file without a name; gone with its last handle, also after a crash.
fn scratch(folder: &Path) -> io::Result<File> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!(".packing-{}-{count}", std::process::id()));
    let _ = std::fs::remove_file(&path); // of a process that ended between the next two steps
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Opens what one line of `attach:` means.
fn find(text: &Text, with: &Places<'_>, gathered: &mut Attachments) -> Result<(), Reason> {
    let is_log = |path: &str| with.job_log.is_some_and(|log| path == shown(log.as_os_str()));
    let files = members(with.facts, with.file);
    if text.source().trim() == ALL {
        for file in &files {
            gathered.files.push(settled(file, with)?);
        }
        return Ok(());
    }
    let rendered = match text.literal() {
        Some("job.log") => String::new(),
        _ => render(text, with)?,
    };
    // `{{job.log}}` means the same.
    if text.literal() == Some("job.log") || is_log(&rendered) {
        let Some(log) = with.job_log else {
            gathered.omitted.push(Omitted {
                name: "job.log".to_owned(),
                size: 0,
                path: String::new(),
                why: "the job left no log".to_owned(),
            });
            return Ok(());
        };
        let mut open = written_out(log, with).map_err(|error| unreadable(log, &error))?;
        if let Some(job) = with.facts["job"]["name"].as_str() {
            open.shown.name = safe_name(format!("{job}.log").as_ref());
        }
        open.shown.content_type = "text/plain".to_owned();
        gathered.files.push(open);
        return Ok(());
    }
    if rendered.is_empty() {
        return Ok(()); // `{{#if file}}{{file.path}}{{/if}}` without a file
    }
    let one = files
        .iter()
        .find(|file| rendered == shown(file.path().as_os_str()));
    let open = match (one.or(with.file), text.literal()) {
        (Some(file), None) if one.is_some() => settled(file, with)?,
        (_, Some(_)) => {
            let path = with.settings.dir.join(&rendered);
            written_out(&path, with).map_err(|error| unreadable(&path, &error))?
        }
        (file, None) => made_by_template(&rendered, file, with)?,
    };
    gathered.files.push(open);
    Ok(())
}

fn unreadable(path: &Path, error: &io::Error) -> Reason {
    // The system speaks of many links where we allow none.
    if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        return Reason {
            steps: vec![
                "Put the file itself there, then retry the mail; or cancel it, if nobody of yours made the link.".to_owned(),
            ],
            ..Reason::new(format!(
                "{} cannot be attached: it is a symbolic link, or lies behind one, and links are not followed",
                safe_path(path)
            ))
        };
    }
    Reason {
        steps: vec!["Mend what is wrong with the file or its rights, then retry the mail.".to_owned()],
        ..Reason::new(format!("{} cannot be attached: {error}", safe_path(path)))
    }
}

/// The event's file, as it settled.
fn settled(file: &FileRef, with: &Places<'_>) -> Result<Open, Reason> {
    let path = file.path();
    let open = below(&with.settings.ground.at(&file.root), &file.relative)
        .and_then(|handle| Open::new(handle, &path));
    let open = open.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Reason {
            steps: vec!["Put the file back, then retry the mail; or cancel it.".to_owned()],
            ..Reason::new(format!(
                "{} vanished before it could be attached",
                safe_path(&path)
            ))
        },
        _ => unreadable(&path, &error),
    })?;
    let mtime_ns = i128::from(open.mtime.0) * 1_000_000_000 + i128::from(open.mtime.1);
    if open.shown.size != file.size || mtime_ns != i128::from(file.mtime_ns) {
        return Err(Reason {
            steps: vec![
                "If the new version arrived as a file of its own, cancel this mail; its own mail is sent."
                    .to_owned(),
            ],
            ..Reason::new(format!(
                "{} changed before it could be attached: it had {} bytes when it settled, and has {} now",
                safe_path(&path),
                file.size,
                open.shown.size
            ))
        });
    }
    Ok(open)
}

/// A path that a template made: only below the event's folder or the setup.
fn made_by_template(rendered: &str, file: Option<&FileRef>, with: &Places<'_>) -> Result<Open, Reason> {
    let dir = &with.settings.dir;
    let path = dir.join(rendered);
    let roots = file.map(|file| &file.root).into_iter().chain([dir]);
    for root in roots {
        if let Ok(relative) = path.strip_prefix(root) {
            let ground = &with.settings.ground;
            let root = if ground.to_read(&path) == path {
                root.into()
            } else {
                ground.at(root)
            };
            return below(&root, relative)
                .and_then(|handle| Open::new(handle, &path))
                .map_err(|error| unreadable(&path, &error));
        }
    }
    Err(Reason {
        steps: vec![
            "Let the template give a path below the watched folder or the setup folder, or write the path out.".to_owned(),
        ],
        ..Reason::new(format!(
            "{} cannot be attached: a template may only name files below the watched folder or the setup folder",
            safe_path(&path)
        ))
    })
}

/// Opening waits for nobody (a FIFO) and follows no link at the end.
const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOCTTY);

/// A path written out in the rule.
fn written_out(path: &Path, with: &Places<'_>) -> io::Result<Open> {
    let place = with.settings.ground.to_read(path);
    let file = rustix::fs::open(&*place, OPEN, Mode::empty())?;
    Open::new(File::from(file), path)
}

/// Opens a file below a folder: no step of the way is a link, none leads up.
fn below(root: &Path, relative: &Path) -> io::Result<File> {
    if !relative
        .components()
        .all(|step| matches!(step, Component::Normal(_)))
        || relative.as_os_str().is_empty()
    {
        return Err(io::Error::other("the path leads out of its folder"));
    }
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = rustix::fs::open(root, folder, Mode::empty())?;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&handle, relative, OPEN, Mode::empty(), how) {
        Ok(file) => return Ok(File::from(file)),
        // Kernels before 5.6, and sandboxes that do not know the call: the same, step by step.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let steps: Vec<PathBuf> = relative
        .components()
        .map(|step| PathBuf::from(step.as_os_str()))
        .collect();
    let Some((last, folders)) = steps.split_last() else {
        return Err(io::Error::other("the path leads nowhere"));
    };
    let mut handle = handle;
    for step in folders {
        handle = rustix::fs::openat(&handle, step, folder | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok(File::from(rustix::fs::openat(
        &handle,
        last,
        OPEN,
        Mode::empty(),
    )?))
}
