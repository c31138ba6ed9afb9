//! A site: a setup folder, a submission server on loopback, and the real binary run on it.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use assert_cmd::cargo::cargo_bin;
use mail_parser::{MessageParser, MimeHeaders as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tidings::sandbox::smtp::{Received, Server, Settings};

/// Longest wait for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// One crypto provider, as the binary's `main` installs it.
pub fn crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A setup in a folder of its own, with a mail server.
pub struct Site {
    folder: tempfile::TempDir,
    pub mail: Server,
}

impl Site {
    /// A setup whose one account, `relay`, submits to a fresh server that takes everything.
    pub async fn new(rules: &str) -> Site {
        Site::with(Settings::open(), rules).await
    }

    /// The same with a server of one's own.
    pub async fn with(settings: Settings, rules: &str) -> Site {
        crypto();
        let mail = Server::start(settings).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let site = Site { folder, mail };
        std::fs::create_dir_all(site.path("rules")).unwrap();
        std::fs::create_dir_all(site.path("drop")).unwrap();
        site.write("rules/rules.yaml", rules);
        site.write("tidings.yaml", &site.settings(""));
        site
    }

    /// The settings: one relay account; `more` is added at the end.
    pub fn settings(&self, more: &str) -> String {
        format!(
            "accounts:\n  relay:\n    smtp: {{ host: 127.0.0.1, port: {}, tls: none }}\n    user: robot@example.org\n\
             \x20   pace: {{ connections: 4 }}\n\
             defaults: {{ account: relay, from: \"Robot <robot@example.org>\", scan_every: 5s }}\n{more}",
            self.mail.address().port()
        )
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Writes a file under another name and renames it into place.
    pub fn drop_file(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        let temporary = self.path(&format!(".{}.part", path.file_name().unwrap().to_str().unwrap()));
        std::fs::write(&temporary, content).unwrap();
        std::fs::rename(temporary, path).unwrap();
    }

    /// The binary with this setup.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(cargo_bin("tidings"));
        command
            .arg("-C")
            .arg(self.dir())
            .args(arguments)
            .env_remove("TIDINGS_LOG");
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed; its stdout.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}\n{}",
            output.status,
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Starts the daemon, its log in `log`.
    pub fn daemon(&self) -> Daemon {
        self.daemon_with(&[])
    }

    /// The same, with more in its environment.
    pub fn daemon_with(&self, environment: &[(&str, &str)]) -> Daemon {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let child = self
            .command(&["run"])
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Daemon { child }
    }

    /// The daemon, when it has said that it watches.
    pub async fn started(&self) -> Daemon {
        let said = || self.log().matches("runs the setup").count();
        let before = said();
        let daemon = self.daemon();
        self.until("the daemon watches", || said() > before).await;
        daemon
    }

    /// Entries that are not at their end, and whether events wait.
    pub fn outbox_waiting(&self) -> u64 {
        let status: serde_json::Value = serde_json::from_str(&self.ok(&["status", "--json"])).unwrap();
        let waiting: u64 = status["outbox"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|row| row["state"] != "accepted")
            .map(|row| row["count"].as_u64().unwrap())
            .sum();
        waiting + u64::from(status["events_pending"] == true)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits for a fact.
    pub async fn until(&self, what: &str, fact: impl Fn() -> bool) {
        let start = Instant::now();
        while !fact() {
            assert!(
                start.elapsed() < PATIENCE,
                "not within {PATIENCE:?}: {what}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until so many mails arrived.
    pub async fn mails(&self, count: usize) -> Vec<Mail> {
        match tokio::time::timeout(PATIENCE, self.mail.received(count)).await {
            Ok(received) => received.iter().map(Mail::read).collect(),
            Err(_) => panic!(
                "{} of {count} mails arrived\n{}",
                self.mail.messages().len(),
                self.log()
            ),
        }
    }
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
}

impl Daemon {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().unwrap().code()
    }

    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A mail as an independent parser reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    pub subject: String,
    pub message_id: String,
    pub text: String,
    pub attachments: Vec<(String, Vec<u8>)>,
    pub bytes: Vec<u8>,
}

impl Mail {
    pub fn read(received: &Received) -> Mail {
        let parsed = MessageParser::default()
            .parse(&received.bytes)
            .expect("a message");
        Mail {
            from: received.from.clone(),
            to: received.to.clone(),
            subject: parsed.subject().unwrap_or("").to_owned(),
            message_id: parsed.message_id().unwrap_or("").to_owned(),
            text: parsed
                .body_text(0)
                .map(|text| text.into_owned())
                .unwrap_or_default(),
            attachments: parsed
                .attachments()
                .map(|part| {
                    (
                        part.attachment_name().unwrap_or("").to_owned(),
                        part.contents().to_vec(),
                    )
                })
                .collect(),
            bytes: received.bytes.clone(),
        }
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Lines of JSON.
pub fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
