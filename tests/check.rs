//! Mistakes in a setup, and all that `tidings check` says about each. Every test is named after the
//! mistake it holds. Paths are scrubbed; the rest is what a person sees.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use insta::assert_snapshot;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

const SETTINGS: &str = "\
accounts:
  office:
    provider: microsoft365
    user: alice@contoso.com
    senders: [invoices@contoso.com]
    oauth2: { tenant: contoso.onmicrosoft.com, client_id: 4f0c8a52 }
recipients:
  groups: { ops: [ops@contoso.com, oncall@contoso.com] }
";

/// A setup of these files, with settings that are fine and a folder `drop` unless they say otherwise.
fn setup(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("drop")).unwrap();
    std::fs::write(dir.path().join("tidings.yaml"), SETTINGS).unwrap();
    for (file, text) in files {
        write(dir.path(), file, text);
    }
    dir
}

fn write(dir: &Path, file: &str, bytes: impl AsRef<[u8]>) {
    let path = dir.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn tidings(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(assert_cmd::cargo::cargo_bin!("tidings"))
        .arg("--config")
        .arg(dir)
        .args(arguments)
        .env_remove("TIDINGS_CONFIG")
        .env("TZ", "UTC")
        .output()
        .unwrap()
}

/// All that `check` says, with its exit code at the end.
fn said(dir: &Path) -> String {
    let output = tidings(dir, &["check"]);
    let text = format!(
        "{}{}exit {}",
        String::from_utf8(output.stderr).unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        output.status.code().unwrap()
    );
    text.replace(dir.to_str().unwrap(), "[SETUP]")
}

fn check(files: &[(&str, &str)]) -> String {
    said(setup(files).path())
}

/// A rule file with one rule about files in `drop`, whose other keys are `rest`.
fn rule(rest: &str) -> String {
    format!("rules:\n  invoice:\n    when: {{ file_arrives: {{ in: drop }} }}\n{rest}")
}

fn check_rule(rest: &str) -> String {
    check(&[("rules/a.yaml", &rule(rest))])
}

/// What is said first of a rule with this trigger.
fn of_trigger(trigger: &str) -> String {
    let rule = format!("rules:\n  a:\n    when: {{ {trigger} }}\n    mail: {{ to: ops@contoso.com }}\n");
    let settings = format!(
        "{SETTINGS}calendars:\n  holidays: {{ dates: [2026-12-25] }}\n  always: {{ dates: 2000-01-01..2199-12-31 }}\n"
    );
    check(&[("rules/a.yaml", &rule), ("tidings.yaml", &settings)])
}

#[test]
fn deadlines_that_cannot_be() {
    for (trigger, message, hint) in [
        (
            "file_missing: { in: nowhere, by: \"07:00\" }",
            "there is no folder [SETUP]/nowhere",
            "mkdir",
        ),
        ("file_missing: { in: drop }", "by when?", "every: 24h"),
        (
            "file_missing: { in: drop, by: \"07:00\", every: 24h }",
            "`by` a time of day or `every` so long, not both",
            "keep one",
        ),
        (
            "file_missing: { in: drop, every: 1h, within: 1h }",
            "`every` and `within` say the same",
            "keep one",
        ),
        (
            "file_missing: { in: drop, every: 0s }",
            "`every: 0s` is no time",
            "1s or more",
        ),
        (
            "file_missing: { in: drop, within: soon }",
            "`soon` is not a time",
            "5m",
        ),
        (
            "file_missing: { in: drop, by: \"24:00\" }",
            "`24:00` is not a time of day",
            "23:59",
        ),
        (
            "file_missing: { in: drop, by: 7am }",
            "`7am` is not a time of day",
            "\"07:00\"",
        ),
        (
            "file_missing: { in: drop, by: \"07:00\", days: [mon, fryday] }",
            "`fryday` is not a day of the week",
            "mon tue",
        ),
        (
            "file_missing: { in: drop, by: \"07:00\", except: holiday }",
            "there is no calendar `holiday`",
            "did you mean `holidays`?",
        ),
        (
            "file_missing: { in: drop, by: \"07:00\", except: always }",
            "this deadline never comes",
            "calendar",
        ),
        (
            "file_missing: { in: drop, every: 1d, except: always }",
            "this deadline never comes",
            "calendar",
        ),
        (
            "file_missing: { in: drop, by: \"07:00\", grace: 24h }",
            "the grace lasts until the next deadline",
            "shorter",
        ),
        (
            "file_missing: { in: drop, by: \"07:00\", timezone: Berlin }",
            "`Berlin` is not a time zone",
            "Europe/Berlin",
        ),
        (
            "file_missing: { in: drop, by: \"07:00\", match: /a }",
            "matches nothing",
            "*.csv",
        ),
        (
            "file_missing: { in: drop, every: 1h, count: 2000 }",
            "at most 1000 files",
            "million",
        ),
        (
            "job_missing: { job: \"a-*\", by: \"07:00\" }",
            "which job?",
            "a trigger for each",
        ),
        ("job_missing: { job: a }", "by when?", "07:00"),
        ("folder_backlog: { in: drop }", "when is it a backlog?", "age: 2h"),
        ("folder_backlog: { in: drop, age: 0s }", "too short", "1s"),
        (
            "job_runs_long: { job: \"[\", after: 1h }",
            "is not a pattern",
            "billing-*",
        ),
        ("job_runs_long: { job: a, after: 0s }", "too short", "1s"),
    ] {
        let said = of_trigger(trigger);
        assert!(said.contains(message), "{trigger}: {said}");
        assert!(said.contains(hint), "{trigger}: {said}");
        assert!(said.contains("rules/a.yaml:3:"), "{trigger}: {said}");
        assert!(!said.contains("exit 0"), "{said}");
    }
    assert!(of_trigger("file_missing: { in: drop, by: \"07:00\", except: holidays }").contains("exit 0"));
}

#[test]
fn calendars_that_cannot_be_used() {
    let of = |calendars: &str, file: &str| {
        let settings = format!("{SETTINGS}calendars:\n{calendars}\n");
        check(&[
            ("tidings.yaml", &settings),
            ("days.ics", file),
            ("rules/a.yaml", &rule("    mail: { to: ops }\n")),
        ])
    };
    let dates = of("  holidays: { dates: [2026-12-25, 2026-02-30] }", "");
    assert!(
        dates.contains("`2026-02-30` is not a day") && dates.contains("tidings.yaml:10:35"),
        "{dates}"
    );
    let order = of("  holidays: { dates: 2026-12-25..2026-12-24 }", "");
    assert!(order.contains("exchange the two"), "{order}");
    assert!(of("  holidays: {}", "").contains("this calendar has no days"));
    let gone = of("  holidays: { file: none.ics }", "");
    assert!(
        gone.contains("cannot use `none.ics` as a calendar: No such file"),
        "{gone}"
    );
    let other = of("  holidays: { file: days.ics }", "hello");
    assert!(
        other.contains("days.ics:1:1") && other.contains("BEGIN:VCALENDAR"),
        "{other}"
    );
    let rule = of(
        "  holidays: { file: days.ics }",
        "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART;VALUE=DATE:20260101\nRRULE:FREQ=HOURLY\u{1b}[2J\nEND:VEVENT\n",
    );
    assert!(
        rule.contains("days.ics:4:1") && rule.contains("is not understood"),
        "{rule}"
    );
    assert!(rule.contains("it is named at tidings.yaml:10"), "{rule}");
    assert!(!rule.contains('\u{1b}'), "{rule}");
    let fine = of(
        "  holidays: { file: days.ics }",
        "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART;VALUE=DATE:20260101\nRRULE:FREQ=YEARLY\nEND:VEVENT\nEND:VCALENDAR\n",
    );
    assert!(fine.contains("exit 0"), "{fine}");
    let folder = of("  holidays: { file: drop }", "");
    assert!(folder.contains("it is not a file"), "{folder}");
}

#[test]
fn a_ladder_that_nobody_could_climb_is_a_problem_with_its_place() {
    let said = check_rule(
        "    mail: { to: ops }\n    remind: { every: 2h }\n    on_recovery: { mail: { to: ops } }\n",
    );
    assert!(
        said.contains("`remind` needs a trigger that opens a case\n --> rules/a.yaml:5:5"),
        "{said}"
    );
    assert!(said.contains("`on_recovery` has nothing to wait for"), "{said}");
    let rules = "rules:\n  jobs:\n    when: { job_fails: { job: \"*\" } }\n    mail: { to: ops, subject: \"{{case.key}}\" }\n    \
        remind: { every: 0s, from: \"18:00\", until: \"18:00\", at_most: 1 }\n    \
        escalate:\n      - { after: 3h, mail: { to: ops } }\n      - { after: 3h, mail: { to: ops } }\n  \
        both:\n    when: { job_fails: { job: \"*\" } }\n    run: { command: [\"true\"] }\n    \
        remind: { every: 1h, until: 8pm }\n";
    let said = check(&[("rules/a.yaml", rules)]);
    for (place, problem) in [
        ("5:22", "that is no time at all"),
        ("5:48", "this leaves no time for a reminder"),
        ("8:18", "each rung must come later than the one before"),
        (
            "12:5",
            "`remind` sends the rule's `mail` again, and there is none to send again",
        ),
        ("12:33", "`8pm` is not a time of day"),
    ] {
        let problem = format!("{problem}\n");
        let at = said.find(&problem).unwrap_or_else(|| panic!("{problem}: {said}"));
        let shown = said[at + problem.len()..].lines().next().unwrap_or_default();
        assert!(
            shown.ends_with(&format!("--> rules/a.yaml:{place}")),
            "{problem}{shown}"
        );
    }
    let fine = "rules:\n  back:\n    when: { trouble: {} }\n    on_recovery: { mail: { to: ops, subject: \"{{case.open_for}}\" } }\n";
    assert!(
        check(&[("rules/a.yaml", fine)]).ends_with("exit 0"),
        "{}",
        check(&[("rules/a.yaml", fine)])
    );
}

#[test]
fn nothing_is_wrong() {
    assert_snapshot!(check_rule("    mail: { from: invoices@contoso.com, to: ops, template: file-arrived, attach: \"{{file.path}}\" }\n"), @r#"
    all is well: 1 rule, 1 account, 13 templates, 1 watched folder
    exit 0
    "#);
}

#[test]
fn every_problem_of_all_files_comes_at_once() {
    let settings = "\
accounts:
  office:
    provider: microsft365
    user: alice@contoso
    oauth2: { tenant: contoso.onmicrosoft.com, client_id: x, redirect: http://contoso.com/ }
    sendres: [invoices@contoso.com]
defaults: { timezone: Berlin, template: plian }
";
    let rules = "\
rules:
  one:
    when: { file_arrives: { in: dorp, match: \"[a\" } }
    if: file.siez > 0
    mail: { to: [opps, bob@], template: file-arived, subject: \"{{fil.name}}\", prioritty: high }
";
    let more = "rules:\n  two:\n    when: { schedule: { cron: \"0 25 * * *\" } }\n    mail: { account: offfice, to: ops@contoso.com }\n";
    let template = "---\nsubject: Hello\n---\n<p>{{#if}}</p>\n";
    assert_snapshot!(check(&[
        ("tidings.yaml", settings),
        ("rules/one.yaml", rules),
        ("rules/two.yaml", more),
        ("templates/own.html.hbs", template),
    ]), @r#"
    error: `microsft365` is not known here
     --> tidings.yaml:3:15
      |
    3 |     provider: microsft365
      |               ^^^^^^^^^^^
      |
      = hint: did you mean `microsoft365`?

    error: `http://contoso.com/` does not lead back to this machine
     --> tidings.yaml:5:72
      |
    5 |     oauth2: { tenant: contoso.onmicrosoft.com, client_id: x, redirect: http://contoso.com/ }
      |                                                                        ^^^^^^^^^^^^^^^^^^^
      |
      = hint: http://127.0.0.1, http://localhost:3017/ or http://[::1], as it is registered at the provider; or https with `listen:`, where a proxy passes it on

    error: unknown key `sendres`
     --> tidings.yaml:6:5
      |
    6 |     sendres: [invoices@contoso.com]
      |     ^^^^^^^
      |
      = hint: did you mean `senders`?

    error: `Berlin` is not a time zone
     --> tidings.yaml:7:23
      |
    7 | defaults: { timezone: Berlin, template: plian }
      |                       ^^^^^^
      |
      = hint: did you mean `Europe/Berlin`?

    error: there is no template `plian`
     --> tidings.yaml:7:41
      |
    7 | defaults: { timezone: Berlin, template: plian }
      |                                         ^^^^^
      |
      = hint: did you mean `plain`?

    error: there is no folder [SETUP]/dorp
     --> rules/one.yaml:3:33
      |
    3 |     when: { file_arrives: { in: dorp, match: "[a" } }
      |                                 ^^^^
      |
      = hint: mkdir -p [SETUP]/dorp

    error: `[a` is not a pattern: unclosed character class; missing ']'
     --> rules/one.yaml:3:46
      |
    3 |     when: { file_arrives: { in: dorp, match: "[a" } }
      |                                              ^^^^
      |
      = hint: `*` within a name, `**/` for any folders, [abc] one of these, {a,b} either

    error: unknown fact `file.siez`
     --> rules/one.yaml:4:14
      |
    4 |     if: file.siez > 0
      |              ^^^^
      |
      = hint: did you mean `file.size`?

    error: `opps` is neither a mail address nor a group
     --> rules/one.yaml:5:18
      |
    5 |     mail: { to: [opps, bob@], template: file-arived, subject: "{{fil.name}}", prioritty: high }
      |                  ^^^^
      |
      = hint: write an address, or make a group: recipients: { groups: { ops: [..] } }

    error: `bob@` is not a mail address
     --> rules/one.yaml:5:24
      |
    5 |     mail: { to: [opps, bob@], template: file-arived, subject: "{{fil.name}}", prioritty: high }
      |                        ^^^^
      |
      = hint: an address is name@domain, or Name <name@domain>; look for a character too much

    error: there is no template `file-arived`
     --> rules/one.yaml:5:41
      |
    5 |     mail: { to: [opps, bob@], template: file-arived, subject: "{{fil.name}}", prioritty: high }
      |                                         ^^^^^^^^^^^
      |
      = hint: did you mean `file-arrived`?

    error: unknown fact `fil`
     --> rules/one.yaml:5:66
      |
    5 |     mail: { to: [opps, bob@], template: file-arived, subject: "{{fil.name}}", prioritty: high }
      |                                                                  ^^^^^^^^
      |
      = hint: did you mean `file`?

    error: unknown key `prioritty`
     --> rules/one.yaml:5:79
      |
    5 |     mail: { to: [opps, bob@], template: file-arived, subject: "{{fil.name}}", prioritty: high }
      |                                                                               ^^^^^^^^^
      |
      = hint: did you mean `priority`?

    error: the cron pattern "0 25 * * *" is not one: Component error: Number out of bounds.
     --> rules/two.yaml:3:31
      |
    3 |     when: { schedule: { cron: "0 25 * * *" } }
      |                               ^^^^^^^^^^^^
      |
      = hint: minute hour day month weekday, as in "0 2 * * mon-fri"; a sixth field before them gives seconds

    error: there is no account `offfice`
     --> rules/two.yaml:4:22
      |
    4 |     mail: { account: offfice, to: ops@contoso.com }
      |                      ^^^^^^^
      |
      = hint: did you mean `office`?

    error: a block is not closed
     --> templates/own.html.hbs:5:1
      |
    5 |
      | ^
      |
      = hint: each `{{#if ..}}` needs its `{{/if}}`

    16 problems
    exit 78
    "#);
}

#[test]
fn yaml_indented_with_a_tab() {
    assert_snapshot!(check(&[("rules/a.yaml", "rules:\n  a:\n\twhen: x\n")]), @r#"
    error: this is not YAML: tabs disallowed within this context (block indentation)
     --> rules/a.yaml:3:2
      |
    3 |     when: x
      |     ^
      |
      = hint: YAML is indented with spaces; there is a tab at the start of this line

    1 problem
    exit 78
    "#);
}

#[test]
fn a_bracket_that_is_never_closed() {
    assert_snapshot!(check_rule("    mail: { to: [ops@contoso.com, template: plain }\n"), @r#"
    error: this is not YAML: mismatched bracket '[' closed by '}'
     --> rules/a.yaml:4:17
      |
    4 |     mail: { to: [ops@contoso.com, template: plain }
      |                 ^
      |
      = hint: look at the indentation, and whether a quote, bracket or colon is missing here or just above; text with `: `, ` #`, or a leading `*`, `&`, `{`, `[`, `@`, `%` needs quotes

    1 problem
    exit 78
    "#);
}

#[test]
fn a_pattern_without_quotes_is_an_alias() {
    assert_snapshot!(check(&[("rules/a.yaml", "rules:\n  a:\n    when:\n      file_arrives:\n        in: drop\n        match: *.csv\n    mail: { to: ops }\n")]), @r#"
    error: no anchor `&.csv` stands above this alias
     --> rules/a.yaml:6:16
      |
    6 |         match: *.csv
      |                ^^^^^
      |
      = hint: a text that begins with `*` needs quotes: "*.csv"

    1 problem
    exit 78
    "#);
}

#[test]
fn a_template_text_without_quotes_is_a_map() {
    assert_snapshot!(check_rule("    mail:\n      to: ops\n      attach: {{file.path}}\n"), @r#"
    error: a key must be a plain word
     --> rules/a.yaml:6:16
      |
    6 |       attach: {{file.path}}
      |                ^^^^^^^^^^^
      |
      = hint: a text that begins with `{` or `[` needs quotes: "{{file.path}}"

    1 problem
    exit 78
    "#);
}

#[test]
fn a_key_twice() {
    assert_snapshot!(check_rule("    mail: { to: ops }\n    description: a\n    mail: { to: bob@contoso.com }\n"), @r#"
    error: the key `mail` is here twice
     --> rules/a.yaml:6:5
      |
    6 |     mail: { to: bob@contoso.com }
      |     ^^^^
      |
      = hint: the first one stands in line 4; keep one of them

    1 problem
    exit 78
    "#);
}

#[test]
fn values_of_the_wrong_type() {
    let settings = SETTINGS.replace("oauth2:", "pace: { connections: 0, per_minute: many }\n    smtp: { port: \"587\" }\n    description: 12\n    oauth2:");
    assert_snapshot!(check(&[
        ("tidings.yaml", &settings),
        ("rules/a.yaml", &rule("    run: { command: [], timeout: 10, retries: 1.5 }\n    mail: ops\n    description:\n")),
    ]), @r#"
    error: 0 is too little
     --> tidings.yaml:6:26
      |
    6 |     pace: { connections: 0, per_minute: many }
      |                          ^
      |
      = hint: the least is 1

    error: a whole number should be here, not a text
     --> tidings.yaml:6:41
      |
    6 |     pace: { connections: 0, per_minute: many }
      |                                         ^^^^

    error: a whole number should be here, not a text
     --> tidings.yaml:7:19
      |
    7 |     smtp: { port: "587" }
      |                   ^^^^^
      |
      = hint: write it without quotes

    error: a text should be here, not a number
     --> tidings.yaml:8:18
      |
    8 |     description: 12
      |                  ^^
      |
      = hint: put it in quotes: "12"

    error: this list is empty
     --> rules/a.yaml:4:12
      |
    4 |     run: { command: [], timeout: 10, retries: 1.5 }
      |            ^^^^^^^
      |
      = hint: write at least one, or leave the key out

    error: a text should be here, not a number
     --> rules/a.yaml:4:34
      |
    4 |     run: { command: [], timeout: 10, retries: 1.5 }
      |                                  ^^
      |
      = hint: a time has a unit: 30s, 5m, 2h

    error: a whole number should be here, not a number with a point
     --> rules/a.yaml:4:47
      |
    4 |     run: { command: [], timeout: 10, retries: 1.5 }
      |                                               ^^^

    error: a map or a list should be here, not a text
     --> rules/a.yaml:5:11
      |
    5 |     mail: ops
      |           ^^^
      |
      = hint: a map with the key `to`: { to: .. }

    error: a text should be here, not nothing
     --> rules/a.yaml:6:5
      |
    6 |     description:
      |     ^^^^^^^^^^^
      |
      = hint: write a value, or leave the key out

    9 problems
    exit 78
    "#);
}

#[test]
fn keys_that_are_missing() {
    assert_snapshot!(check(&[
        ("tidings.yaml", "accounts:\n  office:\n    provider: google\n    user: a@example.com\n    oauth2: {}\n"),
        ("rules/a.yaml", "rules:\n  a:\n    mail: { subject: x }\n  b:\n    when: { file_arrives: { match: x } }\n    mail: { to: a@example.com }\n  c:\n    when: {}\n    mail: { to: a@example.com }\n"),
    ]), @r#"
    error: the key `client_id` is missing here
     --> tidings.yaml:5:5
      |
    5 |     oauth2: {}
      |     ^^^^^^
      |
      = hint: the application (client) id of the app registration

    error: the key `when` is missing here
     --> rules/a.yaml:2:3
      |
    2 |   a:
      |   ^
      |
      = hint: When: any of these.

    error: the key `to` is missing here
     --> rules/a.yaml:3:5
      |
    3 |     mail: { subject: x }
      |     ^^^^
      |
      = hint: To: addresses, names of groups, or templates that give addresses.

    error: the key `in` is missing here
     --> rules/a.yaml:5:13
      |
    5 |     when: { file_arrives: { match: x } }
      |             ^^^^^^^^^^^^
      |
      = hint: The folder.

    error: a key is missing here
     --> rules/a.yaml:8:5
      |
    8 |     when: {}
      |     ^^^^
      |
      = hint: one of `file_arrives`, `file_changes`, `file_removed`, `schedule`, `job_succeeds`, `job_fails`, `job_finishes`, `job_recovers`, `file_missing`, `folder_backlog`, `job_missing`, `job_runs_long`, `event`, `trouble`

    5 problems
    exit 78
    "#);
}

#[test]
fn options_that_do_not_exist() {
    let settings = format!("{SETTINGS}quotas: {{ mails_per_rule_per_hour: 1000 }}\n");
    assert_snapshot!(check(&[
        ("tidings.yaml", &settings.replace("oauth2: { ", "oauth2: { grant: password, ").replace("user:", "transport: pigeon\n    user:")),
        ("rules/a.yaml", "rules:\n  a:\n    when: { file_is_odd: { in: drop } }\n    soften: { at_most: 1 }\n    mail: { to: ops }\n  b:\n    when: { file_arrives: { in: drop }, schedule: { every: 1h } }\n    mail: { to: ops }\n"),
    ]), @r#"
    error: `pigeon` is not known here
     --> tidings.yaml:4:16
      |
    4 |     transport: pigeon
      |                ^^^^^^
      |
      = hint: known are `smtp`, `graph`, `gmail`, `file`

    error: `password` is not known here
     --> tidings.yaml:7:22
      |
    7 |     oauth2: { grant: password, tenant: contoso.onmicrosoft.com, client_id: 4f0c8a52 }
      |                      ^^^^^^^^
      |
      = hint: known are `authorization_code`, `device_code`, `client_credentials`, `jwt_bearer`, `managed_identity`

    error: unknown key `quotas`
      --> tidings.yaml:10:1
       |
    10 | quotas: { mails_per_rule_per_hour: 1000 }
       | ^^^^^^
       |
       = hint: known are `accounts`, `alive`, `calendars`, `defaults`, `emitted`, `handed_in`, `limits`, `outbox`, `recipients`, `submission`

    error: unknown key `file_is_odd`
     --> rules/a.yaml:3:13
      |
    3 |     when: { file_is_odd: { in: drop } }
      |             ^^^^^^^^^^^
      |
      = hint: known are `file_arrives`, `file_changes`, `file_removed`, `schedule`, `job_succeeds`, `job_fails`, `job_finishes`, `job_recovers`, `file_missing`, `folder_backlog`, `job_missing`, `job_runs_long`, `event`, `trouble`

    error: unknown key `soften`
     --> rules/a.yaml:4:5
      |
    4 |     soften: { at_most: 1 }
      |     ^^^^^^
      |
      = hint: known are `copy`, `data`, `delete`, `description`, `emit`, `escalate`, `group`, `if`, `mail`, `move`, `on_failure`, `on_recovery`, `on_success`, `quiet_hours`, `remind`, `run`, `throttle`, `when`

    error: `file_arrives` and `schedule` cannot stand together
     --> rules/a.yaml:7:41
      |
    7 |     when: { file_arrives: { in: drop }, schedule: { every: 1h } }
      |                                         ^^^^^^^^
      |
      = hint: only one of them fits here; where several are meant, write a list: each begins with `- `

    6 problems
    exit 78
    "#);
}

#[test]
fn a_template_that_is_not_there() {
    assert_snapshot!(check_rule("    mail: { to: ops, template: file-arived }\n"), @r#"
    error: there is no template `file-arived`
     --> rules/a.yaml:4:32
      |
    4 |     mail: { to: ops, template: file-arived }
      |                                ^^^^^^^^^^^
      |
      = hint: did you mean `file-arrived`?

    1 problem
    exit 78
    "#);
}

#[test]
fn an_account_that_is_not_there() {
    assert_snapshot!(check_rule("    mail: { account: ofice, to: ops }\n"), @r#"
    error: there is no account `ofice`
     --> rules/a.yaml:4:22
      |
    4 |     mail: { account: ofice, to: ops }
      |                      ^^^^^
      |
      = hint: did you mean `office`?

    1 problem
    exit 78
    "#);
}

#[test]
fn several_accounts_and_nobody_says_which() {
    let settings = format!("{SETTINGS}defaults: {{ timezone: UTC }}\n")
        .replace("recipients:", "  preview: { transport: file }\nrecipients:");
    assert_snapshot!(check(&[
        ("tidings.yaml", &settings),
        ("rules/a.yaml", &rule("    mail: { from: invoices@contoso.com, to: ops }\n")),
    ]), @r#"
    error: which account sends this mail?
     --> rules/a.yaml:4:5
      |
    4 |     mail: { from: invoices@contoso.com, to: ops }
      |     ^^^^
      |
      = hint: the account `office` lists this sender: add `account: office`

    1 problem
    exit 78
    "#);
}

#[test]
fn a_sender_nobody_lists() {
    assert_snapshot!(check_rule("    mail:\n      - { from: billing@contoso.com, to: ops }\n      - { from: invoice@contoso.com, to: ops }\n"), @r#"
    error: the account `office` may not send as billing@contoso.com
     --> rules/a.yaml:5:17
      |
    5 |       - { from: billing@contoso.com, to: ops }
      |                 ^^^^^^^^^^^^^^^^^^^
      |
      = hint: if it is a shared mailbox that alice@contoso.com may use, add it under accounts: office: senders:

    error: the account `office` may not send as invoice@contoso.com
     --> rules/a.yaml:6:17
      |
    6 |       - { from: invoice@contoso.com, to: ops }
      |                 ^^^^^^^^^^^^^^^^^^^
      |
      = hint: did you mean invoices@contoso.com?

    2 problems
    exit 78
    "#);
}

#[test]
fn patterns_that_are_none_or_match_nothing() {
    let one = |key: &str| format!("file_arrives: {{ in: drop, {key} }}");
    let rules = format!(
        "rules:\n  a:\n    when:\n      - {}\n      - {}\n      - {}\n      - {}\n    mail: {{ to: ops }}\n",
        one("match: \"[a-.csv\""),
        one("match: /drop/*.csv"),
        one("match: in/*.csv, recursive: false"),
        one("ignore: [\"{a,b\"]"),
    );
    assert_snapshot!(check(&[("rules/a.yaml", &rules)]), @r#"
    error: `[a-.csv` is not a pattern: invalid range; 'a' > '.'
     --> rules/a.yaml:4:42
      |
    4 |       - file_arrives: { in: drop, match: "[a-.csv" }
      |                                          ^^^^^^^^^
      |
      = hint: `*` within a name, `**/` for any folders, [abc] one of these, {a,b} either

    error: this matches nothing: patterns are for the path below the folder
     --> rules/a.yaml:5:42
      |
    5 |       - file_arrives: { in: drop, match: /drop/*.csv }
      |                                          ^^^^^^^^^^^
      |
      = hint: as "*.csv", "**/*.csv" or "orders/*.csv"

    error: this matches nothing: with `recursive: false` no sub-folder is looked into
     --> rules/a.yaml:6:42
      |
    6 |       - file_arrives: { in: drop, match: in/*.csv, recursive: false }
      |                                          ^^^^^^^^
      |
      = hint: as "*.csv", "**/*.csv" or "orders/*.csv"

    error: `{a,b` is not a pattern: unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)
     --> rules/a.yaml:7:44
      |
    7 |       - file_arrives: { in: drop, ignore: ["{a,b"] }
      |                                            ^^^^^^
      |
      = hint: `*` within a name, `**/` for any folders, [abc] one of these, {a,b} either

    4 problems
    exit 78
    "#);
}

#[test]
fn addresses_that_are_none() {
    let settings = SETTINGS.replace(
        "[invoices@contoso.com]",
        "[Invoices <invoices@contoso.com>, invoices]",
    );
    assert_snapshot!(check(&[
        ("tidings.yaml", &settings),
        ("rules/a.yaml", &rule("    mail: { from: Alice alice@contoso.com, to: [\"bob@contoso.com, eve@contoso.com\", bob@@contoso.com], reply_to: nobody }\n")),
    ]), @r#"
    error: `Invoices <invoices@contoso.com>` is not a mail address
     --> tidings.yaml:5:15
      |
    5 |     senders: [Invoices <invoices@contoso.com>, invoices]
      |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = hint: only the address: invoices@contoso.com

    error: `invoices` is not a mail address
     --> tidings.yaml:5:48
      |
    5 |     senders: [Invoices <invoices@contoso.com>, invoices]
      |                                                ^^^^^^^^
      |
      = hint: an address is name@domain, or Name <name@domain>

    error: `Alice alice@contoso.com` is not a mail address
     --> rules/a.yaml:4:19
      |
    4 |     mail: { from: Alice alice@contoso.com, to: ["bob@contoso.com, eve@contoso.com", bob@@contoso.com…
      |                   ^^^^^^^^^^^^^^^^^^^^^^^
      |
      = hint: a name beside the address needs angle brackets: Name <name@domain>

    error: `bob@contoso.com, eve@contoso.com` is not a mail address
     --> rules/a.yaml:4:49
      |
    4 | …m: Alice alice@contoso.com, to: ["bob@contoso.com, eve@contoso.com", bob@@contoso.com], reply_to: no…
      |                                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = hint: one address each: write a list, [first@example.com, second@example.com]

    error: `bob@@contoso.com` is not a mail address
     --> rules/a.yaml:4:85
      |
    4 | …ce alice@contoso.com, to: ["bob@contoso.com, eve@contoso.com", bob@@contoso.com], reply_to: nobody }
      |                                                                 ^^^^^^^^^^^^^^^^
      |
      = hint: an address is name@domain, or Name <name@domain>; look for a character too much

    error: `nobody` is not a mail address
     --> rules/a.yaml:4:114
      |
    4 | …ce alice@contoso.com, to: ["bob@contoso.com, eve@contoso.com", bob@@contoso.com], reply_to: nobody }
      |                                                                                              ^^^^^^
      |
      = hint: an address is name@domain, or Name <name@domain>

    6 problems
    exit 78
    "#);
}

#[test]
fn a_group_that_is_not_there() {
    assert_snapshot!(check_rule("    mail: { to: [op, everybody] }\n"), @r#"
    error: `op` is neither a mail address nor a group
     --> rules/a.yaml:4:18
      |
    4 |     mail: { to: [op, everybody] }
      |                  ^^
      |
      = hint: did you mean `ops`?

    error: `everybody` is neither a mail address nor a group
     --> rules/a.yaml:4:22
      |
    4 |     mail: { to: [op, everybody] }
      |                      ^^^^^^^^^
      |
      = hint: known is only `ops`

    2 problems
    exit 78
    "#);
}

#[test]
fn times_sizes_and_zones_that_are_none() {
    let settings = format!(
        "{SETTINGS}defaults: {{ timezone: Berlin, scan_every: 1 minute }}\noutbox: {{ store: postgres://db, retry: {{ first: 2h, longest: 1h }}, keep: 0s }}\n"
    );
    assert_snapshot!(check(&[
        ("tidings.yaml", &settings),
        ("rules/a.yaml", "rules:\n  a:\n    when: { file_arrives: { in: drop, settle: soon, min_size: 10 mb, max_size: 1kB } }\n    run: { command: [sort], timeout: 90 }\n"),
    ]), @r#"
    error: `Berlin` is not a time zone
     --> tidings.yaml:9:23
      |
    9 | defaults: { timezone: Berlin, scan_every: 1 minute }
      |                       ^^^^^^
      |
      = hint: did you mean `Europe/Berlin`?

    error: `1 minute` is not a time
     --> tidings.yaml:9:43
      |
    9 | defaults: { timezone: Berlin, scan_every: 1 minute }
      |                                           ^^^^^^^^
      |
      = hint: a time is a number and a unit: 300ms, 30s, 5m, 2h, 1d, 1w, or several: 1h30m

    error: `postgres://db` is not a place for the outbox
      --> tidings.yaml:10:18
       |
    10 | outbox: { store: postgres://db, retry: { first: 2h, longest: 1h }, keep: 0s }
       |                  ^^^^^^^^^^^^^
       |
       = hint: write sqlite: and a file: sqlite:state/tidings.db

    error: the longest wait is shorter than the first
      --> tidings.yaml:10:62
       |
    10 | outbox: { store: postgres://db, retry: { first: 2h, longest: 1h }, keep: 0s }
       |                                                              ^^
       |
       = hint: make `longest` at least as long as `first`

    error: no time at all is too short
      --> tidings.yaml:10:74
       |
    10 | outbox: { store: postgres://db, retry: { first: 2h, longest: 1h }, keep: 0s }
       |                                                                          ^^
       |
       = hint: write 1s or more

    error: `soon` is neither auto nor a time
     --> rules/a.yaml:3:47
      |
    3 |     when: { file_arrives: { in: drop, settle: soon, min_size: 10 mb, max_size: 1kB } }
      |                                               ^^^^
      |
      = hint: auto, or how long a file must stand still: 10s, 2m

    error: `10 mb` is not a size
     --> rules/a.yaml:3:63
      |
    3 |     when: { file_arrives: { in: drop, settle: soon, min_size: 10 mb, max_size: 1kB } }
      |                                                               ^^^^^
      |
      = hint: a size is a number and a unit: 100B, 500kB, 10MB, 2GB, or 10MiB for powers of two

    error: a text should be here, not a number
     --> rules/a.yaml:4:38
      |
    4 |     run: { command: [sort], timeout: 90 }
      |                                      ^^
      |
      = hint: a time has a unit: 30s, 5m, 2h

    8 problems
    exit 78
    "#);
}

#[test]
fn schedules_that_never_come() {
    let one = |name: &str, schedule: &str| {
        format!("  {name}: {{ when: {{ schedule: {{ {schedule} }} }}, mail: {{ to: ops }} }}\n")
    };
    let rules = format!(
        "rules:\n{}{}{}{}",
        one("a", "cron: \"0 0 31 2 *\""),
        one("b", "cron: \"every day\""),
        one("c", "cron: \"0 2 * * *\", every: 1h"),
        one("d", "cron: \"0 2 * * *\", timezone: Europe/Berln"),
    );
    assert_snapshot!(check(&[("rules/a.yaml", &rules)]), @r#"
    error: the cron pattern "0 0 31 2 *" names a day that never comes
     --> rules/a.yaml:2:34
      |
    2 |   a: { when: { schedule: { cron: "0 0 31 2 *" } }, mail: { to: ops } }
      |                                  ^^^^^^^^^^^^
      |
      = hint: look at the day and the month: the 31st is not in every month, the 30th not in February

    error: the cron pattern "every day" is not one: Invalid pattern: Pattern must have 5 or 6 fields when years are disallowed.
     --> rules/a.yaml:3:34
      |
    3 |   b: { when: { schedule: { cron: "every day" } }, mail: { to: ops } }
      |                                  ^^^^^^^^^^^
      |
      = hint: minute hour day month weekday, as in "0 2 * * mon-fri"; a sixth field before them gives seconds

    error: a schedule has both `cron` and `every`
     --> rules/a.yaml:4:34
      |
    4 |   c: { when: { schedule: { cron: "0 2 * * *", every: 1h } }, mail: { to: ops } }
      |                                  ^^^^^^^^^^^
      |
      = hint: keep one of them; two schedules are two entries of `when`

    error: `Europe/Berln` is not a time zone
     --> rules/a.yaml:5:57
      |
    5 |   d: { when: { schedule: { cron: "0 2 * * *", timezone: Europe/Berln } }, mail: { to: ops } }
      |                                                         ^^^^^^^^^^^^
      |
      = hint: did you mean `Europe/Berlin`?

    4 problems
    exit 78
    "#);
}

#[test]
fn conditions_that_are_none_or_name_unknown_facts() {
    let one = |name: &str, condition: &str| {
        format!(
            "  {name}: {{ when: {{ file_arrives: {{ in: drop }} }}, if: '{condition}', mail: {{ to: ops }} }}\n"
        )
    };
    let rules = format!(
        "rules:\n{}{}{}{}",
        one("a", "file.size >"),
        one("b", "file.siez > 0"),
        one("c", "job.ok"),
        one("d", "file.name"),
    );
    assert_snapshot!(check(&[("rules/a.yaml", &rules)]), @r#"
    error: the condition ends too early
     --> rules/a.yaml:2:62
      |
    2 |   a: { when: { file_arrives: { in: drop } }, if: 'file.size >', mail: { to: ops } }
      |                                                              ^

    error: unknown fact `file.siez`
     --> rules/a.yaml:3:56
      |
    3 |   b: { when: { file_arrives: { in: drop } }, if: 'file.siez > 0', mail: { to: ops } }
      |                                                        ^^^^
      |
      = hint: did you mean `file.size`?

    error: no trigger of this rule brings `job`, only `file`
     --> rules/a.yaml:4:51
      |
    4 |   c: { when: { file_arrives: { in: drop } }, if: 'job.ok', mail: { to: ops } }
      |                                                   ^^^^^^
      |
      = hint: `job_fails` (or another job trigger) would bring `job`; so would `on_success` and `on_failure` of a rule with `run:`

    error: the condition gives text, not true or false
     --> rules/a.yaml:5:51
      |
    5 |   d: { when: { file_arrives: { in: drop } }, if: 'file.name', mail: { to: ops } }
      |                                                   ^^^^^^^^^
      |
      = hint: compare it: `.. == "text"`, `.. != ""`

    4 problems
    exit 78
    "#);
}

#[test]
fn texts_that_say_what_no_trigger_brings() {
    let rules = "\
rules:
  a:
    when: { schedule: { every: 1h } }
    mail:
      to: ops
      subject: \"{{file.name}} at {{schedule.du}}\"
      template: file-arrived
      attach: job.log
  b:
    when:
      - file_arrives: { in: drop }
      - job_fails: { job: x }
    mail: { to: ops, subject: \"{{file.name}}\" }
  c:
    when: { job_fails: { job: x } }
    mail: { to: ops, subject: \"{{#if file}}{{file.name}}{{/if}} {{#if fiel}}x{{/if}}\" }
";
    assert_snapshot!(check(&[("rules/a.yaml", rules)]), @r#"
    error: no trigger of this rule brings `file`, only `schedule`
     --> rules/a.yaml:6:19
      |
    6 |       subject: "{{file.name}} at {{schedule.du}}"
      |                   ^^^^^^^^^
      |
      = hint: `file_arrives` would bring `file`

    error: unknown fact `schedule.du`
     --> rules/a.yaml:6:36
      |
    6 |       subject: "{{file.name}} at {{schedule.du}}"
      |                                    ^^^^^^^^^^^
      |
      = hint: did you mean `schedule.due`?

    error: the template `file-arrived` says `file.name`, but no trigger of this rule brings `file`, only `schedule`
     --> rules/a.yaml:7:17
      |
    7 |       template: file-arrived
      |                 ^^^^^^^^^^^^
      |
      = hint: it says so in templates/file-arrived.html.hbs:2:23; `file_arrives` would bring `file`

    error: there is no job.log here: no trigger of this rule brings `job`, only `schedule`
     --> rules/a.yaml:8:15
      |
    8 |       attach: job.log
      |               ^^^^^^^
      |
      = hint: `job_fails` (or another job trigger) would bring `job`; so would `on_success` and `on_failure` of a rule with `run:`

    error: `file.name` is not there when the rule was started by a job
      --> rules/a.yaml:13:34
       |
    13 |     mail: { to: ops, subject: "{{file.name}}" }
       |                                  ^^^^^^^^^
       |
       = hint: ask first: {{#if file}}..{{/if}}, or make two rules of it

    error: unknown fact `fiel`
      --> rules/a.yaml:16:71
       |
    16 |     mail: { to: ops, subject: "{{#if file}}{{file.name}}{{/if}} {{#if fiel}}x{{/if}}" }
       |                                                                       ^^^^
       |
       = hint: did you mean `file`?

    6 problems
    exit 78
    "#);
}

#[test]
fn a_template_with_a_mistake_in_it() {
    let template = "---\nsubject: \"{{rule.name\"\n---\n<p>{{#each file}}\n{{sizes file.size}}</p>\n";
    assert_snapshot!(check(&[
        ("templates/own.html.hbs", template),
        ("rules/a.yaml", &rule("    mail: { to: ops, template: own }\n")),
    ]), @r#"
    error: this `{{` is never closed
     --> templates/own.html.hbs:2:11
      |
    2 | subject: "{{rule.name"
      |           ^
      |
      = hint: write `}}` behind it; a literal `{{` is `\{{`

    error: a block is not closed
     --> templates/own.html.hbs:6:1
      |
    6 |
      | ^
      |
      = hint: each `{{#if ..}}` needs its `{{/if}}`

    2 problems
    exit 78
    "#);
}

#[test]
fn a_folder_that_cannot_be_watched() {
    let rules = "\
rules:
  a:
    when:
      - file_arrives: { in: dorp }
      - file_arrives: { in: tidings.yaml }
    mail: { to: ops }
";
    assert_snapshot!(check(&[("rules/a.yaml", rules)]), @r#"
    error: there is no folder [SETUP]/dorp
     --> rules/a.yaml:4:29
      |
    4 |       - file_arrives: { in: dorp }
      |                             ^^^^
      |
      = hint: mkdir -p [SETUP]/dorp

    error: [SETUP]/tidings.yaml is not a folder
     --> rules/a.yaml:5:29
      |
    5 |       - file_arrives: { in: tidings.yaml }
      |                             ^^^^^^^^^^^^
      |
      = hint: folders are watched, not files; name the folder here and the file in `match`

    2 problems
    exit 78
    "#);
}

#[test]
fn a_move_to_where_the_file_arrives_again() {
    let rules = "\
rules:
  itself:
    when: { file_arrives: { in: drop, match: \"**/*.csv\" } }
    run: { command: [sort, \"{{file.path}}\"] }
    on_success: { move: drop/done/ }
  there:
    when: { file_arrives: { in: drop/a, match: \"*.pdf\" } }
    move: drop/b/
  and-back:
    when: { file_arrives: { in: drop/b, match: \"*.pdf\" } }
    move: \"drop/a/{{file.stem}}-again.pdf\"
  fine:
    when: { file_arrives: { in: drop, match: \"*.csv\" } }
    move: \"{{file.folder}}/done/\"
";
    let dir = setup(&[("rules/a.yaml", rules)]);
    std::fs::create_dir_all(dir.path().join("drop/a")).unwrap();
    std::fs::create_dir_all(dir.path().join("drop/b")).unwrap();
    assert_snapshot!(said(dir.path()), @r#"
    error: the file would arrive again here, and again
     --> rules/a.yaml:5:25
      |
    5 |     on_success: { move: drop/done/ }
      |                         ^^^^^^^^^^
      |
      = hint: move it to a folder that is not watched, or leave that folder out with `ignore`

    error: the file would arrive again here, and again
     --> rules/a.yaml:8:11
      |
    8 |     move: drop/b/
      |           ^^^^^^^
      |
      = hint: the rule `and-back` takes it up there, and leads back to this one; move it elsewhere

    error: the file would arrive again here, and again
      --> rules/a.yaml:11:11
       |
    11 |     move: "drop/a/{{file.stem}}-again.pdf"
       |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       |
       = hint: the rule `there` takes it up there, and leads back to this one; move it elsewhere

    3 problems
    exit 78
    "#);
}

#[test]
fn a_job_that_waits_for_its_own_end() {
    let rules = "\
rules:
  billing-again:
    when: { job_fails: { job: \"billing-*\" } }
    run: { command: [sort] }
  billing-first:
    when: { schedule: { every: 1h } }
    run: { command: [sort] }
  after:
    when: { job_succeeds: { job: billing-frist } }
    mail: { to: ops }
";
    assert_snapshot!(check(&[("rules/a.yaml", rules)]), @r#"
    error: this rule's own work would start it again, for ever
     --> rules/a.yaml:2:3
      |
    2 |   billing-again:
      |   ^^^^^^^^^^^^^
      |
      = hint: name the jobs it waits for, so that its own is not among them

    warning: no rule here has a job called `billing-frist`
     --> rules/a.yaml:9:34
      |
    9 |     when: { job_succeeds: { job: billing-frist } }
      |                                  ^^^^^^^^^^^^^
      |
      = hint: did you mean `billing-first`?

    1 problem, 1 warning
    exit 78
    "#);
}

#[test]
fn a_watch_that_sees_our_own_files() {
    let settings = format!("{SETTINGS}defaults: {{ account: office }}\n").replace(
        "recipients:",
        "  preview: { transport: file, folder: drop/mails }\nrecipients:",
    );
    let rules = "\
rules:
  a:
    when: { file_arrives: { in: . } }
    mail: { to: ops }
  b:
    when: { file_arrives: { in: ., ignore: [\"state/**\", \"drop/mails/**\"] } }
    mail: { to: ops }
";
    assert_snapshot!(check(&[("tidings.yaml", &settings), ("rules/a.yaml", rules)]), @r#"
    error: the account `preview` writes its mails into this folder
     --> rules/a.yaml:3:33
      |
    3 |     when: { file_arrives: { in: . } }
      |                                 ^
      |
      = hint: each mail would arrive as a file; watch another folder, or add to `ignore`: "drop/mails/**"

    error: tidings' own state lies in this folder, and would be taken for arriving files
     --> rules/a.yaml:3:33
      |
    3 |     when: { file_arrives: { in: . } }
      |                                 ^
      |
      = hint: watch a folder beside [SETUP]/state, or add to `ignore`: "state/**"

    2 problems
    exit 78
    "#);
}

#[test]
fn two_rules_of_one_name() {
    assert_snapshot!(check(&[
        ("rules/a.yaml", &rule("    mail: { to: ops }\n")),
        ("rules/b.yaml", &rule("    mail: { to: ops }\n")),
    ]), @r#"
    error: there are two rules called `invoice`
     --> rules/b.yaml:2:3
      |
    2 |   invoice:
      |   ^^^^^^^
      |
      = hint: the other one stands at rules/a.yaml:2; each needs a name of its own

    1 problem
    exit 78
    "#);
}

#[test]
fn rules_that_do_nothing_or_wait_for_nothing() {
    let rules = "\
rules:
  idle:
    when: { file_arrives: { in: drop } }
  no work:
    when: { schedule: { every: 1h } }
    on_failure: { mail: { to: ops } }
    move: done/
  waits:
    when: { schedule: { every: 1h } }
    on_failure: { mail: { to: ops } }
  twice:
    when: { file_arrives: { in: drop } }
    move: done/
    delete: true
    mail: { to: ops }
    on_success: { mail: { to: ops } }
";
    assert_snapshot!(check(&[("rules/a.yaml", rules)]), @r#"
    error: this rule does nothing
     --> rules/a.yaml:2:3
      |
    2 |   idle:
      |   ^^^^
      |
      = hint: add `mail:` (whom to tell), or work: `run:`, `move:`, `copy:`, `delete:`

    error: `no work` cannot be the name of a rule
     --> rules/a.yaml:4:3
      |
    4 |   no work:
      |   ^^^^^^^
      |
      = hint: letters, digits, `-`, `_` and `.`, at most 100, a letter or digit first

    error: `move` needs a file, and not every trigger of this rule brings one
     --> rules/a.yaml:7:5
      |
    7 |     move: done/
      |     ^^^^
      |
      = hint: only `file_arrives` and `file_changes` do; use `run:` for other files, or make two rules of it

    error: `on_failure` has nothing to wait for: this rule does no work
      --> rules/a.yaml:10:5
       |
    10 |     on_failure: { mail: { to: ops } }
       |     ^^^^^^^^^^
       |
       = hint: work is `run`, `move`, `copy` or `delete`; for a plain notice write `mail`, for another rule's job bind to it with `job_fails`, `job_succeeds`

    error: a file that was moved away cannot be deleted
      --> rules/a.yaml:14:5
       |
    14 |     delete: true
       |     ^^^^^^
       |
       = hint: keep `move` or `delete`

    error: does this mail come before or after the work?
      --> rules/a.yaml:15:5
       |
    15 |     mail: { to: ops }
       |     ^^^^
       |
       = hint: with `on_success`, write it there: on_success: { mail: .. }

    6 problems
    exit 78
    "#);
}

#[test]
fn a_command_for_a_shell() {
    let rules = "\
rules:
  a:
    when: { schedule: { every: 1h } }
    run: { command: \"sort *.csv | uniq\", env: { TIDINGS_X: a, \"B-C\": b } }
  d:
    when: { schedule: { every: 1h } }
    run: { command: sort --unique }
  b:
    when: { schedule: { every: 1h } }
    run: { command: [./export, --full], folder: work }
  c:
    when: { schedule: { every: 1h } }
    run: { command: [no-such-program-anywhere] }
";
    assert_snapshot!(check(&[("rules/a.yaml", rules)]), @r#"
    error: this would be taken for the name of one program: no shell reads it
     --> rules/a.yaml:4:21
      |
    4 |     run: { command: "sort *.csv | uniq", env: { TIDINGS_X: a, "B-C": b } }
      |                     ^^^^^^^^^^^^^^^^^^^
      |
      = hint: put it into a script, and name that: [./work.sh]

    error: names that begin with TIDINGS_ are set by tidings
     --> rules/a.yaml:4:49
      |
    4 |     run: { command: "sort *.csv | uniq", env: { TIDINGS_X: a, "B-C": b } }
      |                                                 ^^^^^^^^^
      |
      = hint: choose another name

    error: `B-C` cannot be the name of an environment variable
     --> rules/a.yaml:4:63
      |
    4 |     run: { command: "sort *.csv | uniq", env: { TIDINGS_X: a, "B-C": b } }
      |                                                               ^^^^^
      |
      = hint: letters, digits and `_`

    error: this would be taken for the name of one program: no shell reads it
     --> rules/a.yaml:7:21
      |
    7 |     run: { command: sort --unique }
      |                     ^^^^^^^^^^^^^
      |
      = hint: write a list: [sort, --unique]

    error: there is no program [SETUP]/export
      --> rules/a.yaml:10:22
       |
    10 |     run: { command: [./export, --full], folder: work }
       |                      ^^^^^^^^
       |
       = hint: a relative path starts at the setup folder

    error: there is no folder [SETUP]/work
      --> rules/a.yaml:10:49
       |
    10 |     run: { command: [./export, --full], folder: work }
       |                                                 ^^^^
       |
       = hint: mkdir -p [SETUP]/work

    warning: there is no program `no-such-program-anywhere` in PATH
      --> rules/a.yaml:13:22
       |
    13 |     run: { command: [no-such-program-anywhere] }
       |                      ^^^^^^^^^^^^^^^^^^^^^^^^
       |
       = hint: the service may have another PATH; a full path is safest

    6 problems, 1 warning
    exit 78
    "#);
}

#[test]
fn recipients_that_nobody_allows() {
    let settings = format!("{SETTINGS}  allow: [\"*@contoso.com\", contoso.net]\n")
        .replace("oncall@contoso.com", "oncall@elsewhere.example");
    assert_snapshot!(check(&[
        ("tidings.yaml", &settings.replace(", contoso.net", "")),
        ("rules/a.yaml", &rule("    mail: { to: [ops, eve@example.com, \"{{file.stem}}@example.com\", \"{{file.stem}}@contoso.com\"] }\n")),
    ]), @r#"
    error: `oncall@elsewhere.example` is not among the allowed recipients
     --> tidings.yaml:8:36
      |
    8 |   groups: { ops: [ops@contoso.com, oncall@elsewhere.example] }
      |                                    ^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = hint: add a pattern under recipients: allow:, as "*@elsewhere.example"

    error: `eve@example.com` is not among the allowed recipients
     --> rules/a.yaml:4:23
      |
    4 |     mail: { to: [ops, eve@example.com, "{{file.stem}}@example.com", "{{file.stem}}@contoso.com"] }
      |                       ^^^^^^^^^^^^^^^
      |
      = hint: add a pattern under recipients: allow:, as "*@example.com"

    error: no address that this gives would be allowed, so the mail would always be held
     --> rules/a.yaml:4:40
      |
    4 |     mail: { to: [ops, eve@example.com, "{{file.stem}}@example.com", "{{file.stem}}@contoso.com"] }
      |                                        ^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = hint: say who a template may write to: recipients: { allow: ["*@example.com"] }

    3 problems
    exit 78
    "#);
    assert_snapshot!(check(&[("tidings.yaml", &settings)]), @r#"
    error: `oncall@elsewhere.example` is not among the allowed recipients
     --> tidings.yaml:8:36
      |
    8 |   groups: { ops: [ops@contoso.com, oncall@elsewhere.example] }
      |                                    ^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = hint: add a pattern under recipients: allow:, as "*@elsewhere.example"

    error: `contoso.net` matches no address: it has no @
     --> tidings.yaml:9:28
      |
    9 |   allow: ["*@contoso.com", contoso.net]
      |                            ^^^^^^^^^^^
      |
      = hint: write "*@contoso.net"

    warning: there are no rules, so nothing will ever happen
    --> rules
     = hint: rules are written in files rules/*.yaml

    2 problems, 1 warning
    exit 78
    "#);
}

#[test]
fn a_recipient_from_a_template_without_an_allow_list() {
    assert_snapshot!(check_rule("    mail: { to: \"{{file.folder_name}}@example.com\" }\n"), @r#"
    error: no address that this gives would be allowed, so the mail would always be held
     --> rules/a.yaml:4:17
      |
    4 |     mail: { to: "{{file.folder_name}}@example.com" }
      |                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = hint: say who a template may write to: recipients: { allow: ["*@example.com"] }

    1 problem
    exit 78
    "#);
}

#[test]
fn credentials_that_anybody_could_read() {
    let settings = "\
accounts:
  relay:
    user: robot@example.org
    smtp: { host: smtp://relay.example.org, port: 25, tls: none }
    password: { secret: { env: RELAY } }
  partner:
    provider:
      authorize_url: http://id.example.org/authorize
      token_url: id.example.org
      smtp: { host: mail.example.org }
    user: robot@example.org
    oauth2: { client_id: x, redirect: \"https://example.org/\", secret_expires: tomorrow }
  open:
    smtp: { host: relay.example.org, tls: none }
  both:
    provider: google
    user: robot@example.org
    oauth2: { client_id: x }
    password: { secret: { env: X } }
";
    assert_snapshot!(check(&[("tidings.yaml", settings)]), @r#"
    error: `smtp://relay.example.org` is not the name of a server
     --> tidings.yaml:4:19
      |
    4 |     smtp: { host: smtp://relay.example.org, port: 25, tls: none }
      |                   ^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = hint: only the name: relay.example.org

    error: this address is not protected
     --> tidings.yaml:8:22
      |
    8 |       authorize_url: http://id.example.org/authorize
      |                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = hint: tokens travel here: https only; http only to this machine

    error: `id.example.org` is not a web address
     --> tidings.yaml:9:18
      |
    9 |       token_url: id.example.org
      |                  ^^^^^^^^^^^^^^
      |
      = hint: https://login.example.com/..

    error: `https://example.org/` does not lead back to this machine
      --> tidings.yaml:12:39
       |
    12 |     oauth2: { client_id: x, redirect: "https://example.org/", secret_expires: tomorrow }
       |                                       ^^^^^^^^^^^^^^^^^^^^^^
       |
       = hint: http://127.0.0.1, http://localhost:3017/ or http://[::1], as it is registered at the provider; or https with `listen:`, where a proxy passes it on

    error: `tomorrow` is not a date
      --> tidings.yaml:12:79
       |
    12 |     oauth2: { client_id: x, redirect: "https://example.org/", secret_expires: tomorrow }
       |                                                                               ^^^^^^^^
       |
       = hint: year, month, day: 2027-05-01

    warning: mails go to relay.example.org unprotected
      --> tidings.yaml:14:43
       |
    14 |     smtp: { host: relay.example.org, tls: none }
       |                                           ^^^^
       |
       = hint: use `tls: starttls` if the server offers it

    error: an account signs in with OAuth2 or with a password, not both
      --> tidings.yaml:19:5
       |
    19 |     password: { secret: { env: X } }
       |     ^^^^^^^^
       |
       = hint: remove the one you do not use

    warning: there are no rules, so nothing will ever happen
    --> rules
     = hint: rules are written in files rules/*.yaml

    6 problems, 2 warnings
    exit 78
    "#);
}

#[test]
fn accounts_that_lack_what_they_need() {
    let settings = "\
accounts:
  nowhere: { user: a@example.com }
  nobody: { provider: microsoft365, oauth2: { client_id: x } }
  nothing: { provider: microsoft365, user: a@example.com }
  endpoints: { provider: { token_url: \"https://id.example.org/token\" }, smtp: { host: mail.example.org }, user: a@example.com, oauth2: { client_id: x } }
  strange: { transport: file, provider: google, password: { secret: { env: X } } }
  folder: { smtp: { host: localhost, ca_file: ca.pem }, folder: out, signature: signatures/office }
";
    assert_snapshot!(check(&[("tidings.yaml", settings)]), @r#"
    error: the account `nowhere` does not say where its mail goes
     --> tidings.yaml:2:3
      |
    2 |   nowhere: { user: a@example.com }
      |   ^^^^^^^
      |
      = hint: add `provider: microsoft365` or `provider: google`, or `smtp: { host: mail.example.com }`, or `transport: file`

    error: which tenant?
     --> tidings.yaml:3:37
      |
    3 |   nobody: { provider: microsoft365, oauth2: { client_id: x } }
      |                                     ^^^^^^
      |
      = hint: add `tenant:` with your directory's domain (contoso.onmicrosoft.com) or id

    error: who signs in?
     --> tidings.yaml:3:37
      |
    3 |   nobody: { provider: microsoft365, oauth2: { client_id: x } }
      |                                     ^^^^^^
      |
      = hint: add `user:` with the mail address of the account that gives consent

    error: this provider takes no mail from somebody who does not sign in
     --> tidings.yaml:4:24
      |
    4 |   nothing: { provider: microsoft365, user: a@example.com }
      |                        ^^^^^^^^^^^^
      |
      = hint: add `oauth2: { tenant: .., client_id: .. }` and `user:`

    error: `authorize_url` is missing
     --> tidings.yaml:5:16
      |
    5 |   endpoints: { provider: { token_url: "https://id.example.org/token" }, smtp: { host: mail.example.o…
      |                ^^^^^^^^
      |
      = hint: `provider: microsoft365`, `provider: google`, `provider: { issuer: https://.. }`, or a map with authorize_url and token_url

    error: `provider` means nothing with `transport: file`
     --> tidings.yaml:6:31
      |
    6 |   strange: { transport: file, provider: google, password: { secret: { env: X } } }
      |                               ^^^^^^^^
      |
      = hint: files are written, nothing is sent; remove the one or the other

    error: `password` means nothing with `transport: file`
     --> tidings.yaml:6:49
      |
    6 |   strange: { transport: file, provider: google, password: { secret: { env: X } } }
      |                                                 ^^^^^^^^
      |
      = hint: files are written, nothing is sent; remove the one or the other

    error: cannot read `ca.pem`: No such file or directory
     --> tidings.yaml:7:47
      |
    7 |   folder: { smtp: { host: localhost, ca_file: ca.pem }, folder: out, signature: signatures/office }
      |                                               ^^^^^^
      |
      = hint: looked for [SETUP]/ca.pem

    error: a folder means nothing here
     --> tidings.yaml:7:57
      |
    7 |   folder: { smtp: { host: localhost, ca_file: ca.pem }, folder: out, signature: signatures/office }
      |                                                         ^^^^^^
      |
      = hint: it belongs to `transport: file`, which writes mails to a folder instead of sending them

    error: there is no template `signatures/office`
     --> tidings.yaml:7:81
      |
    7 |   folder: { smtp: { host: localhost, ca_file: ca.pem }, folder: out, signature: signatures/office }
      |                                                                                 ^^^^^^^^^^^^^^^^^
      |
      = hint: write templates/signatures/office.html.hbs, or take one of digest, file-arrived, file-came-late, file-missing, folder-backlog, job-failed, job-missing, job-recovered, job-runs-long, job-succeeded, plain, test-message, trouble

    warning: there are no rules, so nothing will ever happen
    --> rules
     = hint: rules are written in files rules/*.yaml

    10 problems, 1 warning
    exit 78
    "#);
}

#[test]
fn a_secret_in_the_open_is_warned_about_and_never_shown() {
    let settings = SETTINGS.replace(
        "client_id: 4f0c8a52",
        "client_id: 4f0c8a52, client_secret: hunter2",
    );
    let fine = check(&[
        ("tidings.yaml", &settings),
        ("rules/a.yaml", &rule("    mail: { to: ops }\n")),
    ]);
    assert_snapshot!(fine, @r#"
    warning: a secret is written in the open here
     --> tidings.yaml:6:69
      |
    6 |     oauth2: { tenant: contoso.onmicrosoft.com, client_id: 4f0c8a52, client_secret: ******* }
      |                                                                     ^^^^^^^^^^^^^
      |
      = hint: write { env: NAME }, { file: PATH } or { command: [..] } instead, and change the secret: it may be in backups

    all is well: 1 rule, 1 account, 13 templates, 1 watched folder; 1 warning
    exit 0
    "#);
    for broken in [
        settings.replace("client_secret:", "clientsecret:"),
        settings.replace("client_secret: hunter2", "client_secret: { kyring: hunter2 }"),
        settings.replace(
            "client_secret: hunter2",
            "client_secret: hunter2, client_secret: hunter2",
        ),
        settings.replace("hunter2 }", "hunter2 ]"),
        settings.replace("hunter2", "[[hunter2]]"),
    ] {
        let said = check(&[("tidings.yaml", &broken)]);
        assert!(said.ends_with("exit 78"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    let two = check(&[(
        "tidings.yaml",
        &settings.replace("hunter2", "[hunter2, hunter2-old]"),
    )]);
    assert!(!two.contains("hunter2"), "{two}");
}

#[test]
fn a_marker_that_is_not_about_the_file() {
    assert_snapshot!(check(&[("rules/a.yaml", "rules:\n  a:\n    when: { file_arrives: { in: drop, settle: 10s, marker: \"{{rule.name}}.done\" } }\n    mail: { to: ops }\n")]), @r#"
    error: a file is done by `settle` or by `marker`, not both
     --> rules/a.yaml:3:52
      |
    3 |     when: { file_arrives: { in: drop, settle: 10s, marker: "{{rule.name}}.done" } }
      |                                                    ^^^^^^
      |
      = hint: remove the one you do not need

    error: a marker cannot depend on `rule.name`
     --> rules/a.yaml:3:63
      |
    3 |     when: { file_arrives: { in: drop, settle: 10s, marker: "{{rule.name}}.done" } }
      |                                                               ^^^^^^^^^
      |
      = hint: only on the file's name and place: "{{file.name}}.done"

    2 problems
    exit 78
    "#);
}

#[test]
fn header_fields_that_are_ours() {
    assert_snapshot!(check_rule("    mail: { to: ops, headers: { Subject: x, X-Tidings-Rule: y, \"A B\": z, X-Ticket: \"{{fil.name}}\", x-ticket: b } }\n"), @r#"
    error: the header field Subject cannot be set here
     --> rules/a.yaml:4:33
      |
    4 |     mail: { to: ops, headers: { Subject: x, X-Tidings-Rule: y, "A B": z, X-Ticket: "{{fil.name}}", x…
      |                                 ^^^^^^^
      |
      = hint: write `subject:`

    error: header fields that begin with X-Tidings- are set by tidings
     --> rules/a.yaml:4:45
      |
    4 | …   mail: { to: ops, headers: { Subject: x, X-Tidings-Rule: y, "A B": z, X-Ticket: "{{fil.name}}", x-…
      |                                             ^^^^^^^^^^^^^^
      |
      = hint: choose another name

    error: `A B` cannot be the name of a header field
     --> rules/a.yaml:4:64
      |
    4 | …: ops, headers: { Subject: x, X-Tidings-Rule: y, "A B": z, X-Ticket: "{{fil.name}}", x-ticket: b } }
      |                                                   ^^^^^
      |
      = hint: letters, digits and `-`, as X-Ticket

    error: unknown fact `fil`
     --> rules/a.yaml:4:87
      |
    4 | …: ops, headers: { Subject: x, X-Tidings-Rule: y, "A B": z, X-Ticket: "{{fil.name}}", x-ticket: b } }
      |                                                                          ^^^^^^^^
      |
      = hint: did you mean `file`?

    error: the header field x-ticket is here twice
     --> rules/a.yaml:4:100
      |
    4 | …: ops, headers: { Subject: x, X-Tidings-Rule: y, "A B": z, X-Ticket: "{{fil.name}}", x-ticket: b } }
      |                                                                                       ^^^^^^^^
      |
      = hint: upper and lower case make no difference; keep one

    5 problems
    exit 78
    "#);
}

#[test]
fn no_rules_at_all() {
    assert_snapshot!(check(&[]), @r#"
    warning: there are no rules, so nothing will ever happen
    --> rules
     = hint: rules are written in files rules/*.yaml

    all is well: 0 rules, 1 account, 13 templates, 0 watched folders; 1 warning
    exit 0
    "#);
}

#[test]
fn files_that_are_not_read() {
    let dir = setup(&[
        ("rules/old.yml", "rules: {}\n"),
        ("rules/empty.yaml", "rules: {}\n"),
    ]);
    write(dir.path(), "rules/latin.yaml", b"rules:\n  # f\xfcr alle\n");
    std::fs::create_dir(dir.path().join("rules/folder.yaml")).unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        dir.path().join("rules/pipe.yaml"),
        rustix::fs::Mode::from(0o600),
    )
    .unwrap();
    assert_snapshot!(said(dir.path()), @r#"
    warning: there is no rule in this file
     --> rules/empty.yaml:1:1
      |
    1 | rules: {}
      | ^^^^^
      |
      = hint: write one below `rules:`, or remove the file

    error: this is a folder, and a YAML file should be here
    --> rules/folder.yaml
     = hint: remove it, or give it another ending

    error: this file is not UTF-8 text
     --> rules/latin.yaml:2:6
      |
    2 |   # f�r alle
      |      ^
      |
      = hint: save it as UTF-8 (in most editors: File, Save with encoding)

    warning: this file is not read
    --> rules/old.yml
     = hint: only *.yaml is; rename it

    error: this is no regular file, and a YAML file should be here
    --> rules/pipe.yaml
     = hint: remove it, or give it another ending

    3 problems, 2 warnings
    exit 78
    "#);
}

#[test]
fn no_setup_there() {
    let dir = tempfile::tempdir().unwrap();
    assert_snapshot!(said(dir.path()), @r#"
    error: there is no tidings.yaml in [SETUP]
    --> tidings.yaml
     = hint: name the setup folder with --config DIR or TIDINGS_CONFIG, or make one: tidings init DIR

    1 problem
    exit 78
    "#);
}

#[test]
fn control_characters_in_a_setup_are_made_visible() {
    let said = check_rule("    description: \"\\e]0;owned\\a\"\n    ma\u{202e}il: x\n");
    assert!(!said.contains('\u{202e}') && !said.contains('\u{1b}'), "{said:?}");
    assert_snapshot!(said, @r#"
    error: unknown key `ma\u{202e}il`
     --> rules/a.yaml:5:5
      |
    5 |     ma\u{202e}il: x
      |     ^^^^^^^^^^^^
      |
      = hint: did you mean `mail`?

    1 problem
    exit 78
    "#);
}

#[test]
fn json_has_the_same_problems() {
    let dir = setup(&[("rules/a.yaml", &rule("    mail: { to: opps }\n"))]);
    let output = tidings(dir.path(), &["check", "--json"]);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(output.stderr, b"");
    assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r#"
    {
      "ok": false,
      "problems": [
        {
          "column": 17,
          "file": "rules/a.yaml",
          "hint": "did you mean `ops`?",
          "line": 4,
          "message": "`opps` is neither a mail address nor a group",
          "severity": "error"
        }
      ]
    }
    "#);
}

#[test]
fn a_yaml_bomb_is_refused_at_once() {
    let mut bomb = String::from("a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for (level, below) in ('b'..='z').zip('a'..) {
        let copies = [format!("*{below}").as_str(); 9].join(", ");
        bomb.push_str(&format!("{level}: &{level} [{copies}]\n"));
    }
    let start = std::time::Instant::now();
    assert_snapshot!(check(&[("rules/a.yaml", &bomb)]), @r#"
    error: this file unfolds to more than 50000 values
     --> rules/a.yaml:5:24
      |
    5 | e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d]
      |                        ^^
      |
      = hint: split the rules over several files under rules/, and do not nest aliases

    1 problem
    exit 78
    "#);
    assert!(start.elapsed() < std::time::Duration::from_secs(5));
}

#[test]
fn a_file_of_100_mb_is_refused_unread() {
    let dir = setup(&[("rules/b.yaml", &rule("    mail: { to: opps }\n"))]);
    let file = std::fs::File::create(dir.path().join("rules/a.yaml")).unwrap();
    file.set_len(100_000_000).unwrap();
    let start = std::time::Instant::now();
    assert_snapshot!(said(dir.path()), @r#"
    error: this file has 100000000 bytes; 1000000 are the most
    --> rules/a.yaml
     = hint: split it over several files under rules/, or move what does not belong here

    error: `opps` is neither a mail address nor a group
     --> rules/b.yaml:4:17
      |
    4 |     mail: { to: opps }
      |                 ^^^^
      |
      = hint: did you mean `ops`?

    2 problems
    exit 78
    "#);
    assert!(start.elapsed() < std::time::Duration::from_secs(5));
}

#[test]
fn a_file_full_of_mistakes_ends() {
    let unknown: String = (0..20_000).map(|n| format!("x{n}: 1\n")).collect();
    let wrong: String = (0..2_500)
        .map(|n| {
            format!("  r{n}: {{ when: {{ schedule: {{ cron: x }} }}, mail: {{ to: [a, b], from: c }} }}\n")
        })
        .collect();
    let dir = setup(&[
        ("rules/a.yaml", &unknown),
        ("rules/b.yaml", &format!("rules:\n{wrong}")),
    ]);
    let start = std::time::Instant::now();
    let said = said(dir.path());
    assert!(
        start.elapsed() < std::time::Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    assert!(said.contains("there may be more problems"), "{said}");
    assert!(said.len() < 500_000);
}

#[test]
fn ten_thousand_levels_of_brackets_are_refused() {
    let deep = format!("rules: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert_snapshot!(check(&[("rules/a.yaml", &deep)]), @r#"
    error: this is not YAML: recursion limit exceeded
     --> rules/a.yaml:1:72
      |
    1 | …[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[…
      |                                                    ^
      |
      = hint: nothing in a setup is nested that deep

    1 problem
    exit 78
    "#);
}

#[test]
fn a_setup_cut_off_at_any_byte_is_told_about_and_never_panics() {
    let settings =
        "accounts: {a: {smtp: {host: h}, password: {user: ü, secret: {env: X}}}}\noutbox: {keep: 1d}\n";
    let rules = "rules:\n  é:\n    when: [{file_arrives: {in: drop}}, {schedule: {cron: '0 2 * * *'}}]\n    if: has(file.name)\n    mail: {from: a@b.c, to: \"{{rule.name}}@b.c\"}\n";
    let dir = setup(&[("tidings.yaml", settings), ("rules/a.yaml", rules)]);
    for (file, text) in [("tidings.yaml", settings), ("rules/a.yaml", rules)] {
        for end in 0..text.len() {
            write(dir.path(), file, &text.as_bytes()[..end]);
            let problems = match tidings::rule::load::setup(dir.path()) {
                Ok(setup) => setup.warnings,
                Err(problems) => problems,
            };
            for problem in problems {
                assert!(!problem.render(false).is_empty());
            }
        }
        write(dir.path(), file, text);
    }
}

mod shipped {
    use super::*;
    use tidings::cli::init;
    use tidings::config::{schema, yaml};

    fn json(text: &str) -> serde_json::Value {
        let tree = yaml::read(text);
        assert_eq!(tree.faults, []);
        tree.root.unwrap().to_json()
    }

    #[test]
    fn init_makes_a_setup_that_passes_and_does_something_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("new");
        let made = tidings(dir.path(), &["init", at.to_str().unwrap()]);
        assert_eq!(made.status.code(), Some(0));
        assert_eq!(
            said(&at),
            "all is well: 5 rules, 1 account, 13 templates, 1 watched folder\nexit 0"
        );
        let setup = tidings::rule::load::setup(&at).unwrap();
        assert_eq!(setup.watches[0].root, at.join("drop"));
        assert!(setup.rules.iter().any(|rule| !rule.work.is_empty()));
    }

    #[test]
    fn init_never_overwrites() {
        let dir = setup(&[]);
        let made = tidings(dir.path(), &["init", dir.path().to_str().unwrap()]);
        assert_eq!(made.status.code(), Some(73));
        assert_eq!(
            std::fs::read_to_string(dir.path().join("tidings.yaml")).unwrap(),
            SETTINGS
        );
        assert!(!dir.path().join("rules").exists());
    }

    #[test]
    fn every_shipped_file_is_valid_by_the_schema_that_is_printed() {
        let validator = |of: &str| {
            let printed = tidings(Path::new("."), &["schema", of]).stdout;
            jsonschema::validator_for(&serde_json::from_slice(&printed).unwrap()).unwrap()
        };
        let (settings, rules, tests) = (validator("settings"), validator("rules"), validator("tests"));
        let mut checked = 0;
        for (file, text) in init::FILES {
            let validator = match file {
                "tidings.yaml" => &settings,
                _ if file.ends_with(".test.yaml") => &tests,
                _ if file.starts_with("rules/") => &rules,
                _ => continue,
            };
            validator.validate(&json(text)).unwrap();
            checked += 1;
        }
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/rules")).unwrap() {
            let file = entry.unwrap().path();
            let of_tests = file.to_str().unwrap().ends_with(".test.yaml");
            let validator = if of_tests { &tests } else { &rules };
            validator
                .validate(&json(&std::fs::read_to_string(file).unwrap()))
                .unwrap();
            checked += 1;
        }
        assert_eq!(checked, 13);
    }

    /// What is commented out in the shipped settings is meant to be uncommented.
    #[test]
    fn what_is_commented_out_is_valid_too() {
        let text = init::FILES[0].1;
        let from = text.find("  # office:").unwrap();
        let to = text.find("defaults:").unwrap();
        let accounts: String = text[from..to]
            .lines()
            .filter(|line| {
                line.starts_with("  # ")
                    && !line.starts_with("  # A ")
                    && !line.starts_with("  # Google")
                    && !line.starts_with("  # sign")
            })
            .map(|line| format!("{}\n", line.replacen("# ", "", 1)))
            .collect();
        let dir = setup(&[
            ("tidings.yaml", &format!("accounts:\n{accounts}")),
            ("secrets/google", "x\n"),
            ("secrets/relay", "x\n"),
        ]);
        let said = said(dir.path());
        assert!(said.contains("3 accounts"), "{said}");
        assert!(said.ends_with("exit 0"), "{said}");
    }

    /// The walk that finds all problems and the validator others use agree on what is sound.
    #[test]
    fn our_walk_and_the_schema_agree() {
        let validator = jsonschema::validator_for(&schema::RULES).unwrap();
        let base = json(&rule(
            "    mail: { to: ops, max_size: 10MB }\n    run: { command: [a], retries: 2 }\n",
        ));
        let mut texts = vec![base.clone()];
        let spoil = |pointer: &str, value: serde_json::Value| {
            let mut spoiled = base.clone();
            *spoiled.pointer_mut(pointer).unwrap() = value;
            spoiled
        };
        for pointer in [
            "/rules/invoice",
            "/rules/invoice/when",
            "/rules/invoice/mail/to",
            "/rules/invoice/run/retries",
        ] {
            for value in [
                serde_json::json!(null),
                serde_json::json!(-1),
                serde_json::json!("x"),
                serde_json::json!([]),
                serde_json::json!({}),
                serde_json::json!(true),
            ] {
                texts.push(spoil(pointer, value));
            }
        }
        for value in texts {
            let text = value.to_string();
            let mut problems = Vec::new();
            let document =
                tidings::config::document::Document::parse(Path::new("a"), text.clone(), &mut problems)
                    .unwrap();
            let shape = tidings::config::shape::check(&document, &schema::RULES, &mut problems);
            assert_eq!(shape.is_sound(), validator.is_valid(&value), "{text}");
            assert_eq!(shape.is_sound(), problems.is_empty());
        }
    }
}

#[test]
fn sets_and_files_that_are_gone_that_cannot_be() {
    let said = |when: &str, then: &str| {
        let rule = format!("rules:\n  a:\n    when: {{ {when} }}\n    {then}\n");
        check(&[("rules/a.yaml", &rule)])
    };
    let mail = "mail: { to: ops }";
    let set = |together: &str| format!("file_arrives: {{ in: drop, together: {{ {together} }} }}");
    for (when, then, expected) in [
        (
            set("count: 1, by: \"{{file.stem}}\", within: 1m"),
            mail,
            "1 is too little",
        ),
        (
            set("count: 3, by: stem, within: 1m"),
            mail,
            "every file would be of the same set",
        ),
        (
            set("count: 3, by: \"{{file.stem}}\", within: 0s"),
            mail,
            "no set would be complete in that time",
        ),
        (
            set("count: 3, by: \"{{file.stem}}\", within: soon"),
            mail,
            "`soon` is not",
        ),
        (
            set("count: 3, by: \"{{file.sha256}}\", within: 1m"),
            mail,
            "what files have in common cannot depend on `file.sha256`",
        ),
        (
            set("count: 3, by: \"{{file.stemm}}\", within: 1m"),
            mail,
            "did you mean `file.stem`?",
        ),
        (
            set("count: 3, by: \"{{file.stem}}\", within: 1m"),
            "move: \"done/{{file.name}}\"",
            "several files cannot get one name",
        ),
        (
            "file_changes: { in: drop, together: { count: 2, by: \"{{file.stem}}\", within: 1m } }"
                .to_owned(),
            mail,
            "files that belong together arrive",
        ),
        (
            "file_arrives: { in: drop, marker: a.done, complete_when: { marker: b.done } }".to_owned(),
            mail,
            "`marker` and `complete_when` say the same",
        ),
        (
            "file_arrives: { in: drop, complete_when: { marker: \"{{file.text}}\" } }".to_owned(),
            mail,
            "a marker cannot depend on `file.text`",
        ),
        (
            "file_arrives: { in: drop, complete_when: {} }".to_owned(),
            mail,
            "`marker`",
        ),
        (
            "file_removed: { in: drop }".to_owned(),
            "move: done/",
            "`move` needs a file",
        ),
        (
            "file_removed: { in: drop }".to_owned(),
            "mail: { to: ops, attach: \"{{file.path}}\" }",
            "a file that went away cannot be attached",
        ),
        (
            "file_removed: { in: drop }".to_owned(),
            "mail: { to: ops, subject: \"{{file.sha256}}\" }",
            "unknown fact `file.sha256`",
        ),
        (
            "file_removed: { in: drop, settle: 10s }".to_owned(),
            mail,
            "`settle`",
        ),
        (
            "file_arrives: { in: drop }".to_owned(),
            "mail: { to: ops, attach: \"{{files}}\" }",
            "no trigger of this rule brings `files`",
        ),
        (
            "file_missing: { in: drop, by: \"07:00\" }".to_owned(),
            "on_recovery: { mail: { to: ops, subject: \"{{file.name}} {{file.lines}}\" } }",
            "unknown fact `file.lines`",
        ),
        (
            "file_arrives: { in: drop }".to_owned(),
            "mail: { to: ops, subject: \"{{file.csv.row}}\" }",
            "did you mean `file.csv.rows`?",
        ),
        (
            "file_removed: { in: nowhere }".to_owned(),
            mail,
            "there is no folder",
        ),
    ] {
        let said = said(&when, then);
        assert!(said.contains(expected), "{when} {then}\n{said}");
        assert!(said.ends_with("exit 78"), "{said}");
    }
    let fine = said(
        "file_arrives: { in: drop, together: { count: 2, by: \"{{file.stem}}\", within: 1m } }",
        "mail: { to: ops, subject: \"{{set.key}} {{file.sha256}}\", attach: [\"{{files}}\", \"{{files.0.path}}\"] }",
    );
    assert!(fine.ends_with("exit 0"), "{fine}");
}
