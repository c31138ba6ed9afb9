//! Whole stories: the real binary, a real folder, a real server on loopback, a real SQLite file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Site, json_lines, text};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt as _;
use tidings::clock::Clock;
use tidings::event::{FileRef, Kind, NewEvent};
use tidings::sandbox::smtp::{Act, At, Faults, Settings};
use tidings::store::{Batch, Store};

const EACH_FILE: &str = r#"
rules:
  each:
    when: { file_arrives: { in: drop, match: "**/*" } }
    mail: { to: ap@example.org, template: file-arrived, attach: "{{file.path}}" }
"#;

const IMPORT: &str = r#"
rules:
  import:
    when: { file_arrives: { in: drop, match: "*.csv" } }
    run: { command: [./import, "{{file.path}}"], timeout: 20s }
    on_success: { move: done/, mail: { to: ops@example.org, template: job-succeeded } }
    on_failure: { move: failed/, mail: { to: ops@example.org, template: job-failed, attach: job.log } }
    on_recovery: { mail: { to: boss@example.org, template: job-recovered } }
  listening:
    when: { job_fails: { job: "imp*" } }
    mail: { to: listener@example.org, template: job-failed }
"#;

fn script(site: &Site, name: &str, content: &str) {
    site.write(name, content);
    std::fs::set_permissions(site.path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_renamed_into_place_is_mailed_with_the_file_attached() {
    let site = Site::new(EACH_FILE).await;
    let daemon = site.started().await;
    site.drop_file("drop/invoice.pdf", b"%PDF-1.4 hello");
    let mails = site.mails(1).await;
    assert_eq!(mails[0].to, ["ap@example.org"]);
    assert!(mails[0].subject.contains("invoice.pdf"), "{}", mails[0].subject);
    assert_eq!(
        mails[0].attachments,
        [("invoice.pdf".to_owned(), b"%PDF-1.4 hello".to_vec())]
    );
    assert_eq!(daemon.stop(), Some(0));
    let listed = json_lines(&site.ok(&["outbox", "list", "--json"]));
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["state"], "accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_came_while_it_was_down_are_mailed_and_those_before_the_first_start_are_not() {
    let site = Site::new(EACH_FILE).await;
    site.drop_file("drop/old.txt", b"old");
    site.started().await.stop();
    site.drop_file("drop/new.txt", b"new");
    let daemon = site.started().await;
    let mails = site.mails(1).await;
    assert_eq!(mails[0].attachments[0].0, "new.txt");
    daemon.stop();
    assert_eq!(site.mail.messages().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_mails_its_log_and_one_that_recovers_says_so() {
    let site = Site::new(IMPORT).await;
    script(
        &site,
        "import",
        "#!/bin/sh\ncat \"$1\"\ngrep -q good \"$1\" || exit 4\n",
    );
    let _daemon = site.started().await;
    site.drop_file("drop/1.csv", b"bad line\n");
    let mails = site.mails(2).await;
    let to = |name: &str| mails.iter().find(|mail| mail.to == [name]).unwrap();
    assert_eq!(
        to("ops@example.org").attachments,
        [("import.log".to_owned(), b"bad line\n".to_vec())]
    );
    assert!(to("ops@example.org").text.contains("bad line"));
    assert!(to("ops@example.org").text.contains('4'), "the exit code is told");
    assert!(
        to("listener@example.org").text.contains("bad line"),
        "another rule hears of the outcome"
    );
    site.drop_file("drop/2.csv", b"good line\n");
    let mails = site.mails(4).await;
    assert!(mails[2..].iter().any(|mail| mail.to == ["ops@example.org"]));
    assert!(mails[2..].iter().any(|mail| mail.to == ["boss@example.org"]));
    site.until("the files are moved", || {
        site.path("failed/1.csv").is_file() && site.path("done/2.csv").is_file()
    })
    .await;
    assert!(!site.path("drop/1.csv").exists() && !site.path("drop/2.csv").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn once_looks_sends_and_exits_and_waits_with_75_for_a_server_that_is_busy() {
    let mut settings = Settings::open();
    let busy = Act::Say("451 4.3.2 busy, come back later".into());
    settings.faults = vec![Faults::one(At::line("MAIL"), busy), Faults::default()];
    let site = Site::with(settings, EACH_FILE).await;
    assert!(
        site.run(&["run", "--once"]).status.success(),
        "the first look remembers what lies there"
    );
    site.drop_file("drop/a.txt", b"a");
    let busy = site.run(&["run", "--once"]);
    assert_eq!(busy.status.code(), Some(75), "{}", text(&busy.stderr));
    let waiting = json_lines(&site.ok(&["outbox", "list", "--json"]));
    assert_eq!(waiting[0]["state"], "deferred");
    assert_eq!(waiting[0]["reason"]["reply"], "451 4.3.2 busy, come back later");
    site.ok(&["outbox", "retry", &waiting[0]["id"].to_string()]);
    let again = site.run(&["run", "--once"]);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    assert_eq!(site.mails(1).await[0].attachments[0].0, "a.txt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_owner_of_the_same_state_exits_75_and_says_who_holds_it() {
    let site = Site::new(EACH_FILE).await;
    let daemon = site.started().await;
    for arguments in [&["run"] as &[&str], &["run", "--once"]] {
        let second = site.run(arguments);
        assert_eq!(second.status.code(), Some(75));
        assert!(
            text(&second.stderr).contains(&format!("process {}", daemon.id())),
            "{}",
            text(&second.stderr)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_is_all_or_nothing_and_says_which() {
    let site = Site::new(EACH_FILE).await;
    let daemon = site.started().await;
    site.write("rules/rules.yaml", "rules:\n  each:\n    wehn: {}\n");
    let refused = site.run(&["reload"]);
    assert_eq!(refused.status.code(), Some(78), "{}", text(&refused.stderr));
    assert!(
        text(&refused.stderr).contains("wehn"),
        "{}",
        text(&refused.stderr)
    );
    site.drop_file("drop/still-the-old-rule.txt", b"1");
    assert_eq!(site.mails(1).await[0].to, ["ap@example.org"]);
    site.write(
        "rules/rules.yaml",
        &EACH_FILE.replace("ap@example.org", "new@example.org"),
    );
    assert_eq!(site.ok(&["reload"]).trim(), "reloaded");
    site.drop_file("drop/the-new-rule.txt", b"2");
    assert_eq!(site.mails(2).await[1].to, ["new@example.org"]);
    // A bare SIGHUP does the same.
    site.write(
        "rules/rules.yaml",
        &EACH_FILE.replace("ap@example.org", "third@example.org"),
    );
    daemon.signal(Signal::HUP);
    site.until("the reload is logged", || {
        site.log().matches("setup reloaded").count() == 2
    })
    .await;
    site.drop_file("drop/the-third-rule.txt", b"3");
    assert_eq!(site.mails(3).await[2].to, ["third@example.org"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_refused_are_told_and_accepted_ones_never_get_it_twice() {
    let mut settings = Settings::open();
    settings.faults = vec![
        Faults {
            at: vec![
                (
                    At::line("RCPT TO:<gone@"),
                    Act::Say("550 5.1.1 no such user".into()),
                ),
                (
                    At::line("RCPT TO:<busy@"),
                    Act::Say("450 4.2.1 mailbox busy".into()),
                ),
            ],
            ..Faults::default()
        },
        Faults::default(),
    ];
    let rules = EACH_FILE.replace(
        "to: ap@example.org",
        "to: [ap@example.org, gone@example.org, busy@example.org]",
    );
    let site = Site::with(settings, &rules).await;
    site.run(&["run", "--once"]);
    site.drop_file("drop/a.txt", b"a");
    assert_eq!(site.run(&["run", "--once"]).status.code(), Some(75));
    let entry = &json_lines(&site.ok(&["outbox", "list", "--json"]))[0];
    assert_eq!(entry["state"], "deferred");
    let shown = site.ok(&["outbox", "show", &entry["id"].to_string()]);
    assert!(
        shown.contains("550 5.1.1 no such user") && shown.contains("450 4.2.1 mailbox busy"),
        "{shown}"
    );
    site.ok(&["outbox", "retry", &entry["id"].to_string()]);
    assert_eq!(site.run(&["run", "--once"]).status.code(), Some(0));
    let to: Vec<_> = site.mails(2).await.into_iter().map(|mail| mail.to).collect();
    assert_eq!(to, [["ap@example.org"], ["busy@example.org"]]);
    let status = site.ok(&["status"]);
    assert!(
        status.contains("gone@example.org"),
        "a refused recipient is a trouble: {status}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_whose_answer_never_came_is_unknown_first_and_then_follows_its_policy() {
    for (policy, state, copies) in [("resend", "accepted", 2), ("hold", "unknown", 1)] {
        let mut settings = Settings::open();
        settings.faults = vec![Faults::one(At::Stored, Act::Cut), Faults::default()];
        let site = Site::with(settings, EACH_FILE).await;
        site.write(
            "tidings.yaml",
            &site.settings(&format!(
                "outbox: {{ on_unknown: {policy}, retry: {{ first: 1s }} }}\n"
            )),
        );
        let daemon = site.started().await;
        site.drop_file("drop/a.txt", b"a");
        let mails = site.mails(copies).await;
        site.until("the entry settled", || {
            json_lines(&site.ok(&["outbox", "list", "--json"]))
                .iter()
                .any(|entry| entry["state"] == state)
        })
        .await;
        assert!(
            mails.iter().all(|mail| mail.bytes == mails[0].bytes),
            "the same bytes each time"
        );
        let shown = site.ok(&["outbox", "show", "1", "--json"]);
        assert!(shown.contains("\"unknown\""), "{shown}");
        daemon.stop();
        assert_eq!(site.mail.messages().len(), copies, "{policy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_reports_a_job_that_runs_elsewhere_even_while_no_daemon_runs() {
    let site = Site::new(IMPORT).await;
    script(&site, "import", "#!/bin/sh\n");
    site.ok(&["run", "--once"]);
    let run = site.run(&[
        "exec",
        "imp-elsewhere",
        "--",
        "/bin/sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ]);
    assert_eq!(run.status.code(), Some(7));
    assert_eq!(
        (text(&run.stdout), text(&run.stderr)),
        ("out\n".to_owned(), "err\n".to_owned())
    );
    assert_eq!(site.run(&["run", "--once"]).status.code(), Some(0));
    let mails = site.mails(1).await;
    assert_eq!(mails[0].to, ["listener@example.org"]);
    assert!(
        mails[0].text.contains("out") && mails[0].text.contains("err"),
        "{}",
        mails[0].text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_killed_with_the_daemon_is_reported_lost_and_not_run_again() {
    let site = Site::new(IMPORT).await;
    script(
        &site,
        "import",
        "#!/bin/sh\necho started >> runs\nexec sleep 600\n",
    );
    let daemon = site.started().await;
    site.drop_file("drop/1.csv", b"x\n");
    site.until("the job runs", || site.path("runs").exists()).await;
    daemon.kill();
    let _daemon = site.started().await;
    let mails = site.mails(2).await;
    assert!(
        mails
            .iter()
            .any(|mail| mail.to == ["ops@example.org"] && mail.text.contains("not known")),
        "{mails:?}"
    );
    assert_eq!(std::fs::read_to_string(site.path("runs")).unwrap(), "started\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_fails_at_run_time_holds_the_mail_and_retry_after_the_fix_sends_it() {
    let site = Site::new(&EACH_FILE.replace("to: ap@example.org", "to: \"{{file.stem}}@example.org\"")).await;
    site.write(
        "tidings.yaml",
        &site.settings("recipients: { allow: [\"*@example.org\"] }\n"),
    );
    site.run(&["run", "--once"]);
    site.drop_file("drop/no address here.txt", b"a");
    assert_eq!(site.run(&["run", "--once"]).status.code(), Some(75));
    let entry = &json_lines(&site.ok(&["outbox", "list", "--json"]))[0];
    assert_eq!(entry["state"], "held");
    site.write("rules/rules.yaml", EACH_FILE);
    site.ok(&["outbox", "retry", &entry["id"].to_string()]);
    assert_eq!(site.run(&["run", "--once"]).status.code(), Some(0));
    assert_eq!(site.mails(1).await[0].to, ["ap@example.org"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_why_a_file_is_or_is_not_mailed() {
    let site = Site::new(
        r#"
rules:
  big-pdf:
    when: { file_arrives: { in: drop, match: "*.pdf" } }
    if: file.size > 100
    mail: { to: ap@example.org, template: file-arrived }
"#,
    )
    .await;
    site.drop_file("drop/small.pdf", b"small");
    let explained = site.ok(&["explain", "file", site.path("drop/small.pdf").to_str().unwrap()]);
    assert!(
        explained.contains("its condition says no") && explained.contains("file.size"),
        "{explained}"
    );
    let explained = site.ok(&["explain", "file", site.path("drop/other.txt").to_str().unwrap()]);
    assert!(explained.contains("does not match `*.pdf`"), "{explained}");
    site.run(&["run", "--once"]);
    site.drop_file("drop/large.pdf", &[b'x'; 200]);
    site.ok(&["run", "--once"]);
    let explained = site.ok(&["explain", "file", site.path("drop/large.pdf").to_str().unwrap()]);
    assert!(
        explained.contains("accepted") && explained.contains("250"),
        "{explained}"
    );
    let explained = site.ok(&["explain", "mail", "1"]);
    assert!(
        explained.contains("rule big-pdf: fired") && explained.contains("server"),
        "{explained}"
    );
    let json =
        |arguments: &[&str]| -> serde_json::Value { serde_json::from_str(&site.ok(arguments)).unwrap() };
    let explained = json(&[
        "explain",
        "--json",
        "file",
        site.path("drop/small.pdf").to_str().unwrap(),
    ]);
    assert_eq!(explained["rules"][0]["fires"], false, "{explained}");
    let explained = json(&["explain", "mail", "1", "--json"]);
    assert_eq!(explained["entry"]["state"], "accepted", "{explained}");
    let explained = json(&["explain", "job", "nobody", "--exit", "2", "--json"]);
    assert_eq!(explained["rules"], serde_json::json!([]), "{explained}");
    let preview = json(&["preview", "big-pdf", "--json"]);
    assert_eq!(preview["mail"]["to"][0], "ap@example.org", "{preview}");
    let sent = json(&["send", "--to", "ap@example.org", "--json"]);
    assert_eq!(sent["outcome"], "accepted", "{sent}");
    let preview = site.ok(&["preview", "big-pdf"]);
    assert!(preview.contains("to       ap@example.org"), "{preview}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_due_once_across_restarts() {
    let site = Site::new(
        r#"
rules:
  tick:
    when: { schedule: { every: 2s } }
    mail: { to: ops@example.org, template: plain, subject: "tick {{schedule.due}}" }
"#,
    )
    .await;
    let daemon = site.started().await;
    site.mails(2).await;
    daemon.stop();
    let daemon = site.started().await;
    site.mails(4).await;
    daemon.stop();
    let mut subjects: Vec<_> = site.mails(4).await.into_iter().map(|mail| mail.subject).collect();
    let count = subjects.len();
    subjects.sort();
    subjects.dedup();
    assert_eq!(subjects.len(), count, "no slot twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_folder_that_vanishes_is_a_trouble_until_it_is_back_and_mails_nothing_twice() {
    let site = Site::new(EACH_FILE).await;
    let _daemon = site.started().await;
    site.drop_file("drop/a.txt", b"a");
    site.mails(1).await;
    std::fs::rename(site.path("drop"), site.path("away")).unwrap();
    site.until("the trouble is told", || {
        site.ok(&["status"]).contains("troubles:\n")
    })
    .await;
    std::fs::rename(site.path("away"), site.path("drop")).unwrap();
    site.until("the trouble is over", || {
        site.ok(&["status"]).contains("troubles: none")
    })
    .await;
    site.drop_file("drop/b.txt", b"b");
    let mails = site.mails(2).await;
    assert_eq!(mails[1].attachments[0].0, "b.txt");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_before_the_setup_changed_is_mailed_by_the_rules_there_are_now() {
    let rule = EACH_FILE.replace(", attach: \"{{file.path}}\"", "");
    let site = Site::new(&rule).await;
    site.ok(&["run", "--once"]);
    // A folder's watch has another name once its `settle` is another: this event bears the name of before.
    let store = Store::open(&site.path("state/tidings.db"), Clock::system())
        .await
        .unwrap();
    let file = FileRef {
        root: site.path("drop"),
        relative: "a.txt".into(),
        size: 1,
        mtime_ns: 1,
    };
    let event = NewEvent {
        key: "recorded before".into(),
        kind: Kind::FileArrives,
        source: "the name of before".into(),
        subject: "a.txt".into(),
        time: jiff::Timestamp::now(),
        facts: serde_json::Map::from_iter([("file".to_owned(), file.facts())]),
        file: Some(file),
        origin: None,
        case: None,
    };
    let events = vec![event];
    let batch = Batch {
        events,
        ..Batch::default()
    };
    store.record(batch).await.unwrap();
    drop(store);
    assert_eq!(site.run(&["run", "--once"]).status.code(), Some(0));
    assert_eq!(site.mails(1).await[0].subject, "New file: a.txt");
}
