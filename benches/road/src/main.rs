//! The main road through the real binary, against floors taken in the same run: see `benches/README.md`.
//!
//! Contenders take turns, and every round begins with another one, so that a noisy neighbour meets them all. Figures
//! that count are ratios within a round.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark prints, and fails by panicking"
)]

mod pump;
mod report;
mod sink;
mod site;
mod workloads;

use report::Workload;
use serde_json::json;
use sink::Sink;
use site::{Contender, Setup};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use workloads::Figures;

const HELP: &str = "benches/run [WORKLOAD ..] [WORD=VALUE ..]
workloads: burst latency tree attach rules idle; without any: burst and latency; `all` for all
  out=FOLDER         table, JSON and plot are written there
  rounds=3           how often each is measured
  files=5000         of burst, tree and rules
  large              a burst of 50,000 files as well, once
  connections=4      of the account
  folders=10000      of idle, with ten files each
  program=NAME:PATH  a build of the program; said several times, builds are compared with each other
  no-bare, no-python leave a contender out
The state lies in the temporary folder: TMPDIR chooses the disk.";

#[derive(Debug)]
struct Chosen {
    workloads: Vec<String>,
    out: Option<PathBuf>,
    rounds: usize,
    files: usize,
    large: bool,
    connections: usize,
    folders: usize,
    programs: Vec<(String, PathBuf)>,
    bare: bool,
    python: bool,
}

fn read(words: &[String]) -> Option<Chosen> {
    let mut chosen = Chosen {
        workloads: Vec::new(),
        out: None,
        rounds: 3,
        files: 5000,
        large: false,
        connections: 4,
        folders: 10_000,
        programs: Vec::new(),
        bare: true,
        python: true,
    };
    for word in words {
        match word.trim_start_matches('-').split_once('=') {
            None => match word.trim_start_matches('-') {
                "large" => chosen.large = true,
                "no-bare" => chosen.bare = false,
                "no-python" => chosen.python = false,
                "all" => chosen.workloads = workloads::ALL.map(str::to_owned).to_vec(),
                name if workloads::ALL.contains(&name) => chosen.workloads.push(name.to_owned()),
                _ => return None,
            },
            Some(("out", folder)) => chosen.out = Some(folder.into()),
            Some(("rounds", count)) => chosen.rounds = count.parse().ok()?,
            Some(("files", count)) => chosen.files = count.parse().ok()?,
            Some(("connections", count)) => chosen.connections = count.parse().ok()?,
            Some(("folders", count)) => chosen.folders = count.parse().ok()?,
            Some(("program", program)) => {
                let (name, path) = program.split_once(':').unwrap_or(("tidings", program));
                chosen
                    .programs
                    .push((name.to_owned(), Path::new(path).canonicalize().ok()?));
            }
            Some(_) => return None,
        }
    }
    if chosen.workloads.is_empty() {
        chosen.workloads = vec!["burst".to_owned(), "latency".to_owned()];
    }
    if chosen.programs.is_empty() {
        // Beside this one.
        let built = std::env::current_exe().ok()?.with_file_name("tidings");
        chosen.programs.push(("tidings".to_owned(), built));
    }
    Some(chosen)
}

/// An interpreter with what the script needs, in a folder of our own under the build folder; or why there is none.
fn python() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = own.with_file_name("rival");
    let python = folder.join("bin/python");
    let run = |command: &mut Command| -> Result<(), String> {
        let done = command.output().map_err(|error| error.to_string())?;
        match done.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&done.stderr)
                .lines()
                .last()
                .unwrap_or_default()
                .to_owned()),
        }
    };
    let has = |python: &Path| run(Command::new(python).args(["-c", "import watchdog, jinja2"]));
    if has(&python).is_err() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "watchdog", "jinja2"]))?;
    }
    has(&python).map(|()| python)
}

/// Takes every contender once a round, each round beginning with another one.
fn rounds(
    name: &str,
    what: String,
    contenders: &[Contender],
    count: usize,
    measure: impl Fn(&Contender) -> Figures,
) -> Workload {
    let mut workload = Workload {
        name: name.to_owned(),
        what,
        contenders: contenders
            .iter()
            .map(|contender| (contender.name().to_owned(), Vec::new()))
            .collect(),
    };
    for round in 0..count {
        for turn in 0..contenders.len() {
            let at = (round + turn) % contenders.len();
            let figures = measure(&contenders[at]);
            eprintln!("{name} {} {figures:.1?}", contenders[at].name());
            workload.contenders[at].1.push(figures);
        }
    }
    workload
}

fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(told) = pump::Told::read(&words) {
        return pump::run(told);
    }
    let Some(chosen) = read(&words) else {
        println!("{HELP}");
        return;
    };
    let sink = Sink::start();
    let programs: Vec<Contender> = chosen
        .programs
        .iter()
        .map(|(name, path)| Contender::Program(name.clone(), path.clone()))
        .collect();
    let mut setup = Setup {
        connections: chosen.connections,
        port: sink.port,
        size: 0,
        attach: false,
        rules: 1,
    };
    // The floor sends messages as long as the program's.
    workloads::burst(&programs[0], &sink, &setup, 1);
    setup.size = sink.wait(1, Duration::ZERO)[0].bytes;
    let mut floored = programs.clone();
    if chosen.bare {
        floored.insert(0, Contender::Bare);
    }
    let mut all = floored.clone();
    if chosen.python {
        match python() {
            Ok(python) => all.push(Contender::Python(python)),
            Err(why) => println!("python: left out, it cannot be had here: {why}"),
        }
    }
    let mut done = Vec::new();
    for name in &chosen.workloads {
        let (files, rounds_of) = (chosen.files, chosen.rounds);
        match name.as_str() {
            "burst" => {
                let what = |files| format!("{files} files of 1 KiB");
                let burst = |files| {
                    let (sink, setup) = (&sink, &setup);
                    move |contender: &Contender| workloads::burst(contender, sink, setup, files)
                };
                done.push(rounds(name, what(files), &all, rounds_of, burst(files)));
                if chosen.large {
                    done.push(rounds(name, what(50_000), &floored, 1, burst(50_000)));
                }
            }
            "latency" => {
                let measure = |contender: &Contender| workloads::latency(contender, &sink, &setup, 200);
                done.push(rounds(
                    name,
                    "200 files, 20/s".to_owned(),
                    &all,
                    rounds_of,
                    measure,
                ));
            }
            "tree" => {
                // Its floor is the burst in one folder.
                let mut workload = Workload::default();
                for program in &programs {
                    let one = std::slice::from_ref(program);
                    let mut flat = rounds(name, String::new(), one, rounds_of, |program| {
                        workloads::burst(program, &sink, &setup, files)
                    });
                    let tree = rounds(
                        name,
                        format!("{files} files over 1,000 new folders"),
                        one,
                        rounds_of,
                        |program| workloads::tree(program, &sink, &setup, files),
                    );
                    flat.contenders[0].0 = format!("{}, flat", program.name());
                    workload.contenders.append(&mut flat.contenders);
                    (workload.name, workload.what) = (tree.name, tree.what);
                    workload.contenders.extend(tree.contenders);
                }
                done.push(workload);
            }
            "attach" => {
                for (files, size) in [(200, 1), (20, 15)] {
                    let what = format!("{files} files of {size} MiB");
                    done.push(rounds(name, what, &floored, rounds_of, |contender| {
                        workloads::attach(contender, &sink, &setup, files, size << 20)
                    }));
                }
            }
            "rules" => {
                let mut workload = Workload {
                    name: name.clone(),
                    what: format!("{files} files"),
                    contenders: Vec::new(),
                };
                for count in [10, 1000, 10_000] {
                    let setup = Setup {
                        rules: count,
                        ..setup.clone()
                    };
                    let mut part = rounds(name, String::new(), &programs[..1], rounds_of, |contender| {
                        workloads::burst(contender, &sink, &setup, files)
                    });
                    part.contenders[0].0 = format!("{count} rules");
                    workload.contenders.append(&mut part.contenders);
                }
                done.push(workload);
            }
            _ => {
                let what = format!("{0} folders, {0}0 files", chosen.folders);
                done.push(rounds(name, what, &floored, rounds_of, |contender| {
                    workloads::idle(contender, &sink, &setup, chosen.folders, Duration::from_secs(20))
                }));
            }
        }
    }
    let table = report::table(&done);
    println!("{table}");
    if let Some(out) = &chosen.out {
        std::fs::create_dir_all(out).unwrap();
        let about = json!({
            "connections": chosen.connections,
            "message_bytes": setup.size,
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
        });
        let text = serde_json::to_string_pretty(&report::json(&done, about)).unwrap();
        std::fs::write(out.join("road.json"), text).unwrap();
        std::fs::write(out.join("road.txt"), table).unwrap();
        std::fs::write(out.join("road.svg"), report::plot(&done)).unwrap();
    }
}
