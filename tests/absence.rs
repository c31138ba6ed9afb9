//! What did not happen: real folders, real files and jobs, a real journal; the time is passed in, or runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::Site;
use jiff::{SignedDuration, Timestamp};
use serde_json::Map;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tidings::app::expectations_of;
use tidings::clock::Clock;
use tidings::event::{Does, Event, Kind};
use tidings::rule::load;
use tidings::source::absence::AbsenceSource;
use tidings::source::file::FileSource;
use tidings::source::job::{self, JobReport};
use tidings::source::running::{Mark, Process};
use tidings::store::{Batch, EventFilter, Store};

/// A setup whose program runs once whenever it is told to, at a time of its own.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    /// With one rule that has this trigger, and holidays at Christmas.
    fn new(trigger: &str) -> Desk {
        let desk = Desk {
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(desk.path("drop")).unwrap();
        std::fs::create_dir(desk.path("rules")).unwrap();
        std::fs::write(
            desk.path("tidings.yaml"),
            "accounts:\n  out: { transport: file, folder: out, user: robot@example.org }\n\
             defaults: { from: robot@example.org, timezone: Europe/Berlin }\n\
             calendars: { holidays: { dates: [2026-12-24..2026-12-28] } }\n",
        )
        .unwrap();
        desk.rule(trigger);
        desk
    }

    fn rule(&self, trigger: &str) {
        let rule =
            format!("rules:\n  late:\n    when: {{ {trigger} }}\n    mail: {{ to: ops@example.org }}\n");
        std::fs::write(self.path("rules/late.yaml"), rule).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file that was last changed then.
    fn file(&self, name: &str, changed: &str) {
        let path = self.path("drop").join(name);
        std::fs::write(&path, "content").unwrap();
        let changed = SystemTime::UNIX_EPOCH
            + Duration::try_from(at(changed).duration_since(Timestamp::UNIX_EPOCH)).unwrap();
        std::fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(changed)
            .unwrap();
    }

    fn take(&self, name: &str) {
        std::fs::remove_file(self.path("drop").join(name)).unwrap();
    }

    async fn store(&self, now: &str) -> Store {
        Store::open(&self.path("state/tidings.db"), Clock::runtime(at(now)))
            .await
            .unwrap()
    }

    /// Starts, looks once at everything, ends; what was told then.
    async fn look(&self, now: &str) -> Vec<String> {
        self.look_for(now).await.iter().map(shown).collect()
    }

    async fn look_for(&self, now: &str) -> Vec<Event> {
        let (store, clock) = (self.store(now).await, Clock::runtime(at(now)));
        let before = absences(&store).await.len();
        let setup = load::load(self.folder.path(), load::Away::BadLuck).unwrap();
        let expected = expectations_of(&setup.rules);
        let (mut files, _handle) = FileSource::new(setup.watches, store.clone(), clock.clone());
        files.look().await.unwrap();
        let (mut absence, _handle) = AbsenceSource::new(expected, store.clone(), clock, None);
        absence.look().await.unwrap();
        absence.look().await.unwrap();
        absences(&store).await.split_off(before)
    }

    async fn reports(&self, job: &str, ok: bool, ended: &str) {
        let report = JobReport {
            name: job.to_owned(),
            ok,
            ended: ended.to_owned(),
            ..JobReport::default()
        };
        let event = job::outcome(&report, None, &Map::new(), None, format!("job:{job}:{ended}"));
        let batch = Batch {
            events: vec![event],
            ..Batch::default()
        };
        self.store(ended).await.record(batch).await.unwrap();
    }

    async fn open(&self) -> usize {
        self.store("2026-03-02T00:00:00Z")
            .await
            .open_cases()
            .await
            .unwrap()
            .len()
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

async fn absences(store: &Store) -> Vec<Event> {
    let filter = EventFilter {
        limit: 10_000,
        ..EventFilter::default()
    };
    let mut events = store.events(filter).await.unwrap();
    events.retain(|event| event.happening.case.is_some() && event.happening.kind != Kind::Trouble);
    events.reverse();
    events
}

/// `opens 2026-03-02T07:00:00+01:00`, with the lateness at a close.
fn shown(event: &Event) -> String {
    let step = event.happening.case.as_ref().unwrap();
    let does = if step.does == Does::Opens {
        "opens"
    } else {
        "closes"
    };
    let of = |key: &str| {
        event
            .happening
            .facts
            .get("expected")
            .map(|expected| expected[key].clone())
    };
    let deadline = of("deadline").map(|text| text.as_str().unwrap().to_owned());
    let late = of("late").filter(|late| !late.is_null());
    let late = late.map(|late| format!(" late {late}")).unwrap_or_default();
    format!(
        "{does} {}{late}",
        deadline.unwrap_or_else(|| event.happening.kind.as_str().to_owned())
    )
}

const REPORT: &str = "file_missing: { in: drop, match: \"report-*.csv\", by: \"07:00\", days: mon-fri, except: holidays, grace: 10m }";

/// Monday, 2 March 2026 in Berlin is an hour ahead of UTC.
const MONDAY: &str = "opens 2026-03-02T07:00:00+01:00";

#[tokio::test(start_paused = true)]
async fn a_file_that_is_missing_opens_a_case_once_and_closes_it_late() {
    let desk = Desk::new(REPORT);
    assert!(desk.look("2026-03-01T20:00:00Z").await.is_empty());
    assert!(
        desk.look("2026-03-02T06:09:00Z").await.is_empty(),
        "the grace is not over"
    );
    let opened = desk.look_for("2026-03-02T06:11:00Z").await;
    assert_eq!(opened.iter().map(shown).collect::<Vec<_>>(), [MONDAY]);
    let event = &opened[0].happening;
    assert!(
        event.key.starts_with("file_missing:late:") && event.key.ends_with(":2026-03-02T06:00:00Z"),
        "{}",
        event.key
    );
    assert_eq!(event.case.as_ref().unwrap().key, event.key);
    assert_eq!(event.facts["expected"]["match"], "report-*.csv");
    assert_eq!(event.facts["expected"]["found"], 0);
    assert_eq!(event.facts["expected"]["by"], "07:00, mon-fri except holidays");
    assert!(desk.look("2026-03-02T07:00:00Z").await.is_empty(), "told once");
    desk.file("other.csv", "2026-03-02T07:10:00Z");
    assert!(desk.look("2026-03-02T07:15:00Z").await.is_empty(), "another file");
    desk.file("report-1.csv", "2026-03-02T07:30:00Z");
    let closed = desk.look_for("2026-03-02T08:00:00Z").await;
    assert_eq!(
        closed.iter().map(shown).collect::<Vec<_>>(),
        [format!("closes {} late 5400", &MONDAY[6..])]
    );
    assert!(closed[0].recovers);
    assert_eq!(
        closed[0].happening.file.as_ref().unwrap().relative,
        Path::new("report-1.csv")
    );
    assert_eq!(desk.open().await, 0);
    // The late one was Monday's: Tuesday waits for its own.
    assert_eq!(
        desk.look("2026-03-03T06:11:00Z").await,
        ["opens 2026-03-03T07:00:00+01:00"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_file_that_came_in_time_and_was_taken_away_has_come() {
    let desk = Desk::new(REPORT);
    desk.look("2026-03-01T20:00:00Z").await;
    desk.file("report-1.csv", "2026-03-02T05:30:00Z");
    desk.look("2026-03-02T05:31:00Z").await;
    desk.take("report-1.csv");
    assert!(desk.look("2026-03-02T06:11:00Z").await.is_empty());
    assert!(desk.look("2026-03-02T12:00:00Z").await.is_empty());
    // Tuesday there is none, and Monday's does not help.
    assert_eq!(desk.look("2026-03-03T06:11:00Z").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_came_while_nothing_ran_counts_by_its_time_of_change() {
    let in_time = Desk::new(REPORT);
    in_time.look("2026-03-01T20:00:00Z").await;
    in_time.file("report-1.csv", "2026-03-02T05:59:00Z");
    assert!(in_time.look("2026-03-02T09:00:00Z").await.is_empty());
    let late = Desk::new(REPORT);
    late.look("2026-03-01T20:00:00Z").await;
    late.file("report-1.csv", "2026-03-02T08:00:00Z");
    assert_eq!(
        late.look("2026-03-02T09:00:00Z").await,
        [MONDAY.to_owned(), format!("closes {} late 7200", &MONDAY[6..])]
    );
}

#[tokio::test(start_paused = true)]
async fn deadlines_that_passed_while_nothing_ran_are_told_or_skipped() {
    let tell = Desk::new(REPORT);
    tell.look("2026-02-26T20:00:00Z").await;
    // Friday and Monday, and not the weekend between them.
    assert_eq!(
        tell.look("2026-03-02T12:00:00Z").await,
        ["opens 2026-02-27T07:00:00+01:00", MONDAY]
    );
    let skip = Desk::new(&REPORT.replace("grace: 10m", "missed: skip"));
    skip.look("2026-02-26T20:00:00Z").await;
    assert!(skip.look("2026-03-02T12:00:00Z").await.is_empty());
    assert_eq!(
        skip.look("2026-03-03T06:30:00Z").await,
        ["opens 2026-03-03T07:00:00+01:00"]
    );
}

#[tokio::test(start_paused = true)]
async fn holidays_are_no_days_and_their_files_count_for_the_next_deadline() {
    let desk = Desk::new(REPORT);
    desk.look("2026-12-23T05:00:00Z").await;
    desk.file("report-1.csv", "2026-12-23T05:30:00Z");
    assert!(desk.look("2026-12-28T12:00:00Z").await.is_empty());
    desk.file("report-2.csv", "2026-12-26T12:00:00Z");
    assert!(desk.look("2026-12-29T06:30:00Z").await.is_empty());
    assert_eq!(
        desk.look("2026-12-30T06:30:00Z").await,
        ["opens 2026-12-30T07:00:00+01:00"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_is_away_has_no_missing_files_until_it_is_back() {
    let desk = Desk::new(REPORT);
    desk.look("2026-03-01T20:00:00Z").await;
    std::fs::rename(desk.path("drop"), desk.path("away")).unwrap();
    assert!(desk.look("2026-03-02T06:30:00Z").await.is_empty());
    assert!(desk.look("2026-03-02T12:00:00Z").await.is_empty());
    std::fs::rename(desk.path("away"), desk.path("drop")).unwrap();
    assert_eq!(desk.look("2026-03-02T12:30:00Z").await, [MONDAY]);
}

#[tokio::test(start_paused = true)]
async fn files_that_lie_there_when_the_rule_is_new_raise_no_false_alarm() {
    let fresh = Desk::new(REPORT);
    fresh.file("report-1.csv", "2026-03-02T04:00:00Z");
    fresh.look("2026-03-02T05:00:00Z").await;
    assert!(fresh.look("2026-03-02T06:30:00Z").await.is_empty());
    let stale = Desk::new(REPORT);
    stale.file("report-1.csv", "2026-02-26T04:00:00Z");
    stale.look("2026-03-02T05:00:00Z").await;
    assert_eq!(stale.look("2026-03-02T06:30:00Z").await, [MONDAY]);
}

#[tokio::test(start_paused = true)]
async fn three_of_five_is_too_few() {
    let desk = Desk::new(&REPORT.replace("grace: 10m", "count: 5"));
    desk.look("2026-03-01T20:00:00Z").await;
    for number in 0..3 {
        desk.file(&format!("report-{number}.csv"), "2026-03-02T05:00:00Z");
    }
    let opened = desk.look_for("2026-03-02T06:30:00Z").await;
    assert_eq!(opened[0].happening.facts["expected"]["found"], 3);
    desk.file("report-3.csv", "2026-03-02T07:00:00Z");
    assert!(desk.look("2026-03-02T07:01:00Z").await.is_empty());
    desk.file("report-4.csv", "2026-03-02T08:00:00Z");
    assert_eq!(
        desk.look("2026-03-02T08:01:00Z").await,
        [format!("closes {} late 7200", &MONDAY[6..])]
    );
}

#[tokio::test(start_paused = true)]
async fn silence_for_a_day_is_told_and_ends_with_the_next_file() {
    let desk = Desk::new("file_missing: { in: drop, every: 24h }");
    desk.look("2026-03-02T08:00:00Z").await;
    desk.file("a", "2026-03-02T10:00:00Z");
    assert!(desk.look("2026-03-02T10:01:00Z").await.is_empty());
    assert!(desk.look("2026-03-03T09:59:00Z").await.is_empty());
    assert_eq!(
        desk.look("2026-03-03T10:30:00Z").await,
        ["opens 2026-03-03T11:00:00+01:00"]
    );
    desk.file("b", "2026-03-03T12:00:00Z");
    assert_eq!(
        desk.look("2026-03-03T12:00:30Z").await,
        ["closes 2026-03-03T11:00:00+01:00 late 7200"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_says_something_else_ends_its_cases_and_tells_nobody() {
    let desk = Desk::new(REPORT);
    desk.look("2026-03-01T20:00:00Z").await;
    desk.look("2026-03-02T06:30:00Z").await;
    assert_eq!(desk.open().await, 1);
    desk.rule(&REPORT.replace("report-*", "account-*"));
    let ended = desk.look_for("2026-03-02T06:40:00Z").await;
    assert_eq!(ended.len(), 1);
    assert!(ended[0].happening.source.is_empty(), "no rule answers to it");
    assert_eq!(desk.open().await, 0);
    // As it was before, the day is over; the next deadline is the next.
    desk.rule(REPORT);
    assert!(desk.look("2026-03-02T06:50:00Z").await.is_empty());
    assert_eq!(desk.look("2026-03-03T06:30:00Z").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_opens_above_its_limit_and_closes_when_it_is_cleared() {
    let desk = Desk::new("folder_backlog: { in: drop, match: \"*.csv\", count: 2, age: 2h }");
    desk.look("2026-03-02T06:00:00Z").await;
    for number in 0..3 {
        desk.file(&format!("{number}.csv"), "2026-01-01T00:00:00Z");
    }
    let opened = desk.look_for("2026-03-02T06:10:00Z").await;
    assert_eq!(
        opened.iter().map(shown).collect::<Vec<_>>(),
        ["opens folder_backlog"]
    );
    assert_eq!(opened[0].happening.facts["folder"]["count"], 3);
    assert_eq!(opened[0].happening.facts["folder"]["bytes"], 21);
    desk.take("0.csv");
    assert!(desk.look("2026-03-02T06:20:00Z").await.is_empty(), "not below");
    desk.take("1.csv");
    assert_eq!(desk.look("2026-03-02T06:30:00Z").await, ["closes folder_backlog"]);
    // One lies there since 06:10: too old at 08:10, whatever its own time says.
    assert!(desk.look("2026-03-02T08:09:00Z").await.is_empty());
    let old = desk.look_for("2026-03-02T08:12:00Z").await;
    assert_eq!(old[0].happening.facts["folder"]["oldest"], "2.csv");
    desk.take("2.csv");
    assert_eq!(desk.look("2026-03-02T08:20:00Z").await, ["closes folder_backlog"]);
    assert_eq!(desk.open().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_does_not_report_is_missing_until_it_does() {
    let desk = Desk::new("job_missing: { job: billing-close, by: \"06:00\" }");
    desk.reports("billing-close", true, "2026-03-02T03:00:00Z").await;
    assert!(desk.look("2026-03-02T04:00:00Z").await.is_empty());
    assert!(
        desk.look("2026-03-02T05:30:00Z").await.is_empty(),
        "it reported before the rule was new"
    );
    desk.reports("billing-open", true, "2026-03-03T03:00:00Z").await;
    assert_eq!(
        desk.look("2026-03-03T05:30:00Z").await,
        ["opens 2026-03-03T06:00:00+01:00"]
    );
    desk.reports("billing-close", false, "2026-03-03T06:00:00Z").await;
    let closed = desk.look_for("2026-03-03T06:00:01Z").await;
    assert_eq!(shown(&closed[0]), "closes 2026-03-03T06:00:00+01:00 late 3600");
    assert_eq!(closed[0].happening.facts["job"]["name"], "billing-close");
}

#[tokio::test(start_paused = true)]
async fn a_job_of_exec_that_runs_long_is_told_and_over_when_its_mark_is_gone() {
    let desk = Desk::new("job_runs_long: { job: \"billing-*\", after: 1h }");
    let mark = Mark {
        name: "billing-close".to_owned(),
        started: "2026-03-02T06:00:00Z".to_owned(),
        command: "./close".to_owned(),
        process: Process::own(),
    };
    let key = job::mark_of("job:exec:billing-close:2026-03-02T06:00:00Z:17").unwrap();
    let store = desk.store("2026-03-02T06:00:00Z").await;
    let value = serde_json::to_value(mark).unwrap();
    store.set_marks(vec![(key, value)]).await.unwrap();
    assert!(desk.look("2026-03-02T06:59:00Z").await.is_empty());
    let opened = desk.look_for("2026-03-02T07:00:00Z").await;
    assert_eq!(opened[0].happening.facts["job"]["running_for"], 3600);
    assert!(desk.look("2026-03-02T07:10:00Z").await.is_empty());
    store.delete_marks(job::MARKS).await.unwrap();
    assert_eq!(desk.look("2026-03-02T07:20:00Z").await, ["closes job_runs_long"]);
}

// ---- the program itself ----

const TOLD: &str = "    mail: { to: ops@example.org, template: file-missing }\n    \
    on_recovery: { mail: { to: ops@example.org, template: file-came-late } }\n";

/// A time of day by the clock of this zone, so many seconds from now.
fn soon(seconds: i64) -> String {
    let time = Timestamp::now() + SignedDuration::from_secs(seconds);
    time.to_zoned(jiff::tz::TimeZone::UTC)
        .strftime("%H:%M:%S")
        .to_string()
}

#[tokio::test]
async fn the_daemon_mails_when_a_file_is_missing_and_again_when_it_came() {
    let by = soon(5);
    let site = Site::new(&format!(
        "rules:\n  report:\n    when: {{ file_missing: {{ in: drop, match: \"report-*.csv\", by: \"{by}\", timezone: UTC }} }}\n{TOLD}"
    ))
    .await;
    let daemon = site.started().await;
    let missing = &site.mails(1).await[0];
    assert!(
        missing.subject.starts_with("Missing: report-*.csv by "),
        "{}",
        missing.subject
    );
    assert!(
        missing.text.contains("No such file came by the deadline"),
        "{}",
        missing.text
    );
    // A restart in between changes nothing, and tells nothing twice.
    assert_eq!(daemon.stop(), Some(0));
    let _daemon = site.started().await;
    site.drop_file("drop/report-7.csv", b"late");
    let mails = site.mails(2).await;
    assert!(
        mails[1].subject.contains("late: report-7.csv"),
        "{}",
        mails[1].subject
    );
    assert!(mails[1].text.contains("report-7.csv"), "{}", mails[1].text);
    let store = Store::open(&site.path("state/tidings.db"), Clock::system())
        .await
        .unwrap();
    assert_eq!(absences(&store).await.len(), 2);
}

#[tokio::test]
async fn a_reload_that_takes_the_rule_away_ends_its_case_without_a_mail() {
    let rule = |pattern: &str| {
        format!(
            "rules:\n  silence:\n    when: {{ file_missing: {{ in: drop, match: \"{pattern}\", every: 2s }} }}\n{TOLD}"
        )
    };
    let site = Site::new(&rule("*.csv")).await;
    let _daemon = site.started().await;
    assert!(site.mails(1).await[0].subject.starts_with("Missing"));
    site.write("rules/rules.yaml", &rule("*.pdf"));
    site.ok(&["reload"]);
    let mails = site.mails(2).await;
    assert!(
        mails[1].subject.starts_with("Missing: *.pdf"),
        "{}",
        mails[1].subject
    );
    site.drop_file("drop/a.csv", b"too late");
    site.drop_file("drop/a.pdf", b"late");
    let mails = site.mails(3).await;
    assert!(mails[2].subject.contains("a.pdf"), "{}", mails[2].subject);
    let store = Store::open(&site.path("state/tidings.db"), Clock::system())
        .await
        .unwrap();
    let open = store.open_cases().await.unwrap();
    assert!(open.iter().all(|case| case.subject.contains("*.pdf")), "{open:?}");
}

#[tokio::test]
async fn jobs_that_are_missing_and_jobs_that_run_long() {
    let site = Site::new(
        "rules:\n  missing:\n    when: { job_missing: { job: close, every: 3s } }\n    \
         mail: { to: a@example.org, template: job-missing }\n    \
         on_recovery: { mail: { to: b@example.org, template: job-missing } }\n  \
         slow:\n    when: { file_arrives: { in: drop } }\n    run: { command: [sh, -c, \"while ! test -e go; do sleep 0.1; done\"] }\n  \
         hangs:\n    when: { job_runs_long: { job: \"sl*\", after: 1s } }\n    \
         mail: { to: c@example.org, template: job-runs-long }\n    \
         on_recovery: { mail: { to: d@example.org, template: job-runs-long } }\n",
    )
    .await;
    let _daemon = site.started().await;
    site.drop_file("drop/go", b"");
    let to = |address: &str| {
        let messages = site.mail.messages();
        let mails = messages.iter().map(common::Mail::read);
        mails
            .into_iter()
            .find(|mail| mail.to.iter().any(|to| to == address))
    };
    site.until("the job is missing", || to("a@example.org").is_some())
        .await;
    site.until("the job runs long", || to("c@example.org").is_some())
        .await;
    let long = to("c@example.org").unwrap();
    assert!(long.subject.starts_with("Still runs after"), "{}", long.subject);
    assert!(to("d@example.org").is_none());
    site.write("go", "");
    site.until("it has ended", || to("d@example.org").is_some()).await;
    let ended = to("d@example.org").unwrap();
    assert!(
        ended.subject.starts_with("Ended after") && ended.subject.ends_with("slow"),
        "{}",
        ended.subject
    );
    site.ok(&["exec", "close", "--", "true"]);
    site.until("the job reported", || to("b@example.org").is_some())
        .await;
    let reported = to("b@example.org").unwrap();
    assert!(reported.subject.starts_with("Reported"), "{}", reported.subject);
}

#[tokio::test]
async fn a_backlog_is_mailed_and_so_is_its_end() {
    let site = Site::new(
        "rules:\n  backlog:\n    when: { folder_backlog: { in: drop, count: 1 } }\n    \
         mail: { to: a@example.org, template: folder-backlog }\n    \
         on_recovery: { mail: { to: b@example.org, template: folder-backlog } }\n",
    )
    .await;
    let _daemon = site.started().await;
    site.drop_file("drop/one", b"1");
    site.drop_file("drop/two", b"2");
    let opened = &site.mails(1).await[0];
    assert!(
        opened.subject.starts_with("Backlog of 2 files"),
        "{}",
        opened.subject
    );
    std::fs::remove_file(site.path("drop/one")).unwrap();
    std::fs::remove_file(site.path("drop/two")).unwrap();
    let closed = &site.mails(2).await[1];
    assert!(closed.subject.starts_with("Cleared"), "{}", closed.subject);
}
