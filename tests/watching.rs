//! `file_arrives`, with real folders, the real kernel and the real store.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says why it was skipped"
)]

use globset::GlobBuilder;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;
use tidings::clock::Clock;
use tidings::event::{Event, Kind};
use tidings::source::file::status::{Mode, WatchStatus, mark};
use tidings::source::file::{FileSource, Handle};
use tidings::source::wanted::Ignore;
use tidings::source::{Existing, Identity, Settle, Wanted, Watch};
use tidings::store::{EventFilter, Store};
use tidings::template::Text;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for a slow machine: nothing waits for it when all is well.
const DEADLINE: Duration = Duration::from_secs(60);

/// A folder to watch, and a store.
struct Place {
    dir: tempfile::TempDir,
    store: Store,
    watch: Watch,
}

/// A running source.
struct Source {
    stop: CancellationToken,
    handle: Handle,
    task: JoinHandle<()>,
}

impl Source {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn wanted(pattern: &str, ignore: &[&str]) -> Wanted {
    let glob = |pattern: &str| GlobBuilder::new(pattern).literal_separator(true).build().unwrap();
    let ignored: Vec<_> = ignore.iter().map(|pattern| glob(pattern)).collect();
    Wanted {
        matching: glob(pattern).compile_matcher(),
        ignore: Ignore::new(&ignored),
        recursive: pattern.contains("**") || pattern.contains('/'),
        min_size: 0,
        max_size: None,
    }
}

impl Place {
    async fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("drop");
        std::fs::create_dir(&root).unwrap();
        let store = Store::open(&dir.path().join("state/tidings.db"), Clock::system())
            .await
            .unwrap();
        let watch = Watch {
            id: "drop".to_owned(),
            root,
            settle: Settle::Auto,
            identity: Identity::Metadata,
            existing: Existing::Ignore,
            wanted: vec![wanted("**", &["*.tmp"])],
            removed: Vec::new(),
            sets: Vec::new(),
            scan_every: Duration::from_secs(3600),
        };
        Place { dir, store, watch }
    }

    fn root(&self, path: &str) -> PathBuf {
        self.watch.root.join(path)
    }

    fn beside(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        std::fs::write(self.root(path), content).unwrap();
    }

    /// Puts a complete file there in one step.
    fn rename_in(&self, path: &str, content: &str) {
        std::fs::write(self.beside("staged"), content).unwrap();
        std::fs::rename(self.beside("staged"), self.root(path)).unwrap();
    }

    /// Starts, and returns after the first whole scan.
    async fn start(&self) -> Source {
        let now = jiff::Timestamp::now();
        let source = self.start_unready();
        self.scanned_since(now).await;
        source
    }

    fn start_unready(&self) -> Source {
        self.start_all(vec![self.watch.clone()])
    }

    fn start_all(&self, watches: Vec<Watch>) -> Source {
        let (source, handle) = FileSource::new(watches, self.store.clone(), Clock::system());
        let stop = CancellationToken::new();
        let task = tokio::spawn(source.run(stop.clone()));
        Source { stop, handle, task }
    }

    async fn events(&self, kind: Kind) -> Vec<Event> {
        let filter = EventFilter {
            kind: Some(kind),
            limit: 1_000_000,
            ..EventFilter::default()
        };
        let mut events = self.store.events(filter).await.unwrap();
        events.sort_by_key(|event| event.id);
        events
    }

    /// Waits until as many files have arrived.
    async fn arrived(&self, count: usize) -> Vec<Event> {
        let mut changes = self.store.changes();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                let events = self.events(Kind::FileArrives).await;
                if events.len() >= count {
                    return events;
                }
                changes.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(DEADLINE, waiting).await {
            Ok(events) => events,
            Err(_) => panic!(
                "{} of {count} files arrived",
                self.events(Kind::FileArrives).await.len()
            ),
        }
    }

    async fn status(&self) -> Option<WatchStatus> {
        let key = mark(&self.watch.id);
        let marks = self.store.marks(&key).await.unwrap();
        let (_, value) = marks.into_iter().find(|(found, _)| *found == key)?;
        serde_json::from_value(value).unwrap()
    }

    /// Waits until the status says so.
    async fn until(&self, what: impl Fn(&WatchStatus) -> bool) -> WatchStatus {
        let waiting = async {
            loop {
                if let Some(status) = self.status().await
                    && what(&status)
                {
                    return status;
                }
                // The status is no event, so the store does not wake anybody for it.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(DEADLINE, waiting).await {
            Ok(status) => status,
            Err(_) => panic!("the status stays {:?}", self.status().await),
        }
    }

    async fn scanned_since(&self, time: jiff::Timestamp) {
        self.until(|status| status.last_scan.is_some_and(|scan| scan > time))
            .await;
    }

    /// Waits for the end of a whole scan that began after this was called.
    async fn scan(&self, source: &Source) {
        // One may be running: its end is not the end of ours.
        for _ in 0..2 {
            let now = jiff::Timestamp::now();
            source.handle.rescan();
            self.scanned_since(now).await;
        }
    }

    /// Waits until whatever was on its way has come: whole scans, nothing waited for, and a file that
    /// arrives after all that.
    async fn all_arrived(&self, source: &Source, expected: usize) -> Vec<Event> {
        self.arrived(expected).await;
        self.scan(source).await;
        self.until(|status| status.candidates == 0).await;
        let last = format!("last-{expected}");
        self.rename_in(&last, "");
        let mut events = self.arrived(expected + 1).await;
        assert!(
            events.pop().unwrap().happening.subject.ends_with(&last),
            "{events:#?}"
        );
        assert_eq!(events.len(), expected, "{events:#?}");
        events
    }
}

fn names(events: &[Event]) -> Vec<String> {
    let relative = |event: &Event| {
        event.happening.facts["file"]["relative"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let mut names: Vec<_> = events.iter().map(relative).collect();
    names.sort();
    names
}

fn sizes(events: &[Event]) -> Vec<u64> {
    events
        .iter()
        .map(|event| event.happening.file.as_ref().unwrap().size)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_two_thousand_files_is_recorded_once_each() {
    let place = Place::new().await;
    let source = place.start().await;
    for number in 0..2_000 {
        place.write(&format!("{number:04}"), "content");
    }
    let events = place.all_arrived(&source, 2_000).await;
    let expected: Vec<_> = (0..2_000).map(|number| format!("{number:04}")).collect();
    assert_eq!(names(&events), expected);
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_in_a_folder_made_just_before_is_found_a_thousand_times() {
    let place = Place::new().await;
    let source = place.start().await;
    for number in 0..1_000 {
        std::fs::create_dir_all(place.root(&format!("{number}/b/c"))).unwrap();
        place.write(&format!("{number}/b/c/file"), "content");
    }
    // No scan comes to help: the next one is an hour away.
    let events = place.arrived(1_000).await;
    let mut names = names(&events);
    names.dedup();
    assert_eq!((events.len(), names.len()), (1_000, 1_000));
    source.stop().await;
}

#[tokio::test]
async fn a_file_renamed_into_place_overtakes_one_that_was_only_closed() {
    let place = Place::new().await;
    let source = place.start().await;
    std::fs::write(place.beside("staged"), "whole").unwrap();
    place.write("closed", "content");
    std::fs::rename(place.beside("staged"), place.root("renamed")).unwrap();
    let events = place.arrived(2).await;
    assert!(events[0].happening.subject.ends_with("/renamed"), "{events:#?}");
    source.stop().await;
}

#[tokio::test]
async fn a_writer_that_pauses_is_waited_for_wherever_it_began() {
    use std::io::Write as _;
    let place = Place::new().await;
    let source = place.start().await;
    std::fs::create_dir(place.root("new")).unwrap();
    // One in the root, one in a new folder, one that is renamed while it is written.
    let paths = ["slow", "new/slow", "slow.tmp"];
    let mut files = paths.map(|path| std::fs::File::create(place.root(path)).unwrap());
    for part in 0..4 {
        for file in &mut files {
            file.write_all(&[b'x'; 1000]).unwrap();
        }
        if part == 1 {
            std::fs::rename(place.root("slow.tmp"), place.root("renamed")).unwrap();
        }
        // The writer's pause, longer than two looks take.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
    drop(files);
    let events = place.all_arrived(&source, 3).await;
    assert_eq!(names(&events), ["new/slow", "renamed", "slow"]);
    assert_eq!(sizes(&events), [4_000; 3], "nothing half-written");
    source.stop().await;
}

#[tokio::test]
async fn links_and_old_times_are_seen_and_new_content_arrives_again() {
    let place = Place::new().await;
    let source = place.start().await;
    std::fs::write(place.beside("original"), "linked").unwrap();
    std::fs::hard_link(place.beside("original"), place.root("link")).unwrap();
    let mut file = std::fs::File::create(place.root("old")).unwrap();
    std::io::Write::write_all(&mut file, b"content").unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    drop(file);
    assert_eq!(names(&place.arrived(2).await), ["link", "old"]);
    let mut file = std::fs::File::options()
        .append(true)
        .open(place.root("old"))
        .unwrap();
    std::io::Write::write_all(&mut file, b", and more").unwrap();
    drop(file);
    let events = place.all_arrived(&source, 3).await;
    assert_eq!(
        (sizes(&events)[2], names(&events).pop().unwrap().as_str()),
        (17, "old")
    );
    source.stop().await;
}

#[tokio::test]
async fn what_came_while_we_were_down_is_found_and_what_was_known_is_not_told_again() {
    let place = Place::new().await;
    place.write("before", "content");
    let source = place.start().await;
    place.rename_in("first", "content");
    place.arrived(1).await;
    source.stop().await;
    std::fs::create_dir(place.root("sub")).unwrap();
    place.write("sub/second", "content");
    place.write("first", "another content");
    let source = place.start().await;
    let events = place.all_arrived(&source, 3).await;
    assert_eq!(names(&events), ["first", "first", "sub/second"]);
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_in_the_middle_of_a_burst_nothing_is_lost_and_nothing_told_twice() {
    let place = Place::new().await;
    let source = place.start().await;
    for number in 0..600 {
        place.rename_in(&format!("{number:03}"), "content");
    }
    place.arrived(1).await;
    source.task.abort();
    for number in 600..800 {
        place.rename_in(&format!("{number:03}"), "content");
    }
    let source = place.start().await;
    let mut names = names(&place.all_arrived(&source, 800).await);
    names.dedup();
    assert_eq!(names.len(), 800);
    source.stop().await;
}

#[tokio::test]
async fn existing_files_are_known_or_have_just_arrived_as_the_watch_says() {
    let mut place = Place::new().await;
    place.write("old", "content");
    let source = place.start().await;
    place.rename_in("new", "content");
    assert_eq!(names(&place.all_arrived(&source, 1).await), ["new"]);
    source.stop().await;
    // A second watch of the same folder asks for what is there, while the first one still exists.
    let first = place.watch.clone();
    place.watch.id = "second".to_owned();
    place.watch.existing = Existing::Process;
    let source = place.start_all(vec![first, place.watch.clone()]);
    let events = place.arrived(5).await;
    assert!(
        events[2..].iter().all(|event| event.happening.source == "second"),
        "{events:#?}"
    );
    assert_eq!(names(&events[2..]), ["last-1", "new", "old"]);
    source.stop().await;
}

#[tokio::test]
async fn a_watch_whose_settings_changed_goes_on_with_what_its_folder_had() {
    let mut place = Place::new().await;
    place.watch.existing = Existing::Process;
    place.write("old", "content");
    let source = place.start().await;
    place.arrived(1).await;
    source.stop().await;
    place.write("meanwhile", "content");
    place.watch.id = "drop-settled-otherwise".to_owned();
    let source = place.start().await;
    assert_eq!(names(&place.all_arrived(&source, 2).await), ["meanwhile", "old"]);
    source.stop().await;
}

#[tokio::test]
async fn an_identical_file_that_comes_back_has_arrived_anew() {
    let place = Place::new().await;
    let source = place.start().await;
    place.rename_in("file", "content");
    place.arrived(1).await;
    // Moved out and back: noticed by the notification.
    std::fs::rename(place.root("file"), place.beside("kept")).unwrap();
    std::fs::rename(place.beside("kept"), place.root("file")).unwrap();
    let events = place.arrived(2).await;
    // Moved out by ourselves.
    let file = events[1].happening.file.clone().unwrap();
    std::fs::rename(place.root("file"), place.beside("kept")).unwrap();
    source.handle.forget(file);
    place.scan(&source).await;
    std::fs::rename(place.beside("kept"), place.root("file")).unwrap();
    place.arrived(3).await;
    source.stop().await;
    // Removed while we were down, and only a complete scan saw it.
    std::fs::rename(place.root("file"), place.beside("kept")).unwrap();
    let source = place.start().await;
    place.until(|status| status.known == 0).await;
    source.stop().await;
    std::fs::rename(place.beside("kept"), place.root("file")).unwrap();
    let source = place.start().await;
    let events = place.all_arrived(&source, 4).await;
    assert_eq!(names(&events), ["file"; 4]);
    source.stop().await;
}

#[tokio::test]
async fn by_content_the_same_content_is_the_same_file() {
    let mut place = Place::new().await;
    place.watch.identity = Identity::Content;
    place.write("existing", "content");
    let source = place.start().await;
    // Only touched: its content was there at the first look.
    let existing = std::fs::File::options()
        .write(true)
        .open(place.root("existing"))
        .unwrap();
    existing.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    drop(existing);
    place.rename_in("file", "content");
    place.arrived(1).await;
    place.rename_in("file", "content");
    place.rename_in("other", "marks the end");
    place.arrived(2).await;
    place.rename_in("file", "CONTENT");
    let events = place.all_arrived(&source, 3).await;
    assert_eq!(names(&events), ["file", "file", "other"]);
    source.stop().await;
}

#[tokio::test]
async fn the_marker_settles_its_file_and_is_no_file_that_arrives() {
    let mut place = Place::new().await;
    place.watch.settle = Settle::Marker(Text::compile("{{file.name}}.done").unwrap());
    let source = place.start().await;
    std::fs::create_dir(place.root("sub")).unwrap();
    place.write("sub/after.csv", "1,2");
    place.write("before.csv.done", "");
    place.until(|status| status.candidates >= 2).await;
    place.write("before.csv", "3,4");
    place.write("never.csv", "5,6");
    place.write("sub/after.csv.done", "");
    let events = place.arrived(2).await;
    assert_eq!(names(&events), ["before.csv", "sub/after.csv"]);
    place.scan(&source).await;
    assert_eq!(place.events(Kind::FileArrives).await.len(), 2);
    source.stop().await;
}

#[tokio::test]
async fn a_root_that_was_away_and_is_back_mails_nothing_again_and_the_trouble_ends() {
    let mut place = Place::new().await;
    place.watch.scan_every = Duration::from_millis(200);
    let source = place.start().await;
    place.rename_in("known", "content");
    place.arrived(1).await;
    std::fs::rename(&place.watch.root, place.beside("elsewhere")).unwrap();
    place
        .until(|status| status.mode == Mode::Away && status.away_since.is_some())
        .await;
    let cases = place.store.open_cases().await.unwrap();
    assert_eq!((cases.len(), cases[0].kind.as_str()), (1, "watch"));
    assert!(
        cases[0].reason.text.contains("is not there"),
        "{:?}",
        cases[0].reason
    );
    std::fs::write(place.beside("elsewhere/meanwhile"), "content").unwrap();
    std::fs::rename(place.beside("elsewhere"), &place.watch.root).unwrap();
    place
        .until(|status| status.mode == Mode::Native && status.away_since.is_none())
        .await;
    let events = place.all_arrived(&source, 2).await;
    assert_eq!(names(&events), ["known", "meanwhile"]);
    assert!(place.store.open_cases().await.unwrap().is_empty());
    let told = place.events(Kind::Trouble).await;
    assert_eq!(
        told.iter().filter(|event| event.recovers).count(),
        1,
        "it is over"
    );
    assert_eq!(told.len(), 2);
    source.stop().await;
}

#[tokio::test]
async fn a_root_that_is_not_there_at_the_start_is_told_and_picked_up() {
    let mut place = Place::new().await;
    place.watch.scan_every = Duration::from_millis(200);
    std::fs::remove_dir(&place.watch.root).unwrap();
    let source = place.start_unready();
    place
        .until(|status| status.mode == Mode::Away && status.away_since.is_some())
        .await;
    assert_eq!(place.events(Kind::Trouble).await.len(), 1);
    std::fs::create_dir(place.beside("made")).unwrap();
    std::fs::write(place.beside("made/existing"), "content").unwrap();
    std::fs::rename(place.beside("made"), &place.watch.root).unwrap();
    place
        .until(|status| status.mode == Mode::Native && status.known == 1)
        .await;
    place.rename_in("new", "content");
    assert_eq!(names(&place.all_arrived(&source, 1).await), ["new"]);
    source.stop().await;
}

#[tokio::test]
async fn a_root_made_anew_is_watched_and_its_old_tree_is_not_read_any_more() {
    let mut place = Place::new().await;
    place.watch.scan_every = Duration::from_millis(200);
    let source = place.start().await;
    std::fs::rename(&place.watch.root, place.beside("old")).unwrap();
    std::fs::create_dir(&place.watch.root).unwrap();
    std::fs::write(place.beside("old/wrong"), "content").unwrap();
    place.rename_in("right", "content");
    let events = place.all_arrived(&source, 1).await;
    assert_eq!(names(&events), ["right"]);
    source.stop().await;
}

#[tokio::test]
async fn only_regular_files_of_folders_that_are_looked_into_arrive() {
    let mut place = Place::new().await;
    place.watch.wanted = vec![
        wanted("*.csv", &[]),
        wanted("**/*.pdf", &["~*", "*.tmp", "archive"]),
        wanted("last-*", &[]),
    ];
    let source = place.start().await;
    for folder in ["sub", "archive", "archive/2020"] {
        std::fs::create_dir(place.root(folder)).unwrap();
    }
    std::fs::write(place.beside("secret.pdf"), "other people's").unwrap();
    std::os::unix::fs::symlink(place.beside("secret.pdf"), place.root("link.pdf")).unwrap();
    std::os::unix::fs::symlink("/", place.root("everything")).unwrap();
    let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
    rustix::fs::mknodat(rustix::fs::CWD, place.root("fifo.pdf"), fifo, mode, 0).unwrap();
    std::os::unix::net::UnixListener::bind(place.root("socket.pdf")).unwrap();
    for file in ["a.csv", "a.pdf", "~a.pdf", "a.tmp", "sub/b.csv", "sub/b.pdf"] {
        place.write(file, "content");
    }
    place.write("archive/c.pdf", "content");
    place.write("archive/2020/d.pdf", "content");
    let events = place.all_arrived(&source, 3).await;
    assert_eq!(names(&events), ["a.csv", "a.pdf", "sub/b.pdf"]);
    let status = place.status().await.unwrap();
    assert_eq!(
        (status.folders, status.skipped, status.mode),
        (2, 4, Mode::Native)
    );
    // The rules change: what they newly look for was remembered, and is not new.
    place.watch.wanted = vec![wanted("**", &[])];
    source.handle.replace(vec![place.watch.clone()]);
    place.write("a.tmp", "other content");
    let events = place.arrived(7).await;
    let mut names = names(&events);
    names.retain(|name| !name.starts_with("last"));
    // Folders that nobody looked into before are looked into for the first time.
    assert_eq!(
        names,
        [
            "a.csv",
            "a.pdf",
            "a.tmp",
            "archive/2020/d.pdf",
            "archive/c.pdf",
            "sub/b.pdf"
        ]
    );
    source.stop().await;
}

#[tokio::test]
async fn any_name_the_file_system_takes_arrives_exactly() {
    let place = Place::new().await;
    let source = place.start().await;
    let long = [b'x'; 255];
    let hostile: [&[u8]; 6] = [
        b"caf\xe9.csv",
        b"a\r\nBcc: x@y",
        b"\x1b[31mred",
        "\u{202e}fdp.exe".as_bytes(),
        b"-rf *;$(x)",
        &long,
    ];
    for name in hostile {
        std::fs::write(
            place.watch.root.join(std::ffi::OsStr::from_bytes(name)),
            "content",
        )
        .unwrap();
    }
    let events = place.arrived(hostile.len()).await;
    let name = |event: &Event| {
        let relative = event.happening.file.clone().unwrap().relative;
        relative.as_os_str().as_bytes().to_vec()
    };
    let mut got: Vec<_> = events.iter().map(name).collect();
    let mut expected: Vec<_> = hostile.iter().map(|name| name.to_vec()).collect();
    got.sort();
    expected.sort();
    assert_eq!(got, expected);
    source.stop().await;
    let source = place.start().await;
    place.all_arrived(&source, hostile.len()).await;
    source.stop().await;
}

#[tokio::test]
async fn one_complete_look_records_what_has_settled_and_leaves_the_rest() {
    async fn look(place: &Place) -> tidings::source::file::status::Looked {
        let watches = vec![place.watch.clone()];
        let (mut source, _handle) = FileSource::new(watches, place.store.clone(), Clock::system());
        source.look().await.unwrap().remove(0)
    }
    let mut place = Place::new().await;
    place.watch.existing = Existing::Process;
    place.write("first", "content");
    let looked = look(&place).await;
    assert_eq!((looked.arrived, looked.known, looked.left), (1, 1, 0));
    assert_eq!(look(&place).await.arrived, 0);
    // Beside a daemon that sees the same file.
    let daemon = place.start().await;
    place.write("both", "content");
    look(&place).await;
    place.all_arrived(&daemon, 2).await;
    daemon.stop().await;
    // Without its marker a file is left, and the look ends all the same.
    place.watch.settle = Settle::Marker(Text::compile("{{file.name}}.done").unwrap());
    place.write("third", "content");
    let looked = look(&place).await;
    assert_eq!((looked.arrived, looked.left), (0, 1));
    std::fs::remove_dir_all(&place.watch.root).unwrap();
    let looked = look(&place).await;
    assert!(looked.trouble.unwrap().contains("not there"));
}

// ---- what needs a namespace of its own ----

/// Runs this test again inside a user (and mount) namespace. Returns true inside. Where that is not
/// permitted, says so and returns false.
fn inside(test: &str, flags: &str) -> bool {
    if std::env::var_os("TIDINGS_TEST_INSIDE").is_some() {
        return true;
    }
    let permitted = std::process::Command::new("unshare")
        .args([flags, "true"])
        .output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: unshare {flags} is not permitted here");
        return false;
    }
    let output = std::process::Command::new("unshare")
        .arg(flags)
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env("TIDINGS_TEST_INSIDE", "1")
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

fn command(words: &[&str]) {
    let output = std::process::Command::new(words[0])
        .args(&words[1..])
        .output()
        .unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

#[tokio::test]
async fn a_file_system_mounted_over_the_root_is_noticed_and_its_end_too() {
    if !inside(
        "a_file_system_mounted_over_the_root_is_noticed_and_its_end_too",
        "-Urm",
    ) {
        return;
    }
    let mut place = Place::new().await;
    place.watch.scan_every = Duration::from_millis(200);
    let source = place.start().await;
    place.rename_in("below", "content");
    place.arrived(1).await;
    let root = place.watch.root.to_str().unwrap().to_owned();
    command(&["mount", "-t", "tmpfs", "tmpfs", &root]);
    place
        .until(|status| {
            status
                .why
                .as_ref()
                .is_some_and(|why| why.contains("none of the 1 files"))
        })
        .await;
    assert_eq!(
        place.store.open_cases().await.unwrap().len(),
        1,
        "the doubt is told"
    );
    place.write("above", "content");
    place.arrived(2).await;
    place.until(|status| status.away_since.is_none()).await;
    command(&["umount", "-l", &root]);
    place
        .until(|status| status.known == 2 && status.mode == Mode::Native)
        .await;
    let events = place.all_arrived(&source, 2).await;
    assert_eq!(names(&events), ["above", "below"]);
    assert!(place.store.open_cases().await.unwrap().is_empty());
    source.stop().await;
    // Mounted over when we start: the known files are not there, and that is told.
    command(&["mount", "-t", "tmpfs", "tmpfs", &root]);
    let source = place.start_unready();
    place.until(|status| status.away_since.is_some()).await;
    command(&["umount", "-l", &root]);
    place.until(|status| status.away_since.is_none()).await;
    place.all_arrived(&source, 3).await;
    source.stop().await;
}

#[tokio::test]
async fn files_of_a_file_system_that_is_not_mounted_any_more_are_not_removed() {
    if !inside(
        "files_of_a_file_system_that_is_not_mounted_any_more_are_not_removed",
        "-Urm",
    ) {
        return;
    }
    let mut place = Place::new().await;
    place.watch.scan_every = Duration::from_millis(200);
    place.watch.removed = place.watch.wanted.clone();
    let share = place.watch.root.join("share");
    std::fs::create_dir(&share).unwrap();
    let shared = share.to_str().unwrap().to_owned();
    command(&["mount", "-t", "tmpfs", "tmpfs", &shared]);
    std::fs::write(share.join("list.csv"), "there").unwrap();
    std::fs::write(place.watch.root.join("own.csv"), "there").unwrap();
    let source = place.start().await;
    place
        .until(|status| status.known == 2 && status.mounts == [PathBuf::from("share")])
        .await;
    command(&["umount", "-l", &shared]);
    place.until(|status| status.unreadable == 1).await;
    let cases = place.store.open_cases().await.unwrap();
    assert_eq!(cases.len(), 1, "{cases:?}");
    assert!(
        cases[0].reason.text.contains("nothing is mounted there"),
        "{cases:?}"
    );
    source.stop().await;
    // Nor after a restart, with what is really removed beside it.
    let source = place.start_unready();
    std::fs::remove_file(place.watch.root.join("own.csv")).unwrap();
    let removed = |events: &[Event]| {
        let removed = events
            .iter()
            .filter(|event| event.happening.kind == Kind::FileRemoved);
        removed
            .map(|event| event.happening.subject.clone())
            .collect::<Vec<_>>()
    };
    let told = loop {
        let told = removed(&place.store.events(EventFilter::default()).await.unwrap());
        if !told.is_empty() {
            break told;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(told.len() == 1 && told[0].ends_with("own.csv"), "{told:?}");
    place
        .until(|status| status.unreadable == 1 && status.known == 1)
        .await;
    // Who removes the folder says that it is for good.
    std::fs::remove_dir(&share).unwrap();
    place
        .until(|status| status.unreadable == 0 && status.known == 0)
        .await;
    let told = removed(&place.store.events(EventFilter::default()).await.unwrap());
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(place.store.open_cases().await.unwrap().is_empty());
    source.stop().await;
}

#[tokio::test]
async fn beyond_the_limit_of_watches_folders_are_polled_and_the_sysctl_is_named() {
    if !inside(
        "beyond_the_limit_of_watches_folders_are_polled_and_the_sysctl_is_named",
        "-Ur",
    ) {
        return;
    }
    std::fs::write("/proc/sys/user/max_inotify_watches", "3").unwrap();
    let mut place = Place::new().await;
    place.watch.scan_every = Duration::from_millis(200);
    for number in 0..6 {
        std::fs::create_dir(place.root(&number.to_string())).unwrap();
    }
    let source = place.start().await;
    let status = place.until(|status| status.polled_folders > 0).await;
    assert_eq!(
        (status.mode, status.polled_folders, status.folders),
        (Mode::Native, 4, 7)
    );
    assert!(status.why.unwrap().contains("fs.inotify.max_user_watches"));
    for number in 0..6 {
        place.write(&format!("{number}/file"), "content");
    }
    place.all_arrived(&source, 6).await;
    std::fs::write("/proc/sys/user/max_inotify_watches", "100").unwrap();
    place
        .until(|status| status.polled_folders == 0 && status.why.is_none())
        .await;
    source.stop().await;
}

#[tokio::test]
async fn without_notifications_everything_is_polled() {
    if !inside("without_notifications_everything_is_polled", "-Ur") {
        return;
    }
    std::fs::write("/proc/sys/user/max_inotify_instances", "0").unwrap();
    let mut place = Place::new().await;
    place.watch.scan_every = Duration::from_millis(100);
    let source = place.start().await;
    let status = place.until(|status| status.last_scan.is_some()).await;
    assert_eq!(status.mode, Mode::Polled);
    assert!(status.why.unwrap().contains("fs.inotify.max_user_instances"));
    for number in 0..200 {
        place.write(&number.to_string(), "content");
    }
    place.all_arrived(&source, 200).await;
    std::fs::remove_file(place.root("7")).unwrap();
    place.until(|status| status.known == 200).await;
    source.stop().await;
}

#[tokio::test]
async fn a_folder_that_may_not_be_read_is_told_and_its_files_are_not_gone() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new().await;
    let closed = place.root("closed");
    std::fs::create_dir(&closed).unwrap();
    let mode = |bits| std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(bits)).unwrap();
    mode(0o000);
    let readable = std::fs::read_dir(&closed).is_ok();
    mode(0o755);
    if readable {
        return eprintln!("skipped: this user may read everything");
    }
    let source = place.start().await;
    place.rename_in("closed/file", "content");
    place.arrived(1).await;
    mode(0o000);
    place.scan(&source).await;
    place.until(|status| status.unreadable == 1).await;
    assert_eq!(place.store.open_cases().await.unwrap().len(), 1);
    mode(0o755);
    place.all_arrived(&source, 1).await;
    assert!(place.store.open_cases().await.unwrap().is_empty());
    source.stop().await;
}
