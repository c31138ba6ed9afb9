//! Templates, as a setup's folder holds them: what is refused at load and where, what rendering is bounded by, what
//! the shipped ones show.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests panic as tests do

use serde_json::{Value, json};
use std::path::Path;
use tidings::template::{Attached, Omitted, RenderOptions, Rendered, TemplateProblem, Templates, Text};

/// A setup's `templates/` with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join("templates").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    dir
}

fn load(files: &[(&str, &str)]) -> Result<Templates, Vec<TemplateProblem>> {
    Templates::load(Some(&folder(files).path().join("templates")))
}

fn problems(files: &[(&str, &str)]) -> Vec<String> {
    load(files)
        .unwrap_err()
        .into_iter()
        .map(|problem| {
            let hint = problem.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!(
                "{}:{}:{}: {}{hint}",
                problem.file.display(),
                problem.line,
                problem.column,
                problem.message
            )
        })
        .collect()
}

fn render(files: &[(&str, &str)], facts: &Value) -> Rendered {
    load(files)
        .unwrap()
        .render("t", facts, RenderOptions::default())
        .unwrap()
}

fn always() -> Value {
    json!({
        "event": {"id": 7, "type": "file_arrives", "key": "k", "time": "2026-11-22T08:01:03Z"},
        "rule": {"name": "invoices", "description": "Each <new> invoice"},
        "host": "batch01", "now": "2026-11-22T09:01:04+01:00", "data": {},
    })
}

fn with(more: Value) -> Value {
    let mut facts = always();
    for (key, value) in more.as_object().unwrap() {
        facts[key] = value.clone();
    }
    facts
}

fn file() -> Value {
    json!({
        "path": "/in/<b>&\"x.pdf", "name": "<b>&\"x.pdf", "stem": "<b>&\"x", "extension": "pdf", "folder": "/in",
        "folder_name": "in", "relative": "<b>&\"x.pdf", "root": "/in", "size": 1500, "modified": "2026-11-22T08:00:00Z",
    })
}

fn job() -> Value {
    json!({
        "name": "export", "ok": false, "exit_code": 3, "signal": null, "duration": 72.0, "attempt": 2,
        "timed_out": false, "lost": false, "skipped": false, "summary": "ended with exit code 3",
        "output_tail": "one\n<two> & three", "output_incomplete": false, "log": null, "started": "2026-11-22T08:00:00Z",
        "ended": "2026-11-22T08:01:12Z", "command": "./export", "entry": 5, "recovered": false,
    })
}

fn trouble() -> Value {
    json!({
        "kind": "account", "key": "account:office", "subject": "office", "text": "The server said: 535 5.7.3 no",
        "steps": ["Sign in again.", "Retry <it>."], "since": "2026-11-22T08:00:00Z",
    })
}

fn too_big() -> [Omitted; 1] {
    [Omitted {
        name: "<o>.pdf".to_owned(),
        size: 9_000_000,
        path: "/in/<o>.pdf".to_owned(),
        why: "too big to attach".to_owned(),
    }]
}

#[test]
fn every_shipped_template_renders_for_its_triggers() {
    let templates = Templates::load(None).expect("what is shipped has no problems");
    let file_facts = with(json!({"file": file()}));
    let job_facts = with(json!({"job": job()}));
    let both = with(json!({"job": job(), "file": file()}));
    let schedule = with(json!({"schedule": {"due": "2026-11-22T08:00:00Z", "late": 0, "missed": false}}));
    let trouble = with(json!({"trouble": trouble()}));
    let attachments = [Attached {
        name: "<a>.pdf".to_owned(),
        size: 9,
        content_type: "application/pdf".to_owned(),
    }];
    for (name, facts, expected) in [
        ("file-arrived", &file_facts, "1.5 kB"),
        ("job-failed", &job_facts, "Exit code"),
        ("job-failed", &both, "x.pdf"),
        ("job-succeeded", &both, "1 min 12 s"),
        ("job-recovered", &job_facts, "works again"),
        ("trouble", &trouble, "535 5.7.3"),
        ("test-message", &always(), "sending works"),
        ("digest", &digest(3), "2026-11-22 09:00"),
        ("digest", &digest(500), "The first 50 of 500"),
        ("plain", &always(), "file_arrives"),
        ("plain", &file_facts, "x.pdf"),
        ("plain", &job_facts, "exit code 3"),
        ("plain", &both, "x.pdf"),
        ("plain", &schedule, "Due"),
        ("plain", &trouble, "Sign in again."),
    ] {
        let options = RenderOptions {
            attachments: &attachments,
            omitted: &too_big(),
            ..RenderOptions::default()
        };
        let mail = templates.render(name, facts, options).unwrap();
        let html = mail.html.unwrap();
        for part in [&html, &mail.text] {
            assert!(part.contains(expected), "{name}: {part}");
            assert!(
                part.contains("9.0 MB") && part.contains("batch01"),
                "{name}: {part}"
            );
        }
        for raw in ["<two>", "<b>&", "<new>", "<it>", "<a>.pdf", "<o>.pdf", "{{"] {
            assert!(!html.contains(raw), "{name}: {raw} in {html}");
        }
        assert!(mail.text.contains("<a>.pdf"), "{}", mail.text);
        assert!(html.contains("@media") && html.contains("style=\""), "{html}");
        assert!(!mail.subject.is_empty());
        assert!(
            mail.text.lines().all(|line| line == line.trim_end()),
            "{}",
            mail.text
        );
    }
    for name in templates.names() {
        assert!(templates.has_subject(name), "{name}");
    }
}

#[test]
fn shipped_templates_use_only_facts_that_may_be_absent_or_belong_to_their_trigger() {
    let templates = Templates::shipped();
    let always = ["event", "rule", "host", "now", "data"];
    for (name, brought) in [
        ("plain", &[][..]),
        ("test-message", &[]),
        ("file-arrived", &["file"]),
        ("job-failed", &["job"]),
        ("job-succeeded", &["job"]),
        ("job-recovered", &["job"]),
        ("trouble", &["trouble"]),
        ("digest", &["group"]),
    ] {
        let uses = templates.variables(name);
        assert!(!uses.is_empty());
        for used in uses {
            let root = used.path[0].as_str();
            assert!(
                always.contains(&root) || brought.contains(&root) || used.guarded,
                "{name}: {used:?}"
            );
            assert!(used.source_line.contains(used.path.last().unwrap()), "{used:?}");
        }
    }
}

fn digest(count: usize) -> Value {
    let events: Vec<Value> = (0..count)
        .map(|number| json!({"subject": format!("<b>&x{number}.pdf"), "time": "2026-11-22T08:00:00Z"}))
        .collect();
    with(json!({
        "group": {
            "key": "<it>", "count": count, "first": "2026-11-22T07:00:00Z", "last": "2026-11-22T08:00:00Z",
            "events": events,
        },
        "throttle": {"folded": 7, "since": "2026-11-22T06:42:00Z"},
    }))
}

#[test]
fn a_digest_lists_fifty_events_and_counts_the_rest() {
    let templates = Templates::shipped();
    for (count, listed, counted) in [(1, 1, false), (50, 50, false), (51, 50, true), (500, 50, true)] {
        let mail = templates
            .render("digest", &digest(count), RenderOptions::default())
            .unwrap();
        for part in [mail.html.as_deref().unwrap(), &mail.text] {
            let lines = part.matches(".pdf").count();
            assert_eq!(lines, listed, "{count}: {part}");
            assert_eq!(part.contains("The first 50 of"), counted, "{count}: {part}");
            assert!(
                part.contains("7 more like this since 2026-11-22 07:42 were not sent one by one."),
                "{part}"
            );
        }
        let events = if count == 1 { "1 event" } else { "events" };
        assert!(mail.subject.contains(events), "{}", mail.subject);
    }
}

#[test]
fn html_is_escaped_in_pages_only() {
    let mail = render(
        &[
            (
                "t.html.hbs",
                "---\nsubject: \"{{file.name}}\"\n---\n<p>{{file.name}}</p>",
            ),
            ("t.txt.hbs", "{{file.name}}"),
        ],
        &with(json!({"file": file()})),
    );
    assert_eq!(mail.subject, "<b>&\"x.pdf");
    assert_eq!(mail.text, "<b>&\"x.pdf\n");
    assert_eq!(mail.html.unwrap(), "<p>&lt;b&gt;&amp;&quot;x.pdf</p>");
}

#[test]
fn a_page_alone_gets_a_text_part() {
    let mail = render(
        &[("t.html.hbs", "<h1>New</h1><p>{{host}} &amp; more</p>")],
        &always(),
    );
    assert!(
        mail.text.contains("New") && mail.text.contains("batch01 & more"),
        "{}",
        mail.text
    );
    assert_eq!(
        mail.subject, "invoices",
        "without a subject anywhere it is the rule's name"
    );
}

#[test]
fn a_subject_cannot_break_its_header() {
    let facts = with(json!({"data": {"x": "a\r\nBcc: evil@x.example\u{0}\u{202E}b"}}));
    let mail = render(
        &[(
            "t.txt.hbs",
            "---\nsubject: \"{{data.x}}\"\nheaders:\n  X-Thing: \"{{data.x}}\"\n---\nx",
        )],
        &facts,
    );
    assert_eq!(mail.subject, "a Bcc: evil@x.example \u{FFFD}b");
    assert_eq!(mail.headers, [("X-Thing".to_owned(), mail.subject.clone())]);
    let long = render(
        &[("t.txt.hbs", "---\nsubject: \"{{data.x}}\"\n---\nx")],
        &with(json!({"data": {"x": "y".repeat(5000)}})),
    );
    assert_eq!(long.subject.chars().count(), 250);
}

#[test]
fn what_was_left_out_is_told_even_by_a_template_that_does_not_mention_it() {
    let templates = load(&[("t.html.hbs", "<body><p>x</p></body>"), ("t.txt.hbs", "x")]).unwrap();
    let options = RenderOptions {
        omitted: &too_big(),
        ..RenderOptions::default()
    };
    let mail = templates.render("t", &always(), options).unwrap();
    assert_eq!(
        mail.text,
        "x\n\nNot attached:\n- <o>.pdf (9.0 MB): too big to attach. It lies at /in/<o>.pdf\n"
    );
    let html = mail.html.unwrap();
    assert!(
        html.contains("&lt;o&gt;.pdf (9.0 MB)") && html.ends_with("</ul></body>"),
        "{html}"
    );
}

#[test]
fn the_layout_appends_the_accounts_signature() {
    let templates = load(&[
        ("signatures/office.html.hbs", "<b>Contoso</b> IT, {{host}}"),
        (
            "t.txt.hbs",
            "{{#> layout status=\"s\" title=\"t\"}}hello{{/layout}}",
        ),
        (
            "t.html.hbs",
            "{{#> layout tone=\"ok\" mark=\"x\" status=\"s\" title=\"t\"}}<p>hello</p>{{/layout}}",
        ),
    ])
    .unwrap();
    let options = RenderOptions {
        signature: Some("signatures/office"),
        ..RenderOptions::default()
    };
    let mail = templates.render("t", &always(), options).unwrap();
    let html = mail.html.unwrap();
    assert!(html.contains(">Contoso</b> IT, batch01"), "{html}");
    assert!(
        mail.text.contains("Contoso") && mail.text.contains("IT, batch01"),
        "{}",
        mail.text
    );
}

#[test]
fn a_setup_replaces_shipped_mails_and_partials_by_name() {
    let templates = load(&[
        ("job-failed.html.hbs", "<p>{{job.name}} broke</p>"),
        ("partials/layout.txt.hbs", "MINE {{> @partial-block}}"),
    ])
    .unwrap();
    let facts = with(json!({"job": job()}));
    let failed = templates
        .render("job-failed", &facts, RenderOptions::default())
        .unwrap();
    assert_eq!(failed.text, "export broke\n");
    let succeeded = templates
        .render("job-succeeded", &facts, RenderOptions::default())
        .unwrap();
    assert!(succeeded.text.starts_with("MINE"), "{}", succeeded.text);
    assert!(!succeeded.html.unwrap().contains("MINE"));
}

#[test]
fn all_problems_come_at_once_with_their_places() {
    let found = problems(&[
        (
            "a.txt.hbs",
            "---\nsubject: \"{{byts file.size}}\"\n---\nfine\n  {{#if x}}\n",
        ),
        ("b.txt.hbs", "---\nsubjekt: x\n---\n"),
        ("c.hbs", "x"),
        (
            "d.txt.hbs",
            "{{> layuot}}\n{{> (lookup data \"p\")}} {{bites file.size}}\n{{mail.attachements}}",
        ),
        (
            "e.html.hbs",
            "---\nsubject: x\nheaders: { Bcc: x }\n---\n{{date now \"%E!\"}}",
        ),
        ("f.txt.hbs", "---\nsubject: x\n"),
    ]);
    insta::assert_snapshot!(found.join("\n"), @r#"
    templates/a.txt.hbs:2:13: nobody knows a helper `byts` (did you mean `bytes`?)
    templates/a.txt.hbs:6:1: a block is not closed (each `{{#if ..}}` needs its `{{/if}}`)
    templates/b.txt.hbs:2:1: the front matter cannot be read: unknown field `subjekt`, expected one of subject, preheader, headers (it may hold `subject:`, `preheader:` and `headers:` with a text each)
    templates/c.hbs:1:1: it is not said whether this is a page or a text (name it c.html.hbs or c.txt.hbs)
    templates/d.txt.hbs:1:5: there is no partial `layuot` (did you mean `layout`?)
    templates/d.txt.hbs:2:1: the name of a partial cannot be computed (choose with `{{#if ..}}{{> one}}{{else}}{{> other}}{{/if}}`)
    templates/d.txt.hbs:2:27: nobody knows a helper `bites` (did you mean `bytes`?)
    templates/d.txt.hbs:3:3: there is no `mail.attachements` (below `mail` are: subject preheader attachments omitted signature)
    templates/e.html.hbs:3:1: `Bcc` cannot be a header field of your own: it has a setting of its own (`from`, `to`, `cc`, `bcc`, `reply_to`, `subject`)
    templates/e.html.hbs:5:13: `%E!` is not a strftime format (for example "%d.%m.%Y %H:%M")
    templates/f.txt.hbs:1:1: the front matter is not closed (end it with a line `---`)
    "#);
}

#[test]
fn facts_are_found_with_file_line_and_column() {
    let templates = load(&[
        (
            "t.txt.hbs",
            "---\nsubject: \"New {{file.nmae}}\"\n---\nfine\n  {{host}} {{> part of=data.x}}\n",
        ),
        ("partials/part.hbs", "{{of}}\n\u{e4} {{event.typo}}"),
    ])
    .unwrap();
    let uses: Vec<String> = templates
        .variables("t")
        .into_iter()
        .map(|used| {
            format!(
                "{}:{}:{} {}",
                used.file.display(),
                used.line,
                used.column,
                used.path.join(".")
            )
        })
        .collect();
    assert_eq!(
        uses,
        [
            "templates/t.txt.hbs:2:17 file.nmae",
            "templates/t.txt.hbs:5:5 host",
            "templates/t.txt.hbs:5:24 data.x",
            "templates/partials/part.hbs:2:5 event.typo",
        ]
    );
}

#[test]
fn partials_that_include_each_other_are_refused() {
    let found = problems(&[
        ("t.txt.hbs", "{{> a}}"),
        ("partials/a.txt.hbs", "x\n{{> b}}"),
        ("partials/b.txt.hbs", "{{#if host}}{{> c}}{{/if}}"),
        ("partials/c.txt.hbs", "{{> a}}"),
        ("partials/self.html.hbs", "{{> self}}"),
    ]);
    let has = |part: &str| found.iter().any(|problem| problem.contains(part));
    assert!(has("`a` includes `b` includes `c` includes `a`"), "{found:#?}");
    assert!(has("`self` includes `self`"), "{found:#?}");
}

#[test]
fn partials_that_grow_beyond_bounds_are_refused() {
    let names: Vec<String> = (0..40)
        .map(|level| format!("partials/p{level}.txt.hbs"))
        .collect();
    let bodies: Vec<String> = (1..41)
        .map(|level| format!("{{{{> p{level}}}}}{{{{> p{level}}}}}"))
        .collect();
    let mut files: Vec<(&str, &str)> = names
        .iter()
        .map(String::as_str)
        .zip(bodies.iter().map(String::as_str))
        .collect();
    files.push(("partials/p40.txt.hbs", "x"));
    files.push(("t.txt.hbs", "{{> p0}}"));
    let found = problems(&files);
    assert!(
        found.iter().any(|problem| problem.contains("grow beyond 10 MB")),
        "{found:#?}"
    );
}

#[test]
fn deep_nesting_is_refused_before_it_is_parsed() {
    let many = 10_000;
    for source in [
        format!("{}x{}", "{{#if host}}".repeat(many), "{{/if}}".repeat(many)),
        "{{#if host}}".repeat(many),
        format!("{{{{#if a}}}}{}{{{{/if}}}}", "{{else if b}}x".repeat(many)),
        format!("{{{{bytes {}1{}}}}}", "(bytes ".repeat(many), ")".repeat(many)),
        format!("{{{{bytes {}1{}}}}}", "[".repeat(many), "]".repeat(many)),
    ] {
        let error = Text::compile(&source).unwrap_err();
        assert!(
            error.message.contains("nested deeper"),
            "{} for {}...",
            error.message,
            &source[..40]
        );
    }
    let long = format!("{{{{host}}}}{}", "x".repeat(300_000));
    assert!(Text::compile(&long).unwrap_err().message.contains("longer than"));
}

#[test]
fn loops_and_output_end_bounded() {
    let list: Vec<u32> = (0..100).collect();
    let facts = with(json!({"data": {"list": list, "big": "x".repeat(200_000)}}));
    let nested = format!(
        "{}{{{{this}}}}{}",
        "{{#each @root.data.list}}".repeat(5),
        "{{/each}}".repeat(5)
    );
    let error = Text::compile(&nested).unwrap().render(&facts).unwrap_err();
    assert_eq!(error.message, "its loops turn more than 100,000 times");
    let big = "{{#each data.list}}{{@root.data.big}}{{/each}}";
    let error = Text::compile(big).unwrap().render(&facts).unwrap_err();
    assert_eq!(error.message, "the result is longer than 10 MB");
    // The block of a partial is collected in memory first; it is bounded as well.
    let templates = load(&[
        ("t.txt.hbs", &format!("{{{{#> p}}}}{big}{{{{/p}}}}")),
        ("partials/p.txt.hbs", "{{> @partial-block}}"),
    ])
    .unwrap();
    let error = templates
        .render("t", &facts, RenderOptions::default())
        .unwrap_err();
    assert!(error.message.contains("10 MB"), "{error}");
}

#[test]
fn an_unknown_fact_is_an_error_that_names_its_place() {
    let templates = load(&[("t.txt.hbs", "---\nsubject: x\n---\nfine\n {{file.nmae}}")]).unwrap();
    let error = templates
        .render("t", &with(json!({"file": file()})), RenderOptions::default())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "template templates/t.txt.hbs, line 5, column 2: `file.nmae` is not among the facts of this event"
    );
}

#[test]
fn an_empty_or_missing_folder_gives_what_is_shipped() {
    assert!(
        Templates::load(Some(Path::new("/nonexistent")))
            .unwrap()
            .contains("plain")
    );
    assert_eq!(
        Templates::shipped().names(),
        [
            "digest",
            "file-arrived",
            "file-came-late",
            "file-missing",
            "folder-backlog",
            "job-failed",
            "job-missing",
            "job-recovered",
            "job-runs-long",
            "job-succeeded",
            "plain",
            "test-message",
            "trouble"
        ]
    );
}

#[test]
fn templates_are_shared_between_threads() {
    fn shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    shared(&Templates::shipped());
    shared(&Text::compile("{{host}}").unwrap());
}
