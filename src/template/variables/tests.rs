use crate::template::Text;

fn uses(source: &str) -> Vec<String> {
    Text::compile(source)
        .unwrap()
        .variables()
        .into_iter()
        .map(|used| {
            let word = &source[used.offset..];
            assert!(
                word.contains(used.path.last().unwrap().as_str()),
                "{used:?} does not point at its word"
            );
            format!("{}{}", used.path.join("."), if used.guarded { "?" } else { "" })
        })
        .collect()
}

#[test]
fn each_use_is_found_with_its_path() {
    assert_eq!(uses("{{file.name}} {{{file.size}}}"), ["file.name", "file.size"]);
    assert_eq!(
        uses("{{bytes file.size}} {{date now \"%H\"}}"),
        ["file.size", "now"]
    );
    assert_eq!(
        uses("{{#if (gt file.size 3)}}{{rule.name}}{{/if}}"),
        ["file.size", "rule.name"]
    );
    assert_eq!(
        uses("{{truncate (lines job.output_tail 3) 9}}"),
        ["job.output_tail"]
    );
}

#[test]
fn names_are_resolved_through_blocks() {
    assert_eq!(
        uses("{{#with file}}{{name}}{{../host}}{{@root.now}}{{/with}}"),
        ["file", "file.name", "host", "now"]
    );
    assert_eq!(
        uses("{{#with file as |f|}}{{f.name}}{{/with}}"),
        ["file", "file.name"]
    );
    assert_eq!(
        uses("{{#each data.list}}{{this.x}}{{y}}{{@index}}{{../host}}{{/each}}"),
        ["data.list", "host"]
    );
    assert_eq!(
        uses("{{#each data.list as |item at|}}{{item.x}}{{at}}{{/each}}"),
        ["data.list"]
    );
}

#[test]
fn what_was_asked_for_may_be_absent() {
    assert_eq!(
        uses("{{#if file}}{{file.name}}{{else}}{{file.name}}{{/if}}"),
        ["file?", "file.name", "file.name?"]
    );
    assert_eq!(
        uses("{{#unless file}}x{{else}}{{file.name}}{{/unless}}"),
        ["file?", "file.name?"]
    );
    assert_eq!(
        uses("{{#if (and file job)}}{{job.name}}{{host}}{{/if}}"),
        ["file?", "job?", "job.name?", "host"]
    );
    assert_eq!(uses("{{default job.name host}}"), ["job.name?", "host"]);
    assert_eq!(
        uses("{{#with file}}{{name}}{{else}}-{{/with}}"),
        ["file?", "file.name?"]
    );
}

#[test]
fn else_if_points_at_its_own_word() {
    let source = "{{#if a}}1{{else if b}}2{{else if c.d}}3{{/if}}";
    let offsets: Vec<usize> = Text::compile(source)
        .unwrap()
        .variables()
        .iter()
        .map(|used| used.offset)
        .collect();
    assert_eq!(
        {
            let mut sorted = offsets.clone();
            sorted.sort_unstable();
            sorted
        },
        [6, 20, 34]
    );
}

#[test]
fn faults_say_what_to_write_instead() {
    let fault = |source: &str| {
        let error = Text::compile(source).unwrap_err();
        format!(
            "{}: {} ({})",
            error.offset,
            error.message,
            error.hint.unwrap_or_default()
        )
    };
    assert_eq!(
        fault("{{byts file.size}}"),
        "2: nobody knows a helper `byts` (did you mean `bytes`?)"
    );
    assert_eq!(
        fault("a {{file.name"),
        "2: this `{{` is never closed (write `}}` behind it; a literal `{{` is `\\{{`)"
    );
    assert_eq!(
        fault("{{> footer}}"),
        "4: the partial `footer` cannot be used in a setting ()"
    );
    assert!(fault("{{> (lookup data.x)}}").contains("cannot be computed"));
    assert!(fault("{{#if a}}x").contains("a block is not closed"));
    assert!(fault("{{#if a}}x{{/each}}").contains("`each`"));
    assert!(fault("{{#*inline \"a\"}}{{> a}}{{/inline}}").contains("decorators"));
    assert!(fault("{{date now \"%E!\"}}").contains("strftime"));
    assert!(fault("{{bytes}}").contains("needs a value"));
}
