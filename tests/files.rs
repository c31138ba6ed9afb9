//! Files that change, go away or belong together, and what stands in them: real folders, the real kernel, the real
//! store, and the whole program.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Site, json_lines};
use globset::GlobBuilder;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use tidings::clock::Clock;
use tidings::event::{Event, Kind, members};
use tidings::source::file::{FileSource, Handle};
use tidings::source::together::Together;
use tidings::source::wanted::Ignore;
use tidings::source::{Existing, Identity, Settle, Wanted, Watch};
use tidings::store::{EventFilter, Store};
use tidings::template::Text;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);

struct Place {
    dir: tempfile::TempDir,
    store: Store,
    watch: Watch,
}

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

fn wanted(pattern: &str) -> Wanted {
    let glob = GlobBuilder::new(pattern).literal_separator(true).build().unwrap();
    Wanted {
        matching: glob.compile_matcher(),
        ignore: Ignore::default(),
        recursive: true,
        min_size: 0,
        max_size: None,
    }
}

fn together(count: usize, within: Duration) -> Together {
    Together {
        id: format!("set-{count}"),
        wanted: wanted("**/*.*"),
        by: Text::compile("{{file.stem}}").unwrap(),
        count,
        within,
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
            wanted: vec![wanted("**/*")],
            removed: vec![wanted("**/*")],
            sets: Vec::new(),
            scan_every: Duration::from_secs(3600),
        };
        Place { dir, store, watch }
    }

    fn root(&self, path: &str) -> PathBuf {
        self.watch.root.join(path)
    }

    fn put(&self, path: &str, content: &str) {
        let staged = self.dir.path().join("staged");
        std::fs::write(&staged, content).unwrap();
        std::fs::rename(staged, self.root(path)).unwrap();
    }

    fn start(&self) -> Source {
        let (source, handle) = FileSource::new(vec![self.watch.clone()], self.store.clone(), Clock::system());
        let stop = CancellationToken::new();
        let task = tokio::spawn(source.run(stop.clone()));
        Source { stop, handle, task }
    }

    async fn events(&self, kind: Kind) -> Vec<Event> {
        let filter = EventFilter {
            kind: Some(kind),
            limit: 1_000,
            ..EventFilter::default()
        };
        let mut events = self.store.events(filter).await.unwrap();
        events.sort_by_key(|event| event.id);
        events
    }

    /// Waits until there are as many.
    async fn told(&self, kind: Kind, count: usize) -> Vec<Event> {
        let mut changes = self.store.changes();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                let events = self.events(kind).await;
                if events.len() >= count {
                    return events;
                }
                changes.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(DEADLINE, waiting).await {
            Ok(events) => events,
            Err(_) => panic!("{kind:?}: {:#?}", self.events(kind).await),
        }
    }

    /// Waits until the first look is over.
    async fn ready(&self) {
        let waiting = async {
            while !self
                .store
                .watches()
                .await
                .unwrap()
                .iter()
                .any(|watch| watch.baseline)
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.unwrap();
    }
}

fn subjects(events: &[Event]) -> Vec<String> {
    let name = |event: &Event| event.happening.subject.rsplit('/').next().unwrap().to_owned();
    events.iter().map(name).collect()
}

fn changed(event: &Event) -> bool {
    event.happening.facts["file"]["changed"].as_bool().unwrap()
}

#[tokio::test]
async fn a_new_version_of_a_known_file_says_so_and_one_that_comes_back_does_not() {
    let place = Place::new().await;
    place.put("known", "from before");
    let source = place.start();
    place.ready().await;
    // What changes while the first look is under way, or a moment later, may have come just then.
    source.stop().await;
    let source = place.start();
    place.put("known", "another content");
    let events = place.told(Kind::FileArrives, 1).await;
    assert!(changed(&events[0]), "what lay there at the first look is known");
    place.put("new", "1");
    assert!(!changed(&place.told(Kind::FileArrives, 2).await[1]));
    place.put("new", "22");
    assert!(changed(&place.told(Kind::FileArrives, 3).await[2]));
    std::fs::remove_file(place.root("new")).unwrap();
    place.told(Kind::FileRemoved, 1).await;
    place.put("new", "333");
    let events = place.told(Kind::FileArrives, 4).await;
    assert!(!changed(&events[3]), "it was gone: this is no version of it");
    source.stop().await;
}

#[tokio::test]
async fn a_file_that_goes_is_told_each_time_as_it_was_known() {
    let place = Place::new().await;
    place.put("old.csv", "was here");
    let source = place.start();
    place.ready().await;
    std::fs::remove_file(place.root("old.csv")).unwrap();
    let gone = place.told(Kind::FileRemoved, 1).await;
    assert_eq!(gone[0].happening.facts["file"]["size"], 8);
    assert_eq!(gone[0].happening.facts["file"]["name"], "old.csv");
    for round in 1..=2 {
        place.put("b.csv", "again");
        place.told(Kind::FileArrives, round).await;
        std::fs::remove_file(place.root("b.csv")).unwrap();
        place.told(Kind::FileRemoved, 1 + round).await;
    }
    // Under another name it is another file.
    place.put("c.csv", "x");
    place.told(Kind::FileArrives, 3).await;
    std::fs::rename(place.root("c.csv"), place.root("d.csv")).unwrap();
    let gone = place.told(Kind::FileRemoved, 4).await;
    let came = place.told(Kind::FileArrives, 4).await;
    assert_eq!(subjects(&gone), ["old.csv", "b.csv", "b.csv", "c.csv"]);
    assert_eq!(subjects(&came[3..]), ["d.csv"]);
    source.stop().await;
}

#[tokio::test]
async fn a_file_taken_away_while_we_were_down_is_told_and_one_replaced_in_a_moment_is_not() {
    let place = Place::new().await;
    let source = place.start();
    place.ready().await;
    place.put("a", "1");
    place.put("b", "1");
    place.told(Kind::FileArrives, 2).await;
    source.stop().await;
    std::fs::remove_file(place.root("a")).unwrap();
    let source = place.start();
    assert_eq!(subjects(&place.told(Kind::FileRemoved, 1).await), ["a"]);
    for version in 0..5 {
        std::fs::remove_file(place.root("b")).unwrap();
        place.put("b", &"x".repeat(version + 2));
        place.told(Kind::FileArrives, 3 + version).await;
    }
    place.put("c", "1");
    place.told(Kind::FileArrives, 8).await;
    std::fs::remove_file(place.root("c")).unwrap();
    let gone = place.told(Kind::FileRemoved, 2).await;
    assert_eq!(subjects(&gone), ["a", "c"], "b was only written anew");
    source.stop().await;
}

#[tokio::test]
async fn a_root_that_went_away_took_no_file_from_us() {
    let mut place = Place::new().await;
    place.watch.scan_every = Duration::from_millis(200);
    place.put("a", "1");
    let source = place.start();
    place.ready().await;
    let elsewhere = place.dir.path().join("elsewhere");
    std::fs::rename(&place.watch.root, &elsewhere).unwrap();
    place.told(Kind::Trouble, 1).await;
    // Another folder, an empty one, is at its place: an unmounted share looks like this.
    std::fs::create_dir(&place.watch.root).unwrap();
    source.handle.rescan();
    place.put("b", "1");
    place.told(Kind::FileArrives, 1).await;
    std::fs::remove_file(place.root("b")).unwrap();
    let gone = place.told(Kind::FileRemoved, 1).await;
    assert_eq!(subjects(&gone), ["b"]);
    source.stop().await;
}

#[tokio::test]
async fn files_that_belong_together_make_one_event_with_all_of_them_across_a_restart() {
    let mut place = Place::new().await;
    place.watch.sets = vec![together(3, Duration::from_secs(600))];
    let source = place.start();
    place.ready().await;
    place.put("8.pdf", "other");
    place.put("7.xml", "x");
    place.put("7.pdf", "pp");
    place.told(Kind::FileArrives, 3).await;
    source.stop().await;
    let source = place.start();
    place.put("7.sig", "sss");
    let events = place.told(Kind::FileArrives, 5).await;
    let set = &events[4].happening;
    assert_eq!(set.facts["set"]["key"], "7");
    assert_eq!(set.facts["set"]["count"], 3);
    let files = members(&Value::Object(set.facts.clone()), set.file.as_ref());
    let names: Vec<PathBuf> = files.iter().map(|file| file.relative.clone()).collect();
    assert_eq!(names, ["7.pdf", "7.sig", "7.xml"].map(PathBuf::from));
    assert_eq!(files.iter().map(|file| file.size).collect::<Vec<_>>(), [2, 3, 1]);
    assert_eq!(set.facts["file"]["name"], "7.pdf");
    source.stop().await;
    let _source = place.start();
    place.put("9.pdf", "last");
    let events = place.told(Kind::FileArrives, 6).await;
    assert_eq!(subjects(&events[5..]), ["9.pdf"], "the set is told once");
}

#[tokio::test]
async fn a_set_that_lacks_files_is_a_trouble_until_they_come_or_those_there_go() {
    let mut place = Place::new().await;
    place.watch.sets = vec![together(2, Duration::from_secs(1))];
    let source = place.start();
    place.ready().await;
    place.put("a.pdf", "1");
    place.put("b.pdf", "1");
    let troubles = place.told(Kind::Trouble, 2).await;
    let text = troubles[0].happening.facts["trouble"]["text"].as_str().unwrap();
    assert!(
        text.contains("of the 2 files that belong together as `a` 1 did not come in time; there is: a.pdf"),
        "{text}"
    );
    source.stop().await;
    let source = place.start();
    place.put("a.xml", "1");
    let events = place.told(Kind::FileArrives, 4).await;
    assert_eq!(events[3].happening.facts["set"]["key"], "a", "late, and not lost");
    let troubles = place.told(Kind::Trouble, 3).await;
    assert!(troubles[2].recovers);
    std::fs::remove_file(place.root("b.pdf")).unwrap();
    let troubles = place.told(Kind::Trouble, 4).await;
    assert!(troubles[3].recovers);
    assert_eq!(place.store.open_cases().await.unwrap(), []);
    assert_eq!(place.store.marks("set:").await.unwrap(), []);
    source.stop().await;
}

#[tokio::test]
async fn a_file_without_a_key_is_told_and_still_has_arrived() {
    let mut place = Place::new().await;
    let mut spec = together(2, Duration::from_secs(600));
    spec.wanted = wanted("**/*");
    spec.by = Text::compile("{{file.extension}}").unwrap();
    place.watch.sets = vec![spec];
    let source = place.start();
    place.ready().await;
    place.put("README", "1");
    let troubles = place.told(Kind::Trouble, 1).await;
    let text = troubles[0].happening.facts["trouble"]["text"].as_str().unwrap();
    assert!(
        text.ends_with("README belongs to no set: `by: {{file.extension}}` gives nothing for it"),
        "{text}"
    );
    assert_eq!(place.events(Kind::FileArrives).await.len(), 1);
    place.put("a.csv", "1");
    assert!(place.told(Kind::Trouble, 2).await[1].recovers);
    source.stop().await;
}

#[tokio::test]
async fn files_that_waited_for_others_are_counted_anew_when_the_rule_asks_for_fewer() {
    let mut place = Place::new().await;
    place.watch.sets = vec![together(3, Duration::from_secs(600))];
    let source = place.start();
    place.ready().await;
    place.put("a.pdf", "1");
    place.put("a.xml", "1");
    place.told(Kind::FileArrives, 2).await;
    place.watch.sets = vec![together(2, Duration::from_secs(600))];
    source.handle.replace(vec![place.watch.clone()]);
    let events = place.told(Kind::FileArrives, 3).await;
    assert_eq!(events[2].happening.facts["set"]["count"], 2);
    source.stop().await;
}

// ---- the whole program ----

const RULES: &str = r#"
rules:
  taken:
    when: { file_arrives: { in: drop, match: "*.in" } }
    move: done/
  gone:
    when: { file_removed: { in: drop } }
    mail: { to: ops@example.org, subject: "gone {{file.name}} {{file.size}}" }
  changed:
    when: { file_changes: { in: drop, match: "*.txt" } }
    mail: { to: ops@example.org, subject: "changed {{file.name}}" }
  both:
    when: [ { file_arrives: { in: drop, match: "*.both" } }, { file_changes: { in: drop, match: "*.both" } } ]
    mail: { to: ops@example.org, subject: "both {{file.size}} {{file.changed}}" }
"#;

fn sorted(mails: &[common::Mail]) -> Vec<&str> {
    let mut subjects: Vec<&str> = mails.iter().map(|mail| mail.subject.as_str()).collect();
    subjects.sort_unstable();
    subjects
}

#[tokio::test(flavor = "multi_thread")]
async fn what_we_moved_ourselves_is_not_told_as_gone_and_nothing_is_told_twice() {
    let site = Site::new(RULES).await;
    let daemon = site.started().await;
    site.drop_file("drop/a.in", b"ours");
    site.until("it is moved", || site.path("done/a.in").exists())
        .await;
    site.drop_file("drop/a.both", b"1");
    site.mails(1).await;
    site.drop_file("drop/a.both", b"22");
    site.mails(2).await;
    site.drop_file("drop/a.txt", b"1");
    site.drop_file("drop/b.txt", b"1");
    let arrived = || site.ok(&["events", "list", "--json"]).matches("a.txt").count() > 0;
    site.until("a.txt is known", arrived).await;
    site.drop_file("drop/a.txt", b"22");
    site.mails(3).await;
    std::fs::remove_file(site.path("drop/b.txt")).unwrap();
    let mails = site.mails(4).await;
    assert_eq!(
        sorted(&mails),
        ["both 1 false", "both 2 true", "changed a.txt", "gone b.txt 1"]
    );
    assert_eq!(daemon.stop(), Some(0));
}

const FACTS: &str = r#"
rules:
  told:
    when: { file_arrives: { in: drop, match: "*.csv" } }
    if: file.csv.rows > 1 && "net" in file.csv.header
    mail:
      to: ops@example.org
      subject: "{{file.name}}: {{file.csv.rows}} rows, {{file.lines}} lines, {{file.mime}}"
      template: facts
  small:
    when: { file_arrives: { in: drop, match: "*.csv" } }
    if: file.csv.rows <= 1
    mail: { to: ops@example.org, subject: "small {{file.first_line}}" }
  works:
    when: { file_arrives: { in: drop, match: "*.job" } }
    run: { command: [sh, -c, "cat > facts.json"] }
    on_success: { move: done/, mail: { to: ops@example.org, subject: "{{file.folder_name}} {{file.sha256}}" } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_a_file_decides_and_is_told_and_hostile_content_stays_content() {
    let site = Site::new(FACTS).await;
    site.write(
        "templates/facts.txt.hbs",
        "{{#if file.owner}}{{file.text}}{{/if}}\n",
    );
    let daemon = site.started().await;
    site.drop_file(
        "drop/a.csv",
        b"no;net\r\n1;\"2\r\nBcc: x@example.org\"\r\n3;4\x1b[31m\xff\r\n",
    );
    site.drop_file("drop/b.csv", b"x\r\nBcc: y@example.org\r\n");
    site.drop_file("drop/c.job", b"abc");
    let mails = site.mails(3).await;
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let expected = [
        "a.csv: 2 rows, 4 lines, text/csv".to_owned(),
        format!("drop {hash}"),
        "small x".to_owned(),
    ];
    assert_eq!(sorted(&mails), expected.each_ref().map(String::as_str));
    assert!(mails.iter().all(|mail| mail.to == ["ops@example.org"]));
    let told = mails
        .iter()
        .find(|mail| mail.subject.starts_with("a.csv"))
        .unwrap();
    assert!(told.text.contains("\u{fffd}"), "{:?}", told.text);
    assert!(
        !told.bytes.contains(&0x1b),
        "no escape sequence leaves in the clear"
    );
    let given: Value = serde_json::from_slice(&std::fs::read(site.path("facts.json")).unwrap()).unwrap();
    assert_eq!(
        given["file"]["sha256"], hash,
        "what its mails ask for was read before the work"
    );
    assert_eq!(
        given["file"].get("text"),
        None,
        "what nobody asks for was not read"
    );
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_before_it_was_read_holds_its_answer_with_the_reason() {
    let site = Site::new(FACTS).await;
    site.write("templates/facts.txt.hbs", "{{file.text}}\n");
    std::fs::create_dir_all(site.path("state")).unwrap();
    // Recorded by a look that nobody answered yet: then the file is another one.
    {
        let store = Store::open(&site.path("state/tidings.db"), Clock::system())
            .await
            .unwrap();
        let setup = tidings::rule::load::setup(site.dir()).unwrap();
        let (mut source, _handle) = FileSource::new(setup.watches.clone(), store.clone(), Clock::system());
        source.look().await.unwrap();
        site.drop_file("drop/a.csv", b"no;net\n1;2\n3;4\n");
        source.look().await.unwrap();
        std::fs::write(site.path("drop/a.csv"), "no;net\n").unwrap();
    }
    let _ = site.run(&["run", "--once"]);
    let held = json_lines(&site.ok(&["outbox", "list", "--json", "--state", "held"]));
    assert!(!held.is_empty());
    for entry in &held {
        let reason = entry["reason"]["text"].as_str().unwrap();
        assert!(
            reason.contains("a.csv cannot be read: it has changed since it settled: it had 15 bytes then"),
            "{reason}"
        );
    }
}

const SET: &str = r#"
rules:
  invoice:
    when: { file_arrives: { in: drop, match: "*.{pdf,xml}", together: { count: 2, by: "{{file.stem}}", within: 10m } } }
    run: { command: [sh, -c, "cat > facts.json"] }
    on_success:
      move: done/
      mail: { to: ap@example.org, subject: "{{set.key}}: {{#each files}}{{name}} {{/each}}", attach: "{{files}}" }
  gone:
    when: { file_removed: { in: drop } }
    mail: { to: ops@example.org, subject: "gone {{file.name}}" }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_attached_whole_worked_on_and_moved_together() {
    let site = Site::new(SET).await;
    let daemon = site.started().await;
    site.drop_file("drop/7.xml", b"<x/>");
    site.drop_file("drop/7.pdf", b"%PDF-1.7");
    let mails = site.mails(1).await;
    assert_eq!(mails[0].subject, "7: 7.pdf 7.xml");
    let attached: Vec<(&str, &[u8])> = mails[0]
        .attachments
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    assert_eq!(attached, [("7.pdf", b"%PDF-1.7".as_slice()), ("7.xml", b"<x/>")]);
    let given: Value = serde_json::from_slice(&std::fs::read(site.path("facts.json")).unwrap()).unwrap();
    assert_eq!(given["files"].as_array().unwrap().len(), 2);
    site.until("both are moved", || {
        site.path("done/7.xml").exists() && site.path("done/7.pdf").exists()
    })
    .await;
    site.drop_file("drop/8.pdf", b"last");
    let known = || site.ok(&["events", "list", "--json"]).contains("8.pdf");
    site.until("8.pdf is known", known).await;
    std::fs::remove_file(site.path("drop/8.pdf")).unwrap();
    let mails = site.mails(2).await;
    assert_eq!(
        mails[1].subject, "gone 8.pdf",
        "and of those we moved nothing is said"
    );
    assert_eq!(daemon.stop(), Some(0));
}

const PARALLEL: &str = r#"
rules:
  import:
    when: { file_arrives: { in: drop, match: "*.csv" } }
    run: { command: [sh, -c, "mkdir lock-{{file.stem}} && echo {{file.stem}} >> begun && sleep 1; rmdir lock-{{file.stem}}"], overlap: parallel }
    mail: { to: ops@example.org, subject: "done {{file.name}} {{file.size}}" }
    on_failure: { mail: { to: ops@example.org, subject: "failed {{file.name}}" } }
  second:
    when: { file_arrives: { in: drop, match: "*.csv" } }
    run: { command: [sh, -c, "mkdir lock-{{file.stem}} && sleep 1; rmdir lock-{{file.stem}}"], overlap: parallel }
    mail: { to: ops@example.org, subject: "second {{file.name}} {{file.size}}" }
    on_failure: { mail: { to: ops@example.org, subject: "failed {{file.name}}" } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn commands_never_run_on_the_same_file_at_once_and_on_others_they_do() {
    let site = Site::new(PARALLEL).await;
    let daemon = site.started().await;
    site.drop_file("drop/a.csv", b"1");
    site.until("the first begins", || site.path("lock-a").exists())
        .await;
    site.drop_file("drop/a.csv", b"22");
    site.drop_file("drop/b.csv", b"1");
    site.until("another file does not wait", || {
        site.path("lock-a").exists() && site.path("lock-b").exists()
    })
    .await;
    let mails = site.mails(6).await;
    let expected = [
        "done a.csv 1",
        "done a.csv 2",
        "done b.csv 1",
        "second a.csv 1",
        "second a.csv 2",
        "second b.csv 1",
    ];
    assert_eq!(sorted(&mails), expected);
    assert_eq!(daemon.stop(), Some(0));
}
