//! `move:`, `copy:`, `delete:` of the event's file.
//!
//! The file is found below its root's handle, one folder at a time, never through a symlink; only a
//! regular file is touched. Nothing is ever overwritten: `name.ext`, `name (2).ext`, and so on, decided
//! by the kernel, not by a look before. A file that is no longer what the event was about is not moved
//! or deleted. After a crash each step may be done again: what was already done is recognised by the
//! file's size and mtime, which a move and a copy keep.

use crate::action::FileStep;
use crate::event::{FileRef, shown};
use crate::ground::Ground;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

/// Most numbers tried for a free name.
const NUMBERS: u32 = 100_000;
/// Longest file name, bytes.
const NAME_MAX: usize = 255;

/// A file step that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDone {
    /// Where the event's file is now; `None` after a delete.
    pub file: Option<FileRef>,
    /// The place it was taken away from.
    pub gone: Option<FileRef>,
    /// For people: `moved to /srv/done/order (2).csv`.
    pub summary: String,
}

/// A file step that could not be done. Nothing was changed, but for what a copy may have left half
/// done under a temporary name (`.tidings-*.part`).
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Gone, and not at the target either.
    #[error("{path} is no longer there")]
    Gone {
        /// Where it was.
        path: String,
    },
    /// It is not the file the event was about.
    #[error(
        "{path} changed since it arrived (its size or its time of change is another); it is left where it is"
    )]
    Changed {
        /// Where it is.
        path: String,
    },
    /// A symlink, a folder, a device.
    #[error("{path} is no regular file any more; it is left as it is")]
    NotAFile {
        /// Where it is.
        path: String,
    },
    /// No free name.
    #[error("{path} and its numbered names are all taken")]
    Taken {
        /// The target.
        path: String,
    },
    /// The system refused.
    #[error("cannot {what} {path}: {source}")]
    System {
        /// `open`, `make`, `rename`..
        what: &'static str,
        /// What it was about.
        path: String,
        /// Its words.
        source: io::Error,
    },
}

/// Does one step, on the files of `ground`. Blocks; not for a runtime's thread.
pub fn perform(step: &FileStep, file: &FileRef, ground: &Ground) -> Result<FileDone, FileError> {
    match step {
        FileStep::Move(target) => to_target(file, &Target::of(target, file, ground), true),
        FileStep::Copy(target) => to_target(file, &Target::of(target, file, ground), false),
        FileStep::Delete => delete(file, ground),
    }
}

/// Where a file shall go.
struct Target {
    folder: PathBuf,
    name: OsString,
    ground: Ground,
}

impl Target {
    /// A path that ends in `/`, or is a folder, takes the file under its own name.
    fn of(path: &Path, file: &FileRef, ground: &Ground) -> Target {
        let own = file.relative.file_name().unwrap_or_default().to_owned();
        let is_folder = path.as_os_str().as_bytes().ends_with(b"/") || ground.at(path).is_dir();
        match path.file_name() {
            Some(name) if !is_folder => Target {
                folder: path.parent().unwrap_or(Path::new("/")).to_owned(),
                name: name.to_owned(),
                ground: ground.clone(),
            },
            _ => Target {
                folder: path.to_owned(),
                name: own,
                ground: ground.clone(),
            },
        }
    }

    /// `order.csv`, `order (2).csv`, ..; never longer than a name may be.
    fn candidate(&self, number: u32) -> OsString {
        if number == 1 {
            return self.name.clone();
        }
        let name = self.name.as_bytes();
        let dot = name.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0);
        let (stem, extension) = name.split_at(dot.unwrap_or(name.len()));
        let mark = format!(" ({number})");
        let room = NAME_MAX.saturating_sub(mark.len() + extension.len());
        let mut end = stem.len().min(room);
        // Not in the middle of a character.
        while end < stem.len() && end > 0 && (0x80..0xc0).contains(&stem[end]) {
            end -= 1;
        }
        OsString::from_vec([&stem[..end], mark.as_bytes(), extension].concat())
    }

    fn candidates(&self) -> impl Iterator<Item = OsString> {
        (1..=NUMBERS).map(|number| self.candidate(number))
    }

    fn path(&self, name: &OsStr) -> PathBuf {
        self.folder.join(name)
    }

    fn open(&self) -> Result<OwnedFd, FileError> {
        let failed = |what, source: io::Error| FileError::System {
            what,
            path: show(&self.folder),
            source,
        };
        let folder = self.ground.at(&self.folder);
        let made = first_missing(&folder);
        std::fs::create_dir_all(&folder).map_err(|error| failed("make the folder", error))?;
        if let Some(parent) = made.as_deref().and_then(Path::parent) {
            // The new folder itself must outlast a power cut as the file in it does.
            let _ = File::open(parent).and_then(|parent| parent.sync_all());
        }
        open_folder(rustix::fs::CWD, folder.as_os_str(), false)
            .map_err(|error| failed("open the folder", error.into()))
    }
}

fn first_missing(folder: &Path) -> Option<PathBuf> {
    folder
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .last()
        .map(Path::to_owned)
}

/// The event's file: its folder's handle and its name there.
struct Source {
    folder: OwnedFd,
    name: OsString,
}

impl Source {
    /// Opens the folder below the root. `None`: a folder on the way is gone.
    fn open(file: &FileRef, ground: &Ground) -> Result<Option<Source>, FileError> {
        let failed = |source: Errno| FileError::System {
            what: "open the folder of",
            path: show(&file.path()),
            source: source.into(),
        };
        let mut names: Vec<&OsStr> = Vec::new();
        for part in file.relative.components() {
            match part {
                Component::Normal(name) => names.push(name),
                _ => return Err(failed(Errno::INVAL)),
            }
        }
        let Some(name) = names.pop() else {
            return Err(failed(Errno::INVAL));
        };
        let mut folder = match open_folder(rustix::fs::CWD, ground.at(&file.root).as_os_str(), false) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        for part in names {
            folder = match open_folder(&folder, part, true) {
                Ok(folder) => folder,
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(failed(error)),
            };
        }
        Ok(Some(Source {
            folder,
            name: name.to_owned(),
        }))
    }

    /// What lies there now; a symlink itself, not what it names.
    fn stat(&self, file: &FileRef) -> Result<Option<Stat>, FileError> {
        stat_at(&self.folder, &self.name).map_err(|error| system("look at", &file.path(), error))
    }
}

fn open_folder(at: impl std::os::fd::AsFd, name: &OsStr, below: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if below {
        flags |= OFlags::NOFOLLOW;
    }
    rustix::fs::openat(at, name, flags, Mode::empty())
}

fn stat_at(folder: &OwnedFd, name: &OsStr) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

#[allow(clippy::unnecessary_cast, clippy::cast_lossless)] // the fields' types differ between systems
fn mtime_ns(stat: &Stat) -> i64 {
    (stat.st_mtime as i64)
        .saturating_mul(1_000_000_000)
        .saturating_add(stat.st_mtime_nsec as i64)
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn is_same(stat: &Stat, file: &FileRef) -> bool {
    is_file(stat) && u64::try_from(stat.st_size) == Ok(file.size) && mtime_ns(stat) == file.mtime_ns
}

fn same_inode(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

fn show(path: &Path) -> String {
    shown(path.as_os_str())
}

fn system(what: &'static str, path: &Path, source: impl Into<io::Error>) -> FileError {
    FileError::System {
        what,
        path: show(path),
        source: source.into(),
    }
}

fn delete(file: &FileRef, ground: &Ground) -> Result<FileDone, FileError> {
    let done = |summary: String| FileDone {
        file: None,
        gone: Some(file.clone()),
        summary,
    };
    let path = file.path();
    let there = match Source::open(file, ground)? {
        Some(source) => source.stat(file)?.map(|stat| (source, stat)),
        None => None,
    };
    let Some((source, stat)) = there else {
        // Ours before a crash, or somebody else's: it is away, as asked.
        return Ok(done(format!("{} was already gone", show(&path))));
    };
    unchanged(&stat, file)?;
    match rustix::fs::unlinkat(&source.folder, &source.name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(system("delete", &path, error)),
    }
    sync(&source.folder, &path)?;
    Ok(done(format!("deleted {}", show(&path))))
}

fn unchanged(stat: &Stat, file: &FileRef) -> Result<(), FileError> {
    let path = show(&file.path());
    if !is_file(stat) {
        Err(FileError::NotAFile { path })
    } else if is_same(stat, file) {
        Ok(())
    } else {
        Err(FileError::Changed { path })
    }
}

fn sync(folder: &OwnedFd, path: &Path) -> Result<(), FileError> {
    match rustix::fs::fsync(folder) {
        // Some file systems have no folders to sync.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(system("make durable", path, error)),
    }
}

/// The done step, for a file that is now `name` in the target's folder.
fn arrived(file: &FileRef, target: &Target, name: &OsStr, mtime_ns: i64, size: u64, moved: bool) -> FileDone {
    let path = target.path(name);
    // Below the same root where it is one, so that it is still opened below the watched folder.
    let (root, relative) = match path.strip_prefix(&file.root) {
        Ok(relative) => (file.root.clone(), relative.to_owned()),
        Err(_) => (target.folder.clone(), PathBuf::from(name)),
    };
    let verb = if moved { "moved to" } else { "copied to" };
    FileDone {
        summary: format!("{verb} {}", show(&path)),
        file: Some(if moved {
            FileRef {
                root,
                relative,
                size,
                mtime_ns,
            }
        } else {
            file.clone()
        }),
        gone: moved.then(|| file.clone()),
    }
}

fn to_target(file: &FileRef, target: &Target, moved: bool) -> Result<FileDone, FileError> {
    let path = file.path();
    let folder = target.open()?;
    let at_target =
        |name: &OsStr| stat_at(&folder, name).map_err(|error| system("look at", &target.path(name), error));
    let there = match Source::open(file, &target.ground)? {
        Some(source) => source.stat(file)?.map(|stat| (source, stat)),
        None => None,
    };
    let Some((source, stat)) = there else {
        // Done before a crash?
        for name in target.candidates() {
            match at_target(&name)? {
                Some(stat) if is_same(&stat, file) => {
                    return Ok(arrived(file, target, &name, file.mtime_ns, file.size, moved));
                }
                Some(_) => {}
                None => break,
            }
        }
        return Err(FileError::Gone { path: show(&path) });
    };
    if !is_file(&stat) {
        return Err(FileError::NotAFile { path: show(&path) });
    }
    if moved {
        unchanged(&stat, file)?;
        // Asked to go where it is.
        if let Some(other) = at_target(&target.name)?
            && same_inode(&other, &stat)
        {
            return Ok(FileDone {
                file: Some(file.clone()),
                gone: None,
                summary: format!("{} is already there", show(&path)),
            });
        }
        match place(&source.folder, &source.name, &folder, target) {
            Ok(name) => {
                sync(&folder, &target.folder)?;
                sync(&source.folder, &path)?;
                return Ok(arrived(file, target, &name, file.mtime_ns, file.size, true));
            }
            Err(Some(Errno::XDEV)) => {}
            Err(Some(Errno::NOENT)) => return Err(FileError::Gone { path: show(&path) }),
            Err(Some(error)) => return Err(system("move", &path, error)),
            Err(None) => {
                return Err(FileError::Taken {
                    path: show(&target.path(&target.name)),
                });
            }
        }
    }
    let (name, copied) = copy(file, &source, &folder, target)?;
    if moved {
        // Only if it is still what was copied.
        let now = source.stat(file)?;
        if now
            .as_ref()
            .is_some_and(|now| !same_inode(now, &copied) || !is_same(now, file))
        {
            // The copy is of what is no longer the file.
            let _ = rustix::fs::unlinkat(&folder, &name, AtFlags::empty());
            return Err(FileError::Changed { path: show(&path) });
        }
        match rustix::fs::unlinkat(&source.folder, &source.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(system("remove, after it was copied,", &path, error)),
        }
        sync(&source.folder, &path)?;
    }
    let size = u64::try_from(copied.st_size).unwrap_or_default();
    Ok(arrived(file, target, &name, mtime_ns(&copied), size, moved))
}

/// Renames to the first free name of the target. `Err(None)`: none is free.
fn place(from: &OwnedFd, name: &OsStr, folder: &OwnedFd, target: &Target) -> Result<OsString, Option<Errno>> {
    for candidate in target.candidates() {
        match rename_new(from, name, folder, &candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(Some(error)),
        }
    }
    Err(None)
}

/// Renames, and never over something.
fn rename_new(from: &OwnedFd, name: &OsStr, folder: &OwnedFd, to: &OsStr) -> Result<(), Errno> {
    match rustix::fs::renameat_with(from, name, folder, to, RenameFlags::NOREPLACE) {
        // A file system, or a kernel, that does not know the flag: take the name first, then rename
        // over what is ours.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(folder, to, flags, Mode::RUSR | Mode::WUSR)?;
            let renamed = rustix::fs::renameat(from, name, folder, to);
            if renamed.is_err() {
                let _ = rustix::fs::unlinkat(folder, to, AtFlags::empty());
            }
            renamed
        }
        other => other,
    }
}

/// Copies the file to the first free name of the target, with its mode and mtime, durable before it
/// bears the name. A target that is this very file, copied before a crash, is taken as the copy.
fn copy(
    file: &FileRef,
    source: &Source,
    folder: &OwnedFd,
    target: &Target,
) -> Result<(OsString, Stat), FileError> {
    let path = file.path();
    let read = |error: io::Error| system("read", &path, error);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut input = match rustix::fs::openat(&source.folder, &source.name, flags, Mode::empty()) {
        Ok(input) => File::from(input),
        Err(Errno::NOENT) => return Err(FileError::Gone { path: show(&path) }),
        Err(Errno::LOOP) => return Err(FileError::NotAFile { path: show(&path) }),
        Err(error) => return Err(read(error.into())),
    };
    let stat = rustix::fs::fstat(&input).map_err(|error| read(error.into()))?;
    if !is_file(&stat) {
        return Err(FileError::NotAFile { path: show(&path) });
    }
    if let Some(name) = copied_before(&mut input, &stat, folder, target).map_err(read)? {
        return Ok((name, stat));
    }

    let temporary = temporary_name();
    let write = |error: io::Error| system("write", &target.path(&temporary), error);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let output = rustix::fs::openat(folder, &temporary, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|error| write(error.into()))?;
    let placed = (|| {
        let mut output = File::from(output);
        let copied = io::copy(&mut input, &mut output).map_err(write)?;
        let after = rustix::fs::fstat(&input).map_err(|error| read(error.into()))?;
        if u64::try_from(after.st_size) != Ok(copied) || mtime_ns(&after) != mtime_ns(&stat) {
            return Err(FileError::Changed { path: show(&path) });
        }
        let mode = Mode::from_raw_mode(stat.st_mode) & (Mode::RWXU | Mode::RWXG | Mode::RWXO);
        rustix::fs::fchmod(&output, mode).map_err(|error| write(error.into()))?;
        let time = Timespec {
            tv_sec: mtime_ns(&stat).div_euclid(1_000_000_000),
            tv_nsec: mtime_ns(&stat).rem_euclid(1_000_000_000) as _,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::futimens(&output, &times).map_err(|error| write(error.into()))?;
        output.sync_all().map_err(write)?;
        place(folder, &temporary, folder, target).map_err(|error| match error {
            Some(error) => system("name", &target.path(&target.name), error),
            None => FileError::Taken {
                path: show(&target.path(&target.name)),
            },
        })
    })();
    match placed {
        Ok(name) => {
            sync(folder, &target.folder)?;
            Ok((name, stat))
        }
        Err(error) => {
            let _ = rustix::fs::unlinkat(folder, &temporary, AtFlags::empty());
            Err(error)
        }
    }
}

fn temporary_name() -> OsString {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos());
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    format!(".tidings-{process}-{number}-{now:x}.part").into()
}

/// A copy of this very file among the target's names: same size, same mtime, and the same bytes, since
/// another file may share the first two.
fn copied_before(
    input: &mut File,
    stat: &Stat,
    folder: &OwnedFd,
    target: &Target,
) -> io::Result<Option<OsString>> {
    use std::io::Seek as _;
    for name in target.candidates() {
        let Some(other) = stat_at(folder, &name)? else {
            return Ok(None);
        };
        if !is_file(&other)
            || other.st_size != stat.st_size
            || mtime_ns(&other) != mtime_ns(stat)
            || same_inode(&other, stat)
        {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut copy = File::from(rustix::fs::openat(folder, &name, flags, Mode::empty())?);
        let same = same_bytes(input, &mut copy)?;
        input.rewind()?;
        if same {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn same_bytes(one: &mut File, other: &mut File) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let n = one.read(&mut left)?;
        if n == 0 {
            return Ok(other.read(&mut right)? == 0);
        }
        match other.read_exact(&mut right[..n]) {
            Ok(()) if left[..n] == right[..n] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_names_keep_the_extension_and_never_grow_too_long() {
        let named = |name: &str, number| {
            let target = Target {
                folder: "/".into(),
                name: name.into(),
                ground: Ground::default(),
            };
            target.candidate(number).into_string().unwrap()
        };
        assert_eq!(named("order.csv", 1), "order.csv");
        assert_eq!(named("order.csv", 2), "order (2).csv");
        assert_eq!(named("archive.tar.gz", 3), "archive.tar (3).gz");
        assert_eq!(named(".profile", 2), ".profile (2)");
        assert_eq!(named("README", 2), "README (2)");
        let long = format!("{}.csv", "\u{e9}".repeat(125));
        assert_eq!(long.len(), 254);
        let numbered = named(&long, 12);
        assert!(numbered.len() <= NAME_MAX && numbered.ends_with("\u{e9} (12).csv"));
    }
}
