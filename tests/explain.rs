//! "Why did I (not) get this mail": the whole answers, by the real binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Site, json_lines, text};
use regex::Regex;
use serde_json::Value;
use std::os::unix::ffi::OsStrExt as _;
use tidings::sandbox::smtp::{Act, At, Faults, Settings};

const INVOICES: &str = r#"
rules:
  invoices:
    description: Invoices go to accounts payable
    when: { file_arrives: { in: drop, match: "*.pdf", ignore: "~*" } }
    if: file.size > 100
    mail: { to: ap@example.org, template: file-arrived, attach: "{{file.path}}" }
"#;

/// A whole answer, with what differs from run to run taken out.
fn told(site: &Site, arguments: &[&str]) -> String {
    let output = site.command(arguments).env("COLUMNS", "1000").output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    scrubbed(site, &text(&output.stdout))
}

fn scrubbed(site: &Site, said: &str) -> String {
    let mut said = said.replace(&site.dir().display().to_string(), "DIR");
    for (pattern, by) in [
        (r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}(:\d{2})? [A-Z+0-9]+", "TIME"),
        (
            r"(\d+ (second|minute|hour|day)s? ago|in \d+ (second|minute|hour|day)s?|just now)",
            "AGO",
        ),
        (r"[0-9a-f]{32}\.tidings@", "ID.tidings@"),
        (r"queued as \S+", "queued as QUEUED"),
        (r"size      \S+ kB", "size      SIZE"),
        (r"127\.0\.0\.1:\d+", "HOST:PORT"),
    ] {
        said = Regex::new(pattern).unwrap().replace_all(&said, by).into_owned();
    }
    said
}

fn file(site: &Site, name: &str) -> String {
    site.path(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_explained_from_the_file_to_the_servers_last_word() {
    let mut settings = Settings::open();
    let busy = Act::Say("451 4.3.2 busy, come back later".into());
    settings.faults = vec![Faults::one(At::line("MAIL"), busy), Faults::default()];
    let site = Site::with(settings, INVOICES).await;
    site.ok(&["run", "--once"]);
    site.drop_file("drop/17.pdf", &[b'x'; 200]);
    assert_eq!(site.run(&["run", "--once"]).status.code(), Some(75));
    insta::assert_snapshot!(told(&site, &["explain", "mail", "1"]), @r#"
    Mail 1 to ap@example.org ("New file: 17.pdf") has not left, is due again AGO, and tidings is not running.

    What happened
      Event 1: the file DIR/drop/17.pdf arrived (200 B), TIME (AGO).
      Noticed in the watched folder DIR/drop.

    What the rules made of it
      rule invoices: fired (file.size = 200) [rules/rules.yaml:3]

    The mail
      about     DIR/drop/17.pdf
      from      Robot <robot@example.org>
      to        ap@example.org
      subject   New file: 17.pdf
      attached  17.pdf (200 B)
      size      SIZE
      template  file-arrived
      account   relay
      msg-id    ID.tidings@example.org
      rule      invoices

    Attempts
      1. TIME (AGO): not now, to be tried again
        The server had a local error.
        server    451 4.3.2 busy, come back later

    Where it stands
      Nothing leaves while tidings is not running: start `tidings run`.

    What mends it
      1. Nothing to do; retried by itself.

    What you can say
      `tidings outbox retry 1` tries it at once
      `tidings outbox cancel 1` decides that it shall never be done
      `tidings outbox show --message 1` prints the mail itself
    "#);
    site.ok(&["outbox", "retry", "1"]);
    site.ok(&["run", "--once"]);
    insta::assert_snapshot!(told(&site, &["explain", "mail", "1"]), @r#"
    Mail 1 to ap@example.org ("New file: 17.pdf") was accepted by the mail server AGO.

    What happened
      Event 1: the file DIR/drop/17.pdf arrived (200 B), TIME (AGO).
      Noticed in the watched folder DIR/drop.

    What the rules made of it
      rule invoices: fired (file.size = 200) [rules/rules.yaml:3]

    The mail
      about     DIR/drop/17.pdf
      from      Robot <robot@example.org>
      to        ap@example.org
      subject   New file: 17.pdf
      attached  17.pdf (200 B)
      size      SIZE
      template  file-arrived
      account   relay
      msg-id    ID.tidings@example.org
      rule      invoices

    Attempts
      1. TIME (AGO): not now, to be tried again
        The server had a local error.
        server    451 4.3.2 busy, come back later
      2. TIME (AGO): accepted
        server    250 2.0.0 accepted for delivery

    Where it stands
      From here on the mail service has it. If it is not in the mailbox, look into the spam folder and the rules of the mailbox; then ask whoever runs the mail service to trace it by its Message-ID, its time and the server's words above. A bounce goes to the sender's mailbox.
      msg-id    <ID.tidings@example.org>

    What you can say
      `tidings outbox show --message 1` prints the mail itself
    "#);
    let mail = &site.mails(1).await[0];
    let by_id = told(&site, &["explain", "mail", &format!("<{}>", mail.message_id)]);
    assert_eq!(by_id, told(&site, &["explain", "mail", "1"]));
    let json: Value = serde_json::from_str(&site.ok(&["explain", "mail", "1", "--json"])).unwrap();
    assert_eq!(json["entry"]["state"], "accepted");
    assert_eq!(json["event"]["rules"][0]["outcome"], "fired");
    assert_eq!(
        json["entry"]["attempts_made"][0]["reason"]["reply"],
        "451 4.3.2 busy, come back later"
    );
    assert!(
        json["answer"]
            .as_str()
            .unwrap()
            .contains("accepted by the mail server")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_was_refused_says_what_the_server_said_and_what_mends_it() {
    let mut settings = Settings::open();
    let no = Act::Say("554 5.2.252 SendAsDenied; robot@example.org not allowed to send as x".into());
    settings.faults = vec![Faults::one(At::line("MAIL"), no)];
    let site = Site::with(settings, INVOICES).await;
    site.ok(&["run", "--once"]);
    site.drop_file("drop/17.pdf", &[b'x'; 200]);
    site.run(&["run", "--once"]);
    insta::assert_snapshot!(told(&site, &["explain", "mail", "1"]), @r#"
    Mail 1 to ap@example.org ("New file: 17.pdf") was given up AGO.

    What happened
      Event 1: the file DIR/drop/17.pdf arrived (200 B), TIME (AGO).
      Noticed in the watched folder DIR/drop.

    What the rules made of it
      rule invoices: fired (file.size = 200) [rules/rules.yaml:3]

    The mail
      about     DIR/drop/17.pdf
      from      Robot <robot@example.org>
      to        ap@example.org
      subject   New file: 17.pdf
      attached  17.pdf (200 B)
      size      SIZE
      template  file-arrived
      account   relay
      msg-id    ID.tidings@example.org
      rule      invoices

    Attempts
      1. TIME (AGO): failed
        The server refused the message.
        server    554 5.2.252 SendAsDenied; robot@example.org not allowed to send as x

    Where it stands
      Nothing more happens to it unless somebody says so.

    What mends it
      1. Read the text of the reply; it names the policy or content rule.
      2. Who can do it: whoever looks after the rule.

    What you can say
      `tidings outbox retry 1` does it after all
      `tidings outbox show --message 1` prints the mail itself

    Who was told of the trouble
      Event 2: there was trouble with mail 1 of rule invoices: The server refused the message. (554 5.2.252 SendAsDenied; robot@example.org not allowed to send as x), TIME (AGO).
        No rule has `when: { trouble: {} }` for it: only `tidings status` and the log say so.
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_explained_by_what_the_journal_knows_and_by_what_each_rule_makes_of_it() {
    let site = Site::new(INVOICES).await;
    site.drop_file("drop/old.pdf", &[b'x'; 200]);
    site.ok(&["run", "--once"]);
    site.drop_file("drop/17.pdf", &[b'x'; 200]);
    site.drop_file("drop/small.pdf", b"small");
    site.ok(&["run", "--once"]);
    site.mails(1).await;
    std::fs::remove_file(site.path("drop/17.pdf")).unwrap();
    site.ok(&["run", "--once"]);
    let explain = |name: &str| told(&site, &["explain", "file", &file(&site, name)]);
    insta::assert_snapshot!(explain("drop/17.pdf"), @r"
    The file DIR/drop/17.pdf arrived AGO, and led to 1 mail (accepted).

    What became of it
      Event 1: the file DIR/drop/17.pdf arrived (200 B), TIME (AGO).
        rule invoices: fired (file.size = 200) [rules/rules.yaml:3]
        entry 1: accepted AGO, to ap@example.org: New file: 17.pdf [250 2.0.0 accepted for delivery]

    If it came now
      Nothing lies there; taking 1 kB:
      rule invoices: yes (file.size = 1000) [rules/rules.yaml:3]
        mail to ap@example.org from Robot <robot@example.org> by account relay, template file-arrived, with DIR/drop/17.pdf
    ");
    insta::assert_snapshot!(explain("drop/small.pdf"), @r"
    The file DIR/drop/small.pdf arrived AGO, and led to no mail: rule invoices did not fire: its condition said no (`file.size > 100` is false: file.size = 5).

    What became of it
      Event 2: the file DIR/drop/small.pdf arrived (5 B), TIME (AGO).
        rule invoices: did not fire: its condition said no (`file.size > 100` is false: file.size = 5) [rules/rules.yaml:3]

    If it came now
      As it lies there, with 5 B:
      rule invoices: no, its condition says no (`file.size > 100` is false: file.size = 5) [rules/rules.yaml:3]
    ");
    insta::assert_snapshot!(explain("drop/old.pdf"), @r"
    The journal knows of no arrival of DIR/drop/old.pdf: it counts as known since the first look at the folder.

    Why nothing came of it
      It lay in DIR/drop already when the folder was first looked at, or when no rule looked for such a file. What lies there then is no news (`existing: ignore`).
      To have it told after all, take it away and put it there again, or change it.

    If it came now
      As it lies there, with 200 B:
      rule invoices: yes (file.size = 200) [rules/rules.yaml:3]
        mail to ap@example.org from Robot <robot@example.org> by account relay, template file-arrived, with DIR/drop/old.pdf
    ");
    insta::assert_snapshot!(explain("drop/~17.pdf"), @r"
    The journal knows of no arrival of DIR/drop/~17.pdf: rule invoices does not look for it: `ignore: ~*` leaves it out.

    Why nothing came of it
      rule invoices does not look for it: `ignore: ~*` leaves it out.

    If it came now
      Nothing lies there; taking 1 kB:
      rule invoices: no, `ignore: ~*` leaves it out [rules/rules.yaml:3]
    ");
    insta::assert_snapshot!(explain("elsewhere/17.pdf"), @r"
    The journal knows of no arrival of DIR/elsewhere/17.pdf: it does not lie below a watched folder.

    Why nothing came of it
      No rule watches that folder; the watched folders are:
        DIR/drop

    A file of that name came elsewhere
      Event 1: the file DIR/drop/17.pdf arrived (200 B), TIME (AGO).
    ");
    insta::assert_snapshot!(explain("drop/never.pdf"), @r"
    The journal knows of no arrival of DIR/drop/never.pdf: nothing lies there, and nothing did when the folder was looked at.

    Why nothing came of it
      Nothing lies there, and no look at the folder found such a file. The last complete look at DIR/drop ended TIME (AGO). A file that is taken away again before it was written to its end is not noticed.
      Tidings is not running: nobody looks at the folder. Start `tidings run`; what has come meanwhile arrives then.

    If it came now
      Nothing lies there; taking 1 kB:
      rule invoices: yes (file.size = 1000) [rules/rules.yaml:3]
        mail to ap@example.org from Robot <robot@example.org> by account relay, template file-arrived, with DIR/drop/never.pdf
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_one_story_by_all_of_its_names() {
    let site = Site::new(INVOICES).await;
    site.ok(&["run", "--once"]);
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9\n17.pdf");
    std::fs::write(site.path("drop").join(odd), [b'x'; 200]).unwrap();
    site.drop_file("drop/b.pdf", &[b'x'; 200]);
    std::os::unix::fs::symlink(site.path("drop"), site.path("linked")).unwrap();
    site.ok(&["run", "--once"]);
    site.mails(2).await;
    let by_link = told(&site, &["explain", "file", &file(&site, "linked/b.pdf")]);
    assert!(by_link.contains("and led to 1 mail (accepted)"), "{by_link}");
    let relative = site
        .command(&["explain", "file", "../drop/./b.pdf"])
        .current_dir(site.path("rules"))
        .output()
        .unwrap();
    assert!(text(&relative.stdout).contains("and led to 1 mail (accepted)"));
    let exact = site
        .command(&["explain", "file"])
        .arg(site.path("drop").join(odd))
        .output()
        .unwrap();
    let exact = text(&exact.stdout);
    assert!(exact.contains("and led to 1 mail (accepted)"), "{exact}");
    assert!(
        exact.contains("caf%E9 17.pdf"),
        "no control character is printed: {exact}"
    );
    let copied = told(&site, &["explain", "file", &file(&site, "drop/caf%E9\n17.pdf")]);
    assert!(copied.contains("and led to 1 mail (accepted)"), "{copied}");
    let folder = told(&site, &["explain", "file", &file(&site, "linked")]);
    assert!(folder.contains("a symbolic link to DIR/drop"), "{folder}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_a_folder_that_is_away_or_that_waits_for_its_marker_says_so() {
    let site = Site::new(
        r#"
rules:
  marked:
    when: { file_arrives: { in: drop, match: "*.csv", marker: "{{file.name}}.done" } }
    mail: { to: ap@example.org, template: file-arrived }
"#,
    )
    .await;
    let explain = || told(&site, &["explain", "file", &file(&site, "drop/a.csv")]);
    site.drop_file("drop/a.csv", b"1");
    let said = explain();
    assert!(
        said.contains("nobody has looked into it yet: start `tidings run`"),
        "{said}"
    );
    std::fs::remove_file(site.path("drop/a.csv")).unwrap();
    let _daemon = site.started().await;
    site.drop_file("drop/a.csv", b"1");
    site.until("it is waited for", || {
        explain().contains("has not settled") || explain().contains("its marker")
    })
    .await;
    let said = explain();
    assert!(
        said.contains("its marker DIR/drop/a.csv.done is there, and that is not there yet"),
        "{said}"
    );
    std::fs::rename(site.path("drop"), site.path("away")).unwrap();
    site.until("the folder is away", || {
        explain().contains("cannot be looked at since TIME")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_explained_with_what_it_did_and_when_it_is_due() {
    let site = Site::new(
        r#"
rules:
  report:
    description: The morning report
    when:
      - schedule: { cron: "0 9 * * *", timezone: Europe/Berlin }
      - file_arrives: { in: drop, match: "*.csv" }
    if: "!has(file.size) || file.size > 3"
    mail: { to: ap@example.org, template: plain, subject: report }
"#,
    )
    .await;
    site.ok(&["run", "--once"]);
    site.drop_file("drop/a.csv", b"12345");
    site.ok(&["run", "--once"]);
    site.drop_file("drop/b.csv", b"1");
    site.ok(&["run", "--once"]);
    insta::assert_snapshot!(told(&site, &["explain", "rule", "report", "--at", "2031-03-03T09:00:00+01:00"]), @r"
    Rule report: The morning report. It last fired AGO.

    What it says
      when      the calendar says so: 0 9 * * *, Europe/Berlin
      when      a file `*.csv` arrives in DIR/drop
      if        !has(file.size) || file.size > 3
      then      mail ap@example.org from Robot <robot@example.org> by account relay, template plain
      written   rules/rules.yaml:3

    What it waits for
      0 9 * * *, Europe/Berlin is next due Mon TIME (AGO).
      DIR/drop: 2 files known, last looked through TIME (AGO).
      Tidings is not running: nothing is noticed until `tidings run` is started.

    What it did
      24 hours  1 x condition said no, 1 x fired
      7 days    1 x condition said no, 1 x fired
      TIME (AGO), event 2: the file DIR/drop/b.csv arrived (1 B). It did not fire: its condition said no (`!has(file.size) || file.size > 3` is false: file.size = 1).
      TIME (AGO), event 1: the file DIR/drop/a.csv arrived (5 B). It fired (file.size = 5).
        entry 1: accepted AGO, to ap@example.org: report [250 2.0.0 accepted for delivery]

    At the time asked about
      Mon TIME (AGO):
      0 9 * * *, Europe/Berlin is due then.
      rule report: yes (file.size is not there) [rules/rules.yaml:3]
        mail to ap@example.org from Robot <robot@example.org> by account relay, template plain
      After that it is due Tue TIME.
    ");
    let none = site.run(&["explain", "rule", "reprot"]);
    assert_eq!(none.status.code(), Some(65));
    assert!(text(&none.stderr).contains("did you mean `report`?"));
    let json = site.ok(&["explain", "rule", "report", "--at", "2031-03-03 09:30", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["last_24h"],
        serde_json::json!({ "fired": 1, "condition_false": 1 })
    );
    assert_eq!(json["at"]["schedules"][0]["due"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_listed_by_rule_kind_and_case_and_followed_as_they_come() {
    use std::io::{BufRead as _, BufReader};
    let site = Site::new(INVOICES).await;
    let _daemon = site.started().await;
    let mut follow = site
        .command(&["events", "--follow", "--json", "--verbose", "--rule", "invoices"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut begun = String::new();
    BufReader::new(follow.stderr.take().unwrap())
        .read_line(&mut begun)
        .unwrap();
    assert_eq!(begun, "following what comes after event 0\n");
    let lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    site.drop_file("drop/other.txt", b"nobody asks for it");
    site.drop_file("drop/17.pdf", &[b'x'; 200]);
    let first = tokio::task::spawn_blocking(move || lines.map_while(Result::ok).next());
    let first: Value = serde_json::from_str(&first.await.unwrap().unwrap()).unwrap();
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert!(first["subject"].as_str().unwrap().ends_with("17.pdf"));
    assert_eq!(
        first["rules"][0]["outcome"], "fired",
        "the rules were asked before it is shown"
    );
    let listed = |more: &[&str]| json_lines(&site.ok(&[&["events", "list", "--json"], more].concat())).len();
    assert_eq!(listed(&["--rule", "invoices"]), 1);
    assert_eq!(listed(&["--rule", "nobody"]), 0);
    assert_eq!(listed(&["--kind", "file_arrives", "--subject", "17.pdf"]), 1);
    assert_eq!(listed(&["--case", "mail:1"]), 0);
    let verbose = site.ok(&["events", "--verbose"]);
    assert!(
        verbose.contains("rule invoices: fired") && verbose.contains("entry 1:"),
        "{verbose}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_shows_each_way_to_each_mail_with_samples_or_with_a_real_event() {
    let site = Site::new(
        r#"
rules:
  import:
    when:
      - file_arrives: { in: drop, match: "*.csv" }
      - schedule: { cron: "0 9 * * *" }
    run: { command: ["true"] }
    on_failure: { mail: { to: ops@example.org, template: job-failed, attach: job.log } }
  news:
    when:
      - file_arrives: { in: drop, match: "*.csv" }
      - job_fails: { job: import }
    mail: { to: ap@example.org, template: plain, subject: "{{#if file}}{{file.name}}{{/if}}{{#if job}}{{job.name}}{{/if}}" }
  files:
    when: { file_arrives: { in: drop, match: "*.csv" } }
    mail: { to: ap@example.org, template: plain, subject: "{{file.name}}", attach: "{{file.path}}" }
"#,
    )
    .await;
    let previewed =
        |arguments: &[&str]| json_lines(&site.ok(&[&["preview"], arguments, &["--json"]].concat()));
    let news = previewed(&["news"]);
    let subjects: Vec<&str> = news
        .iter()
        .map(|mail| mail["mail"]["subject"].as_str().unwrap())
        .collect();
    assert_eq!(subjects, ["invoice-0815.pdf", "nightly-export"]);
    assert_eq!(
        previewed(&["files"])[0]["attach"][0],
        "/srv/drop/invoices/2026/invoice-0815.pdf",
        "as it would be"
    );
    let import = previewed(&["import", "--branch", "on_failure"]);
    assert!(
        import.iter().all(|mail| mail["attach"][0] == "job.log"),
        "{import:?}"
    );
    assert_eq!(
        site.run(&["preview", "import", "--branch", "on_fire"])
            .status
            .code(),
        Some(65)
    );
    site.ok(&["run", "--once"]);
    site.drop_file("drop/real.csv", b"1;2;3");
    site.run(&["run", "--once"]);
    let event = json_lines(&site.ok(&["events", "--kind", "file_arrives", "--json"]));
    let id = event[0]["id"].to_string();
    let real = previewed(&["files", "--event", &id]);
    assert_eq!(real.len(), 1);
    assert_eq!(real[0]["mail"]["subject"], "real.csv");
    assert_eq!(real[0]["mail"]["attachments"][0]["name"], "real.csv");
    let message = site.ok(&["preview", "files", "--event", &id, "--message"]);
    assert!(message.contains("Content-Type: multipart/mixed"), "{message}");
    site.write("facts.json", &site.ok(&["events", "show", &id, "--json"]));
    let file = site.path("facts.json");
    assert_eq!(
        previewed(&["files", "--event", file.to_str().unwrap()])[0]["mail"]["subject"],
        "real.csv"
    );
    let opened = site
        .command(&["preview", "news", "--open"])
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY")
        .env("TMPDIR", site.dir())
        .output()
        .unwrap();
    let said = text(&opened.stderr);
    let page = said
        .lines()
        .find_map(|line| line.strip_prefix("written: "))
        .unwrap();
    assert!(std::fs::read_to_string(page).unwrap().contains("<html"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_with_a_deadline_quiet_hours_and_a_pause_is_explained_for_a_time_to_come() {
    let site = Site::new(
        r#"
rules:
  supplier:
    description: The price list of the supplier
    when: { file_missing: { in: drop, match: "*.csv", by: "07:00", timezone: Europe/Berlin, grace: 15m } }
    quiet_hours: { from: "20:00", to: "08:00", timezone: Europe/Berlin }
    mail: { to: ap@example.org, template: plain, subject: late }
"#,
    )
    .await;
    site.ok(&["run", "--once"]);
    site.ok(&["pause", "supplier", "--reason", "stocktaking"]);
    let said = told(
        &site,
        &["explain", "rule", "supplier", "--at", "2031-03-03T07:00:00+01:00"],
    );
    for line in [
        "when      no file `*.csv` in DIR/drop has come by 07:00",
        "quiet     tells nobody from 20:00 to 08:00; what comes then is told after",
        "(stocktaking)",
        "`tidings resume supplier` lets it go on",
        "The next deadline is ",
        "with 15 minutes of grace",
        "A deadline is then (",
        "It is paused, if nobody resumes it before: nothing is told.",
        "It has quiet hours then: what happens is told together, Mon TIME.",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
}
