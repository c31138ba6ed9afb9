//! A watched folder's handle: everything below it is looked at through this, never by its name again.
//!
//! Names are other people's: between two looks a folder can be renamed, mounted over, or become a
//! symlink to `/etc`. So the root is opened once and held, every look resolves below the handle without
//! following a symlink (`openat2`, or component by component on kernels without it), and
//! [`Root::stands`] says whether the path still leads to the folder that is held.

use crate::source::fs_kind::{self, FsKind};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

/// Why a root cannot be looked at. None of these says anything about the files in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Away {
    /// Nothing is at the path.
    #[error("the folder is not there")]
    Missing,
    /// Something else is at the path.
    #[error("it is not a folder")]
    NotAFolder,
    /// Another folder is at the path now: mounted over, unmounted, or renamed and made anew.
    #[error("another folder is at this path now (mounted, unmounted, or renamed and made anew)")]
    Replaced,
    /// We may not read it.
    #[error("permission denied")]
    Forbidden,
    /// The file system failed: a stale share, an I/O error.
    #[error("the file system answered: {0}")]
    Failing(Errno),
}

impl Away {
    fn from_errno(errno: Errno) -> Away {
        match errno {
            Errno::NOENT => Away::Missing,
            Errno::NOTDIR | Errno::LOOP => Away::NotAFolder,
            Errno::ACCESS | Errno::PERM => Away::Forbidden,
            other => Away::Failing(other),
        }
    }
}

/// Which folder it is, whatever its name: device and inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct FolderId {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

impl FolderId {
    /// The folder a `stat` was taken of.
    pub fn of(stat: &Stat) -> FolderId {
        FolderId {
            dev: stat.st_dev,
            ino: stat.st_ino,
        }
    }
}

/// What is remembered of a regular file at a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Inode number: another file under the same name has another.
    pub ino: u64,
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A regular file.
    File(Meta),
    /// A folder.
    Folder,
    /// A symlink, FIFO, socket or device, or something behind a symlink: none of our business.
    Other,
    /// Nothing.
    Gone,
    /// We could not look. This is not "nothing".
    Unreadable(Errno),
}

/// What a `stat` says is there.
pub fn judge(stat: &Stat) -> Look {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Look::File(Meta {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: nanoseconds(stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            ino: stat.st_ino,
        }),
        FileType::Directory => Look::Folder,
        _ => Look::Other,
    }
}

fn nanoseconds(seconds: i64, nanos: u32) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(nanos))
}

/// A watched folder, held open.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    handle: OwnedFd,
    /// Which folder is held.
    pub id: FolderId,
    /// The file system it lies on.
    pub kind: FsKind,
}

impl Root {
    /// Opens the folder at `path`. The path itself may lead through symlinks: whoever wrote the setup
    /// chose it.
    pub fn open(path: &Path) -> Result<Root, Away> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(Away::from_errno)?;
        let stat = rustix::fs::fstat(&handle).map_err(Away::from_errno)?;
        Ok(Root {
            path: path.to_owned(),
            id: FolderId::of(&stat),
            kind: fs_kind::kind_of(&handle),
            handle,
        })
    }

    /// The path it was opened at.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still leads to the folder that is held, and it can be read. An unmount, a mount
    /// over it and a rename tell nothing, so this is asked with every scan.
    pub fn stands(&self) -> Result<(), Away> {
        let stat = rustix::fs::stat(&self.path).map_err(Away::from_errno)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if FolderId::of(&stat) == self.id => {}
            FileType::Directory => return Err(Away::Replaced),
            _ => return Err(Away::NotAFolder),
        }
        // A handle outlives the right to read: only opening again shows that it was taken away.
        self.folder(Path::new("")).map(drop).map_err(Away::from_errno)
    }

    /// Opens a folder below the root for reading; the empty path is the root itself.
    pub fn folder(&self, relative: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.below(relative, flags)
    }

    /// What is at this path below the root. `fresh` asks the server of a share instead of the cache.
    pub fn look(&self, relative: &Path, fresh: bool) -> Look {
        let Some(name) = relative.file_name() else {
            return Look::Folder;
        };
        let parent = relative.parent().unwrap_or(Path::new(""));
        if parent.as_os_str().is_empty() {
            return look_at(self.handle.as_fd(), Path::new(name), fresh);
        }
        match self.below(
            parent,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        ) {
            Ok(folder) => look_at(folder.as_fd(), Path::new(name), fresh),
            Err(errno) => missing(errno),
        }
    }

    /// Opens what is at this path below the root for reading. The caller asks whether it is a regular file.
    pub fn file(&self, relative: &Path) -> Result<File, Errno> {
        // Without NONBLOCK, opening a FIFO that took the file's name would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        self.below(relative, flags).map(File::from)
    }

    /// A hash of the content, or `None` when the file is not, or no longer, the one of `meta`.
    pub fn fingerprint(&self, relative: &Path, meta: Meta) -> std::io::Result<Option<[u8; 32]>> {
        let mut file = match self.file(relative) {
            Ok(file) => file,
            Err(errno) if missing(errno) == Look::Gone => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let same = |file: &File| Ok::<_, Errno>(judge(&rustix::fs::fstat(file)?) == Look::File(meta));
        if !same(&file)? {
            return Ok(None);
        }
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => hasher.update(buffer.get(..read).unwrap_or_default()),
            };
        }
        Ok(same(&file)?.then(|| *hasher.finalize().as_bytes()))
    }

    /// Opens something below the root without following a symlink anywhere.
    fn below(&self, relative: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if relative.as_os_str().is_empty() {
            Path::new(".")
        } else {
            relative
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.handle, path, flags, Mode::empty(), resolve) {
            // Kernels before 5.6 do not have it, some container sandboxes forbid it.
            Err(Errno::NOSYS | Errno::PERM) => self.step_by_step(path, flags),
            other => other,
        }
    }

    /// The same for kernels without `openat2`: one component at a time.
    fn step_by_step(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut here = rustix::fs::openat(&self.handle, ".", through, Mode::empty())?;
        let mut steps = path.components().peekable();
        let mut last = Path::new(".");
        while let Some(step) = steps.next() {
            match step {
                Component::Normal(name) if steps.peek().is_none() => last = Path::new(name),
                Component::Normal(name) => {
                    here = rustix::fs::openat(&here, name, through, Mode::empty())?;
                }
                Component::CurDir => {}
                _ => return Err(Errno::XDEV),
            }
        }
        rustix::fs::openat(&here, last, flags | OFlags::NOFOLLOW, Mode::empty())
    }
}

/// What is at this name of an open folder.
pub fn look_at(folder: BorrowedFd<'_>, name: &Path, fresh: bool) -> Look {
    if fresh {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_FORCE_SYNC;
        match rustix::fs::statx(folder, name, flags, StatxFlags::BASIC_STATS) {
            Ok(stat) => {
                return match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
                    FileType::RegularFile => Look::File(Meta {
                        size: stat.stx_size,
                        mtime_ns: nanoseconds(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
                        ino: stat.stx_ino,
                    }),
                    FileType::Directory => Look::Folder,
                    _ => Look::Other,
                };
            }
            Err(Errno::NOSYS) => {}
            Err(errno) => return missing(errno),
        }
    }
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => judge(&stat),
        Err(errno) => missing(errno),
    }
}

/// What an error of a look means: only "no such name" means that nothing is there.
fn missing(errno: Errno) -> Look {
    match errno {
        Errno::NOENT | Errno::NOTDIR => Look::Gone,
        Errno::LOOP | Errno::XDEV => Look::Other,
        other => Look::Unreadable(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("root/a/b")).unwrap();
        std::fs::write(dir.path().join("root/a/b/file"), "content").unwrap();
        std::fs::write(dir.path().join("secret"), "other people's").unwrap();
        let root = Root::open(&dir.path().join("root")).unwrap();
        (dir, root)
    }

    #[test]
    fn a_file_is_found_below_the_root() {
        let (_dir, root) = tree();
        for fresh in [false, true] {
            assert!(matches!(root.look(Path::new("a/b/file"), fresh), Look::File(meta) if meta.size == 7));
            assert_eq!(root.look(Path::new("a/b/none"), fresh), Look::Gone);
            assert_eq!(root.look(Path::new("x/y/none"), fresh), Look::Gone);
            assert_eq!(root.look(Path::new("a"), fresh), Look::Folder);
        }
    }

    #[test]
    fn symlinks_are_followed_nowhere_and_nothing_above_the_root_is_opened() {
        let (dir, root) = tree();
        symlink(dir.path().join("secret"), dir.path().join("root/link")).unwrap();
        symlink(dir.path(), dir.path().join("root/up")).unwrap();
        assert_eq!(root.look(Path::new("link"), false), Look::Other);
        assert_eq!(
            root.look(Path::new("up/secret"), false),
            Look::Gone,
            "there is no such folder"
        );
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        for path in ["link", "up/secret", "../secret", "a/../../secret"] {
            assert!(root.below(Path::new(path), flags).is_err(), "{path}");
            assert!(
                root.step_by_step(Path::new(path), flags).is_err(),
                "{path} step by step"
            );
        }
        assert!(root.step_by_step(Path::new("a/b/file"), flags).is_ok());
    }

    #[test]
    fn a_root_renamed_and_made_anew_is_another_folder() {
        let (dir, root) = tree();
        assert_eq!(root.stands(), Ok(()));
        std::fs::rename(dir.path().join("root"), dir.path().join("elsewhere")).unwrap();
        assert_eq!(root.stands(), Err(Away::Missing));
        std::fs::create_dir(dir.path().join("root")).unwrap();
        assert_eq!(root.stands(), Err(Away::Replaced));
        std::fs::remove_dir(dir.path().join("root")).unwrap();
        std::fs::write(dir.path().join("root"), "a file").unwrap();
        assert_eq!(root.stands(), Err(Away::NotAFolder));
    }

    #[test]
    fn a_fingerprint_is_of_the_file_that_was_looked_at() {
        let (dir, root) = tree();
        let path = Path::new("a/b/file");
        let Look::File(meta) = root.look(path, false) else {
            panic!("no file")
        };
        let hash = root.fingerprint(path, meta).unwrap();
        assert_eq!(hash, Some(*blake3::hash(b"content").as_bytes()));
        std::fs::write(dir.path().join("root/a/b/file"), "longer content").unwrap();
        assert_eq!(root.fingerprint(path, meta).unwrap(), None);
        std::fs::remove_file(dir.path().join("root/a/b/file")).unwrap();
        assert_eq!(root.fingerprint(path, meta).unwrap(), None);
    }
}
