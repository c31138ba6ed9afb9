//! The life of a process: it starts, tells its service manager, works, is stopped in the middle of things.
//! The real binary, real sockets and folders, real SQLite.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says its figures"
)]

mod common;

use common::{PATIENCE, Site, json_lines, text};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant, SystemTime};
use tidings::clock::Clock;
use tidings::sandbox::smtp::{Act, At, Faults, Settings};
use tidings::store::Store;

const EACH_FILE: &str = r#"
rules:
  each:
    when: { file_arrives: { in: drop, match: "**/*" } }
    mail: { to: ap@example.org, template: plain, subject: "{{file.name}}" }
"#;

fn script(site: &Site, name: &str, content: &str) {
    site.write(name, content);
    std::fs::set_permissions(site.path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A site whose server waits so long before it answers the final dot, on the first `connections`.
async fn slow(wait: Duration, connections: usize, more: &str) -> Site {
    let mut settings = Settings::open();
    settings.faults = vec![Faults::one(At::Dot, Act::Wait(wait)); connections];
    settings.faults.push(Faults::default());
    let site = Site::with(settings, EACH_FILE).await;
    let settings = site.settings(more).replace("connections: 4", "connections: 1");
    site.write("tidings.yaml", &settings);
    site
}

fn entry(site: &Site, id: u64) -> Value {
    let shown = site.run(&["outbox", "show", &id.to_string(), "--json"]);
    serde_json::from_slice(&shown.stdout).unwrap_or_default()
}

fn entries(site: &Site) -> Vec<Value> {
    json_lines(&site.ok(&["outbox", "list", "--json", "--limit", "10000"]))
}

/// How many entries are in each state.
fn states(site: &Site) -> BTreeMap<String, usize> {
    let mut states = BTreeMap::new();
    for entry in entries(site) {
        *states
            .entry(entry["state"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    states
}

fn status(site: &Site) -> Value {
    serde_json::from_str(&site.ok(&["status", "--json"])).unwrap()
}

async fn past_the_gate(site: &Site, id: u64) {
    site.until("a mail is past the gate", || {
        entry(site, id)["attempts_made"][0]["past_the_gate"] == true
    })
    .await;
}

fn is_alive(pid: &str) -> bool {
    let pid = pid.trim().parse().ok().and_then(Pid::from_raw).unwrap();
    let zombie = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
        .is_ok_and(|stat| stat.contains(") Z "));
    rustix::process::test_kill_process(pid).is_ok() && !zombie
}

// ---- stopping ----

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_on_the_wire_cannot_be_cancelled_and_that_is_said() {
    let site = slow(Duration::from_secs(4), 1, "").await;
    let daemon = site.started().await;
    site.drop_file("drop/a.txt", b"x");
    past_the_gate(&site, 1).await;
    let cancelled = site.run(&["outbox", "cancel", "1"]);
    assert_eq!(cancelled.status.code(), Some(65));
    let said = text(&cancelled.stderr);
    assert!(
        said.contains("entry 1 is leased and cannot be cancelled"),
        "{said}"
    );
    assert!(said.contains("wait for the outcome"), "{said}");
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(entry(&site, 1)["state"], "accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_the_mail_on_the_wire_begins_nothing_new_and_gives_the_rest_back() {
    for signal in [Signal::TERM, Signal::INT] {
        let site = slow(Duration::from_secs(3), 1, "").await;
        let mut daemon = site.started().await;
        for name in ["a", "b", "c"] {
            site.drop_file(&format!("drop/{name}.txt"), b"x");
        }
        site.until("three mails are in the outbox", || entries(&site).len() == 3)
            .await;
        past_the_gate(&site, 1).await;
        daemon.signal(signal);
        site.until("it stops", || {
            site.log().contains("finishing what is on the wire")
        })
        .await;
        site.drop_file("drop/later.txt", b"x");
        assert_eq!(daemon.wait(), Some(0));
        assert_eq!(site.mail.messages().len(), 1, "nothing new was begun");
        let expected = BTreeMap::from([("accepted".to_owned(), 1), ("ready".to_owned(), 2)]);
        assert_eq!(states(&site), expected);
        assert!(
            entries(&site)
                .iter()
                .all(|entry| entry["state"] == "accepted" || entry["attempts"] == 0),
            "what was given back counts no attempt"
        );
        let daemon = site.started().await;
        let mails = site.mails(4).await;
        assert_eq!(daemon.stop(), Some(0));
        let names: BTreeSet<_> = mails.iter().map(|mail| mail.subject.as_str()).collect();
        assert_eq!(names, ["a.txt", "b.txt", "c.txt", "later.txt"].into());
        assert_eq!(site.mail.messages().len(), 4, "none twice");
        assert!(
            site.ok(&["outbox", "list", "--ever-unknown", "--json"])
                .is_empty()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_twice_it_stops_at_once_and_the_next_start_lists_the_mail_as_unknown() {
    let site = slow(Duration::from_secs(600), 1, "outbox: { retry: { first: 1s } }\n").await;
    let mut daemon = site.started().await;
    site.drop_file("drop/a.txt", b"x");
    past_the_gate(&site, 1).await;
    daemon.signal(Signal::TERM);
    site.until("it stops", || {
        site.log().contains("finishing what is on the wire")
    })
    .await;
    let asked = Instant::now();
    daemon.signal(Signal::INT);
    assert_eq!(daemon.wait(), Some(75));
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert!(site.mail.messages().is_empty());
    let daemon = site.started().await;
    site.mails(1).await;
    daemon.stop();
    let unknown = json_lines(&site.ok(&["outbox", "list", "--ever-unknown", "--json"]));
    assert_eq!(unknown.len(), 1);
    assert_eq!(unknown[0]["state"], "accepted");
}

const JOB: &str = r#"
rules:
  job:
    when: { file_arrives: { in: drop } }
    run: { command: [./job, "{{file.name}}"], timeout: 10m }
    on_failure: { mail: { to: ops@example.org, template: job-failed } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_jobs_tells_so_and_does_not_run_them_again() {
    let site = Site::new(JOB).await;
    script(
        &site,
        "job",
        "#!/bin/sh\necho run >> runs\nsleep 600 &\necho $! > child\nwait\n",
    );
    let daemon = site.started().await;
    site.drop_file("drop/a", b"x");
    site.until("the job runs", || site.path("child").exists()).await;
    let child = std::fs::read_to_string(site.path("child")).unwrap();
    assert_eq!(daemon.stop(), Some(0));
    assert!(!is_alive(&child), "nothing of the job is left");
    let daemon = site.started().await;
    let mails = site.mails(1).await;
    assert!(
        mails[0].text.contains("because tidings was stopped"),
        "{}",
        mails[0].text
    );
    daemon.stop();
    assert_eq!(std::fs::read_to_string(site.path("runs")).unwrap(), "run\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_twice_a_job_that_does_not_listen_is_killed() {
    let site = Site::new(JOB).await;
    script(
        &site,
        "job",
        "#!/bin/sh\ntrap '' TERM\necho $$ > pid.new\nmv pid.new pid\nwhile :; do sleep 1; done\n",
    );
    let mut daemon = site.started().await;
    site.drop_file("drop/a", b"x");
    site.until("the job runs", || site.path("pid").exists()).await;
    let pid = std::fs::read_to_string(site.path("pid")).unwrap();
    daemon.signal(Signal::TERM);
    site.until("it stops", || {
        site.log().contains("finishing what is on the wire")
    })
    .await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait(), Some(75));
    site.until("the job is gone", || !is_alive(&pid)).await;
    // Nobody knows how far it came, and that is told.
    let _daemon = site.started().await;
    assert!(site.mails(1).await[0].text.contains("not known"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheduled_worker_stops_as_the_daemon_does() {
    let site = slow(Duration::from_secs(3), 1, "").await;
    site.ok(&["run", "--once"]);
    for name in ["a", "b", "c"] {
        site.drop_file(&format!("drop/{name}.txt"), b"x");
    }
    let worker = site
        .command(&["run", "--once"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    past_the_gate(&site, 1).await;
    let pid = Pid::from_raw(i32::try_from(worker.id()).unwrap()).unwrap();
    // A terminal that hangs up is no reason to drop what is on the wire.
    rustix::process::kill_process(pid, Signal::HUP).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let ended = worker.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(75), "{}", text(&ended.stderr));
    assert!(
        text(&ended.stderr).contains("1 done; stopped before all was done; 2 waiting"),
        "{}",
        text(&ended.stderr)
    );
    assert_eq!(site.mail.messages().len(), 1);
    let expected = BTreeMap::from([("accepted".to_owned(), 1), ("ready".to_owned(), 2)]);
    assert_eq!(states(&site), expected);
}

// ---- the service manager ----

/// A service manager: what it was told, in order.
struct Manager {
    told: std::sync::mpsc::Receiver<String>,
    path: String,
}

impl Manager {
    fn new(site: &Site) -> Manager {
        let path = site.path("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len) = socket.recv(&mut buffer) {
                if tell.send(text(&buffer[..len])).is_err() {
                    return;
                }
            }
        });
        Manager {
            told,
            path: path.to_str().unwrap().to_owned(),
        }
    }

    /// The next thing it is told.
    fn hear(&self) -> Option<String> {
        self.told.recv_timeout(Duration::from_millis(500)).ok()
    }

    /// All that it is told up to something that begins so; the watchdog's food is left out.
    fn hear_until(&self, wanted: &str) -> Vec<String> {
        let start = Instant::now();
        let mut heard = Vec::new();
        loop {
            assert!(start.elapsed() < PATIENCE, "never heard {wanted}: {heard:?}");
            let Some(said) = self.hear() else { continue };
            if said.starts_with("WATCHDOG=1") {
                continue;
            }
            let found = said.starts_with(wanted);
            heard.push(said);
            if found {
                return heard;
            }
        }
    }

    /// How often the watchdog was fed in this time.
    fn fed(&self, during: Duration) -> usize {
        let start = Instant::now();
        let mut fed = 0;
        while start.elapsed() < during {
            fed += usize::from(self.hear().is_some_and(|said| said.starts_with("WATCHDOG=1")));
        }
        fed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_hears_ready_after_the_first_look_reloading_and_stopping() {
    let site = Site::new(EACH_FILE).await;
    for number in 0..3000 {
        site.write(&format!("drop/old-{number}"), "old");
    }
    let manager = Manager::new(&site);
    let mut daemon = site.daemon_with(&[("NOTIFY_SOCKET", &manager.path)]);
    assert_eq!(manager.hear_until("READY=1").len(), 1, "the first word");
    // Whoever heard that may drop: it is not taken for one of the old ones.
    site.drop_file("drop/new", b"x");
    assert!(status(&site)["watches"][0]["known"].as_u64().unwrap() >= 3000);
    assert_eq!(site.mails(1).await[0].subject, "new");

    for setup in [EACH_FILE, "rules: { each: { wehn: 1 } }\n"] {
        site.write("rules/rules.yaml", setup);
        daemon.signal(Signal::HUP);
        let heard = manager.hear_until("READY=1");
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert!(heard[0].starts_with("RELOADING=1\nMONOTONIC_USEC="), "{heard:?}");
    }
    daemon.signal(Signal::TERM);
    manager.hear_until("STOPPING=1");
    assert_eq!(daemon.wait(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_that_does_not_read_stops_nothing() {
    let site = Site::new(EACH_FILE).await;
    let path = site.path("notify.sock");
    let _unread = UnixDatagram::bind(&path).unwrap();
    let daemon = site.daemon_with(&[
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "30000"),
    ]);
    site.until("what it is told is not read", || {
        site.log().contains("does not read")
    })
    .await;
    site.drop_file("drop/a", b"x");
    site.mails(1).await;
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_another_process_keeps_busy_is_waited_for_and_nothing_is_lost() {
    let site = slow(Duration::from_secs(2), 1, "").await;
    let manager = Manager::new(&site);
    let mut daemon = site.daemon_with(&[
        ("NOTIFY_SOCKET", manager.path.as_str()),
        ("WATCHDOG_USEC", "1000000"),
    ]);
    manager.hear_until("READY=1");
    assert!(manager.fed(Duration::from_secs(1)) > 0, "fed while all is well");
    site.drop_file("drop/before", b"x");
    past_the_gate(&site, 1).await;

    let other = rusqlite::Connection::open(site.path("state/tidings.db")).unwrap();
    other.busy_timeout(Duration::from_secs(30)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for number in 0..6 {
        site.drop_file(&format!("drop/during-{number}"), b"x");
    }
    let held = Instant::now();
    let mut fed = 0;
    while held.elapsed() < Duration::from_secs(7) {
        fed += manager.fed(Duration::from_secs(1));
        // Looking changes nothing, so it need not wait.
        let asked = Instant::now();
        assert!(status(&site)["running"].is_object());
        assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    }
    assert!(fed > 0, "a new start would not mend it");
    assert!(daemon.is_running(), "{}", site.log());
    assert_eq!(
        site.mail.messages().len(),
        1,
        "the answer came, and cannot be written"
    );
    // Changing must wait, and says why it could not.
    let retried = site.run(&["outbox", "cancel", "1"]);
    assert!(
        text(&retried.stderr).contains("another process keeps the store busy"),
        "{}",
        text(&retried.stderr)
    );
    other.execute_batch("ROLLBACK").unwrap();
    let mails = site.mails(7).await;
    site.until("every outcome is written", || {
        states(&site) == BTreeMap::from([("accepted".to_owned(), 7)])
    })
    .await;
    assert_eq!(daemon.stop(), Some(0));
    let names: BTreeSet<_> = mails.iter().map(|mail| mail.subject.clone()).collect();
    assert_eq!((names.len(), site.mail.messages().len()), (7, 7), "none twice");
}

// ---- schedules that were missed ----

fn scheduled(missed: &str) -> String {
    format!(
        r#"
rules:
  tick:
    when: {{ schedule: {{ cron: "*/10 * * * *", missed: {missed} }} }}
    mail:
      to: ops@example.org
      template: plain
      subject: "missed {{{{schedule.missed}}}} {{{{schedule.due}}}}"
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_missed_while_it_was_down_follow_their_policy() {
    for (policy, mails) in [("once", 1), ("skip", 0), ("all", 3)] {
        let site = Site::new(&scheduled(policy)).await;
        site.started().await.stop();
        assert!(
            site.mail.messages().is_empty(),
            "what was due before the first start never was"
        );
        // It was last looked at so long ago: as if the machine had been off since then.
        let store = Store::open(&site.path("state/tidings.db"), Clock::system())
            .await
            .unwrap();
        let marks = store.marks("schedule:").await.unwrap();
        assert_eq!(marks.len(), 1, "{marks:?}");
        let now = jiff::Timestamp::now();
        let slot = now.as_second() - now.as_second().rem_euclid(600);
        let until = jiff::Timestamp::from_second(slot - 2 * 600 - 60).unwrap();
        store
            .set_marks(vec![(marks[0].0.clone(), json!(until.to_string()))])
            .await
            .unwrap();
        drop(store);
        let daemon = site.started().await;
        if mails > 0 {
            site.mails(mails).await;
        }
        // The third slot may be in its first minute: then it is on time.
        let on_time = now.as_second() - slot < 120;
        daemon.stop();
        let subjects: Vec<_> = site.mails(0).await.into_iter().map(|mail| mail.subject).collect();
        if !on_time {
            assert_eq!(subjects.len(), mails, "{policy}: {subjects:?}");
        }
        let missed = subjects
            .iter()
            .filter(|subject| subject.starts_with("missed true"))
            .count();
        match policy {
            "skip" => assert_eq!(missed, 0, "{subjects:?}"),
            "once" => assert_eq!(missed, 1, "{subjects:?}"),
            _ => assert!(missed >= 2, "{subjects:?}"),
        }
        // And never again.
        let count = site.mail.messages().len();
        site.started().await.stop();
        let again = site.mail.messages().len() - count;
        assert!(again == 0 || on_time, "{again} again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_stop_over_slots_makes_none_of_them_missed_and_loses_none() {
    let rules = scheduled("once").replace("cron: \"*/10 * * * *\"", "every: 1s");
    let site = Site::new(&rules).await;
    let daemon = site.started().await;
    site.mails(1).await;
    daemon.stop();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let count = site.mail.messages().len();
    let daemon = site.started().await;
    site.mails(count + 5).await;
    daemon.stop();
    let mut due: Vec<i64> = site
        .mails(0)
        .await
        .iter()
        .map(|mail| {
            let due = mail.subject.strip_prefix("missed false ").expect("on time");
            due.parse::<jiff::Timestamp>().unwrap().as_second()
        })
        .collect();
    due.sort_unstable();
    let all: Vec<i64> = (due[0]..due[0] + due.len() as i64).collect();
    assert_eq!(due, all, "every second once");
}

// ---- the scheduled worker ----

#[tokio::test(flavor = "multi_thread")]
async fn each_way_a_round_of_the_worker_can_end_has_its_exit_code() {
    let code = |site: &Site| {
        let ended = site.run(&["run", "--once"]);
        (ended.status.code().unwrap(), text(&ended.stderr))
    };
    // 0: nothing to do, not even rules.
    let site = Site::new("rules: {}\n").await;
    let (ended, said) = code(&site);
    assert_eq!((ended, said.contains("nothing was due")), (0, true), "{said}");

    // 69: a folder that is not there.
    let site = Site::new(EACH_FILE).await;
    std::fs::remove_dir(site.path("drop")).unwrap();
    let (ended, said) = code(&site);
    assert_eq!(ended, 69, "{said}");
    assert!(
        said.contains("could not look at") && said.contains("/drop"),
        "{said}"
    );
    // It is back, or nobody wants it any more: all is well.
    std::fs::create_dir(site.path("drop")).unwrap();
    assert_eq!(code(&site).0, 0);
    std::fs::remove_dir(site.path("drop")).unwrap();
    assert_eq!(code(&site).0, 69);
    site.write("rules/rules.yaml", "rules: {}\n");
    assert_eq!(code(&site).0, 0, "nobody looks there any more");

    // 75: the server is busy.
    let mut busy = Settings::open();
    busy.faults = vec![Faults::one(
        At::line("MAIL"),
        Act::Say("451 4.3.2 come back later".into()),
    )];
    let site = Site::with(busy, EACH_FILE).await;
    assert_eq!(code(&site).0, 0);
    site.drop_file("drop/a", b"x");
    let (ended, said) = code(&site);
    assert_eq!(ended, 75, "{said}");
    assert!(said.contains("1 waiting (tidings outbox list)"), "{said}");

    // 77: an account nobody signed in.
    let site = Site::new(EACH_FILE).await;
    let office = "  office:\n    user: alice@example.org\n    smtp: { host: 127.0.0.1, port: 9, tls: none }\n\
                  \x20   provider: { token_url: \"http://127.0.0.1:9/token\", \
                  authorize_url: \"http://127.0.0.1:9/auth\", scopes: [send] }\n\
                  \x20   oauth2: { grant: authorization_code, client_id: tidings }\n";
    let with_office = site
        .settings("")
        .replace("accounts:\n", &format!("accounts:\n{office}"));
    site.write("tidings.yaml", &with_office);
    let (ended, said) = code(&site);
    assert_eq!(ended, 77, "{said}");
    assert!(
        said.contains("needs a person: office (tidings auth status)"),
        "{said}"
    );
    site.write("tidings.yaml", &site.settings(""));
    assert_eq!(code(&site).0, 0, "the account is gone, and its trouble with it");

    // 78: the setup.
    site.write("rules/rules.yaml", "rules: { each: { wehn: 1 } }\n");
    let (ended, said) = code(&site);
    assert_eq!(ended, 78, "{said}");
    assert!(said.contains("wehn"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_thirty_workers_at_once_one_works_at_a_time_and_none_sends_twice() {
    let site = Site::new(EACH_FILE).await;
    site.ok(&["run", "--once"]);
    for number in 0..10 {
        site.drop_file(&format!("drop/{number}"), b"x");
    }
    let workers: Vec<_> = (0..30)
        .map(|_| {
            site.command(&["run", "--once"])
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut codes = BTreeMap::new();
    for worker in workers {
        let ended = worker.wait_with_output().unwrap();
        let (code, said) = (ended.status.code().unwrap(), text(&ended.stderr));
        assert!(
            code == 0 || (code == 75 && said.contains("has been at work here")),
            "{code} {said}"
        );
        *codes.entry(code).or_insert(0) += 1;
    }
    println!("{codes:?}");
    assert!(codes[&0] >= 1, "{codes:?}");
    site.mails(10).await;
    site.ok(&["run", "--once"]);
    assert_eq!(site.mail.messages().len(), 10);
    assert!(
        site.ok(&["outbox", "list", "--ever-unknown", "--json"])
            .is_empty()
    );
}

// ---- jobs ----

/// Each run says in `NAME.most` how many run beside it, and waits for `go`.
const COUNTED: &str = "#!/bin/sh
mkdir -p \"$1.running\"
touch \"$1.running/$2\"
ls \"$1.running\" | wc -l >> \"$1.most\"
while [ ! -e go ]; do sleep 0.05; done
rm \"$1.running/$2\"
";

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_one_job_queue_are_left_out_or_run_side_by_side_as_the_rule_says() {
    let mut rules = "rules:\n".to_owned();
    for overlap in ["queue", "skip", "parallel"] {
        rules.push_str(&format!(
            "  {overlap}:\n    when: {{ file_arrives: {{ in: drop/{overlap} }} }}\n\
             \x20   run: {{ command: [./job, {overlap}, \"{{{{file.name}}}}\"], timeout: 5m, overlap: {overlap} }}\n"
        ));
    }
    let site = Site::new(&rules).await;
    for overlap in ["queue", "skip", "parallel"] {
        std::fs::create_dir(site.path(&format!("drop/{overlap}"))).unwrap();
    }
    script(&site, "job", COUNTED);
    let daemon = site.started().await;
    for overlap in ["queue", "skip", "parallel"] {
        for number in 0..5 {
            site.drop_file(&format!("drop/{overlap}/{number}"), b"x");
        }
    }
    let running = |overlap: &str| {
        std::fs::read_dir(site.path(&format!("{overlap}.running"))).map_or(0, Iterator::count)
    };
    let left_out = || {
        let all = entries(&site);
        let left_out = all.iter().filter(|entry| {
            entry["rule"] == "skip"
                && entry["state"] == "accepted"
                && entry["reason"]["text"]
                    .as_str()
                    .is_some_and(|why| why.starts_with("left out"))
        });
        left_out.count()
    };
    site.until("five run side by side", || running("parallel") == 5)
        .await;
    site.until("four are left out", || left_out() == 4).await;
    assert_eq!((running("queue"), running("skip")), (1, 1));
    site.write("go", "");
    site.until("all have ended", || site.outbox_waiting() == 0).await;
    daemon.stop();
    let most = |overlap: &str| {
        let said = std::fs::read_to_string(site.path(&format!("{overlap}.most"))).unwrap();
        let counts: Vec<u32> = said.lines().map(|line| line.trim().parse().unwrap()).collect();
        (counts.len(), counts.into_iter().max().unwrap())
    };
    assert_eq!(most("queue"), (5, 1));
    assert_eq!(most("skip"), (1, 1));
    assert_eq!(most("parallel"), (5, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_tried_again_and_one_over_its_time_ends_with_all_it_started() {
    let site = Site::new(
        r#"
rules:
  again:
    when: { file_arrives: { in: drop, match: again } }
    run: { command: [./again], retries: 2, retry_wait: 1s }
    on_success: { mail: { to: ops@example.org, template: job-succeeded } }
  slow:
    when: { file_arrives: { in: drop, match: slow } }
    run: { command: [./slow], timeout: 2s }
    on_failure: { mail: { to: ops@example.org, template: job-failed } }
"#,
    )
    .await;
    script(
        &site,
        "again",
        "#!/bin/sh\necho run >> runs\n[ $(wc -l < runs) -ge 3 ]\n",
    );
    script(
        &site,
        "slow",
        "#!/bin/sh\ntrap '' TERM\n(trap '' TERM; sleep 600) &\necho $! > grandchild\necho $$ > child\nwait\n",
    );
    let _daemon = site.started().await;
    site.drop_file("drop/again", b"x");
    site.mails(1).await;
    assert_eq!(
        std::fs::read_to_string(site.path("runs"))
            .unwrap()
            .lines()
            .count(),
        3
    );
    site.drop_file("drop/slow", b"x");
    let mails = site.mails(2).await;
    assert!(mails[1].text.contains("Time limit: reached"), "{}", mails[1].text);
    for name in ["child", "grandchild"] {
        let pid = std::fs::read_to_string(site.path(name)).unwrap();
        assert!(!is_alive(&pid), "the {name} is left");
    }
}

// ---- status and housekeeping ----

#[tokio::test(flavor = "multi_thread")]
async fn to_ask_for_the_status_makes_no_state_and_its_fields_are_these() {
    let site = Site::new(&format!("{EACH_FILE}  tick:\n    when: {{ schedule: {{ every: 1h }} }}\n    mail: {{ to: ap@example.org, template: plain, subject: x }}\n")).await;
    let before = status(&site);
    assert!(!site.path("state").exists(), "looking made it");
    assert_eq!(before["running"], Value::Null);
    assert_eq!(before["watches"], json!([]));
    assert!(
        site.ok(&["status"])
            .starts_with("not running\nsetup: 2 rules, 1 account\n")
    );
    let none = site.run(&["reload"]);
    assert_eq!(none.status.code(), Some(69));
    assert!(!site.path("state").exists(), "{}", text(&none.stderr));

    let daemon = site.started().await;
    site.drop_file("drop/a", b"x");
    site.mails(1).await;
    site.until("it is settled", || site.outbox_waiting() == 0).await;
    site.ok(&["reload"]);
    let status = status(&site);
    let names = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(
        names(&status),
        [
            "alive",
            "events_pending",
            "jobs",
            "last_reload",
            "outbox",
            "paused",
            "running",
            "schedules",
            "setup",
            "troubles",
            "watches"
        ]
    );
    assert_eq!(names(&status["running"]), ["pid", "since", "what"]);
    assert_eq!(status["running"]["pid"], daemon.id());
    assert_eq!(names(&status["setup"]), ["accounts", "ok", "rules"]);
    assert_eq!(names(&status["last_reload"]), ["at", "began", "ok", "problems"]);
    assert_eq!(names(&status["schedules"][0]), ["next", "rule"]);
    assert_eq!(
        status["outbox"],
        json!([{ "kind": "mail", "state": "accepted", "count": 1 }])
    );
    assert_eq!(
        names(&status["watches"][0]),
        [
            "away_since",
            "candidates",
            "folder",
            "folders",
            "known",
            "last_event",
            "last_scan",
            "mode",
            "polled_folders",
            "root",
            "scan_began",
            "scan_ms",
            "skipped",
            "unreadable",
            "why"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_jobs_are_kept_as_long_as_the_outbox_and_no_longer() {
    let site = Site::new(EACH_FILE).await;
    site.ok(&["run", "--once"]);
    let log = |name: &str, days: u64| {
        site.write(&format!("state/jobs/{name}"), "said");
        let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
        let file = std::fs::File::options()
            .write(true)
            .open(site.path(&format!("state/jobs/{name}")));
        file.unwrap().set_modified(then).unwrap();
    };
    log("1-1.log", 40);
    log("2-1.log", 3);
    site.ok(&["run", "--once"]);
    assert!(!site.path("state/jobs/1-1.log").exists());
    assert!(site.path("state/jobs/2-1.log").exists());
    // A running daemon follows what a reload says.
    let _daemon = site.started().await;
    assert!(site.path("state/jobs/2-1.log").exists());
    site.write("tidings.yaml", &site.settings("outbox: { keep: 2d }\n"));
    site.ok(&["reload"]);
    site.until("the log is removed", || !site.path("state/jobs/2-1.log").exists())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_the_store_shrinks_again_when_a_long_reader_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidings.db");
    let store = Store::open(&path, Clock::system()).await.unwrap();
    let size = || {
        let log = folder.path().join("tidings.db-wal");
        std::fs::metadata(log).unwrap().len() / (1024 * 1024)
    };
    let write = |megabytes: usize| {
        let store = store.clone();
        async move {
            for number in 0..megabytes {
                // The same again would not be written.
                let text = number.to_string().repeat(1024 * 1024 / number.to_string().len());
                let mark = (format!("{}", number % 10), json!(text));
                store.set_marks(vec![mark]).await.unwrap();
            }
        }
    };
    let reader = rusqlite::Connection::open(&path).unwrap();
    let look = |reader: &rusqlite::Connection| {
        reader.execute_batch("BEGIN").unwrap();
        let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        reader.query_row("SELECT count(*) FROM mark", [], count).unwrap();
    };
    look(&reader);
    write(100).await;
    let long = size();
    reader.execute_batch("COMMIT").unwrap();
    write(20).await;
    println!("{long} MB while somebody read, {} MB after", size());
    assert!(long >= 100, "the reader did not hold it");
    assert!(size() <= 65, "{} MB", size());

    // Readers that always overlap, so that there is never a moment without one.
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for offset in [0, 30] {
            let (done, path) = (&done, &path);
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(offset));
                let reader = rusqlite::Connection::open(path).unwrap();
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    look(&reader);
                    std::thread::sleep(Duration::from_millis(60));
                    reader.execute_batch("COMMIT").unwrap();
                }
            });
        }
        let handle = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| handle.block_on(write(400)));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    println!("{} MB under readers that overlap", size());
    assert!(size() <= 128, "{} MB", size());
}

// ---- soak ----

/// Open descriptors, threads, resident kB.
fn figures(pid: u32) -> (usize, u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let number = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    (open, number("Threads:"), number("VmRSS:"))
}

#[tokio::test(flavor = "multi_thread")]
async fn under_steady_load_descriptors_threads_and_memory_stay_level() {
    let long = std::env::var_os("TIDINGS_TEST_LONG").is_some();
    let length = Duration::from_secs(if long { 1800 } else { 8 });
    let site = Site::new(EACH_FILE).await;
    let daemon = site.started().await;
    let start = Instant::now();
    let mut dropped = 0;
    let mut seen = Vec::new();
    let mut every = tokio::time::interval(Duration::from_millis(50));
    while start.elapsed() < length {
        every.tick().await;
        site.drop_file(&format!("drop/{dropped}"), b"x");
        dropped += 1;
        // What was mailed is taken away again, as people do.
        if dropped > 200 {
            let _ = std::fs::remove_file(site.path(&format!("drop/{}", dropped - 200)));
        }
        if dropped % 20 == 0 {
            seen.push(figures(daemon.id()));
        }
    }
    site.mails(dropped).await;
    site.until("all is settled", || site.outbox_waiting() == 0).await;
    daemon.stop();
    assert_eq!(site.mail.messages().len(), dropped);
    let half = &seen[seen.len() / 2..];
    let tenth = (half.len() / 5).max(1);
    let most = |part: &[(usize, u64, u64)]| {
        part.iter().fold((0, 0, 0), |most, figures| {
            (
                most.0.max(figures.0),
                most.1.max(figures.1),
                most.2.max(figures.2),
            )
        })
    };
    let (begin, end) = (most(&half[..tenth]), most(&half[half.len() - tenth..]));
    println!(
        "{dropped} files in {length:?}: descriptors {} -> {}, threads {} -> {}, resident {} -> {} kB",
        begin.0, end.0, begin.1, end.1, begin.2, end.2
    );
    assert!(end.0 <= begin.0 + 4, "descriptors {begin:?} -> {end:?}");
    assert!(end.1 <= begin.1 + 4, "threads {begin:?} -> {end:?}");
    assert!(end.2 <= begin.2 * 11 / 10 + 2048, "memory {begin:?} -> {end:?}");
}
