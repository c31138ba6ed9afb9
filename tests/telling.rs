//! When a rule's mails leave: each way to gather and to go on telling, once through the whole program, with real
//! files, jobs and minutes. What they decide is tested by the clock of `gathering` and `ladder`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Mail, Site, json_lines};
use jiff::{SignedDuration, Zoned};

/// Quiet since an hour ago, until the next full minute that is not just now.
fn quiet() -> String {
    let now = Zoned::now();
    let mut end = now.saturating_add(SignedDuration::from_mins(1));
    if now.second() > 20 {
        end = end.saturating_add(SignedDuration::from_mins(1));
    }
    let begin = now.saturating_sub(SignedDuration::from_hours(1));
    format!(
        "{{ from: \"{}\", to: \"{}\" }}",
        begin.strftime("%H:%M"),
        end.strftime("%H:%M")
    )
}

fn of<'a>(mails: &'a [Mail], to: &str) -> Vec<&'a Mail> {
    let address = format!("{to}@example.org");
    mails
        .iter()
        .filter(|mail| mail.to == [address.as_str()])
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_gather_and_to_go_on_telling_works_with_real_files_and_jobs() {
    let rules = format!(
        "rules:\n\
        \x20 grouped:\n    when: {{ file_arrives: {{ in: drop/group }} }}\n    group: {{ by: \"{{{{file.extension}}}}\", wait: 5s }}\n\
        \x20   mail: {{ to: group@example.org, template: digest }}\n\
        \x20 throttled:\n    when: {{ file_arrives: {{ in: drop/throttle }} }}\n    throttle: {{ at_most: 1, per: 20s }}\n\
        \x20   mail: {{ to: throttle@example.org, subject: \"{{{{file.name}}}} after {{{{throttle.folded}}}}\" }}\n\
        \x20 marked:\n    when: {{ file_arrives: {{ in: drop/marked, match: \"*.csv\", complete_when: {{ marker: \"{{{{file.stem}}}}.done\" }} }} }}\n\
        \x20   mail: {{ to: marked@example.org, subject: \"{{{{file.name}}}}\" }}\n\
        \x20 quiet:\n    when: {{ job_fails: {{ job: \"quiet-*\" }} }}\n    quiet_hours: {}\n\
        \x20   mail: {{ to: quiet@example.org, template: job-failed }}\n\
        \x20 climbs:\n    when: {{ job_fails: {{ job: climb }} }}\n    mail: {{ to: first@example.org, template: job-failed }}\n\
        \x20   remind: {{ every: 1m }}\n    escalate: [{{ after: 1m, mail: {{ to: head@example.org, template: job-failed }} }}]\n\
        \x20   on_recovery: {{ mail: {{ to: over@example.org, template: job-recovered }} }}\n\
        \x20 fused:\n    when: {{ file_arrives: {{ in: drop/fuse }} }}\n    mail: {{ to: fuse@example.org, template: file-arrived }}\n\
        \x20 told:\n    when: {{ trouble: {{ of: rule }} }}\n    mail: {{ to: told@example.org, template: trouble }}\n",
        quiet()
    );
    let site = Site::new(&rules).await;
    site.write(
        "tidings.yaml",
        &site.settings("limits: { mails_per_rule_per_hour: 4, then: hold }\n"),
    );
    for folder in ["group", "throttle", "marked", "fuse"] {
        std::fs::create_dir_all(site.path(&format!("drop/{folder}"))).unwrap();
    }
    let _daemon = site.started().await;
    let fails = |job: &str| drop(site.run(&["exec", job, "--", "false"]));
    fails("climb");
    fails("quiet-a");
    fails("quiet-b");
    for name in ["one.pdf", "two.pdf", "three.txt"] {
        site.drop_file(&format!("drop/group/{name}"), b"x");
    }
    site.drop_file("drop/marked/list.csv", b"x");
    for number in 0..6 {
        site.drop_file(&format!("drop/fuse/{number}"), b"x");
    }
    site.drop_file("drop/throttle/first", b"x");
    site.drop_file("drop/throttle/second", b"x");
    site.until("the second is folded", || {
        let told = site.ok(&["events", "list", "--json"]);
        told.contains("drop/throttle/second")
    })
    .await;
    let came = |to: &'static str, count: usize| {
        let server = &site.mail;
        move || {
            let mails: Vec<Mail> = server.messages().iter().map(Mail::read).collect();
            of(&mails, to).len() >= count
        }
    };
    site.until("the first of the throttled is told", came("throttle", 1))
        .await;
    // Its window passes while the fuse is looked at.
    site.until("four mails leave, and the trouble is told", came("told", 1))
        .await;
    site.until("no more leave", came("fuse", 4)).await;
    let held = json_lines(&site.ok(&["outbox", "list", "--rule", "fused", "--state", "held", "--json"]));
    assert_eq!(held.len(), 2, "{held:?}");
    site.ok(&["outbox", "retry", "--rule", "fused", "--state", "held", "--yes"]);
    site.until("those that were held leave at a word", came("fuse", 6))
        .await;
    assert!(!came("marked", 1)(), "its marker is not there yet");
    site.drop_file("drop/marked/list.done", b"");
    site.until("the marker completes it", came("marked", 1)).await;
    let number = std::cell::Cell::new(0);
    site.until("a later one says what was folded", || {
        number.set(number.get() + 1);
        if number.get() % 50 == 1 {
            site.drop_file(&format!("drop/throttle/later-{}", number.get()), b"x");
        }
        came("throttle", 2)()
    })
    .await;
    site.until("the end of the quiet hours", came("quiet", 1)).await;
    site.until("a reminder", came("first", 2)).await;
    site.until("a rung", came("head", 1)).await;
    site.ok(&["exec", "climb", "--", "true"]);
    site.until("it is over", came("over", 1)).await;

    let mails: Vec<Mail> = site.mail.messages().iter().map(Mail::read).collect();
    let subjects =
        |to: &str| -> Vec<&str> { of(&mails, to).iter().map(|mail| mail.subject.as_str()).collect() };
    assert_eq!(of(&mails, "group").len(), 2, "{:?}", subjects("group"));
    let both = of(&mails, "group")
        .into_iter()
        .find(|mail| mail.text.contains("one.pdf"))
        .unwrap();
    assert!(
        both.text.contains("two.pdf") && !both.text.contains("three.txt"),
        "{}",
        both.text
    );
    assert_eq!(subjects("throttle")[0], "first after 0");
    assert!(
        !subjects("throttle")[1].ends_with("after 0"),
        "{:?}",
        subjects("throttle")
    );
    assert_eq!(subjects("marked"), ["list.csv"]);
    let quiet = of(&mails, "quiet");
    assert_eq!(quiet.len(), 1, "{quiet:?}");
    assert!(
        quiet[0].text.contains("quiet-a") && quiet[0].text.contains("quiet-b"),
        "{}",
        quiet[0].text
    );
    assert_eq!(of(&mails, "fuse").len(), 6);
}
