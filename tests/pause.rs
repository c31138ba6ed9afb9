//! Paused rules, and many entries moved at once: through the dispatcher on a clock that the test moves, and
//! through the real binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;
#[path = "common/desk.rs"]
mod desk;

use common::{Site, json_lines, text};
use desk::{Desk, at};
use jiff::SignedDuration;
use serde_json::Value;
use tidings::dispatch::pause::{How, Pause, pause, paused, resume, waiting};
use tidings::sandbox::smtp::Settings;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

const RULES: &str = r#"
rules:
  office:
    when: { trouble: { of: account } }
    mail: { to: it@example.org, template: plain, subject: "{{trouble.subject}} is down" }
    remind: { every: 2h }
    on_recovery: { mail: { to: it@example.org, template: plain, subject: "{{trouble.subject}} works again" } }
  export:
    when: { job_fails: { job: "*" } }
    if: 'job.name != "test"'
    mail: { to: ops@example.org, template: plain, subject: "{{job.name}} failed" }
"#;

impl Desk {
    async fn pause(&self, rule: &str, hours: Option<i64>) {
        let until = hours.map(|hours| {
            self.now()
                .saturating_add(HOUR * i32::try_from(hours).unwrap())
                .unwrap()
        });
        let one = Pause::new(rule, self.now(), until, Some("move".to_owned()), "ops");
        pause(&self.store, vec![one]).await.unwrap();
    }

    async fn resume(&self, rule: &str, how: How) {
        let all = paused(&self.store, self.now()).await.unwrap();
        let ours = all.into_iter().filter(|pause| pause.rule == rule).collect();
        resume(&self.store, ours, how, "ops").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_while_a_rule_is_paused_is_kept_and_sent_on_resume() {
    let desk = Desk::new(RULES, "2026-03-02T09:00").await;
    desk.pause("export", None).await;
    desk.job("a", 1, false).await;
    desk.job("test", 1, false).await;
    desk.pass(HOUR * 30).await;
    assert_eq!(desk.told().await, Vec::<String>::new());
    assert_eq!(waiting(&desk.store, "export").await.unwrap(), 1);
    assert_eq!(
        desk.verdicts().await,
        ["1 export: paused", "2 export: condition_false"]
    );
    desk.resume("export", How::Send).await;
    desk.drain().await;
    assert_eq!(desk.told().await, ["Tue 15:00 ops: a failed"]);
    assert_eq!(desk.verdicts().await[0], "1 export: fired");
    desk.job("b", 1, false).await;
    desk.drain().await;
    assert_eq!(desk.told().await.len(), 2);
    assert_eq!(desk.store.gatherings(None).await.unwrap(), []);
    assert_eq!(desk.store.marks("resume:").await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_is_not_told_and_its_verdict_says_so() {
    let desk = Desk::new(RULES, "2026-03-02T09:00").await;
    desk.pause("export", None).await;
    desk.job("a", 1, false).await;
    desk.drain().await;
    desk.resume("export", How::Drop).await;
    desk.job("b", 1, false).await;
    desk.drain().await;
    assert_eq!(desk.told().await, ["Mon 09:00 ops: b failed"]);
    assert_eq!(desk.verdicts().await, ["1 export: dropped", "2 export: fired"]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_ends_by_itself_and_over_a_restart() {
    let desk = Desk::new(RULES, "2026-03-02T09:00").await;
    desk.pause("export", Some(2)).await;
    desk.job("a", 1, false).await;
    desk.drain().await;
    let desk = desk.restarted(at("2026-03-02T10:59")).await;
    desk.drain().await;
    assert_eq!(desk.told().await, Vec::<String>::new());
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    desk.drain().await;
    assert_eq!(desk.told().await, ["Mon 11:00 ops: a failed"]);
}

#[tokio::test(start_paused = true)]
async fn of_a_paused_rule_only_cases_that_are_still_open_are_told() {
    let desk = Desk::new(RULES, "2026-03-02T09:00").await;
    desk.pause("office", None).await;
    desk.trouble("short").await;
    desk.trouble("long").await;
    desk.pass(HOUR * 5).await;
    desk.mended("short").await;
    desk.drain().await;
    desk.resume("office", How::Send).await;
    desk.pass(HOUR * 3).await;
    desk.mended("long").await;
    desk.drain().await;
    assert_eq!(
        desk.told().await,
        [
            "Mon 14:00 it: long is down",
            "Mon 16:00 it: Reminder 1: long is down (cancelled)",
            "Mon 17:00 it: long works again",
        ]
    );
    assert_eq!(
        desk.verdicts().await,
        [
            "1 office: over",
            "2 office: fired",
            "3 office: not_told",
            "4 office: fired"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_pause_stops_reminders_and_the_end_of_a_case_is_told_when_the_rule_goes_on() {
    let desk = Desk::new(RULES, "2026-03-02T09:00").await;
    desk.trouble("one").await;
    desk.trouble("two").await;
    desk.pass(HOUR).await;
    desk.deliver().await;
    desk.pause("office", None).await;
    desk.pass(HOUR * 6).await;
    desk.mended("one").await;
    desk.pass(HOUR).await;
    desk.resume("office", How::Send).await;
    desk.pass(HOUR).await;
    assert_eq!(
        desk.told().await,
        [
            "Mon 09:00 it: one is down (accepted)",
            "Mon 09:00 it: two is down (accepted)",
            "Mon 17:00 it: one works again",
            "Mon 17:00 it: Reminder 1: two is down",
        ]
    );
}

const SITE: &str = r#"
rules:
  export:
    when: { job_fails: { job: nightly } }
    mail: { to: ops@example.org, template: plain, subject: "{{job.name}} failed" }
  other:
    when: { job_fails: { job: nightly } }
    mail: { to: other@example.org, template: plain, subject: "{{job.name}} failed" }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_paused_beside_the_daemon_and_a_person_says_what_becomes_of_the_rest() {
    let site = Site::new(SITE).await;
    let said = site.ok(&[
        "pause",
        "exp*",
        "--for",
        "2h",
        "--reason",
        "moving\u{1b}[2J house",
    ]);
    assert!(said.contains("export since") && said.contains("until"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said}");
    let _daemon = site.started().await;
    assert_eq!(
        site.run(&["exec", "nightly", "--", "false"]).status.code(),
        Some(1)
    );
    let mails = site.mails(1).await;
    assert_eq!(mails[0].to, ["other@example.org"]);
    let status = site.ok(&["status"]);
    assert!(
        status.contains("paused:") && status.contains("1 event waiting"),
        "{status}"
    );
    let status: Value = serde_json::from_str(&site.ok(&["status", "--json"])).unwrap();
    assert_eq!(status["paused"][0]["rule"], "export");
    assert_eq!(status["paused"][0]["waiting"], 1);
    let listed = json_lines(&site.ok(&["pause", "--json"]));
    assert_eq!(listed[0]["reason"], "moving\u{1b}[2J house");

    let undecided = site.run(&["resume", "export"]);
    assert_eq!(undecided.status.code(), Some(64));
    assert!(
        text(&undecided.stderr).contains("--drop"),
        "{}",
        text(&undecided.stderr)
    );
    assert_eq!(site.run(&["resume", "exprot", "--send"]).status.code(), Some(65));
    site.ok(&["resume", "export", "--send"]);
    let mails = site.mails(2).await;
    assert_eq!(mails[1].to, ["ops@example.org"]);
    assert_eq!(site.ok(&["pause", "--json"]), "");

    // And while it runs.
    site.ok(&["pause", "export"]);
    assert_eq!(
        site.run(&["exec", "nightly", "--", "false"]).status.code(),
        Some(1)
    );
    site.mails(3).await;
    site.ok(&["resume", "*", "--drop"]);
    site.until("it is dropped", || {
        let events = site.ok(&["events", "show", "2", "--json"]);
        events.contains("dropped")
    })
    .await;
    assert_eq!(site.mail.messages().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_entries_are_moved_with_one_command_that_asks_first() {
    let site = Site::new(SITE).await;
    // The state is made without a daemon: mails wait as `ready`.
    let refusing = Settings::open();
    drop(refusing);
    let unknown = site.run(&["pause", "nobody"]);
    assert_eq!(unknown.status.code(), Some(65));
    let daemon = site.started().await;
    daemon.stop();
    site.run(&["exec", "nightly", "--", "false"]);
    site.write(
        "rules/rules.yaml",
        &SITE.replace("ops@example.org", "\"{{job.output_tail}}\""),
    );
    site.run(&["run", "--once"]);
    let held = json_lines(&site.ok(&["outbox", "list", "--state", "held", "--json"]));
    assert_eq!(held.len(), 1, "{held:?}");

    let asked = site.run(&["outbox", "cancel", "--rule", "export"]);
    assert_eq!(asked.status.code(), Some(64));
    assert!(
        text(&asked.stderr).contains("cancel 1 entry (1 held)"),
        "{}",
        text(&asked.stderr)
    );
    let nothing = site.run(&["outbox", "cancel", "--account", "elsewhere", "--yes"]);
    assert_eq!(nothing.status.code(), Some(0));
    let moved = json_lines(&site.ok(&["outbox", "cancel", "--all", "--yes", "--json"]));
    assert_eq!(moved[0]["state"], "cancelled");
    assert_eq!(site.run(&["outbox", "retry"]).status.code(), Some(64));
}
