//! Mailboxes, whole: the real binary signs in at a sandbox authorization server with a small browser
//! beside it, and submits to a sandbox server that behaves as Exchange Online does. What goes wrong
//! with grants, rights, tokens and pace, and what a person who is stuck reads about it.
//!
//! Every story ends with a search for its secrets in every file of the setup and in all that was said.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;
#[path = "common/office.rs"]
mod office;

use common::{json_lines, text};
use office::{ALICE, BOB, CLIENT_SECRET, INVOICES, Office};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use tidings::sandbox::Authority;
use tidings::sandbox::oauth::Fault;
use tidings::sandbox::smtp::{Act, At, Faults};

// ---- signing in ----

#[tokio::test(flavor = "multi_thread")]
async fn login_prints_its_address_alone_on_a_line_and_status_tells_who_and_until_when() {
    let office = Office::open().await;
    let before = office.run(&["auth", "status"]);
    assert_eq!(before.status.code(), Some(77));
    assert!(
        text(&before.stdout).contains("tidings auth login office"),
        "{}",
        text(&before.stdout)
    );
    let login = office.login(ALICE, &["--no-browser"]).await;
    assert_eq!(login.code, Some(0), "{}", login.stderr);
    assert_eq!(login.stdout.lines().count(), 1, "{}", login.stdout);
    assert!(
        login.stdout.starts_with(office.sign_in.url().as_str()),
        "{}",
        login.stdout
    );
    assert!(
        login.page.contains("close"),
        "the page says that it may be closed: {}",
        login.page
    );
    assert!(
        login.stderr.contains(&format!("signed in as {ALICE}")),
        "{}",
        login.stderr
    );

    let status = office.ok(&["auth", "status", "office"]);
    assert!(status.starts_with("office: verified\n"), "{status}");
    assert!(status.contains(&format!("signed in  {ALICE}")), "{status}");
    assert!(status.contains("access     until 20"), "{status}");
    let json: serde_json::Value = serde_json::from_str(&office.ok(&["auth", "status", "--json"])).unwrap();
    let of = |name: &str| {
        let list = json.as_array().unwrap();
        list.iter()
            .find(|account| account["account"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(of("office")["verified"], true);
    assert_eq!(of("office")["signed_in"]["preferred_username"], ALICE);
    assert!(of("office")["access_expires"].as_str().unwrap().starts_with("20"));
    assert_eq!(of("backup")["credential"], "a password");

    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let state = office.site.path("state");
    assert_eq!(mode(&state), 0o700);
    for file in office.files().iter().filter(|file| file.starts_with(&state)) {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_person_is_named_and_nothing_is_stored() {
    let office = Office::open().await;
    let login = office.login(BOB, &["--no-browser"]).await;
    assert_eq!(login.code, Some(77));
    assert!(
        login.stderr.contains(&format!(
            "{BOB} signed in, but account `office` is that of {ALICE}; nothing was stored"
        )),
        "{}",
        login.stderr
    );
    assert!(text(&office.run(&["auth", "status"]).stdout).contains("nobody has signed in"));
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_without_a_refresh_token_says_which_scope_is_missing() {
    let office = Office::open().await;
    office.settings(|settings| settings.replace("offline_access, ", ""));
    let login = office.login(ALICE, &["--no-browser"]).await;
    assert_eq!(login.code, Some(78), "{}", login.stderr);
    assert!(
        login.stderr.contains("no refresh token") && login.stderr.contains("offline_access"),
        "{}",
        login.stderr
    );
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_says_no_is_told_apart_from_a_fault() {
    let office = Office::open().await;
    let login = office.login("no", &["--no-browser"]).await;
    assert_eq!(login.code, Some(77), "{}", login.stderr);
    assert!(login.stderr.contains("the person said no"), "{}", login.stderr);
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_the_browser_ended_at_can_be_pasted() {
    let office = Office::open().await;
    let login = office.login(ALICE, &["--paste"]).await;
    assert_eq!(login.code, Some(0), "{}", login.stderr);
    assert_eq!(login.stdout.lines().count(), 1, "{}", login.stdout);
    assert!(
        office
            .ok(&["auth", "status", "office"])
            .starts_with("office: verified")
    );
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn logout_gives_the_grant_back_and_says_so() {
    let office = Office::signed_in().await;
    let said = office.run(&["auth", "logout", "office"]);
    assert_eq!(said.status.code(), Some(0));
    assert!(
        text(&said.stderr).contains("given back to the provider"),
        "{}",
        text(&said.stderr)
    );
    assert_eq!(office.sign_in.counters().revoked, 1);
    assert_eq!(office.run(&["auth", "status"]).status.code(), Some(77));
    office.end();
}

// ---- shared mailboxes and rights ----

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_mailed_from_the_shared_mailbox_by_its_member() {
    let office = Office::signed_in().await;
    let _daemon = office.site.started().await;
    office.drop("invoices/17.pdf");
    let mails = office.mails(1).await;
    assert_eq!(mails[0].from, INVOICES);
    assert_eq!(mails[0].account.as_deref(), Some(ALICE), "the member's token");
    assert_eq!(
        mails[0].mailbox.as_deref(),
        Some(INVOICES),
        "opens the shared mailbox"
    );
    assert_eq!(mails[0].mechanism.as_deref(), Some("XOAUTH2"));
    assert!(mails[0].encrypted);
    assert!(text(&mails[0].bytes).contains(&format!("From: Invoices <{INVOICES}>")));
    office.drop("own/1.txt");
    let mails = office.mails(2).await;
    assert_eq!(mails[1].mailbox.as_deref(), Some(ALICE));
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_nobody_lists_is_a_problem_at_check() {
    let office = Office::open().await;
    office.site.ok(&["check"]);
    office.settings(|settings| {
        settings.replace(
            &format!("senders: [{INVOICES}]"),
            "senders: [other@sandbox.example]",
        )
    });
    let checked = office.run(&["check"]);
    assert_eq!(checked.status.code(), Some(78));
    let said = format!("{}{}", text(&checked.stdout), text(&checked.stderr));
    assert!(
        said.contains(&format!("the account `office` may not send as {INVOICES}"))
            && said.contains("senders")
            && said.contains("rules/rules.yaml"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_as_refusal_holds_the_mail_with_the_exact_cure_and_retry_sends_the_same_bytes() {
    let office = Office::signed_in().await;
    office.settings(|settings| settings.replace("login_as: sender", "login_as: user"));
    office.first_look();
    office.drop("invoices/17.pdf");
    let once = office.run(&["run", "--once"]);
    assert_eq!(once.status.code(), Some(75), "{}", text(&once.stderr));
    let entry = office.entries().remove(0);
    assert_eq!(entry["state"], "held");
    let id = entry["id"].to_string();
    let frozen = office.run(&["outbox", "show", &id, "--message"]).stdout;
    let shown = office.ok(&["outbox", "show", &id]);
    let cure = format!("Add-RecipientPermission -Identity {INVOICES} -Trustee {ALICE} -AccessRights SendAs");
    for words in [
        "The login may not send as the address in From.",
        "554 5.2.252 SendAsDenied",
        &cure,
        &format!("tidings outbox retry {id}"),
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(
        !shown.contains("<from") && !shown.contains("<login>"),
        "no placeholder is left to fill in: {shown}"
    );
    let log = text(&once.stderr);
    assert!(log.contains(&cure), "the log says the same: {log}");
    let status = office.ok(&["status"]);
    assert!(
        status.contains(&cure) && status.contains("1 mail held"),
        "{status}"
    );
    assert!(
        office
            .ok(&["auth", "status", "office"])
            .starts_with("office: verified"),
        "the account is fine"
    );

    office.rights.grant(ALICE, INVOICES);
    office.ok(&["outbox", "retry", &id]);
    let once = office.run(&["run", "--once"]);
    assert_eq!(once.status.code(), Some(0), "{}", text(&once.stderr));
    let mails = office.mails(1).await;
    assert_eq!(
        text(&mails[0].bytes),
        text(&frozen),
        "byte for byte what was composed"
    );
    assert_eq!(mails[0].mailbox.as_deref(), Some(ALICE));
    assert!(office.ok(&["status"]).contains("troubles: none"));
    office.end();
}

// ---- tokens ----

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_on_the_way_is_renewed_once_and_the_mail_goes() {
    let office = Office::signed_in().await;
    let _daemon = office.site.started().await;
    office.drop("invoices/1.pdf");
    office.mails(1).await;
    let before = office.sign_in.counters().refreshes;
    office.end_access_tokens();
    office.site.mail.disconnect();
    office.drop("invoices/2.pdf");
    office.mails(2).await;
    assert_eq!(office.sign_in.counters().refreshes, before + 1);
    let second = json_lines(&office.ok(&["outbox", "list", "--json"])).remove(0);
    assert_eq!(
        (&second["state"], &second["attempts"]),
        (&"accepted".into(), &1.into())
    );
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_refused_again_after_renewing_lets_its_mails_wait_and_others_go() {
    let office = Office::signed_in().await;
    office.first_look();
    office.rights.lock_out(true);
    office.drop("invoices/1.pdf");
    office.drop("backup/1.txt");
    let before = office.sign_in.counters().refreshes;
    let once = office.run(&["run", "--once"]);
    assert_eq!(once.status.code(), Some(77), "{}", text(&once.stderr));
    assert!(
        text(&once.stderr).contains("needs a person: office"),
        "{}",
        text(&once.stderr)
    );
    assert_eq!(office.sign_in.counters().refreshes, before + 1, "renewed once");
    assert_eq!(
        office.backup.messages().len(),
        1,
        "the healthy account's mail goes"
    );
    let waiting = office.entries_of("invoices").remove(0);
    assert_eq!(waiting["state"], "deferred", "the mail is fine and waits");
    for told in [
        office.ok(&["status"]),
        text(&office.run(&["auth", "status"]).stdout),
        office.ok(&["outbox", "show", &waiting["id"].to_string()]),
    ] {
        assert!(
            told.contains("535 5.7.3 Authentication unsuccessful") && told.contains("1. ")
                || told.contains("do  "),
            "the server's words and the cure: {told}"
        );
    }
    let told = office.run(&["auth", "status"]);
    assert_eq!(
        told.status.code(),
        Some(77),
        "an account whose mails are refused is not fine"
    );
    assert!(
        !text(&told.stdout).contains("office: verified"),
        "{}",
        text(&told.stdout)
    );

    // Rounds of the worker do not tell the same trouble again and again.
    let troubles = || json_lines(&office.ok(&["events", "list", "--type", "trouble", "--json"])).len();
    assert_eq!(troubles(), 1);
    office
        .site
        .until("the mail is due again", || {
            let waiting = office.entries_of("invoices").remove(0);
            waiting["due"].as_str().unwrap() < jiff::Timestamp::now().to_string().as_str()
        })
        .await;
    assert_eq!(office.run(&["run", "--once"]).status.code(), Some(77));
    assert_eq!(troubles(), 1);

    office.rights.lock_out(false);
    let _daemon = office.site.started().await;
    office.mails(1).await;
    office
        .site
        .until("the case is closed", || {
            office.ok(&["status"]).contains("troubles: none")
        })
        .await;
    assert!(
        office
            .ok(&["auth", "status", "office"])
            .starts_with("office: verified")
    );
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_of_a_revoked_grant_go_by_themselves_once_somebody_signs_in_beside_the_daemon() {
    let office = Office::signed_in().await;
    // Only the sign-in can make them go in time.
    office.settings(|settings| settings.replace("first: 1s", "first: 1h"));
    let daemon = office.site.started().await;
    office.drop("own/0.txt");
    office.mails(1).await;
    office.sign_in.end_grants();
    office.site.mail.disconnect();
    office.drop("invoices/1.pdf");
    office.drop("own/1.txt");
    office
        .site
        .until("both mails wait", || {
            office
                .entries()
                .iter()
                .filter(|entry| entry["state"] == "deferred")
                .count()
                == 2
        })
        .await;
    let status = office.ok(&["status"]);
    assert!(
        status.contains("account office")
            && status.contains("AADSTS50173")
            && status.contains("tidings auth login office"),
        "{status}"
    );
    let told = office.run(&["auth", "status", "office"]);
    assert_eq!(told.status.code(), Some(77));
    let told = text(&told.stdout);
    assert!(
        told.starts_with("office: needs a person\n") && told.contains("AADSTS50173") && told.contains(ALICE),
        "the grant is kept, and says why it does not work: {told}"
    );
    let shown = office.ok(&["outbox", "show", &office.entries()[0]["id"].to_string()]);
    assert!(shown.contains("tidings auth login office"), "{shown}");

    let login = office.login(ALICE, &["--no-browser"]).await;
    assert_eq!(login.code, Some(0), "{}", login.stderr);
    assert!(
        login.stderr.contains("2 mails"),
        "it says that they go now: {}",
        login.stderr
    );
    let since = std::time::Instant::now();
    office.mails(3).await;
    assert!(
        since.elapsed() < Duration::from_secs(10),
        "within seconds: {:?}",
        since.elapsed()
    );
    office
        .site
        .until("the case is closed", || {
            office.ok(&["status"]).contains("troubles: none")
        })
        .await;
    // The next revocation is a trouble of its own.
    office.sign_in.end_grants();
    office.site.mail.disconnect();
    office.drop("own/2.txt");
    office
        .site
        .until("the trouble is told again", || {
            office.ok(&["status"]).contains("tidings auth login office")
        })
        .await;
    assert_eq!(daemon.stop(), Some(0));
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_token_server_is_down_a_good_token_sends_and_mails_go_by_themselves_after() {
    let office = Office::signed_in().await;
    let _daemon = office.site.started().await;
    office.sign_in.fault_every(1, Fault::Page);
    office.drop("own/1.txt");
    office.mails(1).await;
    office.end_access_tokens();
    office.site.mail.disconnect();
    office.drop("own/2.txt");
    office
        .site
        .until("the mail waits", || office.entries()[0]["state"] == "deferred")
        .await;
    let shown = office.ok(&["outbox", "show", &office.entries()[0]["id"].to_string()]);
    assert!(
        shown.contains("HTTP 502") && shown.contains("proxy.local"),
        "what the page said: {shown}"
    );
    let told = text(&office.run(&["auth", "status"]).stdout);
    assert!(told.contains("HTTP 502"), "{told}");
    office.sign_in.fault_every(0, Fault::Page);
    office.mails(2).await;
    assert!(office.ok(&["status"]).contains("troubles: none"));
    office.end();
}

// ---- pace ----

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_never_has_more_connections_than_its_pace_says() {
    let office = Office::signed_in().await;
    let _daemon = office.site.started().await;
    for number in 0..40 {
        office.drop(&format!("invoices/{number}.pdf"));
    }
    office.mails(40).await;
    assert!(
        (2..=3).contains(&office.site.mail.most_connections()),
        "{}",
        office.site.mail.most_connections()
    );
    assert!(
        office.entries().iter().all(|entry| entry["attempts"] == 1),
        "so nothing is refused for being too much"
    );
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_is_busy_elsewhere_is_tried_again_later_with_the_advice() {
    let office = Office::with(|mail| mail.connections = Some(0)).await;
    office.first_look();
    office.drop("own/1.txt");
    let once = office.run(&["run", "--once"]);
    assert_eq!(once.status.code(), Some(75), "{}", text(&once.stderr));
    let entry = office.entries().remove(0);
    assert_eq!(entry["state"], "deferred");
    let shown = office.ok(&["outbox", "show", &entry["id"].to_string()]);
    assert!(
        shown.contains("432 4.3.2 Concurrent connections limit exceeded") && shown.contains("1. "),
        "{shown}"
    );
    assert!(
        office.ok(&["status"]).contains("troubles: none"),
        "it passes by itself"
    );
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purse_that_is_used_up_lets_the_rest_wait_untried_across_restarts() {
    let office = Office::signed_in().await;
    office.settings(|settings| settings.replace("per_minute: 1000", "per_minute: 1000, per_day: 3"));
    office.first_look();
    for number in 0..5 {
        office.drop(&format!("own/{number}.txt"));
    }
    for _ in 0..2 {
        let once = office.run(&["run", "--once"]);
        assert_eq!(once.status.code(), Some(75), "{}", text(&once.stderr));
        assert_eq!(office.site.mail.messages().len(), 3);
    }
    let daemon = office.site.started().await;
    office.drop("backup/1.txt");
    office.backup.received(1).await;
    daemon.stop();
    assert_eq!(
        office.site.mail.messages().len(),
        3,
        "nor does the daemon begin anew"
    );
    let mut waiting = office.entries_of("own");
    waiting.retain(|entry| entry["state"] != "accepted");
    assert_eq!(waiting.len(), 2);
    for entry in &waiting {
        assert_eq!(
            (&entry["state"], &entry["attempts"]),
            (&"ready".into(), &0.into())
        );
    }
    // Another mailbox of the account has a purse of its own.
    office.drop("invoices/1.pdf");
    office.run(&["run", "--once"]);
    assert_eq!(office.site.mail.messages().len(), 4);
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_minute_holds_more_than_its_mails_however_often_the_worker_runs() {
    let office = Office::signed_in().await;
    office.settings(|settings| settings.replace("per_minute: 1000", "per_minute: 3"));
    office.first_look();
    for number in 0..8 {
        office.drop(&format!("own/{number}.txt"));
    }
    for _ in 0..3 {
        office.run(&["run", "--once"]);
    }
    let sent: Vec<_> = office.site.mail.messages().iter().map(|mail| mail.at).collect();
    assert!(sent.len() >= 3);
    for (first, fourth) in sent.iter().zip(sent.iter().skip(3)) {
        let between = fourth.duration_since(*first);
        // What counts is when the server was asked, a little before it answered.
        assert!(between > jiff::SignedDuration::from_secs(55), "{sent:?}");
    }
    office.end();
}

// ---- the connection ----

#[tokio::test(flavor = "multi_thread")]
async fn without_starttls_nothing_is_said_about_who_we_are_and_the_account_is_in_trouble() {
    let office = Office::with(|mail| {
        // A server, or somebody on the way, that takes STARTTLS out of the offer.
        mail.faults = vec![Faults::one(
            At::line("EHLO"),
            Act::Say("250-sandbox\r\n250-AUTH PLAIN LOGIN XOAUTH2\r\n250 SIZE 1000000".into()),
        )];
    })
    .await;
    office.refused_connection("STARTTLS").await;
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_nobody_vouches_for_gets_no_credential_and_the_account_is_in_trouble() {
    let stranger = Authority::new().unwrap().server().unwrap();
    let office = Office::with(|mail| mail.certificate = Some(stranger)).await;
    office.refused_connection("certificate").await;
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_name_is_refused_and_the_name_is_said() {
    let office = Office::open_with(|mail, authority| {
        mail.certificate = Some(
            authority
                .server_for(&["mail.elsewhere.example"], 2000..=2100)
                .unwrap(),
        );
    })
    .await;
    office.login(ALICE, &["--no-browser"]).await;
    let told = office.refused_connection("certificate").await;
    assert!(told.contains("mail.elsewhere.example"), "{told}");
    office.end();
}

// ---- send ----

#[tokio::test(flavor = "multi_thread")]
async fn a_test_message_says_each_step_and_its_transcript_holds_no_secret() {
    let office = Office::signed_in().await;
    let sent = office.run(&[
        "send",
        "--account",
        "office",
        "--from",
        INVOICES,
        "--to",
        "ops@example.org",
        "--transcript",
        office.site.path("send.log").to_str().unwrap(),
    ]);
    assert_eq!(sent.status.code(), Some(0), "{}", text(&sent.stderr));
    assert!(
        text(&sent.stdout).contains("accepted: 250 2.0.0"),
        "{}",
        text(&sent.stdout)
    );
    let steps = text(&sent.stderr);
    for step in ["composing", "signing in", INVOICES, "127.0.0.1"] {
        assert!(steps.contains(step), "{step}: {steps}");
    }
    assert_eq!(office.mails(1).await[0].mailbox.as_deref(), Some(INVOICES));
    let transcript = std::fs::read_to_string(office.site.path("send.log")).unwrap();
    for line in [
        "C: STARTTLS",
        "C: AUTH XOAUTH2",
        "235 2.7.0",
        "C: MAIL FROM",
        "C: DATA",
        "250 2.0.0",
    ] {
        assert!(transcript.contains(line), "{line}: {transcript}");
    }
    assert!(office.entries().is_empty(), "it leaves nothing in the outbox");
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_message_that_is_refused_says_what_to_do() {
    let office = Office::open().await;
    let send = [
        "send",
        "--account",
        "office",
        "--from",
        INVOICES,
        "--to",
        "ops@example.org",
    ];
    let nobody = office.run(&send);
    assert_eq!(nobody.status.code(), Some(77), "{}", text(&nobody.stderr));
    assert!(
        text(&nobody.stdout).contains("tidings auth login office"),
        "{}",
        text(&nobody.stdout)
    );
    office.login(ALICE, &["--no-browser"]).await;
    office.settings(|settings| settings.replace("login_as: sender", "login_as: user"));
    let refused = office.run(&send);
    assert_ne!(refused.status.code(), Some(0));
    let said = text(&refused.stdout);
    assert!(
        said.contains("554 5.2.252 SendAsDenied")
            && said.contains(&format!(
                "Add-RecipientPermission -Identity {INVOICES} -Trustee {ALICE}"
            )),
        "{said}"
    );
    office.rights.lock_out(true);
    let refused = office.run(&send);
    assert_eq!(refused.status.code(), Some(77));
    assert!(
        text(&refused.stdout).contains("535 5.7.3"),
        "{}",
        text(&refused.stdout)
    );
    office.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_secret_that_is_wrong_is_a_matter_of_settings_and_says_which() {
    let office = Office::signed_in().await;
    office
        .site
        .write("secrets/client", "canary-of-a-secret-that-is-wrong");
    let renewed = office.run(&["auth", "refresh", "office"]);
    assert_eq!(renewed.status.code(), Some(78), "{}", text(&renewed.stderr));
    assert!(
        text(&renewed.stderr).contains("AADSTS7000215"),
        "{}",
        text(&renewed.stderr)
    );
    let told = office.run(&["auth", "status"]);
    assert_eq!(told.status.code(), Some(78));
    office.site.write("secrets/client", CLIENT_SECRET);
    office.ok(&["auth", "refresh", "office"]);
    assert!(
        office
            .ok(&["auth", "status", "office"])
            .starts_with("office: verified")
    );
    office.end();
}
