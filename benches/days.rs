//! What a test of rules costs that plays a thousand days, beside one that plays ten: a file each morning, a report
//! each evening, a deadline, a case now and then. The figures are wall-clock medians, taken in turn in one run, and
//! the cost of a day in the long test as a multiple of that in the short one.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and fails by panicking"
)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const SETTINGS: &str = "accounts: { relay: { smtp: { host: mail.invalid, port: 25, tls: none }, user: robot@example.org } }\n\
    defaults: { from: robot@example.org, timezone: Europe/Berlin }\nrecipients: { groups: { ops: [ops@example.org] } }\n";

const RULES: &str = "rules:\n  list:\n    when: { file_arrives: { in: inbox, match: \"*.csv\" } }\n    mail: { to: ops, template: file-arrived }\n\
    \x20 late:\n    when: { file_missing: { in: inbox, match: \"*.csv\", by: \"07:00\" } }\n    mail: { to: ops, template: file-missing }\n\
    \x20   on_recovery: { mail: { to: ops, template: file-came-late } }\n\
    \x20 failed:\n    when: { job_fails: { job: \"*\" } }\n    mail: { to: ops, template: job-failed }\n";

fn setup(dir: &Path, days: u32) {
    std::fs::create_dir_all(dir.join("rules")).unwrap();
    std::fs::create_dir_all(dir.join("inbox")).unwrap();
    std::fs::write(dir.join("tidings.yaml"), SETTINGS).unwrap();
    std::fs::write(dir.join("rules/rules.yaml"), RULES).unwrap();
    // Every seventh file is late: each of those days has a case.
    let weeks = days.div_ceil(7);
    let mut happens = String::new();
    happens.push_str(&format!(
        "      - at: 2026-01-01 00:30\n        job: {{ name: close, exit: 1, output: no }}\n        times: {days}\n        every: 1d\n"
    ));
    for day in 0..7 {
        let time = if day == 6 { "09:00" } else { "06:30" };
        happens.push_str(&format!(
            "      - at: 2026-01-{:02} {time}\n        file: {{ path: 'inbox/{{{{date now \"%F\"}}}}.csv', content: x }}\n\
             \x20       times: {weeks}\n        every: 7d\n",
            day + 1
        ));
    }
    let test = format!(
        "tests:\n  days:\n    start: 2026-01-01 00:00\n    happens:\n{happens}    other_mails: allowed\n    expect:\n\
         \x20     - {{ mail: {{ rule: failed }}, times: {days} }}\n"
    );
    std::fs::write(dir.join("rules/rules.test.yaml"), test).unwrap();
}

fn played(dir: &Path) -> Duration {
    let began = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_tidings"))
        .arg("-C")
        .arg(dir)
        .arg("test")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    began.elapsed()
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}

fn main() {
    let (short, long) = (10, 1_000);
    let folder = tempfile::tempdir().unwrap();
    let (few, many) = (folder.path().join("few"), folder.path().join("many"));
    setup(&few, short);
    setup(&many, long);
    let (mut few_took, mut many_took) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        few_took.push(played(&few));
        many_took.push(played(&many));
    }
    let (few_took, many_took) = (median(few_took), median(many_took));
    let day = |took: Duration, days: u32| took.as_secs_f64() * 1000.0 / f64::from(days);
    println!(
        "{short} days:   {:.2} s, {:.2} ms a day",
        few_took.as_secs_f64(),
        day(few_took, short)
    );
    println!(
        "{long} days: {:.2} s, {:.2} ms a day",
        many_took.as_secs_f64(),
        day(many_took, long)
    );
    println!(
        "a day of the long test costs {:.2} of a day of the short one",
        day(many_took, long) / day(few_took, short)
    );
}
