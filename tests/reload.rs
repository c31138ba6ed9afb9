//! The setup is read again while files come in: nothing is lost, nothing comes twice, and what is said about
//! it is true. The real binary, real folders, a real server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says its figures"
)]

mod common;

use common::{Site, json_lines, text};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tidings::clock::Clock;
use tidings::sandbox::oauth;
use tidings::sandbox::smtp::{Act, At, Faults, Settings};

/// Rules that each settle in their way, and write who they are into the subject.
fn settling(rules: &[(&str, &str)]) -> String {
    let rule = |(name, settle): &(&str, &str)| {
        format!(
            "  {name}:\n    when: {{ file_arrives: {{ in: drop, settle: {settle} }} }}\n\
             \x20   mail: {{ to: ap@example.org, template: plain, subject: \"{name} {{{{file.name}}}}\" }}\n"
        )
    };
    format!("rules:\n{}", rules.iter().map(rule).collect::<String>())
}

fn reload(site: &Site, rules: &str) {
    site.write("rules/rules.yaml", rules);
    site.ok(&["reload"]);
}

/// How many mails there are of each subject.
async fn copies(site: &Site) -> BTreeMap<String, usize> {
    let mut copies = BTreeMap::new();
    for mail in site.mails(0).await {
        *copies.entry(mail.subject).or_default() += 1;
    }
    copies
}

fn once_each(subjects: &[&str]) -> BTreeMap<String, usize> {
    subjects
        .iter()
        .map(|subject| ((*subject).to_owned(), 1))
        .collect()
}

/// Waits until a file that is dropped now has gone through everything: whatever the reload before it would
/// have mailed wrongly came earlier.
async fn drop_and_wait(site: &Site, name: &str, mails: usize) {
    site.drop_file(&format!("drop/{name}"), name.as_bytes());
    site.mails(mails).await;
    site.until("all is settled", || site.outbox_waiting() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_under_another_settle_is_not_mailed_again_when_it_is_changed_back() {
    let site = Site::new(&settling(&[("one", "auto")])).await;
    let daemon = site.started().await;
    drop_and_wait(&site, "a", 1).await;
    reload(&site, &settling(&[("one", "300ms")]));
    drop_and_wait(&site, "b", 2).await;
    // Written anew under the other: back under the first it is the same arrival.
    drop_and_wait(&site, "a", 3).await;
    reload(&site, &settling(&[("one", "auto")]));
    drop_and_wait(&site, "c", 4).await;
    daemon.stop();
    // The same while nothing runs.
    site.write("rules/rules.yaml", &settling(&[("one", "300ms")]));
    let daemon = site.started().await;
    drop_and_wait(&site, "d", 5).await;
    daemon.stop();
    let mut expected = once_each(&["one a", "one b", "one c", "one d"]);
    expected.insert("one a".to_owned(), 2);
    assert_eq!(copies(&site).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_joins_the_settle_of_another_loses_nothing_it_waited_for_and_the_other_gets_nothing_twice()
 {
    let apart = settling(&[("slow", "1h"), ("quick", "auto")]);
    let joined = settling(&[("slow", "auto"), ("quick", "auto")]);
    let site = Site::new(&apart).await;
    let daemon = site.started().await;
    drop_and_wait(&site, "a", 1).await;
    // What `quick` had long ago and `slow` still waited for.
    reload(&site, &joined);
    site.mails(2).await;
    drop_and_wait(&site, "b", 4).await;
    // Apart again: `slow` had both of them.
    reload(&site, &apart);
    drop_and_wait(&site, "c", 5).await;
    reload(&site, &joined);
    site.mails(6).await;
    drop_and_wait(&site, "d", 8).await;
    daemon.stop();
    let all = ["a", "b", "c", "d"].map(|name| [format!("slow {name}"), format!("quick {name}")]);
    let all: Vec<_> = all.iter().flatten().map(String::as_str).collect();
    assert_eq!(copies(&site).await, once_each(&all));
}

/// The rule in its `version`: each one writes to somebody else, and each that is sound changes how files
/// settle, so that the rule has a watch of its own or shares that of the rule beside it.
fn rules(version: usize) -> String {
    let settle = if version.is_multiple_of(4) {
        "400ms"
    } else {
        "auto"
    };
    settling(&[("each", settle), ("beside", "400ms")]).replacen("ap@", &format!("v{version}@"), 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn however_often_it_reloads_under_load_no_file_is_lost_or_doubled_and_every_answer_is_true() {
    let long = std::env::var_os("TIDINGS_TEST_LONG").is_some();
    let reloads: usize = if long { 200 } else { 32 };
    let pause = Duration::from_millis(if long { 15 } else { 40 });
    let site = Arc::new(Site::new(&rules(0)).await);
    // Thousands of mails within the hour are what the fuse is there to hold.
    site.write("tidings.yaml", &site.settings("limits: none\n"));
    let daemon = site.started().await;
    let start = Instant::now();
    let (done, dropped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let dropping = {
        let (site, done, dropped) = (Arc::clone(&site), Arc::clone(&done), Arc::clone(&dropped));
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let number = dropped.fetch_add(1, Ordering::Relaxed);
                site.drop_file(&format!("drop/load-{number}"), b"x");
                std::thread::sleep(pause);
            }
        })
    };
    let mut current = 0;
    for version in 1..=reloads {
        let sound = version % 2 == 0;
        if sound {
            site.write("rules/rules.yaml", &rules(version));
        } else {
            site.write(
                "rules/rules.yaml",
                &rules(version).replace("file_arrives", &format!("file_arrifes_{version}")),
            );
        }
        // Somebody else asks as well: his answer must not be taken for ours.
        if version % 3 == 0 {
            daemon.signal(rustix::process::Signal::HUP);
        }
        let answer = site.run(&["reload"]);
        let (code, said) = (answer.status.code(), text(&answer.stderr));
        if sound {
            assert_eq!(code, Some(0), "{version}: {said}");
            current = version;
        } else {
            assert_eq!(code, Some(78), "{version}: {said}");
            assert!(
                said.contains(&format!("file_arrifes_{version}")),
                "{version}: {said}"
            );
            assert!(
                said.contains("not reloaded; the old setup stays"),
                "{version}: {said}"
            );
        }
        site.drop_file(&format!("drop/after-{version}-by-{current}"), b"x");
        if version % 16 == 0 {
            // The version must not be gone before the file has settled under it.
            let name = format!("each after-{version}-by-{current}");
            site.until("the file of this version is admitted", || {
                json_lines(&site.ok(&["outbox", "list", "--json", "--limit", "4000"]))
                    .iter()
                    .any(|entry| entry["summary"]["subject"] == name.as_str())
            })
            .await;
        }
    }
    done.store(true, Ordering::Relaxed);
    dropping.join().unwrap();
    let took = start.elapsed();
    let files = dropped.load(Ordering::Relaxed) + reloads;
    let start = Instant::now();
    while site.mail.messages().len() < 2 * files && start.elapsed() < common::PATIENCE {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    site.until("all is settled", || site.outbox_waiting() == 0).await;
    assert_eq!(daemon.stop(), Some(0));
    let mails = site.mails(0).await;
    println!(
        "{reloads} reloads in {took:?}, {files} files, {} mails",
        mails.len()
    );
    let copies = copies(&site).await;
    let doubled: Vec<_> = copies.iter().filter(|(_, copies)| **copies > 1).collect();
    assert!(doubled.is_empty(), "{} doubled: {doubled:?}", doubled.len());
    let names = (0..dropped.load(Ordering::Relaxed)).map(|number| format!("load-{number}"));
    let lost: Vec<_> = names
        .flat_map(|name| [format!("each {name}"), format!("beside {name}")])
        .filter(|subject| !copies.contains_key(subject))
        .collect();
    assert!(lost.is_empty(), "{} lost: {lost:?}", lost.len());
    assert_eq!(mails.len(), 2 * files);
    for mail in mails
        .iter()
        .filter(|mail| mail.subject.starts_with("each after-"))
    {
        let by: usize = mail.subject.rsplit('-').next().unwrap().parse().unwrap();
        let to: usize = mail.to[0][1..].split('@').next().unwrap().parse().unwrap();
        // A later version may have come before the file had settled, an earlier one never.
        assert!(to >= by, "{} went to {}", mail.subject, mail.to[0]);
    }
}

fn status(site: &Site) -> Value {
    serde_json::from_str(&site.ok(&["status", "--json"])).unwrap()
}

fn roots(site: &Site) -> BTreeSet<String> {
    status(site)["watches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|watch| {
            watch["root"]
                .as_str()
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect()
}

fn watching(folders: &[&str]) -> String {
    let rule = |folder: &&str| {
        format!(
            "  {folder}:\n    when: {{ file_arrives: {{ in: {folder} }} }}\n\
             \x20   mail: {{ to: {folder}@example.org, template: plain, subject: \"{{{{file.name}}}}\" }}\n"
        )
    };
    format!("rules:\n{}", folders.iter().map(rule).collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_come_and_go_with_a_reload_and_the_status_shows_only_those_there_are() {
    let site = Site::new(&watching(&["one", "two"])).await;
    for folder in ["one", "two", "three"] {
        std::fs::create_dir(site.path(folder)).unwrap();
    }
    let daemon = site.started().await;
    assert_eq!(roots(&site), ["one", "two"].map(str::to_owned).into());
    // One goes while it is in trouble, another comes.
    std::fs::rename(site.path("two"), site.path("away")).unwrap();
    site.until("the trouble is told", || {
        status(&site)["troubles"].as_array().unwrap().len() == 1
    })
    .await;
    site.write("rules/rules.yaml", &watching(&["one", "three"]));
    site.ok(&["reload"]);
    // From the answer on a file there arrives, though the folder is watched for the first time.
    site.drop_file("three/new", b"x");
    assert_eq!(site.mails(1).await[0].to, ["three@example.org"]);
    site.until("the old one is forgotten", || {
        roots(&site) == ["one", "three"].map(str::to_owned).into()
            && status(&site)["troubles"].as_array().unwrap().is_empty()
    })
    .await;
    std::fs::rename(site.path("away"), site.path("two")).unwrap();
    site.drop_file("two/unseen", b"x");
    site.drop_file("one/seen", b"x");
    assert_eq!(site.mails(2).await[1].subject, "seen");
    // It comes back, and what came meanwhile has arrived.
    site.write("rules/rules.yaml", &watching(&["one", "two", "three"]));
    site.ok(&["reload"]);
    assert_eq!(site.mails(3).await[2].subject, "unseen");
    daemon.stop();
    // What is taken out while nothing runs is shown no more either.
    site.write("rules/rules.yaml", &watching(&["one"]));
    assert_eq!(roots(&site), ["one".to_owned()].into());
    assert_eq!(site.mail.messages().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_come_and_go_with_a_reload() {
    let tick = |name: &str| {
        format!(
            "rules:\n  {name}:\n    when: {{ schedule: {{ every: 1s }} }}\n\
             \x20   mail: {{ to: ap@example.org, template: plain, subject: {name} }}\n"
        )
    };
    let site = Site::new(&tick("first")).await;
    let _daemon = site.started().await;
    site.mails(2).await;
    site.write("rules/rules.yaml", &tick("second"));
    site.ok(&["reload"]);
    let count = site.mail.messages().len();
    let mails = site.mails(count + 4).await;
    let last: Vec<_> = mails[mails.len() - 2..]
        .iter()
        .map(|mail| mail.subject.as_str())
        .collect();
    assert_eq!(last, ["second", "second"]);
    site.write("rules/rules.yaml", "rules: {}\n");
    site.ok(&["reload"]);
    site.until("what was due is sent", || site.outbox_waiting() == 0)
        .await;
    let count = site.mail.messages().len();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(site.mail.messages().len(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_follow_the_settings_of_the_last_reload() {
    let mut busy = Settings::open();
    busy.faults = vec![Faults::one(
        At::line("MAIL"),
        Act::Say("451 4.3.2 come back later".into()),
    )];
    let site = Site::with(busy, &watching(&["drop"])).await;
    let retry = |first: &str| {
        site.settings(&format!(
            "outbox: {{ retry: {{ first: {first}, longest: 1h }} }}\n"
        ))
    };
    let waits = |name: &str| -> f64 {
        let entries = json_lines(&site.ok(&["outbox", "list", "--json"]));
        let entry = entries
            .iter()
            .find(|entry| entry["summary"]["subject"] == name && entry["state"] == "deferred");
        let time = |entry: &Value, field: &str| -> jiff::Timestamp {
            entry[field].as_str().unwrap().parse().unwrap()
        };
        entry.map_or(0.0, |entry| {
            time(entry, "due")
                .duration_since(time(entry, "changed"))
                .as_secs_f64()
        })
    };
    site.write("tidings.yaml", &retry("30m"));
    let _daemon = site.started().await;
    site.drop_file("drop/a", b"x");
    site.until("it waits", || waits("a") > 0.0).await;
    assert!((1400.0..2200.0).contains(&waits("a")), "{}", waits("a"));
    site.write("tidings.yaml", &retry("3m"));
    site.ok(&["reload"]);
    site.drop_file("drop/b", b"x");
    site.until("it waits", || waits("b") > 0.0).await;
    assert!((140.0..220.0).contains(&waits("b")), "{}", waits("b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keeper_of_an_account_that_is_taken_out_stops_and_its_trouble_ends() {
    let mut settings = oauth::Settings::new(Clock::system());
    settings.life = Duration::from_secs(4);
    settings.approve = Some("alice@sandbox.example".to_owned());
    let sign_in = oauth::Server::start(settings).await.unwrap();
    let site = Site::new("rules: {}\n").await;
    let office = |token: &str| {
        format!(
            "accounts:\n  office:\n    user: alice@sandbox.example\n\
             \x20   smtp: {{ host: 127.0.0.1, port: 9, tls: none }}\n\
             \x20   provider: {{ token_url: \"{token}\", authorize_url: \"{}\", scopes: [offline_access] }}\n\
             \x20   oauth2: {{ grant: authorization_code, client_id: {} }}\n",
            sign_in.endpoint("authorize"),
            oauth::Settings::new(Clock::system()).client_id,
        )
    };
    let with_office = |token: &str| site.settings("").replace("accounts:\n", &office(token));
    let token = sign_in.endpoint("token").to_string();
    site.write("tidings.yaml", &with_office(&token));
    let daemon = site.started().await;
    // Nobody signed in: that is told, and ends with the account.
    site.until("the trouble is told", || {
        status(&site)["troubles"][0]["subject"] == "office"
    })
    .await;
    site.write("tidings.yaml", &site.settings(""));
    site.ok(&["reload"]);
    assert_eq!(status(&site)["troubles"], serde_json::json!([]));
    daemon.stop();

    // Signed in, it is renewed again and again; until it is taken out.
    site.write("tidings.yaml", &with_office(&token));
    site.write(
        "rules/rules.yaml",
        &watching(&["drop"]).replace("mail: {", "mail: { account: office, from: alice@sandbox.example,"),
    );
    let mut login = site
        .command(&["auth", "login", "office", "--no-browser"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let address = address(&mut login);
    let visited = reqwest::get(address).await.unwrap();
    assert!(visited.status().is_success(), "{visited:?}");
    let ended = login.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", text(&ended.stderr));
    let daemon = site.started().await;
    // An account that is in use is kept warm; it may take a minute until that is looked at again.
    site.drop_file("drop/waits", b"x");
    let long = std::env::var_os("TIDINGS_TEST_LONG").is_some();
    site.until("its mail is tried", || site.outbox_waiting() == 1)
        .await;
    let start = Instant::now();
    while long && sign_in.counters().refreshes < 2 {
        assert!(start.elapsed() < common::PATIENCE, "{}", site.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    site.write("tidings.yaml", &site.settings(""));
    site.write("rules/rules.yaml", "rules: {}\n");
    site.ok(&["reload"]);
    if long {
        // One may be on the wire.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let count = sign_in.counters().refreshes;
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(sign_in.counters().refreshes, count, "longer than its token lives");
    }
    // Its mail is not dropped: it waits for the account to be put back, and says so.
    site.ok(&["outbox", "retry", "1"]);
    site.until("its mail is held", || {
        let entry = &json_lines(&site.ok(&["outbox", "list", "--json"]))[0];
        let why = entry["reason"]["text"].as_str().unwrap_or_default();
        entry["state"] == "held" && why.contains("no longer have the account `office`")
    })
    .await;
    daemon.stop();
}

/// The address that a sign-in asks to visit: the first on stdout or stderr.
fn address(login: &mut std::process::Child) -> String {
    use std::io::{BufRead as _, BufReader};
    let (tell, told) = std::sync::mpsc::channel();
    let streams: [Box<dyn std::io::Read + Send>; 2] = [
        Box::new(login.stdout.take().unwrap()),
        Box::new(login.stderr.take().unwrap()),
    ];
    for stream in streams {
        let tell = tell.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
    }
    loop {
        let line = told.recv_timeout(Duration::from_secs(30)).expect("an address");
        if let Some(address) = line.split_whitespace().find(|word| word.starts_with("http")) {
            return address.to_owned();
        }
    }
}
