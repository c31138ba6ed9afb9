//! What the documents say works: every YAML block of the README and every example passes `check` and
//! validates against the schema, every command the README names exists, and nothing one may write is
//! missing in it.
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
use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use tidings::rule::facts::Vocabulary;
use tidings::rule::facts::word::TriggerWord;
use tidings::template::{Templates, helpers};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn check(dir: &Path) -> std::process::Output {
    Command::new(cargo_bin("tidings"))
        .arg("-C")
        .arg(dir)
        .arg("check")
        .env("GOOGLE_CLIENT_SECRET", "x")
        .env("GMAIL_CLIENT_SECRET", "x")
        .output()
        .unwrap()
}

/// Every mail of every rule of a setup can be looked at, and speaks of its own rule.
fn previews(dir: &Path) {
    for file in std::fs::read_dir(dir.join("rules")).unwrap() {
        let path = file.unwrap().path();
        if path.to_string_lossy().ends_with(".test.yaml") {
            continue;
        }
        let yaml = std::fs::read_to_string(path).unwrap();
        let rules: Value = serde_saphyr::from_str(&yaml).unwrap();
        for (rule, _) in rules["rules"].as_object().unwrap() {
            let output = Command::new(cargo_bin("tidings"))
                .arg("-C")
                .arg(dir)
                .args(["preview", rule])
                .output()
                .unwrap();
            let shown = text(&output.stdout);
            assert!(output.status.success(), "{rule}: {}", text(&output.stderr));
            assert!(shown.contains("subject  "), "{rule}: {shown}");
            assert!(!shown.contains("sample-rule"), "{rule}: {shown}");
            // A mail that says all is well must not be shown with a job that failed.
            for page in shown.split("== ").filter(|page| page.contains("It works again")) {
                assert!(page.contains("Exit code:  0"), "{rule}: {page}");
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The YAML blocks of a document.
fn blocks(document: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in document.lines() {
        match (&mut block, line) {
            (None, "```yaml") => block = Some(String::new()),
            (Some(_), "```") => blocks.extend(block.take()),
            (Some(text), line) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks
}

#[test]
fn every_example_passes_check() {
    let scratch = tempfile::tempdir().unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let entry = entry.unwrap();
        if !entry.path().join("tidings.yaml").is_file() {
            continue;
        }
        let dir = scratch.path().join(entry.file_name());
        copy(&entry.path(), &dir);
        let output = check(&dir);
        assert!(
            output.status.success(),
            "{}: {}",
            entry.path().display(),
            text(&output.stderr)
        );
        previews(&dir);
        assert!(
            entry.path().join("README.md").is_file(),
            "{} explains itself",
            entry.path().display()
        );
        count += 1;
    }
    assert!(count >= 4, "{count} examples");
}

/// Accounts that the README's rules assume.
const ASSUMED: &str = "accounts:\n  office: { transport: file, folder: out, user: alice@contoso.com, \
    senders: [invoices@contoso.com] }\ndefaults: { from: alice@contoso.com }\n\
    calendars: { holidays: { dates: 12-25 } }\n";

#[test]
fn every_yaml_block_of_the_readme_passes_check() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let blocks = blocks(&readme);
    assert!(blocks.len() >= 10, "{} blocks", blocks.len());
    let validator = |which: &str| jsonschema::validator_for(&schema(which)).unwrap();
    let (settings, rules, tests) = (validator("settings"), validator("rules"), validator("tests"));
    let mut last_rules = String::new();
    for block in blocks {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path();
        for folder in ["rules", "drop/invoices", "drop/orders", "secrets"] {
            std::fs::create_dir_all(dir.join(folder)).unwrap();
        }
        std::fs::write(dir.join("secrets/partner"), "secret").unwrap();
        for program in ["import-order", "export"] {
            let program = dir.join(program);
            std::fs::write(&program, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        }
        let value: Value = serde_saphyr::from_str(&block).unwrap();
        let of = if block.starts_with("rules:") {
            &rules
        } else if block.starts_with("tests:") {
            &tests
        } else {
            &settings
        };
        assert!(of.is_valid(&value), "{block}");
        if block.starts_with("rules:") {
            std::fs::write(dir.join("tidings.yaml"), ASSUMED).unwrap();
            std::fs::write(dir.join("rules/block.yaml"), &block).unwrap();
            last_rules.clone_from(&block);
        } else if block.starts_with("tests:") {
            // Tests are of the rules before them, and pass.
            std::fs::write(dir.join("tidings.yaml"), ASSUMED).unwrap();
            std::fs::write(dir.join("rules/block.yaml"), &last_rules).unwrap();
            std::fs::write(dir.join("rules/block.test.yaml"), &block).unwrap();
            let played = Command::new(cargo_bin("tidings"))
                .arg("-C")
                .arg(dir)
                .arg("test")
                .output()
                .unwrap();
            assert!(played.status.success(), "{block}\n{}", text(&played.stdout));
        } else {
            std::fs::write(dir.join("tidings.yaml"), &block).unwrap();
        }
        let output = check(dir);
        assert!(output.status.success(), "{block}\n{}", text(&output.stderr));
    }
}

fn schema(which: &str) -> Value {
    let output = Command::new(cargo_bin("tidings"))
        .args(["schema", which])
        .output()
        .unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Every key and every fixed word a schema knows.
fn words(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::Object(properties)) = map.get("properties") {
                found.extend(properties.keys().cloned());
            }
            let fixed = map.get("enum").and_then(Value::as_array).into_iter().flatten();
            found.extend(
                fixed
                    .chain(map.get("const"))
                    .filter_map(|word| word.as_str().map(str::to_owned)),
            );
            map.values().for_each(|inner| words(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| words(inner, found)),
        _ => {}
    }
}

#[test]
fn the_readme_says_every_key_every_word_every_helper_and_every_template() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let said: BTreeSet<&str> = readme
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')
        .collect();
    let mut known = BTreeSet::new();
    words(&schema("settings"), &mut known);
    words(&schema("rules"), &mut known);
    words(&schema("tests"), &mut known);
    assert!(known.len() > 100, "{known:?}");
    known.extend(helpers::OURS.map(str::to_owned));
    known.extend(helpers::LIBRARY.map(str::to_owned));
    known.extend(Templates::shipped().names().into_iter().map(str::to_owned));
    let unsaid: Vec<&String> = known
        .iter()
        .filter(|word| !said.contains(word.as_str()))
        .collect();
    assert!(unsaid.is_empty(), "not in README.md: {unsaid:?}");
}

#[test]
fn the_readme_says_every_fact() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let triggers = TriggerWord::ALL;
    let section = readme.split("### Facts").nth(1).unwrap();
    let section = section.split("\n###").next().unwrap();
    for facts in Vocabulary::of(&triggers, None).with_telling(true, true).samples() {
        for (group, value) in facts.as_object().unwrap() {
            assert!(section.contains(&format!("`{group}`")), "{group}");
            for name in value.as_object().into_iter().flat_map(|parts| parts.keys()) {
                assert!(section.contains(&format!("`{name}`")), "{group}.{name}");
            }
        }
    }
}

#[test]
fn every_example_and_shipped_file_validates_against_the_schema() {
    let validator = |which: &str| jsonschema::validator_for(&schema(which)).unwrap();
    let (settings, rules, tests) = (validator("settings"), validator("rules"), validator("tests"));
    let mut count = 0;
    let mut folders = vec![
        root().join("examples"),
        root().join("rules"),
        root().join("src/cli/demo"),
    ];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            // The demo's settings bear a word that is replaced by a port number.
            let yaml = std::fs::read_to_string(&path)
                .unwrap()
                .replace("SMTP_PORT", "2525");
            let value: Value = serde_saphyr::from_str(&yaml).unwrap();
            let validator = if path.file_name().unwrap() == "tidings.yaml" {
                &settings
            } else if path.to_string_lossy().ends_with(".test.yaml") {
                &tests
            } else {
                &rules
            };
            let errors: Vec<String> = validator
                .iter_errors(&value)
                .map(|error| error.to_string())
                .collect();
            assert!(errors.is_empty(), "{}: {errors:?}", path.display());
            count += 1;
        }
    }
    assert!(count >= 10, "{count} files");
}

#[test]
fn every_command_the_readme_names_exists() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut count = 0;
    for line in readme.lines().filter(|line| line.starts_with("tidings ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let command = if words[1] == "-C" { words[3] } else { words[1] };
        let help = Command::new(cargo_bin("tidings"))
            .args([command, "--help"])
            .output()
            .unwrap();
        assert!(help.status.success(), "{line}");
        count += 1;
    }
    assert!(count >= 10, "{count} commands");
}
