use super::*;
use crate::rule::facts::word::TriggerWord;
use crate::rule::index::Branch;
use proptest::prelude::*;
use serde_json::json;

fn files() -> Vocabulary {
    Vocabulary::of(&[TriggerWord::FileArrives], None)
}

fn jobs() -> Vocabulary {
    Vocabulary::of(&[TriggerWord::Job], None)
}

fn invoice(size: u64, name: &str) -> Value {
    let mut facts = files().samples().remove(0);
    facts["file"]["size"] = json!(size);
    facts["file"]["name"] = json!(name);
    facts
}

fn check(source: &str, facts: &Value) -> Decision {
    let condition =
        Condition::compile(source, &files()).unwrap_or_else(|error| panic!("{source}: {error:?}"));
    condition.check(facts).unwrap()
}

/// `offset: message (hint)` of a condition that must not compile.
fn complaint(source: &str, known: &Vocabulary) -> String {
    let error = Condition::compile(source, known).expect_err(source);
    let offset = error.offset.map_or("-".to_owned(), |offset| offset.to_string());
    let hint = error.hint.map_or(String::new(), |hint| format!(" ({hint})"));
    format!("{offset}: {}{hint}", error.message)
}

#[test]
fn the_design_s_condition_decides_and_says_why() {
    let source = r#"file.size > 0 && !file.name.startsWith("DRAFT")"#;
    let yes = check(source, &invoice(4711, "a.pdf"));
    assert!(yes.holds);
    assert_eq!(yes.why, r#"file.size = 4711, file.name = "a.pdf""#);
    let empty = check(source, &invoice(0, "a.pdf"));
    assert_eq!(empty.why, "`file.size > 0` is false: file.size = 0");
    let draft = check(source, &invoice(1, "DRAFT-1.pdf"));
    assert_eq!(
        draft.why,
        r#"`!file.name.startsWith("DRAFT")` is false: file.name = "DRAFT-1.pdf""#
    );
    assert!(!empty.holds && !draft.holds);
}

#[test]
fn why_is_one_short_line_whatever_the_facts_hold() {
    let source = "file.name.size() < 3";
    let why = check(source, &invoice(1, "a\r\nBcc: x\u{202e}\u{1b}[31m")).why;
    assert_eq!(
        why,
        r#"`file.name.size() < 3` is false: file.name = "a\r\nBcc: x\u{202e}\u{1b}[31m""#
    );
    let long = check(source, &invoice(1, &"x".repeat(10_000))).why;
    assert!(long.len() < source.len() + 100, "{long}");
    assert_eq!(check("true", &invoice(1, "a")).why, "it is always true");
    let both = check(
        r#"file.name == "&& a" || (file.size == 1 && file.size == 2)"#,
        &invoice(1, "a"),
    );
    let (condition, values) = both.why.split_once(" is false: ").unwrap();
    assert_eq!(
        condition,
        r#"`file.name == "&& a" || (file.size == 1 && file.size == 2)`"#
    );
    assert_eq!(values, r#"file.name = "a", file.size = 1"#);
}

#[test]
fn conditions_people_write_compile_and_hold() {
    let facts = invoice(2_000_000, "Report-2026.PDF");
    for source in [
        "file.size > 1000000",
        "file.size / 1024 > 1024",
        "file.size * 2 >= 4000000",
        r#"file.name.lowerAscii().endsWith(".pdf")"#,
        r#"file.extension in ["pdf", "csv"]"#,
        r#"file.name.matches("(?i)^report-[0-9]{4}")"#,
        r#"matches(file.name, r"\.PDF$")"#,
        r#"size(file.name) > 3 ? file.size > 0 : false"#,
        r#"["Report", "Bill"].exists(word, file.name.contains(word))"#,
        r#"has(file.name) && file["name"] != """#,
        r#"event.type == "file_arrives""#,
        r#"int(now.substring(0)) > 0 || true"#,
        "rule.name != host",
        "// only large ones\nfile.size > 1",
        "type(file.size) == int",
    ] {
        if source.contains("substring") {
            assert!(complaint(source, &files()).contains("unknown function `substring`"));
            continue;
        }
        assert!(check(source, &facts).holds, "{source}");
    }
    for source in [
        "job.exit_code != 0",
        "job.exit_code == 3 || job.signal == \"SIGKILL\"",
        "job.exit_code != null && job.exit_code > 2",
        "job.duration > 60",
        "job.duration / 60.0 > 1.5",
        "job.timed_out || job.attempt > 1",
        "!job.ok && job.name.startsWith(\"billing-\")",
        "job.recovered",
        "job.output_tail.contains(\"ORA-\")",
    ] {
        Condition::compile(source, &jobs()).unwrap_or_else(|error| panic!("{source}: {error:?}"));
    }
}

#[test]
fn names_nobody_knows_are_answered_with_the_ones_meant() {
    let file = files();
    assert_eq!(
        complaint("file.size > 0 && file.nmae == \"a\"", &file),
        "22: unknown fact `file.nmae` (did you mean `file.name`?)"
    );
    assert_eq!(
        complaint("fiel.name == \"a\"", &file),
        "0: unknown fact `fiel` (did you mean `file`?)"
    );
    assert_eq!(
        complaint("has(file.sise)", &file),
        "9: unknown fact `file.sise` (did you mean `file.size`?)"
    );
    assert_eq!(
        complaint("\"ä\" != file[\"nmae\"]", &file),
        "14: unknown fact `file.nmae` (did you mean `file.name`?)"
    );
    assert_eq!(
        complaint("[1].exists(x, x > file.siz)", &file),
        "23: unknown fact `file.siz` (did you mean `file.size`?)"
    );
    assert!(complaint("job.ok", &file).starts_with("0: no trigger of this rule brings `job`, only `file`"));
    assert_eq!(
        complaint("file.name.startWith(\"a\")", &file),
        "10: unknown function `startWith` (did you mean `startsWith`?)"
    );
    assert_eq!(
        complaint("file.name.length() > 3", &file),
        "10: unknown function `length` (did you mean `size`?)"
    );
    assert_eq!(
        complaint("file.size() > 0", &file),
        "5: `file.size` is a fact, not a function (write `file.size` without `()`)"
    );
}

#[test]
fn types_that_do_not_fit_are_found_before_the_first_event() {
    let file = files();
    assert_eq!(
        complaint("file.size", &file),
        "0: the condition gives a whole number, not true or false (compare it: `.. > 0`, `.. == 3`)"
    );
    assert_eq!(
        complaint("file.size > \"10\"", &file),
        "10: `>` does not work on a whole number and text (leave the quotes away, or compare `int(..)`)"
    );
    // Not reached with the sample's name, and found all the same.
    assert_eq!(
        complaint("file.name == \"x\" && file.size > \"10\"", &file),
        "30: `>` does not work on a whole number and text (leave the quotes away, or compare `int(..)`)"
    );
    assert_eq!(
        complaint("file.name && file.size > 0", &file),
        "0: this is text, where true or false is needed (compare it: `.. == \"text\"`, `.. != \"\"`)"
    );
    assert!(complaint("file.size == \"0\"", &file).contains("never equal"));
    assert!(complaint("file.size in [\"1\", \"2\"]", &file).contains("never equal"));
    assert!(
        complaint("file.name.startsWith(1)", &file).starts_with("20: `startsWith` does not work on text")
    );
    assert!(complaint("job.duration / 60 > 1.0", &jobs()).contains("write `60.0` instead of `60`"));
    assert!(complaint("[1, 2].exists(x, x.foo)", &file).contains("has no parts"));
    assert_eq!(
        complaint("file.name.matches(\"(\")", &file),
        "18: the pattern is wrong: unclosed group"
    );
    assert!(complaint("file.name.matches(\"(a{1000}){1000}\")", &file).contains("it is too big"));
}

#[test]
fn what_may_be_null_or_absent_must_be_asked_for() {
    assert_eq!(
        complaint("job.exit_code > 2", &jobs()),
        "0: `job.exit_code` is null when a signal ended a job (write `job.exit_code != null && job.exit_code > 2`)"
    );
    let both = Vocabulary::of(&[TriggerWord::FileArrives, TriggerWord::Schedule], None);
    assert_eq!(
        complaint("file.size > 2", &both),
        "0: there is no `file` when the schedule is due (write `has(file.size) && file.size > 2`)"
    );
    let condition = Condition::compile("!has(file.size) || file.size > 2", &both).unwrap();
    let facts = both.samples();
    assert_eq!(condition.check(&facts[1]).unwrap().why, "file.size is not there");
    assert!(condition.check(&facts[1]).unwrap().holds);
    let failed = Vocabulary::of(&[TriggerWord::FileArrives], Some(Branch::Failure));
    Condition::compile("file.size > 2 && job.timed_out", &failed).unwrap();
}

#[test]
fn slips_of_other_languages_get_the_right_word() {
    let file = files();
    let on = |source: &str| complaint(source, &file);
    assert_eq!(
        on("file.size > 0 and true"),
        "14: unexpected `and` (write `&&` instead of `and`)"
    );
    assert_eq!(
        on("true OR false"),
        "5: unexpected `OR` (write `||` instead of `OR`)"
    );
    assert_eq!(on("not true"), "0: unexpected `not` (write `!` instead of `not`)");
    assert_eq!(
        on("file.size = 1"),
        "10: unexpected `=` (write `==` instead of `=`)"
    );
    assert_eq!(
        on("true & false"),
        "5: unexpected `&` (write `&&` instead of `&`)"
    );
    assert_eq!(on("1 <> 2"), "2: unexpected `<>` (write `!=` instead of `<>`)");
    assert_eq!(
        on("file.size > 10MB"),
        "14: a condition knows no unit `MB` (write 10000000)"
    );
    assert_eq!(on("file.size >"), "11: the condition ends too early");
    assert_eq!(on("(true"), "5: the condition ends too early");
    assert_eq!(on("true false"), "5: unexpected `false`");
    assert!(on("file.name == \"a").starts_with("13: this text has no closing quote"));
    assert!(on("  ").starts_with("-: the condition is empty"));
    assert!(on("has(file)").contains("has(file.name)"));
    assert!(on("[1].map(x)").starts_with("4: `map` is not used like this"));
    assert!(on("file.size > 99999999999999999999").starts_with("12: this number is too large"));
}

/// The worst that 2 KB can hold: the library would end the process on a small stack.
#[test]
fn conditions_at_the_cap_are_refused_or_run_and_never_abort() {
    let data = Vocabulary::of(&[TriggerWord::FileArrives], None);
    let chain = |unit: &str, end: &str| unit.repeat((LONGEST - end.len()) / unit.len()) + end;
    let nest = |open: &str, inner: &str, close: &str| {
        let times = (LONGEST - inner.len()) / (open.len() + close.len());
        open.repeat(times) + inner + &close.repeat(times)
    };
    for source in [
        chain("data.", "a"),
        chain("1+", "1 > 0"),
        chain("true||", "true"),
        chain("true&&", "true"),
        chain("!", "true"),
        chain("-", "1"),
        chain("1==", "1"),
        chain("1<", "1"),
        chain("true?true:", "true"),
        format!("data.a{}", "[0]".repeat(600)),
        format!("data.a{}", ".size()".repeat(250)),
        nest("(", "true", ")"),
        nest("!(", "true", ")"),
        nest("[", "1", "]"),
        nest("{1:", "1", "}"),
        nest("size(", "1", ")"),
        nest("[1].exists(x,", "true", ")"),
        chain("(", ""),
        chain("[", ""),
        chain("'", ""),
        chain("$", ""),
        chain("{", ""),
    ] {
        let started = std::time::Instant::now();
        let compiled = Condition::compile(&source, &data);
        if let Ok(condition) = &compiled {
            condition.check(&data.samples()[0]).ok();
        }
        assert!(started.elapsed().as_secs() < 5, "{source}");
    }
    // Depth counts the comparison, the sum, and the number at the end.
    let sum = |terms: usize| format!("{}1 > 0", "1+".repeat(terms));
    Condition::compile(&sum(DEPTH - 2), &data).unwrap();
    let path = format!("data{} == 1", ".a".repeat(DEPTH));
    for source in [sum(DEPTH - 1), path, chain("1+", "1 > 0"), nest("(", "true", ")")] {
        let error = Condition::compile(&source, &data).unwrap_err();
        assert!(error.message.contains("nested deeper"), "{source}: {error:?}");
    }
    let error = Condition::compile(&"x".repeat(LONGEST + 1), &data).unwrap_err();
    assert!(error.message.contains("2049 bytes"), "{error:?}");
}

/// Half of the stack a worker of the runtime has, without optimisation.
#[test]
fn the_deepest_condition_allowed_runs_on_a_small_stack() {
    let data = Vocabulary::of(&[TriggerWord::FileArrives], None);
    let fits = |source: &dyn Fn(usize) -> String| {
        let deepest = (1..=DEPTH)
            .rev()
            .find_map(|n| Condition::compile(&source(n), &data).ok());
        deepest.expect("some depth is allowed")
    };
    let conditions = vec![
        fits(&|n| format!("1{} > 0", "+1".repeat(n))),
        fits(&|n| format!("{}true{}", "!(!".repeat(n), ")".repeat(n))),
        fits(&|n| format!("{}1{} != []", "[".repeat(n), "]".repeat(n))),
        fits(&|n| format!("{}1{} != {{}}", "{1:".repeat(n), "}".repeat(n))),
        fits(&|n| format!("{}true", "true?true:".repeat(n))),
        fits(&|n| format!("{}1{} > 0", "dyn(".repeat(n), ")".repeat(n))),
        fits(&|n| {
            format!(
                "[1].exists(x, [1].all(y, {}x{} > 0))",
                "(1+".repeat(n),
                ")".repeat(n)
            )
        }),
    ];
    let facts = data.samples().remove(0);
    let thread = std::thread::Builder::new().stack_size(1024 << 10).spawn(move || {
        for condition in &conditions {
            condition.check(&facts).unwrap();
        }
        drop(conditions);
    });
    thread.unwrap().join().unwrap();
}

#[test]
fn macros_may_be_nested_twice() {
    let two = "[1].exists(x, [2].all(y, x < y))";
    Condition::compile(two, &files()).unwrap();
    let three = "[1].exists(x, [2].all(y, [3].exists(z, x < y)))";
    assert!(complaint(three, &files()).contains("inside each other"));
    Condition::compile("[1].filter(x, x > 0).map(x, x + 1).exists(x, x > 1)", &files()).unwrap();
}

#[test]
fn values_a_condition_cannot_work_with_are_neither_yes_nor_no() {
    let source = "int(file.stem) > 10";
    let condition = Condition::compile(source, &files()).unwrap();
    let mut facts = invoice(1, "x");
    let error = condition.check(&facts).unwrap_err();
    assert!(
        error
            .message
            .starts_with("the condition `int(file.stem) > 10` cannot be decided: `int`")
    );
    assert!(
        error.message.ends_with("(file.stem = \"invoice-0815\")"),
        "{}",
        error.message
    );
    facts["file"]["stem"] = json!("11");
    assert!(condition.check(&facts).unwrap().holds);
    let divided = Condition::compile("10 / (file.size - 48213) > 1 || true", &files()).unwrap();
    assert!(divided.check(&invoice(48_213, "x")).unwrap().holds);
}

#[test]
fn data_of_the_rule_is_typed_by_its_values() {
    let known = files().with_data(json!({ "extensions": ["pdf", "csv"], "limit": 10, "off": null }));
    let condition = Condition::compile(
        "file.extension in data.extensions && file.size > data.limit",
        &known,
    )
    .unwrap();
    assert!(condition.check(&known.samples()[0]).unwrap().holds);
    assert!(complaint("file.size in data.extensions", &known).contains("never equal"));
    assert!(complaint("file.size > data.limits", &known).contains("did you mean `data.limit`?"));
    let patterned = files().with_data(json!({ "pattern": "^inv" }));
    Condition::compile("file.name.matches(data.pattern)", &patterned).unwrap();
}

#[test]
fn a_check_takes_microseconds() {
    let condition =
        Condition::compile(r#"file.size > 0 && !file.name.startsWith("DRAFT")"#, &files()).unwrap();
    let pattern = Condition::compile(r#"file.name.matches("^invoice-[0-9]+")"#, &files()).unwrap();
    let facts = invoice(1, "invoice-0815.pdf");
    for (name, condition) in [("compare", condition), ("matches", pattern)] {
        let started = std::time::Instant::now();
        for _ in 0..1_000 {
            assert!(condition.check(&facts).unwrap().holds);
        }
        let each = started.elapsed() / 1_000;
        println!("{name}: {each:?}");
        // Ten to a hundred times what it takes; a busy machine must not fail this.
        assert!(each.as_millis() < 5, "{each:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_source_makes_compile_panic(source in "[ -~äß\n]{0,60}") {
        let _ = Condition::compile(&source, &files());
    }

    #[test]
    fn near_conditions_do_not_panic_and_offsets_lie_inside(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("file.name"), Just("file.size"), Just("file"), Just("&&"), Just("||"), Just("!"), Just("=="), Just("("),
                Just(")"), Just("\"ä\""), Just("1"), Just("has("), Just(".startsWith("), Just("["), Just("]"), Just(","),
                Just("in"), Just("?"), Just(":"), Just("-"), Just(".exists(x,"), Just("x"), Just("'"), Just("and"),
            ], 0..14),
    ) {
        let source = parts.join(" ");
        match Condition::compile(&source, &files()) {
            Ok(condition) => { let _ = condition.check(&files().samples()[0]); }
            Err(error) => if let Some(offset) = error.offset {
                prop_assert!(source.is_char_boundary(offset), "{source:?} {offset}");
            },
        }
    }

    #[test]
    fn the_texts_of_and_are_the_whole_source(source in "[a-z&|()'\" ]{0,40}") {
        prop_assert_eq!(syntax::conjuncts(&source).join("&&"), source);
    }
}
