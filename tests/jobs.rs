//! Commands as jobs: real processes, real signals, real pipes.

#![allow(clippy::unwrap_used, clippy::panic)] // a helper of tests fails by panicking, as the tests do

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tidings::action::run::Performing;
use tidings::action::work::{Done, lost, outcome, perform};
use tidings::action::{FileStep, Overlap, Run, Step, Work};
use tidings::clock::Clock;
use tidings::entry::{Entry, EntryId, Kind, OnUnknown, State};
use tidings::event::{EventId, FileRef};
use tokio_util::sync::CancellationToken;

struct Bench {
    folder: tempfile::TempDir,
    stop: CancellationToken,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            folder: tempfile::tempdir().unwrap(),
            stop: CancellationToken::new(),
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn context(&self) -> Performing {
        Performing {
            setup: self.path().to_owned(),
            logs: self.path().join("jobs"),
            temp: None,
            entry: Some(EntryId(7)),
            stop: self.stop.clone(),
            clock: Clock::system(),
            ground: tidings::ground::Ground::default(),
            commands: tidings::action::run::Commands::Real,
        }
    }

    fn run(&self, command: &[&str]) -> Run {
        Run {
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: Duration::from_secs(60),
            retries: 0,
            retry_wait: Duration::from_millis(10),
            folder: self.path().to_owned(),
            env: BTreeMap::new(),
            log_limit: 1_000_000,
        }
    }

    fn work(&self, step: Step) -> Work {
        let facts = json!({
            "event": {"id": 41, "type": "file_arrives"},
            "data": {"customer": "Contoso", "list": [1, 2], "deep": {"er": true}},
        });
        let Value::Object(facts) = facts else {
            unreachable!()
        };
        Work {
            job: "import".to_owned(),
            steps: vec![step],
            facts,
            event: Some(EventId(41)),
            file: None,
            reports: true,
            overlap: Overlap::Queue,
        }
    }

    async fn done(&self, run: Run) -> Done {
        perform(&self.work(Step::Run(run)), &self.context()).await
    }

    async fn sh(&self, script: &str) -> Done {
        self.done(self.run(&["sh", "-c", script])).await
    }
}

/// Living (not zombie) processes of a process group.
fn living(group: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok())
        .filter(|stat| {
            let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
            let fields: Vec<&str> = after.split_whitespace().collect();
            fields.first() != Some(&"Z") && fields.get(2) == Some(&group)
        })
        .count()
}

#[tokio::test]
async fn exit_codes_and_signals_are_reported_as_they_were() {
    let bench = Bench::new();
    let good = bench.sh("exit 0").await.report;
    assert!(good.ok && good.exit_code == Some(0) && good.signal.is_none());
    let bad = bench.sh("echo so much; exit 3").await.report;
    assert_eq!(
        (bad.ok, bad.exit_code, bad.summary.as_str()),
        (false, Some(3), "ended with exit code 3")
    );
    assert_eq!(bad.output_tail, "so much");
    assert_eq!(bad.command, "sh -c 'echo so much; exit 3'");
    let killed = bench.sh("kill -KILL $$").await.report;
    assert_eq!(
        (killed.ok, killed.exit_code, killed.signal.as_deref()),
        (false, None, Some("SIGKILL"))
    );
    assert_eq!(killed.summary, "was ended by SIGKILL");
}

#[tokio::test]
async fn the_time_limit_ends_grandchildren_too() {
    let bench = Bench::new();
    let mut run = bench.run(&["sh", "-c", "echo $$ > group; sleep 600 & sleep 600"]);
    run.timeout = Duration::from_millis(300);
    let begun = Instant::now();
    let report = bench.done(run).await.report;
    assert!(report.timed_out && !report.ok);
    assert_eq!(report.summary, "ran longer than its limit of 300ms and was ended");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let group = std::fs::read_to_string(bench.path().join("group")).unwrap();
    assert_eq!(living(group.trim()), 0);
}

#[tokio::test]
async fn what_ignores_term_is_killed_after_the_grace() {
    let bench = Bench::new();
    let mut run = bench.run(&[
        "sh",
        "-c",
        "echo $$ > group; trap '' TERM; (trap '' TERM; sleep 600) & sleep 600; sleep 600",
    ]);
    run.timeout = Duration::from_millis(300);
    let begun = Instant::now();
    let report = bench.done(run).await.report;
    assert!(report.timed_out);
    assert_eq!(report.signal.as_deref(), Some("SIGKILL"));
    assert!(begun.elapsed() >= Duration::from_secs(5));
    let group = std::fs::read_to_string(bench.path().join("group")).unwrap();
    assert_eq!(living(group.trim()), 0);
}

#[tokio::test]
async fn a_grandchild_that_holds_the_output_delays_the_result_by_the_drain_only() {
    let bench = Bench::new();
    let begun = Instant::now();
    let report = bench
        .sh("sleep 30 & echo $! > left; echo said; exit 3")
        .await
        .report;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(report.exit_code, Some(3));
    assert!(report.output_incomplete);
    assert_eq!(report.output_tail, "said");
    let log = std::fs::read_to_string(report.log.unwrap()).unwrap();
    assert!(log.contains("still holds its output"));
    // It ended in peace, so what it left behind is left alone.
    let left = std::fs::read_to_string(bench.path().join("left")).unwrap();
    assert!(Path::new(&format!("/proc/{}", left.trim())).exists());
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(left.trim().parse().unwrap()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
}

#[tokio::test]
async fn stopping_ends_the_job_and_says_so() {
    let bench = Bench::new();
    let stop = bench.stop.clone();
    let flag = bench.path().join("running");
    let mut run = bench.run(&["sh", "-c", "touch running; sleep 600"]);
    run.retries = 5;
    let (done, ()) = tokio::join!(bench.done(run), async {
        while !flag.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
    });
    let report = done.report;
    assert!(!report.ok && !report.lost && !report.timed_out);
    assert_eq!((report.attempt, report.signal.as_deref()), (1, Some("SIGTERM")));
    assert!(
        report
            .summary
            .starts_with("was ended because tidings was stopped"),
        "{}",
        report.summary
    );
}

#[tokio::test]
async fn a_dropped_job_is_killed() {
    let bench = Bench::new();
    let flag = bench.path().join("group");
    let job = bench.sh("echo $$ > group.new; mv group.new group; sleep 600 & sleep 600");
    tokio::select! {
        _ = job => unreachable!(),
        () = async { while !flag.exists() { tokio::time::sleep(Duration::from_millis(5)).await } } => {}
    }
    let group = std::fs::read_to_string(flag).unwrap();
    let begun = Instant::now();
    while living(group.trim()) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_flood_of_output_is_kept_in_bounded_memory_and_a_capped_log() {
    let bench = Bench::new();
    let before = resident();
    let report = bench
        .sh("yes 'a line of some length' | head -c 300000000; echo the end >&2; exit 1")
        .await
        .report;
    assert!(
        resident() < before + 60_000,
        "{} kB before, {} after",
        before,
        resident()
    );
    assert!(report.output_incomplete);
    assert!(report.output_tail.ends_with("the end"));
    assert!(report.output_tail.len() <= 8 * 1024);
    let log = std::fs::read(report.log.unwrap()).unwrap();
    assert!(log.len() < 1_000_200, "{}", log.len());
    assert!(log.ends_with(b"the end\n"));
    assert!(String::from_utf8_lossy(&log).contains("bytes of output are left out here"));
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn stdout_and_stderr_are_kept_in_the_order_they_came() {
    let bench = Bench::new();
    let script = "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done";
    let report = bench.sh(script).await.report;
    let expected: Vec<String> = (1..=5)
        .flat_map(|i| [format!("out {i}"), format!("err {i}")])
        .collect();
    assert_eq!(report.output_tail, expected.join("\n"));
    let log = report.log.unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(std::fs::metadata(&log).unwrap().mode() & 0o777, 0o600);
    assert_eq!(
        std::fs::metadata(bench.path().join("jobs")).unwrap().mode() & 0o777,
        0o700
    );
    assert_eq!(std::fs::read_to_string(log).unwrap(), expected.join("\n") + "\n");
}

#[tokio::test]
async fn the_event_is_json_on_stdin_and_facts_are_variables() {
    let bench = Bench::new();
    let mut run = bench.run(&["sh", "-c", "cat > stdin; env > env"]);
    run.env.insert("GREETING".into(), "hello".into());
    assert!(bench.done(run).await.report.ok);
    let stdin: Value = serde_json::from_slice(&std::fs::read(bench.path().join("stdin")).unwrap()).unwrap();
    assert_eq!(stdin["event"]["type"], "file_arrives");
    assert_eq!(stdin["data"]["list"], json!([1, 2]));
    let env = std::fs::read_to_string(bench.path().join("env")).unwrap();
    for line in [
        "TIDINGS_JOB=import",
        "TIDINGS_RULE=import",
        "TIDINGS_EVENT_ID=41",
        "TIDINGS_EVENT_TYPE=file_arrives",
        "TIDINGS_DATA_CUSTOMER=Contoso",
        "TIDINGS_DATA_DEEP_ER=true",
        "TIDINGS_ATTEMPT=1",
        "GREETING=hello",
    ] {
        assert!(env.lines().any(|l| l == line), "{line} is not in\n{env}");
    }
    let inherited = [
        "PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME", "TMPDIR", "PWD", "SHLVL", "_", "OLDPWD", "GREETING",
    ];
    for line in env.lines() {
        let name = line.split('=').next().unwrap();
        assert!(
            name.starts_with("TIDINGS_") || inherited.contains(&name),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_command_that_does_not_read_a_large_stdin_is_no_trouble() {
    let bench = Bench::new();
    let mut work = bench.work(Step::Run(bench.run(&["sh", "-c", "exec 0<&-; exit 0"])));
    work.facts
        .insert("blob".into(), Value::String("x".repeat(4_000_000)));
    let report = perform(&work, &bench.context()).await.report;
    assert!(report.ok, "{}", report.summary);
    // And one that answers while it reads does not lock up with us.
    work.steps = vec![Step::Run(bench.run(&["cat"]))];
    let report = perform(&work, &bench.context()).await.report;
    assert!(report.ok && report.output_incomplete);
}

fn file(root: &Path, name: Vec<u8>) -> FileRef {
    use std::os::unix::fs::MetadataExt as _;
    let relative = PathBuf::from(OsString::from_vec(name));
    let path = root.join(&relative);
    std::fs::write(&path, b"content").unwrap();
    let stat = std::fs::metadata(&path).unwrap();
    FileRef {
        root: root.to_owned(),
        relative,
        size: stat.len(),
        mtime_ns: stat.mtime() * 1_000_000_000 + stat.mtime_nsec(),
    }
}

#[tokio::test]
async fn hostile_names_arrive_as_one_argument_byte_for_byte() {
    let bench = Bench::new();
    let drop = bench.path().join("drop");
    std::fs::create_dir(&drop).unwrap();
    let names: [&[u8]; 9] = [
        b"-rf",
        b";id",
        b"$(id)",
        b"`id`",
        b"a\nb",
        b"* ? ~",
        b"'\"\\",
        b"caf\xe9.csv",
        b"\xff\xfe%41",
    ];
    for name in names {
        let file = file(&drop, name.to_vec());
        let facts = file.facts();
        // What a template renders: `{{file.path}}` and `{{file.name}}`.
        let (path, shown) = (facts["path"].as_str().unwrap(), facts["name"].as_str().unwrap());
        let run = bench.run(&[
            "sh",
            "-c",
            "printf '%s\\0' \"$@\" > args; printf %s \"$TIDINGS_FILE_PATH\" > env",
            "sh",
            path,
            shown,
        ]);
        let mut work = bench.work(Step::Run(run));
        work.file = Some(file.clone());
        let report = perform(&work, &bench.context()).await.report;
        assert!(report.ok, "{report:?}");
        use std::os::unix::ffi::OsStrExt as _;
        let bytes = file.path().as_os_str().as_bytes().to_vec();
        let expected = [bytes.as_slice(), b"\0", name, b"\0"].concat();
        assert_eq!(std::fs::read(bench.path().join("args")).unwrap(), expected);
        assert_eq!(std::fs::read(bench.path().join("env")).unwrap(), bytes);
        assert!(!report.command.contains('\n'));
    }
}

#[tokio::test]
async fn a_failed_command_is_tried_again_until_it_ends_well() {
    let bench = Bench::new();
    let mut run = bench.run(&["sh", "-c", "echo x >> tries; test $(wc -l < tries) -ge 3"]);
    run.retries = 5;
    let report = bench.done(run).await.report;
    assert!(report.ok);
    assert_eq!(report.attempt, 3);
    assert!(report.log.unwrap().ends_with("7-3.log"));
    let mut run = bench.run(&["false"]);
    run.retries = 2;
    let report = bench.done(run).await.report;
    assert_eq!((report.ok, report.attempt), (false, 3));
}

#[tokio::test]
async fn a_command_that_cannot_start_says_why_in_the_systems_words() {
    let bench = Bench::new();
    let write = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = bench.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write("plain", "#!/bin/sh\n", 0o644);
    write("orphan", "#!/no/such/interpreter\n", 0o755);
    write("ok", "#!/bin/sh\necho here\n", 0o755);
    let cases = [
        (
            "no-such-program",
            "could not be started: No such file or directory; no folder of PATH has a program",
        ),
        (
            "./nowhere",
            "could not be started: No such file or directory; there is no file",
        ),
        (
            "./plain",
            "could not be started: Permission denied; if it is not executable: chmod +x",
        ),
        ("./orphan", "is there, but not the interpreter"),
    ];
    for (program, words) in cases {
        let report = bench.done(bench.run(&[program])).await.report;
        assert!(!report.ok && report.exit_code.is_none());
        assert!(report.summary.contains(words), "{program}: {}", report.summary);
    }
    let report = bench.done(bench.run(&["./ok"])).await.report;
    assert!(report.ok && report.output_tail == "here", "{report:?}");
    let mut run = bench.run(&["true"]);
    run.folder = bench.path().join("nowhere");
    let report = bench.done(run).await.report;
    assert!(
        report.summary.contains("its working folder"),
        "{}",
        report.summary
    );
}

#[tokio::test]
async fn the_first_step_that_fails_decides() {
    let bench = Bench::new();
    let drop = bench.path().join("drop");
    std::fs::create_dir(&drop).unwrap();
    let file = file(&drop, b"order.csv".to_vec());
    let mut work = bench.work(Step::Run(bench.run(&["sh", "-c", "exit 4"])));
    work.steps
        .push(Step::File(FileStep::Move(bench.path().join("done/"))));
    work.file = Some(file.clone());
    let done = perform(&work, &bench.context()).await;
    assert_eq!(done.report.exit_code, Some(4));
    assert_eq!((done.file, done.gone), (Some(file.clone()), vec![]));
    assert!(file.path().exists());

    // The other order: the command finds the file where it was moved to.
    let path = file.facts()["path"].as_str().unwrap().to_owned();
    work.steps = vec![
        Step::File(FileStep::Move(bench.path().join("done/"))),
        Step::Run(bench.run(&["cat", &path])),
    ];
    let done = perform(&work, &bench.context()).await;
    assert!(done.report.ok, "{:?}", done.report);
    assert_eq!(done.report.output_tail, "content");
    assert_eq!(done.gone, [file]);
    assert_eq!(
        done.file.as_ref().unwrap().path(),
        bench.path().join("done/order.csv")
    );
    let event = outcome(&work, &done.report, done.file, 1);
    assert_eq!(event.key, "job:entry:7");
    assert_eq!(event.kind, tidings::event::Kind::JobSucceeds);
    assert_eq!(event.facts["file"]["folder_name"], "done");
    assert_eq!(event.facts["job"]["name"], "import");
    assert!(!event.facts.contains_key("event"));
    assert_eq!(event.origin.unwrap().event, EventId(41));
}

#[test]
fn work_that_was_in_hand_when_we_were_killed_is_reported_lost() {
    let bench = Bench::new();
    let work = bench.work(Step::Run(bench.run(&["true"])));
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let entry = Entry {
        id: EntryId(9),
        key: "k".into(),
        kind: Kind::Work,
        rule: "import".into(),
        event: Some(EventId(41)),
        lane: "import".into(),
        summary: Value::Object(Map::new()),
        state: State::Leased,
        reason: None,
        due: now,
        attempts: 2,
        on_unknown: OnUnknown::Hold,
        since: now,
        created: now,
        changed: now,
    };
    let events = lost(&entry, &serde_json::to_vec(&work).unwrap());
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].kind, tidings::event::Kind::JobFails);
    assert_eq!(events[0].key, "job:entry:9:2");
    assert_eq!(events[0].facts["job"]["lost"], true);
    assert!(lost(&entry, b"not ours").is_empty());
}
