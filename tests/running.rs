//! Jobs while they run, through the whole program: what happens when the same job still runs, what is
//! listed meanwhile, and what becomes of a job whose keeper was killed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use common::Site;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use std::process::Stdio;
use tidings::clock::Clock;
use tidings::event::{Event, EventId, Kind};
use tidings::store::{EventFilter, Store};

/// A rule that runs this script at each `go`, and tells how it ended.
fn rule(overlap: &str, script: &str) -> String {
    format!(
        "rules:\n  job:\n    when: {{ event: {{ type: go }} }}\n    \
         run: {{ command: [sh, -c, '{script}', sh, \"{{{{data.n}}}}\"], overlap: {overlap}, folder: . }}\n    \
         on_success: {{ mail: {{ to: robot@example.org, subject: \"done {{{{data.n}}}}\" }} }}\n    \
         on_failure: {{ mail: {{ to: robot@example.org, subject: \"failed {{{{job.summary}}}}\" }} }}\n"
    )
}

fn go(site: &Site, n: u32) {
    site.ok(&["emit", "go", "--data", &format!("{{\"n\": {n}}}")]);
}

fn lines(site: &Site, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(site.path(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

async fn store(site: &Site) -> Store {
    Store::open(&site.path("state/tidings.db"), Clock::system())
        .await
        .unwrap()
}

async fn ended(site: &Site) -> Vec<Event> {
    let filter = EventFilter {
        after: Some(EventId(0)),
        ..EventFilter::default()
    };
    let events = store(site).await.events(filter).await.unwrap();
    let ends = |event: &Event| matches!(event.happening.kind, Kind::JobSucceeds | Kind::JobFails);
    events.into_iter().filter(ends).collect()
}

fn status(site: &Site) -> Value {
    serde_json::from_str(&site.ok(&["status", "--json"])).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_runs_one_after_the_other_in_order_and_leaves_none_out() {
    let script = "echo in $1 >> trace; sleep 0.2; echo out $1 >> trace";
    let site = Site::new(&rule("queue", script)).await;
    let daemon = site.started().await;
    for n in 1..=4 {
        go(&site, n);
    }
    site.mails(4).await;
    let expected: Vec<String> = (1..=4)
        .flat_map(|n| [format!("in {n}"), format!("out {n}")])
        .collect();
    assert_eq!(lines(&site, "trace"), expected);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_runs_beside_each_other() {
    // Each waits for the other: one after the other they would wait for ever.
    let script = "touch here.$1; until [ -e here.1 ] && [ -e here.2 ]; do sleep 0.05; done";
    let site = Site::new(&rule("parallel", script)).await;
    let daemon = site.started().await;
    go(&site, 1);
    go(&site, 2);
    let mut subjects: Vec<String> = site.mails(2).await.into_iter().map(|mail| mail.subject).collect();
    subjects.sort();
    assert_eq!(subjects, ["done 1", "done 2"]);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn skip_leaves_out_what_comes_meanwhile_says_so_and_runs_again_afterwards() {
    let script = "echo $1 >> ran; until [ -e release ]; do sleep 0.05; done";
    let site = Site::new(&rule("skip", script)).await;
    let daemon = site.started().await;
    go(&site, 1);
    site.until("the first runs", || lines(&site, "ran") == ["1"])
        .await;
    go(&site, 2);
    site.until("the second is left out", || {
        site.ok(&["outbox", "list"])
            .contains("left out: the same job was still running")
            || site.log().contains("run left out")
    })
    .await;
    site.write("release", "");
    site.mails(1).await;
    go(&site, 3);
    let mails = site.mails(2).await;
    assert_eq!(lines(&site, "ran"), ["1", "3"]);
    assert_eq!(
        (mails[0].subject.as_str(), mails[1].subject.as_str()),
        ("done 1", "done 3")
    );
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_ours_found_running_after_kill_9_is_reported_lost_once_and_not_run_again() {
    let script = "echo $1 $$ >> ran; until [ -e release ]; do sleep 0.05; done";
    let site = Site::new(&rule("queue", script)).await;
    let daemon = site.started().await;
    go(&site, 1);
    site.until("it runs", || lines(&site, "ran").len() == 1).await;
    let jobs = status(&site)["jobs"].clone();
    assert_eq!(
        (jobs[0]["name"].as_str(), jobs[0]["pid"].is_null()),
        (Some("job"), true),
        "{jobs}"
    );
    assert!(jobs[0]["entry"].is_number(), "{jobs}");
    daemon.kill();
    let daemon = site.started().await;
    let mails = site.mails(1).await;
    assert!(
        mails[0].subject.contains("tidings was ended while it ran"),
        "{}",
        mails[0].subject
    );
    assert_eq!(status(&site)["jobs"], serde_json::json!([]));
    daemon.stop();
    site.run(&["run", "--once"]);
    let ended = ended(&site).await;
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].happening.facts["job"]["lost"], true);
    assert_eq!(lines(&site, "ran").len(), 1);
    // What the killed daemon left behind ends now.
    site.write("release", "");
}

const TELL: &str = "rules:\n  tell:\n    when: { job_fails: { job: \"nightly*\" } }\n    \
                    mail: { to: robot@example.org, subject: \"{{job.name}} {{job.lost}}\" }\n";

/// `tidings exec nightly` with a command that waits for `release`; when it runs, the command's pid.
async fn executed(site: &Site) -> (std::process::Child, Pid) {
    let child = site
        .command(&[
            "exec",
            "nightly",
            "--",
            "sh",
            "-c",
            "echo $$ > pid; until [ -e release ]; do sleep 0.05; done",
        ])
        .current_dir(site.dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    site.until("the mark is there", || {
        site.path("pid").exists()
            && site.path("state/tidings.db").exists()
            && !status(site)["jobs"][0].is_null()
    })
    .await;
    let pid = lines(site, "pid")[0].parse().unwrap();
    (child, Pid::from_raw(pid).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_exec_is_listed_while_it_runs_and_no_longer() {
    let site = Site::new(TELL).await;
    let (mut child, _) = executed(&site).await;
    let jobs = status(&site)["jobs"].clone();
    assert_eq!(
        (jobs[0]["name"].as_str(), jobs[0]["pid"].as_u64()),
        (Some("nightly"), Some(u64::from(child.id())))
    );
    assert!(
        site.ok(&["status"]).contains("nightly (since"),
        "{}",
        site.ok(&["status"])
    );
    site.ok(&["run", "--once"]);
    assert!(ended(&site).await.is_empty(), "it runs, and is not lost");
    site.write("release", "");
    assert!(child.wait().unwrap().success());
    assert_eq!(status(&site)["jobs"], serde_json::json!([]));
    assert!(store(&site).await.marks("running:").await.unwrap().is_empty());
    let ended = ended(&site).await;
    assert_eq!((ended.len(), ended[0].happening.kind), (1, Kind::JobSucceeds));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_exec_was_killed_is_reported_lost_by_the_daemon_once() {
    let site = Site::new(TELL).await;
    let daemon = site.started().await;
    let (mut child, command) = executed(&site).await;
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    assert_eq!(site.mails(1).await[0].subject, "nightly true");
    daemon.stop();
    site.ok(&["run", "--once"]);
    let ended = ended(&site).await;
    assert_eq!(
        (ended.len(), ended[0].happening.facts["job"]["lost"].as_bool()),
        (1, Some(true))
    );
    assert!(store(&site).await.marks("running:").await.unwrap().is_empty());
    let _ = kill_process_group(command, Signal::KILL);
    site.write("release", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_left_as_a_file_wins_over_lost() {
    let site = Site::new(TELL).await;
    let (mut child, _) = executed(&site).await;
    let (key, mark) = store(&site).await.marks("running:").await.unwrap().remove(0);
    site.write("release", "");
    child.wait().unwrap();
    // As if the outcome had gone to a file, since the store could not be written then.
    std::fs::remove_dir_all(site.path("state")).unwrap();
    let outcome = key.replacen("running:", "job:exec:", 1);
    let report = tidings::source::job::JobReport {
        name: "nightly".to_owned(),
        ok: true,
        ended: "2026-03-02T08:30:00Z".to_owned(),
        ..Default::default()
    };
    store(&site).await.set_marks(vec![(key, mark)]).await.unwrap();
    tidings::source::job::leave(&site.path("state"), &report, &outcome).unwrap();
    site.ok(&["run", "--once"]);
    let ended = ended(&site).await;
    assert_eq!((ended.len(), ended[0].happening.kind), (1, Kind::JobSucceeds));
    assert!(store(&site).await.marks("running:").await.unwrap().is_empty());
}
