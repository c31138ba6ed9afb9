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
use proptest::prelude::*;
use tidings::entry::{Entry, State};
use tidings::event::{Does, EventId, Kind};
use tidings::store::EventFilter;

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
    let told: Vec<String> = desk
        .told()
        .await
        .iter()
        .map(|line| line[10..].to_owned())
        .collect();
    let once = [
        "it: office is down (accepted)",
        "it: Reminder 1: office is down (accepted)",
        "it: office works again",
    ];
    assert_eq!(
        told[..3].concat(),
        once.concat().replace("again", "again (accepted)")
    );
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
    assert_eq!(
        desk.verdicts().await,
        ["1 office: condition_false", "2 office: not_told"]
    );
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
        [
            "Mon 09:00 it: office is down",
            "Mon 11:00 it: Reminder 1: office is down"
        ]
    );
}

/// With what gathers besides.
fn with(telling: &str) -> String {
    LADDER.replace("    remind:", &format!("    {telling}\n    remind:"))
}

#[tokio::test(start_paused = true)]
async fn that_a_case_is_over_is_told_after_the_digest_that_tells_of_it() {
    let desk = Desk::new(&with("group: { wait: 30m }"), "2026-03-02T09:00").await;
    desk.trouble("office").await;
    desk.pass(SignedDuration::from_mins(10)).await;
    desk.mended("office").await;
    desk.pass(HOUR * 5).await;
    let told = desk.told().await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0], "Mon 09:30 it: office is down");
    assert!(told[1].ends_with("it: office works again"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn in_quiet_hours_the_ladder_waits_and_the_end_comes_after_the_beginning() {
    let quiet = with("quiet_hours: { from: \"20:00\", to: \"07:00\" }").replace(", until: \"18:00\"", "");
    let desk = Desk::new(&quiet, "2026-03-02T19:00").await;
    desk.trouble("early").await;
    desk.pass(HOUR * 3).await;
    desk.trouble("late").await;
    desk.trouble("short").await;
    desk.pass(HOUR).await;
    desk.mended("short").await;
    desk.until(at("2026-03-03T08:30")).await;
    let told = desk.told().await;
    let place = |text: &str| told.iter().position(|line| line.contains(text));
    assert_eq!(told[0], "Mon 19:00 it: early is down");
    assert!(
        told[1..]
            .iter()
            .all(|line| line.starts_with("Tue 07:") || line.starts_with("Tue 08:")),
        "{told:?}"
    );
    assert!(place("Reminder 1: early is down").is_some(), "{told:?}");
    assert!(place("down for").is_some(), "{told:?}");
    // The two of the night are one digest, and only then comes that one of them is over.
    let digest = told[1..]
        .iter()
        .position(|line| !line.contains("early") && !line.contains("again") && !line.contains("down for"));
    assert!(
        digest.unwrap() + 1 < place("short works again").unwrap(),
        "{told:?}"
    );
    assert_eq!(told.iter().filter(|line| line.contains("again")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn reminders_past_the_fuse_are_held_and_cancelled_with_the_case() {
    let rules = LADDER.replace("every: 2h, until: \"18:00\"", "every: 1m");
    let desk = Desk::new(&rules, "2026-03-02T09:00").await;
    desk.limits("{ mails_per_rule_per_hour: 5 }");
    desk.trouble("office").await;
    desk.pass(SignedDuration::from_mins(8)).await;
    desk.deliver().await;
    let states: Vec<State> = desk.entries().await.iter().map(|entry| entry.state).collect();
    assert_eq!(
        states.iter().filter(|state| **state == State::Accepted).count(),
        5
    );
    assert_eq!(states.iter().filter(|state| **state == State::Held).count(), 4);
    desk.mended("office").await;
    desk.drain().await;
    let states: Vec<State> = desk.entries().await.iter().map(|entry| entry.state).collect();
    assert_eq!(
        states.iter().filter(|state| **state == State::Cancelled).count(),
        4
    );
}

/// What may happen to a desk.
#[derive(Clone, Debug)]
enum Act {
    Open(u8),
    Close(u8),
    Job(bool),
    Drain,
    Pass(i64),
    Restart(i64),
    Reload(bool),
    Deliver,
    Pause,
    Resume(bool),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0u8..2).prop_map(Act::Open),
        3 => (0u8..2).prop_map(Act::Close),
        3 => any::<bool>().prop_map(Act::Job),
        2 => Just(Act::Drain),
        4 => (1i64..40 * 60).prop_map(Act::Pass),
        2 => (-600i64..3_000).prop_map(Act::Restart),
        1 => any::<bool>().prop_map(Act::Reload),
        2 => Just(Act::Deliver),
    ]
}

fn act_or_pause() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => act(),
        1 => Just(Act::Pause),
        1 => any::<bool>().prop_map(Act::Resume),
    ]
}

const BOTH: &str = r#"
  export:
    when: { job_fails: { job: export } }
    mail: { to: it@example.org, template: plain, subject: "{{job.name}} failed" }
    remind: { every: 1h, at_most: 2 }
    on_recovery: { mail: { to: it@example.org, template: plain, subject: "{{job.name}} works again" } }
"#;

async fn played(acts: &[Act]) -> Desk {
    use tidings::dispatch::pause::{How, Pause, pause, paused, resume};
    let rules = [
        format!("{LADDER}{BOTH}"),
        format!(
            "{}{BOTH}",
            LADDER.replace("every: 2h, until: \"18:00\"", "every: 45m")
        ),
    ];
    let mut desk = Desk::new(&rules[0], "2026-03-02T09:00").await;
    let mut runs = 0;
    for act in acts {
        match act {
            Act::Open(which) => desk.trouble(&format!("a{which}")).await,
            Act::Close(which) => {
                desk.mended(&format!("a{which}")).await;
            }
            Act::Job(ok) => {
                runs += 1;
                desk.job("export", runs, *ok).await;
            }
            Act::Drain => desk.drain().await,
            Act::Pass(minutes) => desk.pass(SignedDuration::from_mins(*minutes)).await,
            Act::Restart(minutes) => {
                let time = desk
                    .now()
                    .saturating_add(SignedDuration::from_mins(*minutes))
                    .unwrap();
                desk = desk.restarted(time).await;
            }
            Act::Reload(second) => desk.reload(&rules[usize::from(*second)]),
            Act::Deliver => desk.deliver().await,
            Act::Pause => {
                let now = desk.now();
                let all = ["office", "export"].map(|rule| Pause::new(rule, now, None, None, "ops"));
                pause(&desk.store, all.to_vec()).await.unwrap();
            }
            Act::Resume(send) => {
                let all = paused(&desk.store, desk.now()).await.unwrap();
                let how = if *send { How::Send } else { How::Drop };
                resume(&desk.store, all, how, "ops").await.unwrap();
            }
        }
    }
    let all = paused(&desk.store, desk.now()).await.unwrap();
    resume(&desk.store, all, How::Send, "ops").await.unwrap();
    desk.drain().await;
    desk
}

/// What holds whatever happened. `all`: no rule was paused, so everything was told.
async fn holds(desk: &Desk, all: bool) {
    let filter = EventFilter {
        after: Some(EventId(0)),
        limit: 100_000,
        ..EventFilter::default()
    };
    let events = desk.store.events(filter).await.unwrap();
    let entries = desk.entries().await;
    let of = |event: EventId, part: &str| -> Vec<&Entry> {
        entries
            .iter()
            .filter(|entry| entry.event == Some(event) && entry.key.contains(&format!("/{part}")))
            .collect()
    };
    for (at, event) in events.iter().enumerate() {
        let case = event.happening.case.as_ref();
        let opens = case.map_or(event.happening.kind == Kind::JobFails, |step| {
            step.does == Does::Opens
        });
        let told = of(event.id, "mail/mail-");
        let over = of(event.id, "on_recovery/");
        if !opens {
            assert_eq!(told.len(), 0, "{event:?}");
            assert!(over.len() <= 1);
            let ends = case.is_some() || event.recovers;
            assert!(!all || over.len() == usize::from(ends), "{event:?}: {over:?}");
            continue;
        }
        assert!(
            told.len() <= 1 && (!all || told.len() == 1),
            "{event:?}: {told:?}"
        );
        assert_eq!(over.len(), 0);
        // Each once, and in order.
        for (part, key) in [("remind", "remind-"), ("escalate", "escalate-")] {
            for (number, entry) in (1..).zip(of(event.id, key)) {
                assert!(
                    entry.key.ends_with(&format!("/{part}-{number}/mail-0")),
                    "{}",
                    entry.key
                );
                assert!(told.iter().all(|first| first.id < entry.id));
            }
        }
        // After the end nothing waits that is only right before it, and nothing more comes.
        let end = events[at + 1..]
            .iter()
            .find(|later| match (case, &later.happening.case) {
                (Some(case), Some(step)) => case.key == step.key,
                (None, None) => later.happening.kind == Kind::JobSucceeds,
                _ => false,
            });
        if let Some(end) = end {
            let last = of(end.id, "on_recovery/");
            for entry in of(event.id, "remind-")
                .into_iter()
                .chain(of(event.id, "escalate-"))
            {
                assert!(
                    matches!(entry.state, State::Accepted | State::Cancelled),
                    "{entry:?}"
                );
                assert!(last.iter().all(|last| entry.id < last.id), "{entry:?}");
            }
        }
    }
    // Nothing is left of cases that are over.
    let open = desk.store.open_cases().await.unwrap().len();
    let failing = events
        .iter()
        .rev()
        .find(|event| event.happening.case.is_none())
        .is_some_and(|event| event.happening.kind == Kind::JobFails);
    let left = desk.store.gatherings(None).await.unwrap();
    assert!(left.len() <= open + usize::from(failing), "{left:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn each_case_is_told_once_closed_once_and_reminded_in_order(
        acts in proptest::collection::vec(act(), 1..25),
    ) {
        paused_runtime().block_on(async { holds(&played(&acts).await, true).await });
    }

    #[test]
    fn with_pauses_nothing_is_told_twice_or_out_of_order(
        acts in proptest::collection::vec(act_or_pause(), 1..25),
    ) {
        paused_runtime().block_on(async { holds(&played(&acts).await, false).await });
    }
}

fn paused_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}
