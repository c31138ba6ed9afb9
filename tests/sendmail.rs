//! `tidings sendmail` as other programs call it: by its own name or by a link, with and without a daemon.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use assert_cmd::cargo::cargo_bin;
use common::{Site, json_lines, text};
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

const HANDED: &str =
    "recipients: { groups: { ops: [ops@example.org, oncall@example.org] }, allow: ['*@example.org'] }
handed_in: { senders: { scanner@old.local: 'Scans <robot@example.org>' }, recipients: { root: ops } }
";

async fn site() -> Site {
    let site = Site::new("rules: {}\n").await;
    site.write("tidings.yaml", &site.settings(HANDED));
    std::os::unix::fs::symlink(cargo_bin("tidings"), site.path("sendmail")).unwrap();
    std::os::unix::fs::symlink(cargo_bin("tidings"), site.path("mailq")).unwrap();
    site
}

fn pipe(mut command: Command, message: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that refuses the command line reads nothing.
    let _ = child.stdin.take().unwrap().write_all(message);
    child.wait_with_output().unwrap()
}

/// Calls the link as cron and others do: with hardly any environment.
fn sendmail(site: &Site, arguments: &[&str], message: &str) -> Output {
    let mut command = Command::new(site.path("sendmail"));
    command
        .env_clear()
        .env("TIDINGS_CONFIG", site.dir())
        .current_dir("/")
        .args(arguments);
    pipe(command, message.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_s_mail_leaves_through_the_outbox_with_its_own_words() {
    let site = site().await;
    let taken = sendmail(
        &site,
        &["-t", "-i", "-oem", "-f", "ignored@elsewhere.example"],
        "From: Ann <robot@example.org>\nTo: a@example.org\nCc: root\nBcc: hidden@example.org\n\
         Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nX-Mine: yes\nMIME-Version: 1.0\n\
         Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nä\n.\n..\nend\n",
    );
    assert_eq!(
        (taken.status.code(), text(&taken.stderr)),
        (Some(0), String::new())
    );
    assert!(taken.stdout.is_empty());

    // It is there before anything runs.
    let list = site.ok(&["outbox", "list"]);
    assert!(
        list.contains("ready") && list.contains("sendmail  to a@example.org"),
        "{list}"
    );
    let show = site.ok(&["outbox", "show", "1"]);
    assert!(show.contains("handed in sendmail by "), "{show}");
    assert!(
        show.contains("hidden@example.org") && show.contains("Grüße"),
        "{show}"
    );
    let frozen = site.ok(&["outbox", "show", "1", "--message"]);

    site.ok(&["run", "--once"]);
    let mail = site.mails(1).await.remove(0);
    assert_eq!(text(&mail.bytes), frozen, "the bytes are those that were frozen");
    assert_eq!(mail.from, "robot@example.org");
    assert_eq!(
        mail.to,
        [
            "a@example.org",
            "ops@example.org",
            "oncall@example.org",
            "hidden@example.org"
        ]
    );
    let whole = text(&mail.bytes);
    assert!(!whole.contains("hidden") && !whole.contains("Bcc"), "{whole}");
    assert!(whole.contains("From: Ann <robot@example.org>\r\n"), "{whole}");
    assert!(
        whole.contains("Cc: ops@example.org,\r\n oncall@example.org\r\n"),
        "{whole}"
    );
    assert!(
        whole.contains("X-Mine: yes\r\n") && whole.contains("\r\nDate: "),
        "{whole}"
    );
    assert!(!whole.contains("Auto-Submitted"), "{whole}");
    assert!(whole.ends_with("\r\n\r\nä\r\n.\r\n..\r\nend\r\n"), "{whole}");

    let explained = site.ok(&["explain", "mail", "1"]);
    assert!(explained.contains("accepted by the mail server"), "{explained}");
    assert!(explained.contains("a mail was handed in by"), "{explained}");
    assert!(explained.contains("By `tidings sendmail`"), "{explained}");
    let events = json_lines(&site.ok(&["events", "list", "--json"]));
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["type"], "mail_handed_in");
}

#[tokio::test(flavor = "multi_thread")]
async fn cron_s_mail_leaves_from_the_default_mailbox_to_whom_root_stands_for() {
    let site = site().await;
    let host = tidings::app::host();
    let taken = sendmail(
        &site,
        &["-i", "-FCronDaemon", "-B8BITMIME", "-oem", "root"],
        &format!(
            "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@{host}> /usr/bin/backup\nMIME-Version: 1.0\n\
             Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\nX-Cron-Env: <SHELL=/bin/sh>\n\n\
             12%\r50%\r100%\nfertig für heute\n"
        ),
    );
    assert_eq!(taken.status.code(), Some(0), "{}", text(&taken.stderr));
    site.ok(&["run", "--once"]);
    let mail = site.mails(1).await.remove(0);
    let whole = text(&mail.bytes);
    assert!(
        whole.starts_with("From: Robot <robot@example.org>\r\nX-Original-From: root (Cron Daemon)\r\n"),
        "{whole}"
    );
    assert!(
        whole.contains("To: ops@example.org,\r\n oncall@example.org\r\n"),
        "{whole}"
    );
    assert_eq!(
        mail.text.replace("\r\n", "\n"),
        "12%\r50%\r100%\nfertig für heute\n",
        "{whole}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_says_so_with_a_code_that_sendmail_has_and_keeps_nothing() {
    let site = site().await;
    let say = |arguments: &[&str], message: &str| {
        let output = sendmail(&site, arguments, message);
        (output.status.code().unwrap(), text(&output.stderr))
    };
    for (arguments, message, code, words) in [
        (vec![], "To: a@example.org\n\nx", 64, "no recipient"),
        (vec!["-t"], "Subject: x\n\nx", 64, "it has no recipient"),
        (vec!["-Z"], "", 64, "unknown option"),
        (
            vec!["nobody"],
            "\nx",
            67,
            "nobody is known here by the name `nobody`",
        ),
        (
            vec!["a@elsewhere.example"],
            "\nx",
            77,
            "`recipients.allow` does not allow it",
        ),
        (
            vec!["a@example.org"],
            "From: ceo@example.org\n\nx",
            77,
            "no account may send as ceo@example.org",
        ),
        (
            vec!["a@example.org"],
            "From: robot@example.org\nFrom: ceo@example.org\n\nx",
            65,
            "more than one From",
        ),
        (
            vec!["-t"],
            "To: a@example.org b@example.org\n\nx",
            65,
            "cannot be read",
        ),
        (vec!["a@example.org,-oQ@example.org"], "\nx", 77, "for an option"),
    ] {
        let (got, said) = say(&arguments, message);
        assert_eq!(got, code, "{arguments:?}: {said}");
        assert!(
            said.contains("NOT taken") && said.contains(words) || got == 64 && said.contains(words),
            "{said}"
        );
    }
    site.write("tidings.yaml", "accounts: [\n");
    assert_eq!(say(&["a@example.org"], "\nx").0, 78);
    site.write("tidings.yaml", &site.settings(HANDED));
    assert_eq!(site.ok(&["outbox", "list", "--json"]), "");
    assert_eq!(site.ok(&["events", "list", "--json"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_on_disk_before_zero_is_said_and_a_store_that_is_not_there_says_try_later() {
    let site = site().await;
    let output = sendmail(&site, &["-v", "root"], "Subject: one\n\nx\n.\nnot this\n");
    assert_eq!(output.status.code(), Some(0));
    assert!(
        text(&output.stderr).contains("kept as entry 1"),
        "{}",
        text(&output.stderr)
    );
    let frozen = site.ok(&["outbox", "show", "1", "--message"]);
    assert!(frozen.ends_with("\r\n\r\nx\r\n"), "{frozen}");

    let mailq = Command::new(site.path("mailq"))
        .env("TIDINGS_CONFIG", site.dir())
        .output()
        .unwrap();
    assert!(
        text(&mailq.stdout).contains("to ops@example.org"),
        "{}",
        text(&mailq.stdout)
    );
    site.ok(&["run", "--once"]);
    let mailq = Command::new(site.path("mailq"))
        .env("TIDINGS_CONFIG", site.dir())
        .output()
        .unwrap();
    assert_eq!(text(&mailq.stdout), "Mail queue is empty\n");

    // A file where the state folder should be.
    site.write("nowhere", "");
    site.write(
        "tidings.yaml",
        &site.settings(&format!(
            "{HANDED}outbox: {{ store: 'sqlite:nowhere/tidings.db' }}\n"
        )),
    );
    let output = sendmail(&site, &["root"], "Subject: two\n\nx\n");
    assert_eq!(output.status.code(), Some(75), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("NOT taken"),
        "{}",
        text(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_mail_is_kept_in_the_spool_and_one_that_is_too_large_is_refused() {
    let site = site().await;
    let large = format!("Subject: large\n\n{}", "all work and no play\n".repeat(50_000));
    assert_eq!(sendmail(&site, &["root"], &large).status.code(), Some(0));
    site.ok(&["run", "--once"]);
    let mail = site.mails(1).await.remove(0);
    assert_eq!(mail.text.lines().count(), 50_000);
    let limit = HANDED.replace("handed_in: {", "handed_in: { max_size: 100kB,");
    site.write("tidings.yaml", &site.settings(&limit));
    let output = sendmail(&site, &["root"], &large);
    assert_eq!(output.status.code(), Some(65), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("larger than 100000 bytes"),
        "{}",
        text(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_itself_takes_the_same_and_tells_who_is_meant() {
    let site = site().await;
    let output = pipe(
        site.command(&["sendmail", "-i", "--", "root"]),
        b"Subject: x\n\n.\nx\n",
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        site.ok(&["outbox", "show", "1", "--message"])
            .ends_with("\r\n\r\n.\r\nx\r\n")
    );
    let who = site.ok(&["sendmail", "-bv", "root", "a@example.org"]);
    assert_eq!(
        who,
        "root ... ops@example.org, oncall@example.org\na@example.org ... a@example.org\n"
    );
    assert!(site.ok(&["sendmail", "--help"]).contains("-t "));
}
