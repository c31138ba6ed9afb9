//! `tidings exec` as people use it: the real binary, real processes, a real store.

#![allow(clippy::unwrap_used, clippy::panic)] // a helper of tests fails by panicking, as the tests do

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tidings::clock::Clock;
use tidings::event::{Event, Kind};
use tidings::source::job;
use tidings::store::{EventFilter, Store};

struct Setup(tempfile::TempDir);

impl Setup {
    fn new() -> Setup {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tidings.yaml"), "accounts: {}\n").unwrap();
        Setup(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        command
            .arg("--config")
            .arg(self.path())
            .arg("exec")
            .args(args)
            .stdin(Stdio::null());
        command
    }

    fn exec(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    async fn store(&self) -> Store {
        Store::open(&self.path().join("state/tidings.db"), Clock::system())
            .await
            .unwrap()
    }

    async fn events(&self) -> Vec<Event> {
        let filter = EventFilter {
            limit: 1000,
            ..EventFilter::default()
        };
        let mut events = self.store().await.events(filter).await.unwrap();
        events.sort_by_key(|event| event.id);
        events
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn output_and_exit_code_pass_through_and_the_outcome_is_recorded() {
    let setup = Setup::new();
    let output = setup.exec(&["billing", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        ("out\n".into(), "err\n".into())
    );
    assert_eq!(setup.exec(&["billing", "--", "true"]).status.code(), Some(0));
    assert_eq!(setup.exec(&["billing", "--", "true"]).status.code(), Some(0));
    let events = setup.events().await;
    let said: Vec<_> = events
        .iter()
        .map(|event| (event.happening.kind, event.recovers))
        .collect();
    assert_eq!(
        said,
        [
            (Kind::JobFails, false),
            (Kind::JobSucceeds, true),
            (Kind::JobSucceeds, false)
        ]
    );
    let failed = &events[0].happening;
    assert_eq!(failed.subject, "billing");
    assert_eq!(failed.facts["job"]["exit_code"], 3);
    let tail = failed.facts["job"]["output_tail"].as_str().unwrap();
    assert!(tail.contains("out") && tail.contains("err"));
    let log = std::fs::read_to_string(failed.facts["job"]["log"].as_str().unwrap()).unwrap();
    assert!(log.contains("out\n") && log.contains("err\n"));
}

#[tokio::test]
async fn bytes_pass_through_unchanged_to_a_slow_reader() {
    let setup = Setup::new();
    let script = "head -c 64000 /dev/urandom; sleep 0.3; head -c 30000 /dev/urandom; sleep 0.3; head -c 20000 /dev/zero";
    let mut child = setup
        .command(&["noise", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // More than our pipe holds, so a part waits in the other when the command has long ended; longer than the
    // drain: nothing may be lost to it.
    std::thread::sleep(Duration::from_millis(3500));
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut child.stdout.take().unwrap(), &mut all).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(all.len(), 114_000);
    let quiet = setup.exec(&["--quiet", "noise", "--", "echo", "hello"]);
    assert_eq!(quiet.stdout, b"");
    assert_eq!(
        setup.events().await[1].happening.facts["job"]["output_tail"],
        "hello"
    );
}

#[tokio::test]
async fn stdin_is_the_commands() {
    let setup = Setup::new();
    let mut child = setup
        .command(&["copy", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"\x00\xff given\n").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"\x00\xff given\n");
}

#[tokio::test]
async fn a_command_that_cannot_start_ends_as_in_a_shell() {
    let setup = Setup::new();
    let output = setup.exec(&["x", "--", "no-such-program-here"]);
    assert_eq!(output.status.code(), Some(127));
    assert!(
        text(&output.stderr).contains("could not be started: No such file"),
        "{}",
        text(&output.stderr)
    );
    std::fs::write(setup.path().join("plain"), "x").unwrap();
    let plain = setup.path().join("plain");
    assert_eq!(
        setup.exec(&["x", "--", plain.to_str().unwrap()]).status.code(),
        Some(126)
    );
    let events = setup.events().await;
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event.happening.kind == Kind::JobFails));
}

#[tokio::test]
async fn a_signal_reaches_the_command_and_its_code_is_ours() {
    let setup = Setup::new();
    let flag = setup.path().join("ready");
    let script = format!(
        "trap 'echo got it; exit 9' TERM; touch {}; while :; do sleep 0.05; done",
        flag.display()
    );
    let child = setup
        .command(&["x", "--", "sh", "-c", &script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&flag);
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), text(&output.stdout).as_str()),
        (Some(9), "got it\n")
    );
    assert_eq!(
        setup
            .exec(&["x", "--", "sh", "-c", "kill -KILL $$"])
            .status
            .code(),
        Some(137)
    );
    assert_eq!(
        setup.events().await[1].happening.facts["job"]["signal"],
        "SIGKILL"
    );
}

fn wait_for(path: &Path) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn the_time_limit_ends_all_of_it_with_124() {
    let setup = Setup::new();
    let output = setup.exec(&[
        "--timeout",
        "300ms",
        "x",
        "--",
        "sh",
        "-c",
        "sleep 600 & sleep 600",
    ]);
    assert_eq!(output.status.code(), Some(124));
    assert_eq!(setup.events().await[0].happening.facts["job"]["timed_out"], true);
    assert_eq!(
        setup
            .exec(&["--timeout", "soon", "x", "--", "true"])
            .status
            .code(),
        Some(64)
    );
}

#[tokio::test]
async fn fifty_at_once_are_all_recorded() {
    let setup = Setup::new();
    let children: Vec<_> = (0..50)
        .map(|n| {
            let code = (n % 2).to_string();
            let script = format!("exit {code}");
            setup
                .command(&[&format!("job-{n}"), "--", "sh", "-c", &script])
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for (n, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some((n % 2) as i32));
        assert_eq!(text(&output.stderr), "");
    }
    let events = setup.events().await;
    assert_eq!(events.len(), 50);
    assert_eq!(
        events
            .iter()
            .filter(|event| event.happening.kind == Kind::JobFails)
            .count(),
        25
    );
}

#[tokio::test]
async fn a_report_that_cannot_be_stored_waits_as_a_file_and_is_picked_up() {
    let setup = Setup::new();
    // No database can be here.
    let db = setup.path().join("state/tidings.db");
    std::fs::create_dir_all(&db).unwrap();
    let output = setup.exec(&["billing", "--", "sh", "-c", "exit 5"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(
        text(&output.stderr).contains("the outcome of billing waits in"),
        "{}",
        text(&output.stderr)
    );
    std::fs::remove_dir(&db).unwrap();
    let state = setup.path().join("state");
    std::fs::write(state.join("reports/broken.json"), "{").unwrap();
    let store = setup.store().await;
    assert_eq!(job::pick_up(&state, &store).await.unwrap(), 1);
    assert_eq!(job::pick_up(&state, &store).await.unwrap(), 0);
    let events = setup.events().await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].happening.facts["job"]["exit_code"], 5);
    assert!(state.join("reports/broken.json.bad").exists());
}

#[tokio::test]
async fn without_a_setup_the_command_runs_and_a_warning_tells() {
    let empty = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tidings"))
        .args(["exec", "x", "--", "sh", "-c", "echo ran; exit 2"])
        .current_dir(empty.path())
        .env_remove("TIDINGS_CONFIG")
        .output()
        .unwrap();
    assert_eq!(
        (output.status.code(), text(&output.stdout).as_str()),
        (Some(2), "ran\n")
    );
    assert!(
        text(&output.stderr).contains("is not recorded: cannot read"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_broken_setup_keeps_no_job_from_being_reported() {
    let setup = Setup::new();
    std::fs::write(
        setup.path().join("tidings.yaml"),
        "accounts: [\n  this is no setup",
    )
    .unwrap();
    let output = setup.exec(&["billing", "--", "true"]);
    assert_eq!(
        (output.status.code(), text(&output.stderr).as_str()),
        (Some(0), "")
    );
    assert_eq!(setup.events().await.len(), 1);
}
