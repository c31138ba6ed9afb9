//! Mail services over HTTP, whole: the real binary signs in at the sandbox's authorization server and sends over the
//! sandbox's Graph and Gmail, which are as strict as the real ones. What is accepted, what is unknown, what a person reads.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;
#[path = "common/office.rs"]
mod office;

use common::{PATIENCE, text};
use mail_parser::{MessageParser, MimeHeaders as _};
use office::{ALICE, INVOICES, Office};
use std::time::Duration;
use tidings::sandbox::web::Fault;
use tidings::sandbox::{gmail, graph};

/// The office, its mail over Graph.
async fn over_graph(keys: &str) -> (Office, graph::Server) {
    let office = Office::open().await;
    big_files(&office);
    let graph = graph::Server::start(office.sign_in.clone()).await.unwrap();
    office.settings(|settings| {
        let (before, rest) = settings.split_once("      scopes:").unwrap();
        let (_, rest) = rest.split_once("    user: alice").unwrap();
        format!(
            "{before}      graph_url: {}\n    transport: graph\n{keys}    user: alice{rest}",
            graph.url()
        )
    });
    graph.grant(ALICE, INVOICES);
    signed_in(&office).await;
    (office, graph)
}

/// The office, its mail over the Gmail API, with these scopes.
async fn over_gmail(scopes: &str) -> (Office, gmail::Server) {
    let office = Office::open().await;
    big_files(&office);
    let gmail = gmail::Server::start(office.sign_in.clone()).await.unwrap();
    office.settings(|settings| {
        let (before, rest) = settings.split_once("      scopes:").unwrap();
        let (_, rest) = rest.split_once("    user: alice").unwrap();
        let before = before.replace("preset: microsoft365", "preset: google");
        format!(
            "{before}      scopes: [offline_access, {scopes}]\n      gmail_url: {}\n    transport: gmail\n    user: alice{}",
            gmail.url(),
            rest.replace("tenant: sandbox, ", "")
        )
    });
    signed_in(&office).await;
    (office, gmail)
}

const GMAIL_SEND: &str = "\"https://www.googleapis.com/auth/gmail.send\"";

fn big_files(office: &Office) {
    let rules = std::fs::read_to_string(office.site.path("rules/rules.yaml")).unwrap();
    let rules = rules.replace("attach:", "max_size: 100MB, attach:");
    office.site.write("rules/rules.yaml", &rules);
}

async fn signed_in(office: &Office) {
    let login = office.login(ALICE, &["--no-browser"]).await;
    assert_eq!(login.code, Some(0), "{}", login.stderr);
    office.first_look();
}

fn once(office: &Office) -> (Option<i32>, String) {
    let output = office.run(&["run", "--once"]);
    (output.status.code(), text(&output.stderr))
}

fn frozen(office: &Office, id: &serde_json::Value) -> Vec<u8> {
    office
        .run(&["outbox", "show", &id.to_string(), "--message"])
        .stdout
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

// ---- Graph ----

#[tokio::test(flavor = "multi_thread")]
async fn the_frozen_bytes_go_out_of_the_users_mailbox_also_for_the_shared_one() {
    let (office, graph) = over_graph("").await;
    office.drop("invoices/17.pdf");
    office.drop("own/1.txt");
    assert_eq!(once(&office).0, Some(0));
    let sent = graph.sent();
    assert_eq!(sent.len(), 2);
    for mail in &sent {
        assert_eq!((mail.account.as_str(), mail.mailbox.as_str()), (ALICE, ALICE));
    }
    let shared = sent
        .iter()
        .find(|mail| mail.from == INVOICES)
        .expect("from the shared mailbox");
    let entry = office.entries_of("invoices").remove(0);
    assert_eq!(text(&shared.bytes), text(&frozen(&office, &entry["id"])));
    assert_eq!(graph.asked(), ["POST /v1.0/me/sendMail"; 2]);
    let shown = office.ok(&["outbox", "show", &entry["id"].to_string()]);
    assert!(
        shown.contains("HTTP 202 Accepted (request-id sandbox-request)"),
        "{shown}"
    );
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_mailbox_sender_the_shared_mailbox_itself_sends() {
    let (office, graph) = over_graph("    graph: { mailbox: sender, uploads: false }\n").await;
    office.drop("invoices/17.pdf");
    assert_eq!(once(&office).0, Some(0));
    assert_eq!(graph.sent()[0].mailbox, INVOICES);
    assert_eq!(graph.asked(), [format!("POST /v1.0/users/{INVOICES}/sendMail")]);
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_hidden_gets_it_and_does_not_stand_in_the_frozen_bytes() {
    let (office, graph) = over_graph("").await;
    let rules = std::fs::read_to_string(office.site.path("rules/rules.yaml")).unwrap();
    let rules = rules.replace(
        "mail: { to: ops@example.org,",
        "mail: { to: ops@example.org, bcc: audit@example.org,",
    );
    office.site.write("rules/rules.yaml", &rules);
    office.drop("own/1.txt");
    assert_eq!(once(&office).0, Some(0));
    assert_eq!(graph.sent()[0].to, ["ops@example.org", "audit@example.org"]);
    let frozen = text(&frozen(&office, &office.entries()[0]["id"]));
    assert!(!frozen.contains("audit@example.org"));
    assert_eq!(
        text(&graph.sent()[0].bytes),
        format!("Bcc: audit@example.org\r\n{frozen}")
    );
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_without_the_right_is_held_with_graphs_own_words_and_the_cure() {
    let (office, graph) = over_graph("").await;
    let rules = std::fs::read_to_string(office.site.path("rules/rules.yaml")).unwrap();
    office.site.write(
        "rules/rules.yaml",
        &rules.replace(INVOICES, "other@sandbox.example"),
    );
    office.settings(|settings| {
        settings.replace(
            &format!("senders: [{INVOICES}]"),
            "senders: [other@sandbox.example]",
        )
    });
    office.drop("invoices/17.pdf");
    assert_eq!(once(&office).0, Some(75));
    let entry = office.entries().remove(0);
    assert_eq!(entry["state"], "held");
    let id = entry["id"].to_string();
    let shown = office.ok(&["outbox", "show", &id]);
    for words in [
        "HTTP 403 ErrorSendAsDenied: The user account which was used",
        "The signed-in user may not send as, or on behalf of, the From address.",
        "Add-RecipientPermission",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    graph.grant(ALICE, "other@sandbox.example");
    office.ok(&["outbox", "retry", &id]);
    assert_eq!(once(&office).0, Some(0));
    assert_eq!(graph.sent().len(), 1);
    office.end();
}

fn many_bytes(count: usize) -> Vec<u8> {
    let mut state = 7_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_mail_becomes_a_draft_whose_upload_is_taken_up_where_it_broke_off() {
    let (office, graph) = over_graph("").await;
    let file = many_bytes(9_000_001);
    // The second piece breaks off unheard, the third after it was taken, the fourth is turned away once.
    graph.fault(graph::Step::Piece, Fault::DoneAndWait("0"));
    graph.fault(graph::Step::Piece, Fault::Cut);
    graph.fault(graph::Step::Piece, Fault::DoneAndCut);
    graph.fault(
        graph::Step::Piece,
        Fault::Status(503, "ErrorServerBusy", Some("1")),
    );
    office.site.drop_file("drop/invoices/17.pdf", &file);
    assert_eq!(once(&office).0, Some(0), "{:?}", graph.asked());
    let sent = graph.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (sent[0].from.as_str(), sent[0].mailbox.as_str()),
        (INVOICES, ALICE)
    );
    assert_eq!(sent[0].attachments.len(), 1);
    assert!(
        sent[0].attachments[0].0 == "17.pdf" && sent[0].attachments[0].1 == file,
        "byte for byte"
    );
    assert_eq!(graph.drafts(), 0);
    let whole = frozen(&office, &office.entries()[0]["id"]);
    let (whole, rest) = (
        MessageParser::default().parse(&whole).unwrap(),
        MessageParser::default().parse(&sent[0].bytes).unwrap(),
    );
    assert_eq!(whole.message_id(), rest.message_id());
    assert_eq!(whole.body_text(0), rest.body_text(0));
    assert_eq!(whole.body_html(0), rest.body_html(0));
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_fails_for_good_sends_nothing_and_leaves_no_draft() {
    let (office, graph) = over_graph("").await;
    graph.fault(
        graph::Step::Session,
        Fault::Status(403, "ErrorQuotaExceeded", None),
    );
    office
        .site
        .drop_file("drop/invoices/1.pdf", &many_bytes(4_000_000));
    assert_eq!(once(&office).0, Some(75));
    let entry = office.entries().remove(0);
    assert_eq!(
        (entry["state"].as_str(), graph.sent().len(), graph.drafts()),
        (Some("held"), 0, 0)
    );
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_uploads_only_the_right_to_send_is_asked_for_and_a_big_mail_is_held() {
    let (office, graph) = over_graph("    graph: { uploads: false }\n").await;
    let status: serde_json::Value = serde_json::from_str(&office.ok(&["auth", "status", "--json"])).unwrap();
    let scopes = status.to_string();
    assert!(
        scopes.contains("Mail.Send") && !scopes.contains("Mail.ReadWrite"),
        "{scopes}"
    );
    office
        .site
        .drop_file("drop/invoices/1.pdf", &many_bytes(4_000_000));
    assert_eq!(once(&office).0, Some(75));
    let shown = office.ok(&["outbox", "show", &office.entries()[0]["id"].to_string()]);
    assert!(
        shown.contains("uploads") && shown.contains("tidings auth login office"),
        "{shown}"
    );
    assert!(graph.asked().is_empty(), "nothing was tried");
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_202_with_retry_after_is_an_end_and_a_429_is_waited_for() {
    let (office, graph) = over_graph("").await;
    graph.fault(graph::Step::SendMail, Fault::DoneAndWait("1"));
    graph.fault(
        graph::Step::SendMail,
        Fault::Status(429, "ApplicationThrottled", Some("2")),
    );
    let _daemon = office.site.started().await;
    office.drop("own/1.txt");
    within(graph.received(1)).await;
    let began = std::time::Instant::now();
    office.drop("own/2.txt");
    within(graph.received(2)).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    let ids: std::collections::BTreeSet<_> = graph.sent().into_iter().map(|mail| mail.message_id).collect();
    assert_eq!((ids.len(), graph.asked().len()), (2, 3), "nothing twice");
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_after_the_body_is_unknown_and_a_dead_route_is_not() {
    let (office, graph) = over_graph("").await;
    office.settings(|settings| settings.replace("outbox: {", "outbox: { on_unknown: hold,"));
    graph.fault(graph::Step::SendMail, Fault::DoneAndCut);
    office.drop("own/1.txt");
    once(&office);
    let entry = office.entries().remove(0);
    assert_eq!(
        (entry["state"].as_str(), graph.sent().len()),
        (Some("unknown"), 1),
        "{entry}"
    );
    // A gateway that gave up says as little.
    graph.fault(graph::Step::SendMail, Fault::Page(504));
    office.drop("own/2.txt");
    once(&office);
    assert_eq!(office.entries()[0]["state"], "unknown");

    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = format!("http://{}/", dead.local_addr().unwrap());
    drop(dead);
    office.settings(|settings| settings.replace(graph.url().as_str(), &nowhere));
    office.drop("own/3.txt");
    assert_eq!(once(&office).0, Some(75));
    let entry = office.entries().remove(0);
    assert_eq!(entry["state"], "deferred");
    let shown: serde_json::Value =
        serde_json::from_str(&office.ok(&["outbox", "show", &entry["id"].to_string(), "--json"])).unwrap();
    assert!(
        !shown.to_string().contains("\"gated\":true"),
        "the gate was never asked: {shown}"
    );
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_portals_and_endless_answers_lose_and_double_nothing() {
    let (office, graph) = over_graph("").await;
    let faults = [
        Fault::Page(403),
        Fault::Page(200),
        Fault::Redirect,
        Fault::Status(503, "serviceNotAvailable", None),
        Fault::Page(429),
    ];
    for fault in &faults {
        graph.fault(graph::Step::SendMail, fault.clone());
    }
    let _daemon = office.site.started().await;
    office.settings(|settings| settings.replace("first: 1s, longest: 2h", "first: 100ms, longest: 200ms"));
    office.ok(&["reload"]);
    office.drop("own/1.txt");
    within(graph.received(1)).await;
    // These are yes, whatever comes behind it.
    graph.fault(graph::Step::SendMail, Fault::DoneAndLong(30_000_000));
    graph.fault(graph::Step::SendMail, Fault::DoneAndSlow);
    office.drop("own/2.txt");
    office.drop("own/3.txt");
    within(graph.received(3)).await;
    office
        .site
        .until("all accepted", || {
            office.entries().iter().all(|entry| entry["state"] == "accepted")
        })
        .await;
    assert_eq!(graph.asked().len(), faults.len() + 3);
    let first = office.entries().pop().unwrap();
    let attempts = office.ok(&["outbox", "show", &first["id"].to_string()]);
    assert!(
        attempts.contains("Access to this page is restricted") && attempts.contains("portal.example"),
        "{attempts}"
    );
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn four_requests_at_once_go_to_a_mailbox_and_a_token_that_ends_is_renewed() {
    let (office, graph) = over_graph("").await;
    graph.slow(Duration::from_millis(300));
    let _daemon = office.site.started().await;
    for number in 0..16 {
        office.drop(&format!("own/{number}.txt"));
    }
    within(graph.received(16)).await;
    assert_eq!(graph.most(), 4);
    office.end_access_tokens();
    office.drop("own/last.txt");
    within(graph.received(17)).await;
    assert!(
        !office.site.log().contains("mail not accepted"),
        "{}",
        office.site.log()
    );
    office.end();
}

// ---- was it sent? ----

/// A mail whose answer was lost comes to this state.
async fn lost_and(office: &Office, policy: &str, state: &str) -> serde_json::Value {
    office.settings(|settings| settings.replace("outbox: {", &format!("outbox: {{ on_unknown: {policy},")));
    let _daemon = office.site.started().await;
    office.drop("own/1.txt");
    office
        .site
        .until("the mail is settled for good", || {
            let entries = office.entries();
            entries.len() == 1 && entries[0]["attempts"] == 2 && entries[0]["state"] == state
        })
        .await;
    serde_json::from_str(&office.ok(&["outbox", "show", &office.entries()[0]["id"].to_string(), "--json"]))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_found_among_the_sent_ones_is_not_sent_again() {
    let (office, graph) = over_graph("").await;
    graph.fault(graph::Step::SendMail, Fault::DoneAndCut);
    // It is asked again when it cannot say, and the token is renewed when it has ended.
    let shown = lost_and(&office, "verify", "accepted").await;
    assert_eq!(graph.sent().len(), 1);
    assert!(shown.to_string().contains("it had been sent"), "{shown}");
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_not_among_the_sent_ones_is_sent_again() {
    let (office, graph) = over_graph("").await;
    graph.fault(graph::Step::SendMail, Fault::Cut);
    lost_and(&office, "[verify, hold]", "accepted").await;
    assert_eq!(
        (graph.sent().len(), graph.asked().len()),
        (1, 3),
        "sent, looked for, sent"
    );
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_token_may_not_look_the_second_word_holds_and_says_so() {
    let (office, graph) = over_graph("    graph: { uploads: false }\n").await;
    graph.fault(graph::Step::SendMail, Fault::DoneAndCut);
    let shown = lost_and(&office, "[verify, hold]", "unknown").await.to_string();
    assert!(
        shown.contains("nobody can tell") && shown.contains("ErrorAccessDenied"),
        "{shown}"
    );
    assert_eq!(graph.sent().len(), 1);
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_nobody_can_look_for_goes_again_where_that_is_wanted_and_says_so() {
    let (office, gmail) = over_gmail(GMAIL_SEND).await;
    gmail.fault(gmail::Step::Send, Fault::DoneAndCut);
    let shown = lost_and(&office, "[verify, resend]", "accepted")
        .await
        .to_string();
    assert!(
        shown.contains("sent again although it may have gone out before"),
        "{shown}"
    );
    let sent = gmail.sent();
    assert!(sent.len() == 2 && sent[0].bytes == sent[1].bytes);
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn gmail_is_asked_where_the_token_may_read() {
    let (office, gmail) = over_gmail("\"https://mail.google.com/\"").await;
    gmail.fault(gmail::Step::Send, Fault::DoneAndCut);
    lost_and(&office, "[verify, resend]", "accepted").await;
    assert_eq!(gmail.sent().len(), 1);
    office.end();
}

// ---- Gmail ----

#[tokio::test(flavor = "multi_thread")]
async fn gmail_takes_the_frozen_bytes_with_the_right_to_send_alone() {
    let (office, gmail) = over_gmail(GMAIL_SEND).await;
    office.drop("own/1.txt");
    assert_eq!(once(&office).0, Some(0));
    let entry = office.entries().remove(0);
    assert_eq!(text(&gmail.sent()[0].bytes), text(&frozen(&office, &entry["id"])));
    let shown = office.ok(&["outbox", "show", &entry["id"].to_string()]);
    assert!(shown.contains("HTTP 200 accepted as 0000000000000001"), "{shown}");
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_mail_is_uploaded_and_the_session_remembers_what_a_lost_answer_forgot() {
    let (office, gmail) = over_gmail(GMAIL_SEND).await;
    let file = many_bytes(9_000_001);
    gmail.fault(gmail::Step::Piece, Fault::DoneAndWait("0"));
    gmail.fault(gmail::Step::Piece, Fault::Cut);
    gmail.fault(gmail::Step::Piece, Fault::DoneAndWait("0"));
    // The last piece, which sends: taken, and the answer lost.
    gmail.fault(gmail::Step::Piece, Fault::DoneAndCut);
    office.site.drop_file("drop/invoices/17.pdf", &file);
    assert_eq!(once(&office).0, Some(0), "{:?}", gmail.asked());
    let sent = gmail.sent();
    assert_eq!(sent.len(), 1, "sent once");
    let parsed = MessageParser::default().parse(&sent[0].bytes).unwrap();
    assert_eq!(parsed.attachment(0).unwrap().contents(), file);
    assert_eq!(parsed.attachment(0).unwrap().attachment_name(), Some("17.pdf"));
    let entry = office.entries().remove(0);
    assert_eq!(entry["state"], "accepted");
    assert_eq!(entry["attempts"], 1);
    assert_eq!(sent[0].bytes, frozen(&office, &entry["id"]));
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gmail_rations_is_waited_for_and_a_missing_scope_is_named() {
    let (office, gmail) = over_gmail(GMAIL_SEND).await;
    gmail.fault(
        gmail::Step::Send,
        Fault::Status(403, "userRateLimitExceeded", Some("1")),
    );
    let daemon = office.site.started().await;
    office.drop("own/1.txt");
    within(gmail.received(1)).await;
    office
        .site
        .until("it is written down", || {
            office.entries()[0]["state"] == "accepted"
        })
        .await;
    drop(daemon);
    gmail.fault(
        gmail::Step::Send,
        Fault::Status(403, "insufficientPermissions", None),
    );
    office.drop("own/2.txt");
    assert_eq!(once(&office).0, Some(75));
    let entry = office.entries().remove(0);
    assert_eq!(entry["state"], "held");
    let shown = office.ok(&["outbox", "show", &entry["id"].to_string()]);
    assert!(
        shown.contains("https://www.googleapis.com/auth/gmail.send"),
        "{shown}"
    );
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_recipients_than_gmail_takes_are_held_before_anything_is_said() {
    let (office, gmail) = over_gmail(GMAIL_SEND).await;
    let many: Vec<String> = (0..101).map(|number| format!("p{number}@example.org")).collect();
    let rules = std::fs::read_to_string(office.site.path("rules/rules.yaml")).unwrap();
    let rules = rules.replace(
        "mail: { to: ops@example.org,",
        &format!("mail: {{ to: [{}],", many.join(", ")),
    );
    office.site.write("rules/rules.yaml", &rules);
    office.drop("own/1.txt");
    assert_eq!(once(&office).0, Some(75));
    let shown = office.ok(&["outbox", "show", &office.entries()[0]["id"].to_string()]);
    assert!(
        shown.contains("101 recipients") && gmail.asked().is_empty(),
        "{shown}"
    );
    office.end();
}

// ---- another account ----

/// The office, and the relay may send as alice as well; her own mails may go by both.
fn both(office: &Office) {
    office.settings(|settings| {
        settings
            .replace(
                "    user: robot@example.org\n",
                "    user: robot@example.org\n    senders: [alice@sandbox.example]\n",
            )
            .replace("outbox: {", "outbox: { fail_over: 0s,")
    });
    let rules = std::fs::read_to_string(office.site.path("rules/rules.yaml")).unwrap();
    let rules = rules.replace(
        "mail: { to: ops@example.org,",
        "mail: { account: [office, backup], to: ops@example.org,",
    );
    office.site.write("rules/rules.yaml", &rules);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_whose_account_needs_a_person_leaves_by_the_next_one_byte_for_byte() {
    let office = Office::open().await;
    both(&office);
    office.run(&["run", "--once"]);
    office.drop("own/1.txt");
    let (code, said) = once(&office);
    assert_eq!(code, Some(77), "the account still needs its person: {said}");
    let entry = office.entries_of("own").remove(0);
    assert_eq!(entry["state"], "accepted", "{entry}");
    let sent = office.backup.messages();
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (sent[0].from.as_str(), text(&sent[0].bytes)),
        (ALICE, text(&frozen(&office, &entry["id"])))
    );
    let shown = office.ok(&["outbox", "show", &entry["id"].to_string()]);
    assert!(shown.contains("backup"), "{shown}");
    assert!(
        office.ok(&["status"]).contains("account office"),
        "its trouble is told"
    );
    // The next mail asks first who is well.
    office.drop("own/2.txt");
    once(&office);
    let entry = office.entries_of("own").remove(0);
    assert_eq!(
        (entry["state"].as_str(), entry["attempts"].as_u64()),
        (Some("accepted"), Some(1)),
        "{entry}"
    );
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_whose_account_is_out_of_reach_leaves_by_the_next_one_unless_it_may_have_gone_out() {
    let (office, graph) = over_graph("").await;
    both(&office);
    graph.fault(graph::Step::SendMail, Fault::DoneAndCut);
    office.drop("own/1.txt");
    once(&office);
    assert_eq!(graph.sent().len(), 1);
    let unknown = office.entries_of("own").remove(0)["id"].clone();

    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = format!("http://{}/", dead.local_addr().unwrap());
    drop(dead);
    office.settings(|settings| settings.replace(graph.url().as_str(), &nowhere));
    office.drop("own/2.txt");
    office
        .site
        .until("both were tried", || {
            once(&office);
            let entries = office.entries_of("own");
            entries.len() == 2
                && entries
                    .iter()
                    .any(|entry| entry["id"] == unknown && entry["attempts"].as_u64() > Some(1))
        })
        .await;
    let entries = office.entries_of("own");
    let state =
        |id: &serde_json::Value| entries.iter().find(|entry| entry["id"] == *id).unwrap()["state"].clone();
    assert_eq!(state(&unknown), "deferred", "it stays where it may have gone out");
    let other = entries.iter().find(|entry| entry["id"] != unknown).unwrap();
    assert_eq!(other["state"], "accepted", "{other}");
    assert_eq!(office.backup.messages().len(), 1);
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_account_of_a_rule_must_be_allowed_to_send_as_its_sender() {
    let office = Office::open().await;
    let rules = std::fs::read_to_string(office.site.path("rules/rules.yaml")).unwrap();
    let rules = rules.replace(
        "mail: { to: ops@example.org,",
        "mail: { account: [office, backup], to: ops@example.org,",
    );
    office.site.write("rules/rules.yaml", &rules);
    let checked = office.run(&["check"]);
    let said = format!("{}{}", text(&checked.stdout), text(&checked.stderr));
    assert!(
        checked.status.code() == Some(78)
            && said.contains(&format!("the account `backup` may not send as {ALICE}")),
        "{said}"
    );
}
