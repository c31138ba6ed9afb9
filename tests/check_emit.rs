//! Mistakes about events: what `tidings check` says, and where.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::process::Command;

const SETTINGS: &str =
    "accounts:\n  preview: { transport: file, folder: preview, user: robot@example.org }\n";

/// All that `check` says of this setup, and its exit code.
fn check(settings: &str, rules: &str) -> (String, i32) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("rules")).unwrap();
    std::fs::create_dir_all(dir.path().join("drop")).unwrap();
    std::fs::write(dir.path().join("tidings.yaml"), format!("{SETTINGS}{settings}")).unwrap();
    std::fs::write(dir.path().join("rules/a.yaml"), rules).unwrap();
    let output = Command::new(assert_cmd::cargo::cargo_bin!("tidings"))
        .arg("-C")
        .arg(dir.path())
        .arg("check")
        .env_remove("TIDINGS_CONFIG")
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (said, output.status.code().unwrap())
}

/// A rule that hears `when` and does `rest`.
fn rule(when: &str, rest: &str) -> String {
    format!("rules:\n  r:\n    when: {{ event: {when} }}\n    {rest}\n")
}

#[track_caller]
fn refused(rules: &str, words: &[&str]) {
    let (said, code) = check("", rules);
    assert_eq!(code, 78, "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} in:\n{said}");
    }
}

#[track_caller]
fn fine(rules: &str) {
    let (said, code) = check("", rules);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn a_type_that_is_empty_or_no_pattern() {
    let mail = "mail: { to: robot@example.org }";
    refused(&rule("{ type: \"\" }", mail), &["which type?", "rules/a.yaml:3"]);
    refused(&rule("{ type: \"a[\" }", mail), &["`a[` is not a pattern"]);
    refused(&rule("{ type: [a, \"\"] }", mail), &["which type?"]);
    refused(&rule("{ type: a, source: \"\" }", mail), &["which source?"]);
    refused(&rule("{ source: a }", mail), &["type"]);
    refused(&rule("{ type: a, soruce: b }", mail), &["soruce", "source"]);
}

#[test]
fn a_type_that_cannot_be_emitted() {
    let emit = |kind: &str| rule("{ type: a }", &format!("emit: {{ type: {kind} }}"));
    refused(&emit("\"b.*\""), &["is not one type of event"]);
    refused(
        &emit("\"b.{{data.x}}\""),
        &["is not one type of event", "belongs into `subject` or `data`"],
    );
    refused(&emit("\"\""), &["`type` is empty"]);
    refused(&emit("\"a\\nb\""), &["control character"]);
    fine(&emit("b"));
}

#[test]
fn a_fact_that_no_trigger_brings_in_what_is_emitted() {
    let file = "rules:\n  r:\n    when: { file_arrives: { in: drop } }\n    emit: { type: b, subject: \"{{fil.name}}\", data: { deep: [{ x: \"{{file.siez}}\" }] } }\n";
    refused(
        file,
        &["unknown fact `fil`", "unknown fact `file.siez`", "rules/a.yaml:4"],
    );
    refused(
        &rule(
            "{ type: a }",
            "emit: { type: b, data: { x: \"{{cloudevent.tpye}}\" } }",
        ),
        &["`cloudevent.type`"],
    );
}

#[test]
fn data_of_strangers_passes_only_where_an_event_brings_it() {
    fine(&rule(
        "{ type: a }",
        "if: data.rows > 5 && has(data.x.y)\n    mail: { to: robot@example.org, subject: \"{{data.rows}}\" }",
    ));
    let both = "rules:\n  r:\n    when: [{ event: { type: a } }, { file_arrives: { in: drop } }]\n    mail: { to: robot@example.org, subject: \"{{data.rows}}\" }\n";
    refused(
        both,
        &[
            "`data.rows` is not there when the rule was started by `file_arrives`",
            "{{#if data.rows}}",
        ],
    );
    let asked = both.replace("{{data.rows}}", "{{#if data.rows}}{{data.rows}}{{/if}}");
    fine(&asked);
}

#[test]
fn rules_that_hear_each_other_in_a_circle() {
    let hears = |name: &str, when: &str, emits: &str| {
        format!("  {name}:\n    when: {{ event: {when} }}\n    emit: {{ type: {emits} }}\n")
    };
    let circle = |rules: &[String]| format!("rules:\n{}", rules.concat());
    refused(
        &circle(&[
            hears("a", "{ type: x }", "y"),
            hears("b", "{ type: \"[y-z]\" }", "x"),
        ]),
        &[
            "this event would lead to itself, for ever",
            "the rule `b` hears it",
            "the rule `a` hears it",
        ],
    );
    refused(
        &circle(&[hears("a", "{ type: \"app.*\" }", "app.done")]),
        &[
            "this event would lead to itself, for ever",
            "its own are not among them",
        ],
    );
    // Whose it is breaks the circle; so does a chain without a way back.
    fine(&circle(&[
        hears("a", "{ type: x, source: \"//outside/*\" }", "y"),
        hears("b", "{ type: y }", "x"),
    ]));
    fine(&circle(&[
        hears("a", "{ type: x }", "y"),
        hears("b", "{ type: y }", "z"),
    ]));
    // Through a job, and back by an event.
    let mixed = "rules:\n  work:\n    when: { event: { type: go } }\n    run: { command: [sort] }\n  \
                 again:\n    when: { job_fails: { job: \"w*\" } }\n    emit: { type: go }\n";
    refused(
        mixed,
        &[
            "this rule's own work would start it again, for ever",
            "this event would lead to itself",
        ],
    );
    // Through an outcome.
    let outcome = "rules:\n  work:\n    when: { event: { type: go } }\n    run: { command: [sort] }\n    \
                   on_failure: { emit: { type: go } }\n";
    refused(outcome, &["this event would lead to itself, for ever"]);
}

#[test]
fn before_or_after_the_work() {
    let both = "rules:\n  r:\n    when: { event: { type: a } }\n    run: { command: [sort] }\n    emit: { type: b }\n    \
                on_success: { mail: { to: robot@example.org } }\n";
    refused(both, &["does this event come before or after the work?"]);
    fine(
        "rules:\n  r:\n    when: { event: { type: a } }\n    run: { command: [sort] }\n    emit: { type: b }\n",
    );
}

#[test]
fn a_switch_that_nobody_could_call() {
    let alive = |text: &str| {
        check(
            &format!("alive: {text}\n"),
            &rule("{ type: a }", "emit: { type: b }"),
        )
    };
    for (text, words) in [
        (
            "{ url: http://example.org/secret-word }",
            "must begin with https://",
        ),
        ("{ url: \"secret-word\" }", "this is not an address"),
        (
            "{ url: https://example.org/secret-word, every: 0s }",
            "no time at all",
        ),
        (
            "{ url: https://example.org/secret-word, every: often }",
            "is not a time",
        ),
        ("{ every: 5m }", "url"),
    ] {
        let (said, code) = alive(text);
        assert_eq!(code, 78, "{said}");
        assert!(said.contains(words), "{words:?} in:\n{said}");
        assert!(!said.contains("secret-word"), "{said}");
    }
    assert_eq!(alive("{ url: https://example.org/x }").1, 0);
    assert_eq!(alive("{ url: { env: PING_URL }, every: 1m }").1, 0);
}

#[test]
fn a_folder_for_events_that_is_none() {
    let emitted = |text: &str| {
        check(
            &format!("emitted: {{ folder: {text} }}\n"),
            &rule("{ type: a }", "emit: { type: b }"),
        )
    };
    let (said, code) = emitted("away");
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("warning: cannot see") && said.contains("mkdir -p"),
        "{said}"
    );
    for (text, words) in [
        ("rules/a.yaml", "is not a folder"),
        (".", "a folder of their own"),
        ("state", "a folder of their own"),
    ] {
        let (said, code) = emitted(text);
        assert_eq!(code, 78, "{said}");
        assert!(said.contains(words), "{said}");
    }
}
