//! Troubles: told once when they begin and once when they are over, by an account that does not share them, and
//! never because of themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Site, json_lines};
use serde_json::Value;
use tidings::sandbox::smtp::{Act, At, Faults, Settings};

const WATCHED: &str = r#"
rules:
  each:
    when: { file_arrives: { in: drop, match: "*.txt" } }
    mail: { to: ap@example.org, template: file-arrived }
  watchdog:
    when: { trouble: {} }
    mail: { to: ops@example.org, template: trouble }
    on_recovery: { mail: { to: ops@example.org, template: trouble } }
"#;

/// A server that takes nothing from anybody on its first connections.
fn refusing(at: At, reply: &str, connections: usize) -> Settings {
    let mut settings = Settings::open();
    settings.faults = vec![Faults::one(at, Act::Say(reply.to_owned())); connections];
    settings.faults.push(Faults::default());
    settings
}

fn troubles(site: &Site) -> Vec<Value> {
    let mut events = json_lines(&site.ok(&["events", "--type", "trouble", "--json"]));
    events.reverse();
    events
}

/// The mails that account `spare` wrote.
fn written(site: &Site) -> Vec<String> {
    let Ok(folder) = std::fs::read_dir(site.path("out")) else {
        return Vec::new();
    };
    folder
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect()
}

fn with_a_spare_account(site: &Site) {
    let settings = site.settings("").replace(
        "accounts:\n",
        "accounts:\n  aside: { transport: file, folder: no, user: login }\n  \
         spare: { transport: file, folder: out, user: watch@example.org }\n",
    );
    site.write("tidings.yaml", &settings);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trouble_of_the_default_account_leaves_by_another_and_its_end_is_told() {
    let server = refusing(At::line("EHLO"), "550 5.7.1 we do not know you", 1);
    let site = Site::with(server, WATCHED).await;
    with_a_spare_account(&site);
    site.ok(&["run", "--once"]);
    site.drop_file("drop/a.txt", b"a");
    assert_eq!(site.run(&["run", "--once"]).status.code(), Some(77));
    let begun = troubles(&site);
    assert_eq!(begun.len(), 1, "{begun:?}");
    assert_eq!(begun[0]["facts"]["trouble"]["kind"], "account");
    assert_eq!(begun[0]["facts"]["trouble"]["subject"], "relay");
    assert_eq!(begun[0]["facts"]["trouble"]["ended"], Value::Null);
    let mails = written(&site);
    assert_eq!(mails.len(), 1);
    assert!(
        mails[0].contains("From: Robot <watch@example.org>"),
        "{}",
        mails[0]
    );
    assert!(
        mails[0].contains("Subject: Needs you: account relay"),
        "{}",
        mails[0]
    );
    assert!(site.mail.messages().is_empty());
    site.ok(&["outbox", "retry", "--yes", "--state", "deferred"]);
    site.ok(&["run", "--once"]);
    let mails = site.mails(2).await;
    let over = mails.iter().find(|mail| mail.to == ["ops@example.org"]).unwrap();
    assert_eq!(over.subject, "Mended: account relay");
    assert!(over.text.contains("Lasted:"), "{}", over.text);
    assert_eq!(troubles(&site).len(), 2);
    assert!(troubles(&site)[1]["facts"]["trouble"]["lasted"].is_number());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_names_the_account_and_a_setup_with_no_other_wait_for_it_and_say_so() {
    for named in [true, false] {
        let server = refusing(At::line("EHLO"), "550 5.7.1 we do not know you", 9);
        let rules = match named {
            true => WATCHED.replace("{ to: ops@", "{ account: relay, to: ops@"),
            false => WATCHED.to_owned(),
        };
        let site = Site::with(server, &rules).await;
        if named {
            with_a_spare_account(&site);
        }
        site.ok(&["run", "--once"]);
        site.drop_file("drop/a.txt", b"a");
        assert_eq!(site.run(&["run", "--once"]).status.code(), Some(77));
        assert_eq!(troubles(&site).len(), 1, "its own news is no news");
        assert!(written(&site).is_empty());
        let status = site.ok(&["status"]);
        assert_eq!(site.outbox_waiting(), 2, "{status}");
        assert!(status.contains("account relay"), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_of_a_trouble_never_raises_one() {
    let server = refusing(At::line("MAIL"), "554 5.6.0 not such a mail", 99);
    let rules = WATCHED.replace(
        "    mail: { to: ops@example.org, template: trouble }\n    on_recovery: { mail: { to: ops@example.org, template: trouble } }",
        "    run: { command: [\"false\"] }\n    on_failure: { mail: { to: ops@example.org, template: job-failed } }",
    );
    let site = Site::with(server, &rules).await;
    site.ok(&["run", "--once"]);
    site.drop_file("drop/a.txt", b"a");
    site.run(&["run", "--once"]);
    site.run(&["run", "--once"]);
    let told = troubles(&site);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["facts"]["trouble"]["kind"], "mail");
    let failed = json_lines(&site.ok(&["outbox", "list", "--state", "failed", "--json"]));
    let about: Vec<&str> = failed
        .iter()
        .map(|entry| entry["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        about,
        ["mail", "work", "mail"],
        "the news of the work was refused too"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_fails_with_the_facts_at_hand_is_a_trouble_of_its_rule_until_it_is_mended() {
    let rules = WATCHED
        .replace(
            "    mail: { to: ap@",
            "    if: int(file.stem) > 3\n    mail: { to: ap@",
        )
        .replace("{ trouble: {} }", "{ trouble: { of: rule } }");
    let site = Site::new(&rules).await;
    site.ok(&["run", "--once"]);
    site.drop_file("drop/seven.txt", b"a");
    site.run(&["run", "--once"]);
    let mails = site.mails(1).await;
    assert!(
        mails[0].subject.starts_with("Needs you: rule "),
        "{}",
        mails[0].subject
    );
    assert!(mails[0].text.contains("int(file.stem) > 3"), "{}", mails[0].text);
    site.write(
        "rules/rules.yaml",
        &rules.replace("int(file.stem) > 3", "file.size > 0"),
    );
    site.ok(&["outbox", "retry", "--yes", "--state", "held"]);
    site.ok(&["run", "--once"]);
    let mails = site.mails(3).await;
    assert!(mails.iter().any(|mail| mail.to == ["ap@example.org"]));
    assert!(mails.iter().any(|mail| mail.subject.starts_with("Mended: rule ")));
}
