//! Who means harm, and who is merely tired: the real binary as both of them meet it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Site, json_lines, text};
use mail_parser::MessageParser;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;
use tidings::sandbox::smtp::{Act, At, Faults, Settings};

const EACH_FILE: &str = r#"
rules:
  each:
    when: { file_arrives: { in: drop, match: "**/*" } }
    mail: { to: ap@example.org, template: file-arrived, attach: "{{file.path}}" }
"#;

/// Names that somebody who can drop files may think of.
const NAMES: &[&[u8]] = &[
    b"a\r\nBcc: evil@evil.example\r\n\r\nbody.txt",
    b"q\"uo'te;.txt",
    "inv\u{202e}fdp.exe".as_bytes(),
    b"ctl\x01\x1b[2J\x1b]0;title\x07.txt",
    b"bad\xff\xfe.txt",
    &[b'x'; 255],
    b"-rf",
    b".hidden",
    b"=?utf-8?B?ZXZpbA==?=.txt",
    b"$(touch pwned).txt",
    b"`touch pwned`;touch pwned|x&.txt",
    b"{{file.path}}",
    b"{{#each .}}{{this}}",
    b"<img src=x onerror=alert(1)>.html",
    "lines\u{2028}and\u{2029}marks\u{200b}\u{61c}.txt".as_bytes(),
    b"   ",
    b"a, b@evil.example",
    b"\"Boss\" <a@example.org>",
    b"..foo",
    b"x; filename=evil.exe",
    b"%0d%0aBcc: evil@evil.example",
];

/// Nothing of what a terminal, a log reader or a person's eye could be fooled by.
fn is_tame(text: &str) -> bool {
    text.chars().all(|c| {
        c == '\n'
            || !(c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200b}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
    })
}

fn script(site: &Site, name: &str, content: &str) {
    site.write(name, content);
    std::fs::set_permissions(site.path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn drop_bytes(site: &Site, name: &[u8], content: &[u8]) {
    let part = site.path(".part");
    std::fs::write(&part, content).unwrap();
    std::fs::rename(part, site.path("drop").join(OsStr::from_bytes(name))).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_come_through_the_whole_program_and_nowhere_mean_more_than_a_name() {
    let site = Site::new(
        r#"
rules:
  each:
    when: { file_arrives: { in: drop, match: "**/*" } }
    if: file.size > 0
    run: { command: [./job, "{{file.path}}", "{{file.name}}"], overlap: parallel }
    on_success:
      mail:
        to: ap@example.org
        template: job-succeeded
        subject: "Got {{file.name}}"
        headers: { X-File: "{{file.name}}" }
        attach: ["{{file.path}}"]
"#,
    )
    .await;
    // Each argument and variable with its length, so that nothing can pass for something else.
    script(
        &site,
        "job",
        "#!/bin/sh\ncat >/dev/null\n[ \"$TIDINGS_FILE_NAME\" ] || exit 3\n[ -f \"$1\" ] || exit 4\ncat \"$1\"\necho; printf '%s' \"$2\"\n",
    );
    assert!(site.run(&["run", "--once"]).status.success());
    for (number, name) in NAMES.iter().enumerate() {
        drop_bytes(&site, name, format!("content {number}").as_bytes());
    }
    let ran = site.run(&["run", "--once"]);
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    let mails = site.mails(NAMES.len()).await;
    let mut contents = BTreeSet::new();
    for mail in &mails {
        assert_eq!(mail.to, ["ap@example.org"]);
        let parsed = MessageParser::default().parse(&mail.bytes).unwrap();
        let fields: Vec<&str> = parsed.headers().iter().map(|header| header.name()).collect();
        let once: BTreeSet<String> = fields.iter().map(|name| name.to_lowercase()).collect();
        assert_eq!(fields.len(), once.len(), "a field twice: {fields:?}");
        assert!(!once.contains("bcc"), "{fields:?}");
        assert!(mail.subject.starts_with("Got"), "{}", mail.subject);
        assert!(is_tame(&mail.subject), "{:?}", mail.subject);
        // Marks of right-to-left scripts belong into a text; what turns or breaks lines does not.
        let body = mail.text.replace(['\r', '\u{200b}', '\u{61c}'], "");
        assert!(is_tame(&body), "{:?}", mail.text);
        assert_eq!(mail.attachments.len(), 1, "{:?}", mail.attachments);
        let (name, content) = &mail.attachments[0];
        assert!(
            is_tame(name) && !name.contains('/') && !name.is_empty(),
            "{name:?}"
        );
        contents.insert(text(content));
        let page = parsed.body_html(0).unwrap();
        assert!(!page.contains("<img src=x"), "a name became a tag");
        // A name that looks like a template stays what it is.
        if name.starts_with("{{") {
            assert!(mail.subject.contains(name.as_str()), "{}", mail.subject);
        }
    }
    assert_eq!(contents.len(), NAMES.len(), "each mail carries its own file");
    assert!(!site.path("pwned").exists() && !site.path("drop/pwned").exists());

    let mut said = vec![
        text(&ran.stderr),
        site.ok(&["status"]),
        site.ok(&["outbox", "list", "--limit", "200"]),
        site.ok(&["events", "list", "--limit", "200"]),
    ];
    for id in 1..=NAMES.len() {
        let id = id.to_string();
        said.push(site.ok(&["events", "show", &id]));
        said.push(site.ok(&["outbox", "show", &id]));
        said.push(site.ok(&["explain", "mail", &id]));
    }
    for name in NAMES {
        let path = site.path("drop").join(OsStr::from_bytes(name));
        let explained = site.command(&["explain", "file"]).arg(&path).output().unwrap();
        assert!(explained.status.success(), "{}", text(&explained.stderr));
        assert!(
            text(&explained.stdout).contains("entry "),
            "{}",
            text(&explained.stdout)
        );
        said.push(text(&explained.stdout));
    }
    for said in &said {
        assert!(is_tame(said), "{said:?}");
    }
    for json in [
        site.ok(&["outbox", "list", "--limit", "200", "--json"]),
        site.ok(&["events", "list", "--limit", "200", "--json"]),
    ] {
        assert_eq!(json_lines(&json).len(), 2 * NAMES.len(), "one object a line");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_cannot_be_composed_is_told_as_a_trouble_until_somebody_decides() {
    let site = Site::new(
        r#"
rules:
  each:
    when: { file_arrives: { in: drop } }
    mail: { to: "{{file.stem}}@example.org", template: file-arrived }
  told:
    when: { trouble: { of: mail } }
    mail: { to: it@example.org, template: trouble }
  told-in-vain:
    when: { trouble: { of: mail } }
    mail: { to: "{{trouble.kind}} nobody", template: trouble }
"#,
    )
    .await;
    site.write(
        "tidings.yaml",
        &site.settings("recipients: { allow: [\"*@example.org\"] }\n"),
    );
    site.run(&["run", "--once"]);
    site.drop_file("drop/eve%evil.example.txt", b"a");
    let ran = site.run(&["run", "--once"]);
    assert_eq!(ran.status.code(), Some(75), "{}", text(&ran.stderr));
    assert!(
        text(&ran.stderr).contains("held"),
        "the log says so: {}",
        text(&ran.stderr)
    );
    let mails = site.mails(1).await;
    assert_eq!(mails[0].to, ["it@example.org"]);
    assert!(mails[0].text.contains("eve%evil.example"), "{}", mails[0].text);
    let held = json_lines(&site.ok(&["outbox", "list", "--state", "held", "--json"]));
    assert_eq!(
        held.len(),
        2,
        "the mail itself and the news that could not be told; and no news of that news: {held:?}"
    );
    let status = site.ok(&["status"]);
    assert_eq!(status.matches("mail 1 of rule each").count(), 1, "{status}");
    assert!(!status.contains("told-in-vain"), "{status}");
    let explained = site.ok(&[
        "explain",
        "file",
        site.path("drop/eve%evil.example.txt").to_str().unwrap(),
    ]);
    assert!(explained.contains("that would be held"), "{explained}");
    let listed = site.ok(&["outbox", "list", "--state", "held"]);
    assert!(
        listed.contains("eve%evil.example.txt"),
        "which file it was about: {listed}"
    );
    for entry in held {
        site.ok(&["outbox", "cancel", &entry["id"].to_string()]);
    }
    assert!(site.ok(&["status"]).contains("troubles: none"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_composed_anew_after_the_rule_was_mended_ends_its_trouble() {
    let site = Site::new(&EACH_FILE.replace("attach: \"{{file.path}}\"", "attach: missing.pdf")).await;
    site.run(&["run", "--once"]);
    site.drop_file("drop/a.txt", b"a");
    assert_eq!(site.run(&["run", "--once"]).status.code(), Some(75));
    assert!(site.ok(&["status"]).contains("missing.pdf"));
    site.write("rules/rules.yaml", EACH_FILE);
    let held = json_lines(&site.ok(&["outbox", "list", "--state", "held", "--json"]));
    site.ok(&["outbox", "retry", &held[0]["id"].to_string()]);
    assert_eq!(site.run(&["run", "--once"]).status.code(), Some(0));
    assert_eq!(site.mails(1).await[0].attachments[0].0, "a.txt");
    assert!(site.ok(&["status"]).contains("troubles: none"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_workers_at_once_one_works_and_the_others_say_try_later() {
    let site = Site::new(EACH_FILE).await;
    site.run(&["run", "--once"]);
    for number in 0..5 {
        site.drop_file(&format!("drop/{number}.txt"), b"x");
    }
    let started: Vec<_> = (0..20)
        .map(|_| {
            site.command(&["run", "--once"])
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let codes: Vec<_> = started
        .into_iter()
        .map(|child| child.wait_with_output().unwrap().status.code())
        .collect();
    assert!(codes.iter().all(|code| matches!(code, Some(0 | 75))), "{codes:?}");
    assert!(codes.contains(&Some(0)), "{codes:?}");
    assert_eq!(site.mails(5).await.len(), 5);
    assert_eq!(site.mail.messages().len(), 5, "none twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_removed_under_the_daemon_stops_it_from_taking_in_what_it_cannot_keep() {
    let site = Site::new(EACH_FILE).await;
    let daemon = site.started().await;
    site.drop_file("drop/before.txt", b"a");
    site.mails(1).await;
    site.until("the outcome is kept", || site.outbox_waiting() == 0)
        .await;
    std::fs::rename(site.path("state"), site.path("moved")).unwrap();
    site.drop_file("drop/after.txt", b"b");
    site.until("it says so", || site.log().contains("was removed or replaced"))
        .await;
    std::fs::rename(site.path("moved"), site.path("state")).unwrap();
    let mails = site.mails(2).await;
    assert_eq!(
        mails[1].attachments[0].0, "after.txt",
        "back in its place, work goes on"
    );
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(site.mail.messages().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_full_of_garbage_is_refused_with_its_place_and_left_as_it_is() {
    let site = Site::new(EACH_FILE).await;
    let garbage = vec![0x5a; 50_000];
    site.run(&["run", "--once"]);
    std::fs::remove_dir_all(site.path("state")).unwrap();
    site.write("state/x", "");
    std::fs::write(site.path("state/tidings.db"), &garbage).unwrap();
    for arguments in [
        &["run"] as &[&str],
        &["run", "--once"],
        &["status"],
        &["outbox", "list"],
    ] {
        let refused = site.run(arguments);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(69), "{said}");
        assert!(
            said.contains("tidings.db") && said.contains("damaged") && said.contains("backup"),
            "{said}"
        );
    }
    assert_eq!(std::fs::read(site.path("state/tidings.db")).unwrap(), garbage);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_worker_finishes_what_is_on_the_wire_and_says_that_more_waits() {
    let mut settings = Settings::open();
    settings.faults = vec![Faults::one(At::Stored, Act::Wait(Duration::from_secs(2)))];
    let site = Site::with(settings, EACH_FILE).await;
    site.write(
        "tidings.yaml",
        &site.settings("").replace("connections: 4", "connections: 1"),
    );
    site.run(&["run", "--once"]);
    for number in 0..3 {
        site.drop_file(&format!("drop/{number}.txt"), b"x");
    }
    let worker = site
        .command(&["run", "--once"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    site.mails(1).await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(worker.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    let ended = worker.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(75), "{}", text(&ended.stderr));
    assert!(
        text(&ended.stderr).contains("stopped before all was done"),
        "{}",
        text(&ended.stderr)
    );
    let states: Vec<_> = json_lines(&site.ok(&["outbox", "list", "--json"]))
        .iter()
        .map(|entry| entry["state"].as_str().unwrap().to_owned())
        .collect();
    assert!(!states.contains(&"unknown".to_owned()), "{states:?}");
    assert!(!states.contains(&"leased".to_owned()), "{states:?}");
    assert_eq!(site.run(&["run", "--once"]).status.code(), Some(0));
    assert_eq!(site.mails(3).await.len(), 3);
    assert_eq!(site.mail.messages().len(), 3, "none twice");
}

/// A disk of its own for the state, in a user namespace; `None` where that is not permitted.
fn may_mount() -> bool {
    std::process::Command::new("unshare")
        .args(["-Urm", "mount", "-t", "tmpfs", "none", "/mnt"])
        .output()
        .is_ok_and(|output| output.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_large_mails_wait_and_go_out_by_themselves_when_there_is_space() {
    if !may_mount() {
        eprintln!("skipped: no user namespaces here, so no small disk can be made");
        return;
    }
    let site = Site::new(EACH_FILE).await;
    std::fs::create_dir_all(site.path("state")).unwrap();
    // The daemon lives in the namespace; files named `fill` and `free` tell it from outside.
    let inside = r#"
        mount -t tmpfs -o size=104M none "$1/state" || exit 1
        "$2" -C "$1" run 2>> "$1/log" & daemon=$!
        until [ -e "$1/fill" ]; do sleep 0.05; done
        cat /dev/zero > "$1/state/filler" 2>/dev/null
        touch "$1/full"
        until [ -e "$1/free" ]; do sleep 0.05; done
        rm "$1/state/filler"
        until [ -e "$1/end" ]; do sleep 0.05; done
        kill $daemon; wait $daemon
    "#;
    let mut namespace = std::process::Command::new("unshare")
        .args(["-Urm", "sh", "-c", inside, "sh"])
        .arg(site.dir())
        .arg(assert_cmd::cargo::cargo_bin("tidings"))
        .spawn()
        .unwrap();
    site.until("the daemon watches", || site.log().contains("runs the setup"))
        .await;
    site.drop_file("drop/before.txt", b"x");
    site.mails(1).await;
    site.write("fill", "");
    site.until("the disk is full", || site.path("full").exists())
        .await;
    for number in 0..3 {
        site.drop_file(&format!("drop/large-{number}.bin"), &vec![b'x'; 2_000_000]);
    }
    site.until("it says that there is no space", || {
        site.log().contains("no space")
    })
    .await;
    assert_eq!(site.mail.messages().len(), 1);
    site.write("free", "");
    let mails = site.mails(4).await;
    assert!(
        mails[1..]
            .iter()
            .all(|mail| mail.attachments[0].1.len() == 2_000_000)
    );
    site.write("end", "");
    assert!(namespace.wait().unwrap().success());
    assert!(
        !site.log().contains("held"),
        "nobody is asked to do anything: {}",
        site.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tired_admin_types_is_answered_with_what_to_type() {
    let site = Site::new(EACH_FILE).await;
    let rule = |when: &str| {
        format!(
            "rules:\n  each:\n    when: {when}\n    mail: {{ to: ap@example.org, template: plain, subject: x }}\n"
        )
    };
    for (written, expected) in [
        (rule("\n    file_arrives: { in: drop }"), "indent it further"),
        (
            rule("{ file_arrives: { in: drop, recursive: yes } }"),
            "write `true`",
        ),
        (rule("{ file_arrives: { in: drop, match: *.pdf } }"), "\"*.csv\""),
        (rule("{ file_arrives: { in: {{drop}} } }"), "needs quotes"),
        (
            rule("{ file_arrives: { in: drop, settle: 10 } }"),
            "a time has a unit",
        ),
        (
            rule("{ file_arrives: { in: drop } }").replace("    when", "\twhen"),
            "there is a tab",
        ),
        ("rules:\n- each:\n    when: {}\n".to_owned(), "without `- `"),
        (
            String::new(),
            "nothing is written in this file; it may say `rules:`",
        ),
        ("# only a comment\n".to_owned(), "nothing is written in this file"),
        ("rules:\n".to_owned(), "write a value"),
    ] {
        site.write("rules/rules.yaml", &written);
        for arguments in [&["check"] as &[&str], &["run", "--once"]] {
            let refused = site.run(arguments);
            let said = text(&refused.stderr) + &text(&refused.stdout);
            assert_eq!(refused.status.code(), Some(78), "{written}\n{said}");
            assert!(said.contains(expected), "{written}\n{said}");
            assert!(said.contains("rules/rules.yaml:"), "{written}\n{said}");
        }
    }
    // Another editor's line ends and mark are no mistake.
    let windows = format!("\u{feff}{}", EACH_FILE.replace('\n', "\r\n"));
    site.write("rules/rules.yaml", &windows);
    site.ok(&["check"]);
    let file = site.path("tidings.yaml");
    let refused = site.command(&["check", "-C"]).arg(&file).output().unwrap();
    let said = text(&refused.stderr) + &text(&refused.stdout);
    assert!(said.contains("is a file"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_event_s_own_folder_is_attached_by_a_template() {
    let site = Site::new(
        r#"
rules:
  up:
    when: { file_arrives: { in: drop, match: "*.up" } }
    mail: { to: ap@example.org, template: plain, subject: x, attach: "{{file.folder}}/../secret" }
  absolute:
    when: { file_arrives: { in: drop, match: "*.abs" } }
    mail: { to: ap@example.org, template: plain, subject: x, attach: "/etc/{{file.stem}}" }
  beside:
    when: { file_arrives: { in: drop, match: "*.pair" } }
    mail: { to: ap@example.org, template: plain, subject: x, attach: "{{file.folder}}/{{file.stem}}.pdf" }
"#,
    )
    .await;
    site.write("secret", "secret");
    site.run(&["run", "--once"]);
    std::os::unix::fs::symlink(site.path("secret"), site.path("drop/link.pdf")).unwrap();
    std::os::unix::fs::symlink(site.dir(), site.path("drop/out")).unwrap();
    let fifo = std::process::Command::new("mkfifo")
        .arg(site.path("drop/fifo.pdf"))
        .status();
    assert!(fifo.unwrap().success());
    for name in ["a.up", "passwd.abs", "link.pair", "fifo.pair", "missing.pair"] {
        site.drop_file(&format!("drop/{name}"), b"x");
    }
    let ran = site.run(&["run", "--once"]);
    assert_eq!(ran.status.code(), Some(75), "{}", text(&ran.stderr));
    let listed = json_lines(&site.ok(&["outbox", "list", "--json"]));
    let why: Vec<&str> = listed
        .iter()
        .map(|entry| entry["reason"]["text"].as_str().unwrap())
        .collect();
    assert!(listed.iter().all(|entry| entry["state"] == "held"), "{why:?}");
    for expected in [
        "/../secret cannot be attached: the path leads out",
        "a template may only name files below",
        "it is a symbolic link",
        "not a regular file",
        "No such file",
    ] {
        assert_eq!(
            why.iter().filter(|why| why.contains(expected)).count(),
            1,
            "{expected}: {why:?}"
        );
    }
    assert!(site.mail.messages().is_empty());
}
