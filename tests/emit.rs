//! Events that somebody emits, through the whole program: the command, the drop folder, rules that hear
//! them and rules that emit, the dead-man's switch.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use common::{Site, text};
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidings::clock::Clock;
use tidings::event::{Event, EventId, Kind};
use tidings::store::{EventFilter, Store};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const BACKUP: &str = "rules:\n  backup:\n    when: { event: { type: \"com.example.backup.*\" } }\n    data: { owner: ada }\n    \
     mail: { to: robot@example.org, subject: \"{{cloudevent.type}} {{cloudevent.subject}}: {{data.rows}} for {{data.owner}}\" }\n";

fn fed(site: &Site, arguments: &[&str], stdin: &str) -> Output {
    let mut child = site
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

async fn events(site: &Site) -> Vec<Event> {
    let store = Store::open(&site.path("state/tidings.db"), Clock::system())
        .await
        .unwrap();
    let filter = EventFilter {
        after: Some(EventId(0)),
        limit: 1000,
        ..EventFilter::default()
    };
    store.events(filter).await.unwrap()
}

fn emitted(events: &[Event]) -> Vec<String> {
    let of_kind = events.iter().filter(|event| event.happening.kind == Kind::Event);
    of_kind.map(|event| event.happening.subject.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_emitted_while_nothing_ran_is_mailed_by_the_next_run_and_once_only() {
    let site = Site::new(BACKUP).await;
    let said = [
        "emit",
        "com.example.backup.done",
        "--source",
        "//db",
        "--id",
        "7",
        "--subject",
        "db1",
        "--data",
        "{\"rows\": 12, \"owner\": \"mallory\"}",
    ];
    let first = site.run(&said);
    assert!(
        first.status.success() && first.stdout.is_empty() && first.stderr.is_empty(),
        "{}",
        text(&first.stderr)
    );
    let again = site.run(&said);
    assert!(
        again.status.success() && text(&again.stderr).contains("known already"),
        "{}",
        text(&again.stderr)
    );
    site.ok(&["emit", "com.example.restore.done"]);
    site.ok(&["run", "--once"]);
    let mails = site.mails(1).await;
    // What the rule says itself wins over what a stranger says.
    assert_eq!(mails[0].subject, "com.example.backup.done db1: 12 for ada");
    assert_eq!(emitted(&events(&site).await).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_daemon_hears_the_command_stdin_and_the_drop_folder() {
    let site = Site::new(BACKUP).await;
    std::fs::create_dir(site.path("inbox")).unwrap();
    site.write("tidings.yaml", &site.settings("emitted: { folder: inbox }\n"));
    let mut daemon = site.started().await;
    let event = |id: &str| json!({ "specversion": "1.0", "id": id, "source": "/t", "type": "com.example.backup.x", "data": { "rows": 1 } });
    site.write("data.json", "{\"rows\": 5}");
    let file = format!("@{}", site.path("data.json").display());
    site.ok(&["emit", "com.example.backup.file", "-d", &file]);
    assert!(
        fed(
            &site,
            &["emit", "com.example.backup.in", "--data", "-"],
            "{\"rows\": 6}"
        )
        .status
        .success()
    );
    assert!(
        fed(&site, &["emit", "-"], &event("1").to_string())
            .status
            .success()
    );
    assert!(
        fed(&site, &["emit", "--cloudevent"], &event("2").to_string())
            .status
            .success()
    );
    site.drop_file("inbox/a.json", event("3").to_string().as_bytes());
    site.drop_file("inbox/b.json", event("2").to_string().as_bytes());
    site.drop_file("inbox/c.json", b"{ \"specversion\": \"1.0\", \"id\": 4 }");
    site.mails(5).await;
    site.until("bad ones are aside", || {
        site.path("inbox/refused/c.json").exists()
    })
    .await;
    site.until("all taken", || {
        !site.path("inbox/a.json").exists() && !site.path("inbox/b.json").exists()
    })
    .await;
    let status: Value = serde_json::from_str(&site.ok(&["status", "--json"])).unwrap();
    let trouble = status["troubles"][0]["reason"]["text"].as_str().unwrap();
    assert!(
        trouble.contains("c.json") && trouble.contains("`id` must be a text"),
        "{trouble}"
    );
    std::fs::remove_file(site.path("inbox/refused/c.json")).unwrap();
    site.until("the trouble is over", || {
        site.ok(&["status"]).contains("troubles: none")
    })
    .await;
    assert_eq!(site.mails(5).await.len(), 5, "what came twice counts once");
    assert!(daemon.is_running());
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_its_exit_code_and_records_nothing() {
    let site = Site::new(BACKUP).await;
    let refused: [(&[&str], &str, i32, &str); 9] = [
        (&["emit", "a", "--data", "{"], "", 65, "not JSON"),
        (&["emit", "a", "--data", "plain"], "", 65, "in quotes"),
        (
            &["emit", "a", "--data", "@nowhere.json"],
            "",
            65,
            "cannot read nowhere.json",
        ),
        (&["emit", ""], "", 65, "`type` is empty"),
        (&["emit", "a", "--time", "noon"], "", 65, "must be a time"),
        (&["emit", "a", "--source", "two words"], "", 65, "URI"),
        (&["emit", "-"], "{\"id\": \"1\"}", 65, "`specversion` is missing"),
        (&["emit", "-", "--id", "1"], "", 64, "for itself"),
        (&["emit"], "", 64, "TYPE"),
    ];
    for (arguments, stdin, code, words) in refused {
        let output = fed(&site, arguments, stdin);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    let large = format!("\"{}\"", "x".repeat(1_000_001));
    assert_eq!(
        fed(&site, &["emit", "a", "--data", "-"], &large).status.code(),
        Some(65)
    );
    assert!(!site.path("state/tidings.db").exists() || events(&site).await.is_empty());
    let elsewhere = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(assert_cmd::cargo::cargo_bin!("tidings"))
        .arg("-C")
        .arg(elsewhere.path())
        .args(["emit", "a"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_the_store_cannot_take_waits_as_a_file() {
    let site = Site::new(BACKUP).await;
    // A folder in its place: no database can be opened there.
    std::fs::create_dir_all(site.path("state/tidings.db")).unwrap();
    let output = site.run(&["emit", "com.example.backup.done", "--data", "{\"rows\": 3}"]);
    assert!(output.status.success());
    assert!(
        text(&output.stderr).contains("waits in"),
        "{}",
        text(&output.stderr)
    );
    std::fs::remove_dir(site.path("state/tidings.db")).unwrap();
    site.ok(&["run", "--once"]);
    assert_eq!(
        site.mails(1).await[0].subject,
        "com.example.backup.done : 3 for ada"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_rules_by_events_ends_in_one_mail_with_what_the_first_knew() {
    let site = Site::new(
        "rules:\n  arrived:\n    when: { file_arrives: { in: drop, existing: process } }\n    \
         emit: { type: app.file.arrived, subject: \"{{file.name}}\", data: { size: \"{{file.size}}\", note: \"got {{file.name}}\" } }\n  \
         checked:\n    when: { event: { type: app.file.arrived, source: \"tidings/*\" } }\n    if: data.size > 3\n    \
         run: { command: [sh, -c, \"test {{data.size}} = 5\"] }\n    \
         on_success: { emit: { type: app.file.checked, data: { size: \"{{data.size}}\" } } }\n    \
         on_failure: { emit: { type: app.file.broken } }\n  \
         told:\n    when: { event: { type: [app.file.checked, app.file.broken] } }\n    \
         mail: { to: robot@example.org, subject: \"{{cloudevent.type}} {{data.size}} {{cloudevent.depth}}\" }\n",
    )
    .await;
    site.write("drop/small", "abc");
    site.write("drop/right", "abcde");
    for _ in 0..2 {
        site.ok(&["run", "--once"]);
    }
    assert_eq!(site.mails(1).await[0].subject, "app.file.checked 5 2");
    let events = events(&site).await;
    assert_eq!(
        emitted(&events),
        ["app.file.arrived", "app.file.arrived", "app.file.checked"]
    );
    let last = events
        .iter()
        .find(|event| event.happening.subject == "app.file.checked")
        .unwrap();
    assert_eq!(
        last.happening.facts["cloudevent"]["data"],
        json!({ "size": 5 }),
        "a number stays one"
    );
    assert_eq!(last.happening.source, "tidings/checked");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_made_is_held_told_and_made_after_the_fix() {
    let rule = |size: &str| {
        format!(
            "rules:\n  first:\n    when: {{ event: {{ type: start }} }}\n    emit: {{ type: next, data: {{ x: \"{{{{{size}}}}}\" }} }}\n  \
             second:\n    when: {{ event: {{ type: next }} }}\n    mail: {{ to: robot@example.org, subject: \"{{{{data.x}}}}\" }}\n  \
             telling:\n    when: {{ trouble: {{}} }}\n    emit: {{ type: next, data: {{ x: \"{{{{trouble.kind}}}}\" }} }}\n"
        )
    };
    let site = Site::new(&rule("data.missing")).await;
    site.ok(&["emit", "start", "--data", "{\"rows\": 12}"]);
    site.run(&["run", "--once"]);
    assert_eq!(site.mails(1).await[0].subject, "rule", "the trouble was told");
    let held = site.ok(&["outbox", "list", "--state", "held", "--json"]);
    let held = common::json_lines(&held);
    let held = match &held[0] {
        Value::Array(list) => list.clone(),
        _ => held,
    };
    assert_eq!(held.len(), 1, "{held:?}");
    site.write("rules/rules.yaml", &rule("data.rows"));
    site.ok(&["outbox", "retry", &held[0]["id"].to_string()]);
    site.run(&["run", "--once"]);
    let subjects: Vec<String> = site.mails(2).await.into_iter().map(|mail| mail.subject).collect();
    assert!(subjects.contains(&"12".to_owned()), "{subjects:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circle_that_check_cannot_see_ends_and_is_told() {
    let site = Site::new(
        "rules:\n  a:\n    when: { event: { type: \"ping.*\" } }\n    emit: { type: pong, data: { n: \"{{data.n}}\" } }\n",
    )
    .await;
    // As if so many rules had heard one another before.
    let mut event = tidings::source::emitted::CloudEvent::read(
        br#"{"specversion":"1.0","id":"1","source":"x","type":"ping.x","data":{"n":1}}"#,
    )
    .unwrap()
    .happening_as("deep".to_owned(), 15, jiff::Timestamp::now());
    let store = Store::open(&site.path("state/tidings.db"), Clock::system())
        .await
        .unwrap();
    for (key, depth) in [("k15", 15), ("k16", 16)] {
        event.key = key.to_owned();
        event.facts["cloudevent"]["depth"] = json!(depth);
        store
            .record(tidings::store::Batch {
                events: vec![event.clone()],
                ..Default::default()
            })
            .await
            .unwrap();
    }
    drop(store);
    site.run(&["run", "--once"]);
    let all = events(&site).await;
    assert_eq!(
        emitted(&all),
        ["ping.x", "ping.x", "pong"],
        "the 16th in a row is the last"
    );
    let pong = all
        .iter()
        .find(|event| event.happening.subject == "pong")
        .unwrap();
    assert_eq!(pong.happening.facts["cloudevent"]["depth"], 16);
    let status = site.ok(&["status"]);
    assert!(status.contains("rules go round in a circle"), "{status}");
}

/// A server on loopback that counts calls.
async fn pings() -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/uuid-of-ours", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let n = stream.read(&mut request).await.unwrap_or(0);
            if request[..n].starts_with(b"GET /uuid-of-ours ") {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK")
                .await;
        }
    });
    (url, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_mans_switch_is_called_while_the_daemon_runs_and_after_a_single_run() {
    let (url, count) = pings().await;
    let site = Site::new(BACKUP).await;
    site.write(
        "tidings.yaml",
        &site.settings("alive: { url: { env: PING_URL }, every: 1s }\n"),
    );
    let once = site
        .command(&["run", "--once"])
        .env("PING_URL", &url)
        .output()
        .unwrap();
    assert!(once.status.success(), "{}", text(&once.stderr));
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert!(site.ok(&["status"]).contains("dead-man's switch: called"));
    let daemon = site.daemon_with(&[("PING_URL", &url)]);
    site.until("it is called", || count.load(Ordering::SeqCst) >= 3)
        .await;
    daemon.stop();
    // Without the variable nothing else stops.
    let mut daemon = site.started().await;
    site.until("the failure shows", || {
        site.ok(&["status"])
            .contains("the environment variable PING_URL is not set")
    })
    .await;
    site.ok(&["emit", "com.example.backup.done", "--data", "{\"rows\": 1}"]);
    site.mails(1).await;
    assert!(daemon.is_running());
    assert!(!site.log().contains("uuid-of-ours"));
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_run_that_could_not_look_everywhere_nobody_is_called() {
    let (url, count) = pings().await;
    let site = Site::new(
        "rules:\n  r:\n    when: { file_arrives: { in: drop } }\n    mail: { to: robot@example.org }\n",
    )
    .await;
    site.write(
        "tidings.yaml",
        &site.settings(&format!("alive: {{ url: \"{url}\" }}\n")),
    );
    std::fs::remove_dir(site.path("drop")).unwrap();
    site.run(&["run", "--once"]);
    assert_eq!(count.load(Ordering::SeqCst), 0);
    std::fs::create_dir(site.path("drop")).unwrap();
    site.run(&["run", "--once"]);
    assert_eq!(count.load(Ordering::SeqCst), 1);
}
