//! A setup in a folder of its own, and the processes that work in it.

use crate::pump::Told;
use rustix::process::{Pid, Signal};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Who is measured.
#[derive(Clone, Debug)]
pub enum Contender {
    /// The floor.
    Bare,
    /// A build of the program, and what it is called in the table.
    Program(String, PathBuf),
    /// The interpreter that has what the script needs.
    Python(PathBuf),
}

impl Contender {
    pub fn name(&self) -> &str {
        match self {
            Contender::Bare => "bare pump",
            Contender::Program(name, _) => name,
            Contender::Python(_) => "python",
        }
    }
}

/// What is asked of a contender.
#[derive(Clone, Debug)]
pub struct Setup {
    pub connections: usize,
    pub port: u16,
    /// Length of a message, for the floor.
    pub size: usize,
    pub attach: bool,
    /// Rules there are, of which one is met.
    pub rules: usize,
}

/// A folder with `drop`, which is watched, and `aside`, where files are made.
pub struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    pub fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        for name in ["drop", "aside", "rules"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Site { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes `count` files of `size` bytes aside.
    pub fn stage(&self, count: usize, size: usize) {
        let content = vec![b'x'; size];
        for number in 0..count {
            std::fs::write(self.path(&format!("aside/file-{number}.txt")), &content).unwrap();
        }
    }

    /// Puts one of them where it is noticed.
    pub fn put(&self, number: usize, folder: &str) -> Instant {
        let name = format!("file-{number}.txt");
        let (from, to) = (
            self.path("aside").join(&name),
            self.path("drop").join(folder).join(name),
        );
        let now = Instant::now();
        std::fs::rename(from, to).unwrap();
        now
    }

    fn write(&self, setup: &Setup, program: &Path) {
        let settings = format!(
            "accounts:\n  relay:\n    smtp: {{ host: 127.0.0.1, port: {}, tls: none }}\n\
             \x20   user: robot@example.org\n    pace: {{ connections: {} }}\n\
             defaults: {{ account: relay, from: robot@example.org }}\n",
            setup.port, setup.connections
        );
        let attach = if setup.attach {
            ", attach: \"{{file.path}}\", max_size: 40MB"
        } else {
            ""
        };
        let rules = format!(
            "rules:\n  each:\n    when: {{ file_arrives: {{ in: drop, match: \"**/*\" }} }}\n\
             \x20   mail: {{ to: ap@example.org, template: file-arrived, subject: \"{{{{file.name}}}}\"{attach} }}\n"
        );
        std::fs::write(self.path("rules/rules.yaml"), rules).unwrap();
        // A file of a setup may not be endlessly long.
        let others: Vec<usize> = (1..setup.rules).collect();
        for (file, numbers) in others.chunks(2000).enumerate() {
            let mut rules = "rules:\n".to_owned();
            for number in numbers {
                rules.push_str(&format!(
                    "  other-{number}:\n    when: {{ file_arrives: {{ in: drop, match: \"other-{number}/**/*.pdf\" }} }}\n\
                     \x20   mail: {{ to: ap@example.org, template: file-arrived }}\n"
                ));
            }
            std::fs::write(self.path(&format!("rules/others-{file}.yaml")), rules).unwrap();
        }
        // A burst is what the fuse is there to stop; builds before it do not know the word.
        let unlimited = format!("{settings}limits: none\n");
        std::fs::write(self.path("tidings.yaml"), unlimited).unwrap();
        let mut check = Command::new(program);
        check.arg("-C").arg(self.folder.path()).arg("check");
        let knows = check.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !knows.unwrap().success() {
            std::fs::write(self.path("tidings.yaml"), settings).unwrap();
        }
    }

    /// Starts a contender and waits until it watches.
    pub fn start(&self, contender: &Contender, setup: &Setup) -> Running {
        let folder = self.folder.path();
        let _ = std::fs::remove_file(self.path("ready"));
        let mut command = match contender {
            Contender::Bare => {
                let told = Told {
                    folder: folder.to_owned(),
                    port: setup.port,
                    connections: setup.connections,
                    size: setup.size,
                    attach: setup.attach,
                };
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args(told.words());
                command
            }
            Contender::Program(_, path) => {
                self.write(setup, path);
                let mut command = Command::new(path);
                command.arg("-C").arg(folder).arg("run");
                command
            }
            Contender::Python(python) => {
                let mut command = Command::new(python);
                command.arg(script()).arg(folder).arg(setup.port.to_string());
                command
            }
        };
        let log = std::fs::File::create(self.path("log")).unwrap();
        command.stdout(Stdio::null()).stderr(log);
        let began = Instant::now();
        let running = Running {
            child: command.spawn().unwrap(),
            began,
        };
        let mut read = String::new();
        loop {
            if self.path("ready").exists() {
                break;
            }
            read = std::fs::read_to_string(self.path("log")).unwrap_or(read);
            if read.contains("runs the setup") {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(300),
                "{} did not start: {read}",
                contender.name()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        running
    }

    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let from = text.len().saturating_sub(2000);
        String::from_utf8_lossy(&text.as_bytes()[from..]).into_owned()
    }
}

/// Where the script of the rival is.
pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rival.py")
}

/// A process; told to stop when dropped.
pub struct Running {
    child: Child,
    pub began: Instant,
}

impl Running {
    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap_or_default()
    }

    /// CPU time so far, user and system, of threads that have ended as well; ticks of 10 ms.
    pub fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        let after = stat.rsplit(") ").next().unwrap_or_default();
        let fields = after.split(' ').skip(11).take(2);
        let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Memory now and at most, MB.
    pub fn memory(&self) -> (f64, f64) {
        let status = self.proc("status");
        let of = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let field = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
            field.unwrap_or(0.0) / 1024.0
        };
        (of("VmRSS:"), of("VmHWM:"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
