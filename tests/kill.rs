//! Nothing is lost: kill -9 at random points, folders made and filled at once.
//!
//! The short forms run always; `TIDINGS_TEST_LONG=1` runs the long ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says its figures"
)]

mod common;

use common::{Site, json_lines};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const RULES: &str = r#"
rules:
  each:
    when: { file_arrives: { in: drop, match: "**/*", existing: process } }
    mail: { to: ap@example.org, template: file-arrived, subject: "{{file.name}}" }
"#;

/// Connections of the account, and so the most mails that can be between dot and answer.
const IN_FLIGHT: usize = 4;

fn long() -> bool {
    std::env::var_os("TIDINGS_TEST_LONG").is_some()
}

/// A number below `limit`; the seed is printed with the first, so that a run can be told again.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let seed = std::env::var("TIDINGS_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| {
                std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap()
                    .as_nanos() as u64
            });
        println!("TIDINGS_SEED={seed}");
        Random(seed | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What must hold of what arrived, given the names that were dropped and the mails listed as ever
/// unknown. Apart, so that wrong histories can be tried on it.
fn judge(
    dropped: usize,
    arrived: &[String],
    ever_unknown: &BTreeSet<String>,
    kills: usize,
) -> Result<usize, String> {
    let mut copies: BTreeMap<&str, usize> = BTreeMap::new();
    for name in arrived {
        *copies.entry(name).or_default() += 1;
    }
    let lost: Vec<_> = (0..dropped)
        .map(|number| format!("file-{number}.txt"))
        .filter(|name| !copies.contains_key(name.as_str()))
        .collect();
    if !lost.is_empty() {
        return Err(format!("{} lost, the first {}", lost.len(), lost[0]));
    }
    if copies.len() > dropped {
        return Err(format!(
            "{} mails of files nobody dropped",
            copies.len() - dropped
        ));
    }
    let doubled: Vec<_> = copies
        .iter()
        .filter(|(_, copies)| **copies > 1)
        .map(|(name, _)| *name)
        .collect();
    if let Some(unlisted) = doubled.iter().find(|name| !ever_unknown.contains(**name)) {
        return Err(format!("{unlisted} came twice and was never listed as unknown"));
    }
    let more = arrived.len() - copies.len();
    if more > IN_FLIGHT * kills {
        return Err(format!("{more} duplicates after {kills} kills"));
    }
    Ok(more)
}

#[test]
fn the_judge_finds_what_is_wrong_with_a_history() {
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let unknown = |list: &[&str]| {
        list.iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(
        judge(2, &names(&["file-0.txt", "file-1.txt"]), &unknown(&[]), 1),
        Ok(0)
    );
    assert!(
        judge(2, &names(&["file-0.txt"]), &unknown(&[]), 1)
            .unwrap_err()
            .contains("1 lost")
    );
    let twice = names(&["file-0.txt", "file-0.txt"]);
    assert!(
        judge(1, &twice, &unknown(&[]), 1)
            .unwrap_err()
            .contains("never listed")
    );
    assert_eq!(judge(1, &twice, &unknown(&["file-0.txt"]), 1), Ok(1));
    assert!(
        judge(1, &names(&["file-0.txt"; 7]), &unknown(&["file-0.txt"]), 1)
            .unwrap_err()
            .contains("duplicates")
    );
    assert!(
        judge(1, &names(&["file-0.txt", "x"]), &unknown(&[]), 1)
            .unwrap_err()
            .contains("nobody dropped")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_of_thousands_is_lost_however_often_it_is_killed() {
    let (files, kills) = if long() { (5000, 200) } else { (5000, 20) };
    let site = unlimited().await;
    let mut random = Random::new();
    let mut daemon = site.started().await;
    // All at once, each renamed into place: settled the moment it is seen.
    for number in 0..files {
        let staged = site.path(&format!("file-{number}.part"));
        std::fs::write(&staged, format!("content {number}")).unwrap();
        std::fs::rename(staged, site.path(&format!("drop/file-{number}.txt"))).unwrap();
    }
    for kill in 0..kills {
        // A random point of its life is the very thing that is tested.
        tokio::time::sleep(Duration::from_millis(random.below(1500))).await;
        daemon.kill();
        daemon = site.daemon();
        if kill % 4 == 0 {
            // Some lives are long enough to get somewhere on a slow machine, too.
            site.mails(site.mail.messages().len() + 1).await;
        }
    }
    daemon.kill();
    let before = site.mail.messages().len();
    let daemon = site.daemon();
    let start = Instant::now();
    loop {
        let waiting: u64 = site.outbox_waiting();
        let came = distinct(&site);
        if came == files && waiting == 0 {
            break;
        }
        assert!(
            start.elapsed() < Duration::from_secs(600),
            "{came} of {files}, {waiting} waiting\n{}",
            site.log()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    daemon.stop();
    let arrived: Vec<String> = site
        .mail
        .messages()
        .iter()
        .map(|received| common::Mail::read(received).subject)
        .collect();
    let unknown: BTreeSet<String> =
        json_lines(&site.ok(&["outbox", "list", "--ever-unknown", "--limit", "100000", "--json"]))
            .iter()
            .map(|entry| entry["summary"]["subject"].as_str().unwrap().to_owned())
            .collect();
    let doubled = judge(files, &arrived, &unknown, kills).unwrap();
    println!(
        "{files} files, {kills} kills: {before} mails had left before the last start, {doubled} duplicates, {} ever unknown",
        unknown.len()
    );
    assert!(
        before > 0,
        "the kills came before anything was sent: nothing was tested"
    );
}

/// Thousands of mails within the hour are what the fuse is there to hold.
async fn unlimited() -> Site {
    let site = Site::new(RULES).await;
    site.write("tidings.yaml", &site.settings("limits: none\n"));
    site
}

fn distinct(site: &Site) -> usize {
    let all: BTreeSet<Vec<u8>> = site
        .mail
        .messages()
        .iter()
        .filter_map(|received| {
            let start = received
                .bytes
                .windows(9)
                .position(|window| window.eq_ignore_ascii_case(b"subject: "))?;
            Some(
                received.bytes[start..]
                    .split(|&byte| byte == b'\r')
                    .next()?
                    .to_vec(),
            )
        })
        .collect();
    all.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_folders_made_at_the_same_moment_is_never_missed() {
    let times = if long() { 10_000 } else { 1000 };
    let site = unlimited().await;
    let daemon = site.started().await;
    for number in 0..times {
        let folder = site.path(&format!("drop/{number}/b/c"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("file-{number}.txt")), b"x").unwrap();
    }
    let mails = site.mails(times).await;
    daemon.stop();
    let names: Vec<String> = mails.into_iter().map(|mail| mail.subject).collect();
    assert_eq!(judge(times, &names, &BTreeSet::new(), 0), Ok(0));
    assert_eq!(site.mail.messages().len(), times);
}
