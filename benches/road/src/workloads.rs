//! What is measured: each workload takes one contender once and returns its figures.

use crate::sink::{Got, Sink};
use crate::site::{Contender, Running, Setup, Site};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Figures of one run, by name and unit: `mails/s`.
pub type Figures = BTreeMap<&'static str, f64>;

const LONGEST: Duration = Duration::from_secs(600);

/// The names a workload can be asked for by.
pub const ALL: [&str; 6] = ["burst", "latency", "tree", "attach", "rules", "idle"];

/// The figure that stands for a workload in ratios and in the plot.
pub fn headline(workload: &str) -> &'static str {
    match workload {
        "latency" => "p99 ms",
        "attach" => "MB/s",
        "rules" => "CPU µs/mail",
        "idle" => "start ms",
        _ => "mails/s",
    }
}

/// So many files of 1 KiB renamed into a watched folder: from the first rename to the last byte of the last mail.
pub fn burst(contender: &Contender, sink: &Sink, setup: &Setup, files: usize) -> Figures {
    let site = Site::new();
    site.stage(files, 1024);
    let running = site.start(contender, setup);
    measured(contender, sink, &site, &running, files, || {
        let began = site.put(0, "");
        for number in 1..files {
            site.put(number, "");
        }
        began
    })
}

/// The same files over as many new folders as there are, up to 1,000.
pub fn tree(contender: &Contender, sink: &Sink, setup: &Setup, files: usize) -> Figures {
    let site = Site::new();
    site.stage(files, 1024);
    let running = site.start(contender, setup);
    let folders = files.min(1000);
    measured(contender, sink, &site, &running, files, || {
        let began = Instant::now();
        for folder in 0..folders {
            let name = format!("new-{folder}");
            std::fs::create_dir(site.path("drop").join(&name)).unwrap();
            for number in (folder..files).step_by(folders) {
                site.put(number, &name);
            }
        }
        began
    })
}

/// Files that go along with their mails.
pub fn attach(contender: &Contender, sink: &Sink, setup: &Setup, files: usize, size: usize) -> Figures {
    let site = Site::new();
    site.stage(files, size);
    let setup = Setup {
        attach: true,
        ..setup.clone()
    };
    let running = site.start(contender, &setup);
    let before = running.memory().0;
    let mut figures = measured(contender, sink, &site, &running, files, || {
        let began = site.put(0, "");
        for number in 1..files {
            site.put(number, "");
        }
        began
    });
    // A mail may leave out what is too big; that is fast, and not what is measured.
    let got = sink.wait(files, Duration::ZERO);
    assert!(
        got.iter().all(|mail| mail.bytes > size / 3 * 4),
        "{}: files did not go along",
        contender.name()
    );
    let rate = figures.remove("mails/s").unwrap_or_default();
    figures.insert("MB/s", rate * size as f64 / 1e6);
    figures.insert("grew MB", figures["peak MB"] - before);
    figures
}

fn measured(
    contender: &Contender,
    sink: &Sink,
    site: &Site,
    running: &Running,
    files: usize,
    put: impl FnOnce() -> Instant,
) -> Figures {
    sink.clear();
    let before = running.cpu();
    let began = put();
    let got = sink.wait(files, LONGEST);
    assert!(
        got.len() >= files,
        "{}: {} of {files} mails came\n{}",
        contender.name(),
        got.len(),
        site.log()
    );
    let took = got[files - 1].at.duration_since(began);
    // What is still to be written down belongs to the mails, too; and a second copy would come now.
    std::thread::sleep(Duration::from_millis(300));
    let cpu = running.cpu() - before;
    let got = sink.wait(files + 1, Duration::ZERO);
    let mut copies: BTreeMap<&str, usize> = BTreeMap::new();
    for mail in &got {
        *copies.entry(&mail.subject).or_default() += 1;
    }
    Figures::from([
        ("mails/s", files as f64 / took.as_secs_f64()),
        ("CPU µs/mail", cpu.as_secs_f64() * 1e6 / files as f64),
        ("peak MB", running.memory().1),
        ("lost", (files - copies.len().min(files)) as f64),
        ("doubled", (got.len() - copies.len()) as f64),
    ])
}

/// 20 files a second, renamed into place: from the rename to the last byte.
pub fn latency(contender: &Contender, sink: &Sink, setup: &Setup, files: usize) -> Figures {
    let site = Site::new();
    site.stage(files, 1024);
    let running = site.start(contender, setup);
    sink.clear();
    let mut put = BTreeMap::new();
    let began = Instant::now();
    for number in 0..files {
        let at = began + Duration::from_millis(50) * u32::try_from(number).unwrap();
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        put.insert(format!("file-{number}.txt"), site.put(number, ""));
    }
    let got = sink.wait(files, LONGEST);
    drop(running);
    assert!(
        got.len() >= files,
        "{} of {files} mails came\n{}",
        got.len(),
        site.log()
    );
    let mut waits: Vec<f64> = got
        .iter()
        .map(|Got { subject, at, .. }| at.duration_since(put[subject]).as_secs_f64() * 1e3)
        .collect();
    waits.sort_by(f64::total_cmp);
    let part = |share: f64| waits[((waits.len() - 1) as f64 * share).round() as usize];
    Figures::from([("p50 ms", part(0.5)), ("p99 ms", part(0.99))])
}

/// Many folders with ten files each, and nothing happens. The floor is one look at all of them.
pub fn idle(contender: &Contender, sink: &Sink, setup: &Setup, folders: usize, watch: Duration) -> Figures {
    let site = Site::new();
    for folder in 0..folders {
        let folder = site.path(&format!("drop/{}/{folder}", folder / 100));
        std::fs::create_dir_all(&folder).unwrap();
        for file in 0..10 {
            std::fs::write(folder.join(file.to_string()), b"").unwrap();
        }
    }
    let drop = site.path("drop");
    look(&drop);
    if matches!(contender, Contender::Bare) {
        let began = Instant::now();
        look(&drop);
        return Figures::from([("start ms", began.elapsed().as_secs_f64() * 1e3)]);
    }
    site.stage(1, 1024);
    sink.clear();
    let running = site.start(contender, setup);
    site.put(0, &format!("{}/{}", (folders - 1) / 100, folders - 1));
    let got = sink.wait(1, LONGEST);
    assert!(!got.is_empty(), "nothing was noticed\n{}", site.log());
    let start = got[0].at.duration_since(running.began);
    // The first look is over; what follows it (status, checkpoints) is not idling.
    std::thread::sleep(Duration::from_secs(5));
    let before = running.cpu();
    std::thread::sleep(watch);
    let cpu = (running.cpu() - before).as_secs_f64() * 1e3;
    Figures::from([
        ("start ms", start.as_secs_f64() * 1e3),
        ("CPU ms in 20 s", cpu * 20.0 / watch.as_secs_f64()),
        ("RSS MB", running.memory().0),
    ])
}

fn look(folder: &Path) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let data = entry.metadata().unwrap();
        bytes += if data.is_dir() {
            look(&entry.path())
        } else {
            data.len()
        };
    }
    bytes
}
