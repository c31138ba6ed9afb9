use super::super::page::{self, Look};
use super::*;
use crate::entry::{Body, OnUnknown};
use crate::rule::load;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;

fn sight(running: bool) -> Sight {
    let folder = tempfile::tempdir().unwrap();
    let settings = "accounts:\n  relay: { smtp: { host: mx.example.org, tls: none }, user: robot@example.org }\n\
                    defaults: { account: relay, timezone: Europe/Berlin }\n";
    std::fs::write(folder.path().join("tidings.yaml"), settings).unwrap();
    let settings = load::settings(folder.path()).unwrap();
    Sight {
        times: Times {
            zone: TimeZone::get("Europe/Berlin").unwrap(),
            now: at("2026-03-02T10:00:00Z"),
        },
        running,
        places: BTreeMap::new(),
        cases: Vec::new(),
        settings,
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn sent(state: State, reason: Option<Reason>) -> Sent {
    let entry = Entry {
        id: EntryId(12),
        key: "k".to_owned(),
        kind: Kind::Mail,
        rule: "invoices".to_owned(),
        event: None,
        lane: "relay".to_owned(),
        summary: json!({ "to": ["ap@example.org"], "subject": "Invoice \u{1b}[2J 17", "account": "relay" }),
        state,
        reason,
        due: at("2026-03-02T10:05:00Z"),
        attempts: 0,
        on_unknown: OnUnknown::Hold,
        created: at("2026-03-02T07:00:00Z"),
        since: at("2026-03-02T07:00:00Z"),
        changed: at("2026-03-02T07:00:00Z"),
    };
    let detail = EntryDetail {
        entry,
        effect: Vec::new(),
        body: Body::None,
        attempts: Vec::new(),
        answers: Vec::new(),
    };
    Sent {
        detail,
        event: None,
        others: Vec::new(),
        troubles: Vec::new(),
    }
}

#[test]
fn the_first_line_says_where_the_mail_is_in_every_state() {
    let sight = sight(true);
    let said: Vec<String> = State::ALL
        .into_iter()
        .map(|state| {
            let line = headline(&sent(state, None).detail.entry, &sight);
            line.split_once(") ")
                .map(|(_, rest)| rest.to_owned())
                .unwrap_or(line)
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"), @r"
    is due in 5 minutes.
    is being sent right now.
    has not left yet; it is tried again in 5 minutes.
    was held 3 hours ago, and a person must mend something first.
    was handed over 3 hours ago and no answer came: nobody can say whether it went out.
    was given up 3 hours ago.
    was accepted by the mail server 3 hours ago.
    was cancelled 3 hours ago: a person decided that it shall not leave.
    ");
    let waits = headline(
        &sent(State::Ready, None).detail.entry,
        &super::tests::sight(false),
    );
    assert!(waits.ends_with("waits, for tidings is not running."), "{waits}");
}

#[test]
fn a_held_mail_says_why_what_mends_it_and_what_one_can_say() {
    let reason = Reason {
        reply: Some("550 5.7.60 SendAsDenied".to_owned()),
        steps: vec!["Grant Send As.".to_owned(), "Retry the mail.".to_owned()],
        ..Reason::new("The account may not send as this address.")
    };
    let story = story(&sent(State::Held, Some(reason)), &sight(true));
    let look = Look {
        width: 70,
        bold: false,
    };
    insta::assert_snapshot!(page::shown(&story, look), @r#"
    Mail 12 to ap@example.org ("Invoice \u{1b}[2J 17") was held 3 hours
    ago, and a person must mend something first.

    What happened
      No event: somebody asked for it by hand (invoices).

    The mail
      to        ap@example.org
      subject   Invoice \u{1b}[2J 17
      account   relay
      rule      invoices

    Where it stands
      why       The account may not send as this address.
      server    550 5.7.60 SendAsDenied
      Nothing happens to it by itself; it stays until somebody decides.

    What mends it
      1. Grant Send As.
      2. Retry the mail.

    What you can say
      `tidings outbox retry 12` does it once what is wrong is mended
      `tidings outbox cancel 12` decides that it shall never be done
    "#);
}
