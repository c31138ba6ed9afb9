//! `tidings test`: what it plays is what the daemon does, what is wrong is told with its place, and what ships passes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use assert_cmd::cargo::cargo_bin;
use common::text;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A setup of one relay account and a group.
struct Setup(tempfile::TempDir);

const SETTINGS: &str = "accounts:\n  relay: { smtp: { host: mail.invalid, port: 25, tls: none }, user: robot@example.org }\n\
    \x20 spare: { provider: google, user: spare@example.com, oauth2: { client_id: x, client_secret: { env: NOT_SET_ANYWHERE } } }\n\
    defaults: { account: relay, from: robot@example.org, timezone: Europe/Berlin }\n\
    recipients: { groups: { ops: [ops@example.org, night@example.org] } }\n";

impl Setup {
    fn new(rules: &str, tests: &str) -> Setup {
        let setup = Setup(tempfile::tempdir().unwrap());
        std::fs::create_dir(setup.dir().join("rules")).unwrap();
        std::fs::write(setup.dir().join("tidings.yaml"), SETTINGS).unwrap();
        std::fs::write(setup.dir().join("rules/rules.yaml"), rules).unwrap();
        std::fs::write(setup.dir().join("rules/rules.test.yaml"), tests).unwrap();
        setup
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(self.dir(), arguments)
    }

    /// A run that must pass.
    fn passes(&self) -> String {
        let output = self.run(&["test"]);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        said
    }

    /// A run that must fail with that code; all it said.
    fn fails(&self, code: i32) -> String {
        let output = self.run(&["test"]);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    }
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(cargo_bin("tidings"))
        .arg("-C")
        .arg(dir)
        .args(arguments)
        .env_remove("TIDINGS_LOG")
        .output()
        .unwrap()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_tests_of_every_example_and_of_a_new_setup_pass() {
    let mut setups: Vec<PathBuf> = std::fs::read_dir(root().join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("tidings.yaml").is_file())
        .collect();
    let fresh = tempfile::tempdir().unwrap();
    let new = fresh.path().join("new");
    let init = run(Path::new("."), &["init", new.to_str().unwrap()]);
    assert!(init.status.success(), "{}", text(&init.stderr));
    setups.push(new);
    for setup in setups {
        let output = run(&setup, &["test", "--json"]);
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let tests = said["tests"].as_array().unwrap();
        let failed: Vec<&Value> = tests.iter().filter(|test| test["ok"] != true).collect();
        assert!(failed.is_empty(), "{}: {failed:#?}", setup.display());
        assert!(output.status.success(), "{}: {said:#}", setup.display());
        assert!(tests.len() >= 3, "{} has {} tests", setup.display(), tests.len());
    }
}

const DROP: &str = "rules:\n  drop:\n    when: { file_arrives: { in: /srv/drop, match: \"**/*.csv\", identity: content } }\n\
    \x20   if: file.path.startsWith('/srv/drop/') && file.size > 3\n\
    \x20   mail: { to: ops, subject: \"{{file.path}} {{bytes file.size}}\", attach: \"{{file.path}}\" }\n";

#[test]
fn folders_that_are_not_on_this_machine_are_played_under_their_own_names() {
    assert!(!Path::new("/srv/drop").exists());
    let said = Setup::new(
        DROP,
        r#"
tests:
  drop:
    start: 2026-03-02T06:00+01:00
    setup: { files: [{ path: /srv/drop/old.csv, content: old stuff, age: 1d }] }
    happens:
      - at: "06:40"
        file: { path: /srv/drop/deep/a.csv, content: "a;b\n", size: 12kB }
      - at: "+1h"
        file: { path: /srv/drop/small.csv, content: "a" }
      - at: "+1h" # the same content under the same name: no news
        file: { path: /srv/drop/deep/a.csv, content: "a;b\n", size: 12kB }
      - at: "+1h" # taken away and put there again: it arrives anew
        removes: /srv/drop/deep/a.csv
      - at: "+1h"
        file: { path: /srv/drop/deep/a.csv, content: "a;b\n", size: 12kB }
    expect:
      - at: "06:40"
        mail:
          rule: drop
          account: relay
          from: robot@example.org
          to: [ops@example.org, night@example.org]
          subject: /srv/drop/deep/a.csv 12.0 kB
          attachments: [a.csv]
      - nothing: true
      - at: "10:40"
        mail: { subject: "/srv/drop/deep/*" }
"#,
    )
    .passes();
    assert!(said.contains("all is well: 1 test"), "{said}");
}

#[test]
fn a_failure_says_where_what_came_nearest_and_why() {
    let said = Setup::new(
        DROP,
        r#"
tests:
  wrong:
    start: 2026-03-02 06:00
    happens:
      - { at: "06:40", file: { path: /srv/drop/a.csv, content: abcd } }
      - { at: "06:50", file: { path: /srv/drop/b.csv, content: a } }
    expect:
      - at: "06:40"
        mail: { rule: drop, to: someone@example.org, subject: "*b.csv*", attachments: [b.csv] }
      - at: "06:50"
        mail: { rule: drop }
"#,
    )
    .fails(65);
    for part in [
        "rules/rules.test.yaml:9: no such mail came",
        "- to          someone@example.org",
        "+ to          night@example.org, ops@example.org",
        "+ attachments a.csv",
        "rules/rules.test.yaml:11: no such mail came",
        "expected  in the minute of Mon 2026-03-02 06:50",
        "rule drop: condition false",
        "file.size = 1",
        "1 of 1 test failed",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
}

#[test]
fn a_mail_that_nobody_expects_fails_a_test_unless_others_are_allowed() {
    let test = "tests:\n  quiet:\n    start: 2026-03-02 06:00\n    happens: [{ at: \"06:40\", file: { path: /srv/drop/a.csv, content: abcd } }]\n\
        \x20   expect: [{ file: { path: /srv/drop/a.csv } }]\n";
    let said = Setup::new(DROP, test).fails(65);
    assert!(
        said.contains("rules/rules.test.yaml:2: a mail that nobody expects"),
        "{said}"
    );
    let allowed = format!("{test}    other_mails: allowed\n");
    Setup::new(DROP, &allowed).passes();
    let nothing = allowed.replace("file: { path: /srv/drop/a.csv } }]", "nothing: true }]");
    let said = Setup::new(DROP, &nothing).fails(65);
    assert!(said.contains("nothing must follow, and something did"), "{said}");
}

#[test]
fn commands_are_never_run_and_take_their_time_on_the_clock_of_the_test() {
    let proof = tempfile::tempdir().unwrap();
    let proof = proof.path().join("it ran");
    let rules = format!(
        "rules:\n  export:\n    when: {{ schedule: {{ every: 1h }} }}\n    run: {{ command: [/usr/bin/touch, \"{}\"], overlap: skip, timeout: 10h }}\n",
        proof.display()
    );
    let tests = "
tests:
  slow:
    start: 2026-03-02 00:30
    jobs: { export: { duration: 90m } }
    until: '05:30'
    expect:
      # One that still runs is not started a second time.
      - { at: '01:00', ran: { rule: export, command: '/usr/bin/touch *' } }
      - { at: '03:00', ran: { rule: export } }
      - { at: '05:00', ran: { rule: export } }
";
    let said = Setup::new(&rules, tests).passes();
    assert!(!proof.exists(), "{said}");
}

#[test]
fn retries_pauses_and_a_restart_are_those_of_the_daemon() {
    let rules = "rules:\n  fails:\n    when: { job_fails: { job: \"*\" } }\n    mail: { to: ops, subject: \"{{job.name}} {{job.summary}}\" }\n";
    let tests = r#"
tests:
  busy:
    start: 2026-03-02 06:00
    happens:
      - at: "07:00"
        server: { account: relay, away: true }
      - job: { name: a, exit: 2 }
      - at: "07:30"
        restart: true
      - at: "09:00"
        server: { account: relay, accepts: true }
    expect:
      - at: "07:00"
        nothing: true
      - within: ["09:00", "10:00"]
        mail: { rule: fails, subject: "a ended with exit code 2" }
  one-of-two:
    start: 2026-03-02 06:00
    happens:
      - at: "07:00"
        server: { account: relay, refuses: "550 5.1.1 no such user", to: night@example.org }
      - job: { name: a, signal: SIGKILL }
    expect:
      - at: "07:00"
        mail: { to: ops, subject: "*SIGKILL*" }
      - at: "07:00"
        case: { opened: mail }
"#;
    Setup::new(rules, tests).passes();
}

#[test]
fn what_does_not_come_opens_a_case_is_told_again_and_closes_when_it_comes() {
    let rules = r#"
rules:
  missing:
    when: { file_missing: { in: /srv/reports, match: "report-*.csv", by: "07:00", days: [mon, tue, wed, thu, fri] } }
    mail: { to: ops, subject: "{{rule.name}} has not come" }
    remind: { every: 2h }
    on_recovery: { mail: { to: ops, subject: "{{rule.name}} is there" } }
"#;
    let tests = r#"
tests:
  late:
    start: 2026-03-06 06:00 # a Friday
    happens:
      - at: "06:40"
        file: { path: "/srv/reports/report-{{date now \"%m%d\"}}.csv", size: 12kB }
      - at: mon 10:00
        file: { path: "/srv/reports/report-{{date now \"%m%d\"}}.csv", size: 12kB }
    expect:
      - within: ["06:00", sun 23:59]
        nothing: true
      - at: mon 07:00
        case: { opened: file_missing, rule: missing }
      - at: "07:00"
        mail: { rule: missing, subject: missing has not come }
      - at: "09:00"
        mail: { rule: missing }
      - at: "10:00"
        case: { closed: file_missing, rule: missing }
      - at: "10:00"
        mail: { rule: missing, subject: missing is there }
  paused:
    start: 2026-03-09 06:00
    happens:
      - pause: { rule: missing }
      - at: "08:00"
        resume: { rule: missing, drop: true }
    until: "08:30"
    expect:
      - at: "07:00"
        case: { opened: file_missing }
      - nothing: true
"#;
    Setup::new(rules, tests).passes();
}

#[test]
fn a_test_that_expects_what_cannot_be_is_a_problem_with_its_place() {
    let case = |tests: &str, parts: &[&str]| {
        let setup = Setup::new(DROP, tests);
        for command in ["test", "check"] {
            let output = setup.run(&[command]);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(78), "{command}: {tests}\n{said}");
            for part in parts.iter().filter(|_| command == "test") {
                assert!(said.contains(part), "{part}\n{said}");
            }
        }
    };
    let with = |what: &str| format!("tests:\n  t:\n    start: 2026-03-02 06:00\n{what}");
    case(
        &with("    expect: [{ mail: { rule: dorp } }]\n"),
        &[
            "there is no rule `dorp`",
            "did you mean `drop`?",
            "rules.test.yaml:4:",
        ],
    );
    case(
        &with("    expect: [{ mail: { account: relai } }]\n"),
        &["there is no account `relai`", "did you mean `relay`?"],
    );
    case(
        &with("    happens: [{ at: \"05:00\", restart: true }]\n    expect: [{ nothing: true }]\n"),
        &["`05:00` is before Mon 2026-03-02 06:00:00", "tomorrow 06:40"],
    );
    case(
        &with(
            "    happens: [{ at: \"08:00\", restart: true }, { at: \"07:00\", reload: true }]\n    expect: [{ nothing: true }]\n",
        ),
        &["`07:00` is before Mon 2026-03-02 08:00:00"],
    );
    case(
        &with(
            "    happens: [{ at: \"08:00\", restart: true }]\n    until: 2026-03-02 07:00\n    expect: [{ nothing: true }]\n",
        ),
        &["is before Mon 2026-03-02 08:00:00"],
    );
    case(
        &with("    until: \"+1h\"\n    expect: [{ at: \"09:00\", nothing: true }]\n"),
        &["after the end of the test"],
    );
    case(&with("    expect: []\n"), &["this test expects nothing"]);
    case(
        &with("    expect: [{ at: \"07:00\", mial: {} }]\n"),
        &["unknown key `mial`", "did you mean `mail`?"],
    );
    case(
        &with("    happens: [{ file: { path: a }, restart: true }]\n    expect: [{ nothing: true }]\n"),
        &["`file` and `restart` are two things"],
    );
    case(
        &with(
            "    happens: [{ server: { account: relay, refuses: go away } }]\n    expect: [{ nothing: true }]\n",
        ),
        &["no server refuses with these words"],
    );
    case(
        &with("    happens: [{ file: { path: \"{{file.name}}\" } }]\n    expect: [{ nothing: true }]\n"),
        &["a test does not know `file.name`"],
    );
    case(
        &with("    jobs: { drop: { exit: 1 } }\n    expect: [{ nothing: true }]\n"),
        &["no rule `drop` runs a command"],
    );
    case(
        &with("    expect: [{ case: { opened: file_mising } }]\n"),
        &["there is no case `file_mising`", "did you mean `file_missing`?"],
    );
    case(
        "tests:\n  t: { start: now, expect: [{ nothing: true }] }\n",
        &["`now` is no time with a date"],
    );
}

#[test]
fn what_is_taken_away_must_have_been_there() {
    let said = Setup::new(
        DROP,
        "tests:\n  t:\n    start: 2026-03-02 06:00\n    happens: [{ removes: /srv/drop/x.csv }]\n    expect: [{ nothing: true }]\n",
    )
    .fails(65);
    assert!(
        said.contains("line 4: there is no /srv/drop/x.csv to take away"),
        "{said}"
    );
}

#[test]
fn ci_gets_json_and_junit() {
    let setup = Setup::new(
        DROP,
        "tests:\n  good: { start: 2026-03-02 06:00, expect: [{ nothing: true }] }\n\
         \x20 bad: { start: 2026-03-02 06:00, expect: [{ mail: { subject: \"<&>\" } }] }\n",
    );
    let xml = setup.dir().join("out.xml");
    let output = setup.run(&["test", "--json", "--junit", xml.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(65));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["ok"], false);
    assert_eq!(said["tests"][0]["name"], "bad");
    assert_eq!(said["tests"][0]["failures"][0]["line"], 3);
    assert_eq!(said["tests"][1]["ok"], true);
    let xml = std::fs::read_to_string(xml).unwrap();
    assert!(
        xml.contains("<testsuites name=\"tidings\" tests=\"2\" failures=\"1\""),
        "{xml}"
    );
    assert!(xml.contains("&lt;&amp;&gt;"), "{xml}");

    let one = setup.run(&["test", "good"]);
    assert!(one.status.success(), "{}", text(&one.stdout));
    let none = setup.run(&["test", "god"]);
    assert_eq!(none.status.code(), Some(64));
    assert!(
        text(&none.stderr).contains("did you mean `good`?"),
        "{}",
        text(&none.stderr)
    );
}

#[test]
fn a_thousand_days_are_played_in_seconds() {
    let setup = Setup::new(
        "rules:\n  daily:\n    when: { schedule: { cron: \"0 7 * * *\" } }\n    mail: { to: ops, subject: \"{{date now}}\" }\n",
        "tests:\n  years:\n    start: 2026-03-02 06:00\n    until: \"+1000d\"\n    expect: [{ mail: { rule: daily }, times: 1000 }]\n",
    );
    let began = std::time::Instant::now();
    let said = setup.passes();
    println!("{:?}\n{said}", began.elapsed());
    assert!(said.contains("1000 mails in 1000d"), "{said}");
}

const REPORTED: &str = "rules:\n  backup:\n    when: { event: { type: \"com.example.backup.*\" } }\n\
    \x20   if: data.size > 10\n    mail: { to: ops, subject: \"{{cloudevent.subject}} {{data.size}}\" }\n\
    \x20 long:\n    when: { job_runs_long: { job: import, after: 1h } }\n    mail: { to: ops, subject: \"{{job.name}} runs\" }\n\
    \x20   on_recovery: { mail: { to: ops, subject: \"{{job.name}} is done\" } }\n";

#[test]
fn events_are_emitted_once_and_jobs_elsewhere_begin_and_end() {
    let said = Setup::new(
        REPORTED,
        r#"
tests:
  reported:
    start: 2026-03-02 06:00
    happens:
      - at: "06:10"
        event: { type: com.example.backup.done, subject: db, source: //db1, id: one, data: { size: 12 } }
      - at: "06:11"
        event: { type: com.example.backup.done, subject: again, source: //db1, id: one, data: { size: 12 } }
      - at: "06:12"
        event: { type: com.example.backup.done, data: { size: 3 } }
      - at: "06:13"
        event: { type: com.example.other, data: { size: 30 } }
      - at: "07:00"
        job: { name: import, starts: true }
      - at: "09:00"
        job: { name: import, duration: 2h }
    expect:
      - { at: "06:10", mail: { rule: backup, subject: db 12 } }
      - { at: "08:00", case: { opened: job_runs_long } }
      - { at: "08:00", mail: { rule: long, subject: import runs } }
      - { at: "09:00", mail: { rule: long, subject: import is done } }
      - { at: "09:00", case: { closed: job_runs_long } }
      - nothing: true
"#,
    )
    .passes();
    assert!(said.contains("all is well: 1 test"), "{said}");
    let said = Setup::new(
        REPORTED,
        "tests:\n  bad:\n    start: 2026-03-02 06:00\n    happens:\n      - event: { type: \"\" }\n\
         \x20     - job: { name: import, starts: true, exit: 3 }\n    expect: [{ nothing: true }]\n",
    )
    .fails(78);
    assert!(said.contains("`type` is empty"), "{said}");
    assert!(said.contains("a job that begins has no `exit` yet"), "{said}");
}
