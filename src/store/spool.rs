//! The spool: bodies too large for the database, one file each, whole and durable before anybody can
//! name them.
//!
//! ```text
//!   create --write--> NAME.part --keep: fsync, rename, fsync folder--> NAME --admit--> referred to
//!                        |                                              |
//!                     dropped: removed                     never admitted: an orphan, removed at recover
//! ```
//!
//! A file that is not referred to may belong to a process that is about to admit it, so an orphan is
//! removed only when it is older than [`ORPHAN_AGE`].

use crate::entry::Body;
use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// How long a file may lie here before somebody refers to it.
pub const ORPHAN_AGE: Duration = Duration::from_secs(3600);

/// End of the name of a file that is still being written.
const PART: &str = ".part";

/// The folder of large bodies. Its files are 0600, the folder 0700.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: PathBuf,
}

/// A body being written. Removed again unless it is kept.
#[derive(Debug)]
pub struct SpoolFile {
    file: File,
    folder: PathBuf,
    name: String,
    len: u64,
    kept: bool,
}

impl Spool {
    /// The spool in `folder`, which is made if need be.
    pub(super) fn open(folder: PathBuf) -> io::Result<Spool> {
        private_folder(&folder)?;
        Ok(Spool { folder })
    }

    /// Begins a file. It has no name anybody could refer to until it is kept. Blocks on the disk.
    pub fn create(&self) -> io::Result<SpoolFile> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // Unique by process, time and count; `create_new` makes sure.
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{:x}-{:x}-{count:x}", since.as_nanos(), std::process::id());
        let part = self.folder.join(format!("{name}{PART}"));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        give_away(&self.folder, &part);
        Ok(SpoolFile {
            file,
            folder: self.folder.clone(),
            name,
            len: 0,
            kept: false,
        })
    }

    /// Where the file of that name lies, for reading.
    pub fn path(&self, name: &str) -> PathBuf {
        // Names come from the database. One that is not ours must not lead out of the folder.
        self.folder
            .join(if is_ours(name) { name } else { "no-such-file" })
    }

    /// The folder itself.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes a file; one that is not there is fine.
    pub(super) fn remove(&self, name: &str) {
        if let Err(error) = std::fs::remove_file(self.path(name))
            && error.kind() != io::ErrorKind::NotFound
        {
            // It is an orphan now, and the next recover tries again.
            tracing::warn!(name, %error, "a spool file could not be removed");
        }
    }

    /// Gives up a body that was kept and will not be admitted.
    pub fn discard(&self, body: &Body) {
        if let Body::Spooled { name, .. } = body {
            self.remove(name);
        }
    }

    /// Names of files last written before `before`, unfinished ones too.
    pub(super) fn older(&self, before: SystemTime) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for item in std::fs::read_dir(&self.folder)? {
            let item = item?;
            let Ok(name) = item.file_name().into_string() else {
                continue;
            };
            let written = item.metadata().and_then(|data| data.modified());
            if is_ours(name.trim_end_matches(PART)) && written.is_ok_and(|written| written < before) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Removes those of `names` that are not in `referred`; how many.
    pub(super) fn sweep(&self, names: Vec<String>, referred: &HashSet<String>) -> usize {
        let orphans: Vec<String> = names
            .into_iter()
            .filter(|name| !referred.contains(name))
            .collect();
        for name in &orphans {
            if name.ends_with(PART) {
                let _ = std::fs::remove_file(self.folder.join(name));
            } else {
                self.remove(name);
            }
        }
        orphans.len()
    }
}

impl SpoolFile {
    /// Makes it durable under its name: file and folder are on disk when this returns.
    pub fn keep(mut self) -> io::Result<Body> {
        self.file.sync_all()?;
        std::fs::rename(self.part(), self.folder.join(&self.name))?;
        self.kept = true;
        File::open(&self.folder)?.sync_all()?;
        Ok(Body::Spooled {
            name: self.name.clone(),
            len: self.len,
        })
    }

    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was written so far.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn part(&self) -> PathBuf {
        self.folder.join(format!("{}{PART}", self.name))
    }
}

impl Write for SpoolFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(self.part());
        }
    }
}

/// What root makes in a folder of somebody else (cron's `tidings sendmail`) belongs to him: else the daemon could not
/// use it.
pub(super) fn give_away(folder: &Path, made: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let given = std::fs::metadata(folder).and_then(|folder| match folder.uid() {
        0 => Ok(()),
        owner => chown(made, Some(owner), Some(folder.gid())),
    });
    if let Err(error) = given {
        tracing::warn!(path = %made.display(), %error, "cannot be given to the owner of its folder");
    }
}

fn is_ours(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// Makes the folder, readable by its owner alone, if it is not there. One that is there is left as it
/// is: it may be somebody's `/var/lib`.
pub(super) fn private_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        // A umask can only take bits away; set them, so that a strange one cannot lock us out.
        Ok(()) => {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
            give_away(folder.parent().unwrap_or(folder), folder);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool() -> (tempfile::TempDir, Spool) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path().join("spool")).unwrap();
        (folder, spool)
    }

    #[test]
    fn a_kept_file_is_whole_and_private() {
        let (_folder, spool) = spool();
        let mut file = spool.create().unwrap();
        file.write_all(b"hello").unwrap();
        let Body::Spooled { name, len } = file.keep().unwrap() else {
            panic!("not spooled");
        };
        assert_eq!(len, 5);
        assert_eq!(std::fs::read(spool.path(&name)).unwrap(), b"hello");
        let mode = std::fs::metadata(spool.path(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mode = std::fs::metadata(&spool.folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_file_that_is_not_kept_leaves_nothing() {
        let (_folder, spool) = spool();
        let mut file = spool.create().unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(std::fs::read_dir(&spool.folder).unwrap().count(), 0);
    }

    #[test]
    fn a_name_from_the_database_cannot_lead_out_of_the_folder() {
        let (_folder, spool) = spool();
        assert_eq!(spool.path("../../etc/passwd"), spool.folder.join("no-such-file"));
        assert_eq!(spool.path(""), spool.folder.join("no-such-file"));
    }
}
