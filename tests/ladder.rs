//! What is told while a case stays open, and that it is over: the dispatcher over a real store, on a clock that
//! the test moves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "common/desk.rs"]
mod desk;

use desk::{Desk, at};
use jiff::SignedDuration;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

const LADDER: &str = r#"
rules:
  office:
    when: { trouble: { of: account } }
    mail: { to: it@example.org, template: plain, subject: "{{trouble.subject}} is down" }
    remind: { every: 2h, until: "18:00" }
    escalate:
      - { after: 3h, mail: { to: head@example.org, template: plain, subject: "down for {{case.open_for}} s" } }
      - { after: 1d, mail: { to: boss@example.org, template: plain } }
    on_recovery: { mail: { to: it@example.org, template: plain, subject: "{{trouble.subject}} works again" } }
"#;

#[tokio::test(start_paused = true)]
async fn a_case_is_told_reminded_escalated_and_closed() {
    let desk = Desk::new(LADDER, "2026-03-02T13:00").await;
    desk.trouble("office").await;
    desk.until(at("2026-03-03T09:30")).await;
    desk.deliver().await;
    assert!(desk.mended("office").await);
    desk.pass(HOUR * 48).await;
    assert_eq!(
        desk.told().await,
        [
            "Mon 13:00 it: office is down (accepted)",
            "Mon 15:00 it: Reminder 1: office is down (accepted)",
            "Mon 16:00 head: down for 10800 s (accepted)",
            "Mon 17:00 it: Reminder 2: office is down (accepted)",
            "Tue 08:00 it: Reminder 3: office is down (accepted)",
            "Tue 09:30 it: office works again",
        ]
    );
    assert_eq!(desk.store.gatherings(None).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn what_has_not_left_when_the_case_is_over_is_cancelled() {
    let desk = Desk::new(LADDER, "2026-03-02T13:00").await;
    desk.trouble("office").await;
    desk.drain().await;
    desk.deliver().await;
    desk.until(at("2026-03-02T16:30")).await;
    desk.mended("office").await;
    desk.drain().await;
    assert_eq!(
        desk.told().await,
        [
            "Mon 13:00 it: office is down (accepted)",
            "Mon 15:00 it: Reminder 1: office is down (cancelled)",
            "Mon 16:00 head: down for 10800 s (cancelled)",
            "Mon 16:30 it: office works again",
        ]
    );
    let entries = desk.entries().await;
    assert_eq!(
        entries[1].reason.as_ref().unwrap().text,
        "it was over before this could be sent"
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_long_downtime_there_is_one_reminder_and_each_rung() {
    let desk = Desk::new(LADDER, "2026-03-02T13:00").await;
    desk.trouble("office").await;
    desk.drain().await;
    let desk = desk.restarted(at("2026-03-05T10:17")).await;
    desk.pass(HOUR * 3).await;
    assert_eq!(
        desk.told().await,
        [
            "Mon 13:00 it: office is down",
            "Thu 10:17 it: Reminder 1: office is down",
            "Thu 10:17 head: down for 249420 s",
            "Thu 10:17 boss: Escalation 2: office: the sign-in was refused",
            "Thu 12:17 it: Reminder 2: office is down",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_case_that_opens_again_is_a_new_one_with_reminders_of_its_own() {
    let desk = Desk::new(LADDER, "2026-03-02T09:00").await;
    for _ in 0..2 {
        desk.trouble("office").await;
        desk.pass(HOUR * 2 + SignedDuration::from_mins(1)).await;
        desk.deliver().await;
        desk.mended("office").await;
        desk.drain().await;
    }
    let told: Vec<String> = desk.told().await.iter().map(|line| line[10..].to_owned()).collect();
    let once = [
        "it: office is down (accepted)",
        "it: Reminder 1: office is down (accepted)",
        "it: office works again",
    ];
    assert_eq!(told[..3].concat(), once.concat().replace("again", "again (accepted)"));
    assert_eq!(told[3..], once);
}

#[tokio::test(start_paused = true)]
async fn who_was_not_told_of_a_case_is_not_told_of_its_end() {
    let rules = LADDER.replace("    mail:", "    if: 'trouble.subject != \"office\"'\n    mail:");
    let desk = Desk::new(&rules, "2026-03-02T09:00").await;
    desk.trouble("office").await;
    desk.drain().await;
    desk.mended("office").await;
    desk.drain().await;
    assert_eq!(desk.told().await, Vec::<String>::new());
    assert_eq!(desk.verdicts().await, ["1 office: condition_false", "2 office: not_told"]);
}

#[tokio::test(start_paused = true)]
async fn a_case_that_is_over_before_anybody_looked_is_told_as_both() {
    let desk = Desk::new(LADDER, "2026-03-02T09:00").await;
    desk.trouble("office").await;
    desk.mended("office").await;
    desk.pass(HOUR * 30).await;
    assert_eq!(
        desk.told().await,
        ["Mon 09:00 it: office is down", "Mon 09:00 it: office works again"]
    );
}

const RECOVERY_ONLY: &str = r#"
rules:
  back:
    when: { trouble: { of: account } }
    on_recovery: { mail: { to: it@example.org, template: plain, subject: "back after {{case.open_for}} s" } }
"#;

#[tokio::test(start_paused = true)]
async fn a_rule_may_tell_only_that_it_is_over() {
    let desk = Desk::new(RECOVERY_ONLY, "2026-03-02T09:00").await;
    desk.trouble("office").await;
    desk.pass(HOUR).await;
    desk.mended("office").await;
    desk.drain().await;
    assert_eq!(desk.told().await, ["Mon 10:00 it: back after 3600 s"]);
}

const JOB: &str = r#"
rules:
  export:
    when: { job_fails: { job: export } }
    mail: { to: it@example.org, template: plain, subject: "{{job.name}} failed{{#if case.reminder}} ({{case.reminder}}){{/if}}" }
    remind: { every: 1h, at_most: 2 }
    on_recovery: { mail: { to: it@example.org, template: plain, subject: "{{job.name}} works again" } }
"#;

#[tokio::test(start_paused = true)]
async fn a_failing_job_is_a_case_until_it_ends_well() {
    let desk = Desk::new(JOB, "2026-03-02T09:00").await;
    desk.job("export", 1, false).await;
    desk.pass(SignedDuration::from_mins(90)).await;
    desk.job("export", 2, false).await;
    desk.pass(HOUR * 9).await;
    desk.deliver().await;
    desk.job("export", 3, true).await;
    desk.job("export", 4, true).await;
    desk.pass(HOUR * 9).await;
    assert_eq!(
        desk.told().await,
        [
            "Mon 09:00 it: export failed (accepted)",
            "Mon 10:00 it: export failed (1) (accepted)",
            "Mon 10:30 it: export failed (accepted)",
            "Mon 11:00 it: export failed (2) (accepted)",
            "Mon 19:30 it: export works again",
        ]
    );
    assert_eq!(desk.store.gatherings(None).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_reminder_that_could_not_be_composed_comes_when_it_is_mended() {
    let broken = LADDER.replace(
        "\"{{trouble.subject}} is down\"",
        "\"{{trouble.subject}} is down {{#if case.reminder}}{{date trouble.text}}{{/if}}\"",
    );
    let desk = Desk::new(&broken, "2026-03-02T09:00").await;
    desk.trouble("office").await;
    desk.until(at("2026-03-02T11:10")).await;
    let told = desk.told().await;
    assert!(told[1].ends_with("(held)"), "{told:?}");
    desk.reload(LADDER);
    let held = desk.entries().await[1].id;
    desk.store.retry(held).await.unwrap();
    desk.drain().await;
    assert_eq!(
        desk.told().await,
        [
            "Mon 09:00 it: office is down",
            "Mon 11:10 it: Reminder 1: office is down",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_brings_reminders_reminds_of_what_is_open() {
    let without = LADDER.replace("    remind: { every: 2h, until: \"18:00\" }\n", "");
    let desk = Desk::new(&without, "2026-03-02T09:00").await;
    desk.trouble("office").await;
    desk.pass(HOUR).await;
    desk.reload(LADDER);
    desk.until(at("2026-03-02T11:30")).await;
    assert_eq!(
        desk.told().await,
        ["Mon 09:00 it: office is down", "Mon 11:00 it: Reminder 1: office is down"]
    );
}
