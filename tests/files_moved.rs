//! Files moved, copied and deleted: real folders, two file systems where the machine has them.

// A helper of tests fails by panicking, as the tests do, and says what it skips.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use tidings::action::FileStep;
use tidings::action::file::{self, FileDone, FileError};
use tidings::event::FileRef;
use tidings::ground::Ground;

/// A step on this machine's own files.
fn perform(step: &FileStep, file: &FileRef) -> Result<FileDone, FileError> {
    file::perform(step, file, &Ground::default())
}

fn write(root: &Path, relative: &str, content: &[u8]) -> FileRef {
    let path = root.join(relative);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    about(root, relative)
}

fn about(root: &Path, relative: &str) -> FileRef {
    let stat = std::fs::symlink_metadata(root.join(relative)).unwrap();
    FileRef {
        root: root.to_owned(),
        relative: PathBuf::from(relative),
        size: stat.len(),
        mtime_ns: stat.mtime() * 1_000_000_000 + stat.mtime_nsec(),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A folder on another file system than the first, if there is one.
fn elsewhere(than: &Path) -> Option<tempfile::TempDir> {
    let device = std::fs::metadata(than).unwrap().dev();
    let shm = tempfile::tempdir_in("/dev/shm").ok()?;
    let other = (std::fs::metadata(shm.path()).unwrap().dev() != device).then_some(shm);
    if other.is_none() {
        println!("skipped: /dev/shm is no other file system");
    }
    other
}

fn folder(path: &Path) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push("/");
    PathBuf::from(text)
}

#[test]
fn a_moved_file_keeps_what_it_is_and_tells_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("drop");
    let file = write(&root, "sub/order.csv", b"a,b");
    let done = perform(&FileStep::Move(folder(&dir.path().join("done/today"))), &file).unwrap();
    let at = dir.path().join("done/today/order.csv");
    assert_eq!(std::fs::read(&at).unwrap(), b"a,b");
    let now = done.file.unwrap();
    assert_eq!(
        (now.path(), now.size, now.mtime_ns),
        (at.clone(), file.size, file.mtime_ns)
    );
    assert_eq!(done.gone, Some(file.clone()));
    assert_eq!(done.summary, format!("moved to {}", at.display()));
    assert!(!file.path().exists());
    // Within the root it stays below it.
    let file = write(&root, "in.csv", b"x");
    let done = perform(&FileStep::Move(root.join("kept/new name.csv")), &file).unwrap();
    let now = done.file.unwrap();
    assert_eq!(
        (now.root, now.relative),
        (root, PathBuf::from("kept/new name.csv"))
    );
}

#[test]
fn nothing_is_overwritten_by_twenty_that_move_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let other = elsewhere(dir.path());
    let targets = [
        Some(dir.path().join("done")),
        other.as_ref().map(|dir| dir.path().join("done")),
    ];
    for target in targets.into_iter().flatten() {
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join("x.csv"), b"was here").unwrap();
        let files: Vec<FileRef> = (0..20)
            .map(|n| {
                write(
                    &dir.path().join(format!("in{n}")),
                    "x.csv",
                    format!("content {n}").as_bytes(),
                )
            })
            .collect();
        std::thread::scope(|scope| {
            for file in &files {
                scope.spawn(|| perform(&FileStep::Move(folder(&target)), file).unwrap());
            }
        });
        assert_eq!(std::fs::read(target.join("x.csv")).unwrap(), b"was here");
        let contents: BTreeSet<Vec<u8>> = names(&target)
            .iter()
            .map(|name| std::fs::read(target.join(name)).unwrap())
            .collect();
        assert_eq!(contents.len(), 21, "{:?}", names(&target));
        assert_eq!(names(&target).len(), 21);
        assert!(target.join("x (21).csv").exists());
        assert!(files.iter().all(|file| !file.path().exists()));
    }
}

#[test]
fn a_symlink_at_the_target_is_a_taken_name() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("done");
    std::fs::create_dir(&target).unwrap();
    symlink(dir.path().join("precious"), target.join("x.csv")).unwrap();
    let file = write(&dir.path().join("in"), "x.csv", b"1");
    perform(&FileStep::Move(folder(&target)), &file).unwrap();
    assert_eq!(names(&target), ["x (2).csv", "x.csv"]);
    assert!(!dir.path().join("precious").exists());
}

#[test]
fn a_move_to_another_file_system_keeps_content_mode_and_mtime() {
    let dir = tempfile::tempdir().unwrap();
    let Some(other) = elsewhere(dir.path()) else {
        return;
    };
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let file = write(&dir.path().join("in"), "big.bin", &content);
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
    let done = perform(&FileStep::Move(folder(other.path())), &file).unwrap();
    let at = other.path().join("big.bin");
    assert_eq!(std::fs::read(&at).unwrap(), content);
    assert_eq!(std::fs::metadata(&at).unwrap().mode() & 0o777, 0o640);
    let now = about(other.path(), "big.bin");
    assert_eq!(now.mtime_ns, file.mtime_ns);
    assert_eq!(done.file, Some(now));
    assert!(!file.path().exists());
    assert_eq!(names(other.path()), ["big.bin"]);
}

#[test]
fn a_step_that_was_done_before_a_crash_is_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let other = elsewhere(dir.path());
    let targets = [
        Some(dir.path().join("done")),
        other.as_ref().map(|dir| dir.path().join("done")),
    ];
    for target in targets.into_iter().flatten() {
        let root = dir.path().join("in");
        // Somebody else's file of that name is not taken for ours.
        write(&target, "x.csv", b"other content");
        let file = write(&root, "x.csv", b"mine");
        let step = FileStep::Move(folder(&target));
        let first = perform(&step, &file).unwrap();
        let again = perform(&step, &file).unwrap();
        assert_eq!(first, again);
        assert_eq!(names(&target), ["x (2).csv", "x.csv"]);
    }
    let root = dir.path().join("in");
    let file = write(&root, "y.csv", b"mine");
    let step = FileStep::Copy(folder(&dir.path().join("copies")));
    let first = perform(&step, &file).unwrap();
    assert_eq!(first, perform(&step, &file).unwrap());
    assert_eq!(names(&dir.path().join("copies")), ["y.csv"]);
    let first = perform(&FileStep::Delete, &file).unwrap();
    assert!(!file.path().exists());
    let again = perform(&FileStep::Delete, &file).unwrap();
    assert_eq!((first.file, first.gone), (again.file, again.gone));
}

#[test]
fn a_crash_between_copy_and_removal_leaves_one_copy_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let Some(other) = elsewhere(dir.path()) else {
        return;
    };
    let file = write(&dir.path().join("in"), "x.csv", b"mine");
    perform(&FileStep::Copy(folder(other.path())), &file).unwrap();
    // Same name, size and mtime, but other bytes: not the copy.
    let rival = dir.path().join("rival");
    let twin = write(&rival, "x.csv", b"hers");
    let stamp = std::fs::metadata(file.path()).unwrap().modified().unwrap();
    std::fs::File::options()
        .write(true)
        .open(twin.path())
        .unwrap()
        .set_modified(stamp)
        .unwrap();
    let twin = about(&rival, "x.csv");

    perform(&FileStep::Move(folder(other.path())), &file).unwrap();
    assert!(!file.path().exists());
    assert_eq!(names(other.path()), ["x.csv"]);
    perform(&FileStep::Move(folder(other.path())), &twin).unwrap();
    assert_eq!(names(other.path()), ["x (2).csv", "x.csv"]);
    assert_eq!(std::fs::read(other.path().join("x (2).csv")).unwrap(), b"hers");
}

#[test]
fn a_file_that_changed_is_left_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "x.csv", b"one");
    std::fs::write(file.path(), b"another").unwrap();
    for step in [FileStep::Move(folder(&dir.path().join("done"))), FileStep::Delete] {
        let error = perform(&step, &file).unwrap_err();
        assert!(matches!(error, FileError::Changed { .. }), "{error}");
        assert!(error.to_string().contains("changed since it arrived"));
        assert_eq!(std::fs::read(file.path()).unwrap(), b"another");
    }
}

#[test]
fn a_file_that_is_gone_and_never_came_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "sub/x.csv", b"one");
    std::fs::remove_dir_all(dir.path().join("sub")).unwrap();
    let error = perform(&FileStep::Move(folder(&dir.path().join("done"))), &file).unwrap_err();
    assert!(matches!(error, FileError::Gone { .. }), "{error}");
}

#[test]
fn symlinks_are_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("in");
    let secret = write(&dir.path().join("secret"), "x.csv", b"secret");
    std::fs::create_dir(&root).unwrap();
    symlink(dir.path().join("secret"), root.join("sub")).unwrap();
    symlink(secret.path(), root.join("x.csv")).unwrap();
    for relative in ["sub/x.csv", "x.csv", "../secret/x.csv"] {
        let file = FileRef {
            root: root.clone(),
            relative: relative.into(),
            ..secret.clone()
        };
        for step in [
            FileStep::Move(folder(&dir.path().join("done"))),
            FileStep::Copy(folder(&dir.path().join("done"))),
            FileStep::Delete,
        ] {
            assert!(perform(&step, &file).is_err(), "{relative} {step:?}");
        }
    }
    assert_eq!(std::fs::read(secret.path()).unwrap(), b"secret");
    assert!(names(&dir.path().join("done")).is_empty());
}

#[test]
fn a_fifo_does_not_hang_us() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let file = about(dir.path(), "pipe");
    for step in [
        FileStep::Move(dir.path().join("a")),
        FileStep::Copy(dir.path().join("a")),
        FileStep::Delete,
    ] {
        assert!(matches!(perform(&step, &file), Err(FileError::NotAFile { .. })));
    }
}

#[test]
fn a_file_asked_to_go_where_it_is_stays() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "x.csv", b"one");
    let FileDone { file: now, gone, .. } = perform(&FileStep::Move(folder(dir.path())), &file).unwrap();
    assert_eq!((now, gone), (Some(file), None));
    assert_eq!(names(dir.path()), ["x.csv"]);
}
