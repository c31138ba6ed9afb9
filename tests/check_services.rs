//! `check` of accounts that send over Graph or Gmail: what cannot work is said, with what to do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use assert_cmd::cargo::cargo_bin;
use common::text;
use std::process::Command;

/// Exit code and all that is said of one account with these lines.
fn check(account: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "s").unwrap();
    let lines: String = account.lines().map(|line| format!("    {line}\n")).collect();
    let yaml = format!("accounts:\n  office:\n{lines}defaults: {{ from: a@contoso.com }}\n");
    std::fs::write(folder.path().join("tidings.yaml"), yaml).unwrap();
    let output = Command::new(cargo_bin("tidings"))
        .arg("-C")
        .arg(folder.path())
        .arg("check")
        .output()
        .unwrap();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    (output.status.code(), said)
}

const GRAPH: &str = "provider: microsoft365\ntransport: graph\nuser: a@contoso.com\n";
const SIGN_IN: &str = "oauth2: { tenant: contoso.com, client_id: x }\n";

#[test]
fn an_account_over_graph_or_gmail_is_fine_with_little() {
    let (code, said) = check(&format!("{GRAPH}{SIGN_IN}"));
    assert_eq!(code, Some(0), "{said}");
    let gmail = "provider: google\ntransport: gmail\nuser: a@contoso.com\noauth2: { client_id: x, client_secret: { file: secret } }\n";
    let (code, said) = check(gmail);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn what_belongs_to_another_transport_or_provider_is_said() {
    for (account, words) in [
        (
            format!("{GRAPH}{SIGN_IN}smtp: {{ host: x.example }}\n"),
            "does not send over SMTP",
        ),
        (
            format!("{GRAPH}{SIGN_IN}folder: out\n"),
            "a folder means nothing here",
        ),
        (
            GRAPH.to_owned(),
            "takes no mail from somebody who does not sign in",
        ),
        (
            format!("{GRAPH}password: {{ secret: {{ file: secret }} }}\n"),
            "takes no password",
        ),
        (
            format!("{}{SIGN_IN}", GRAPH.replace("graph", "smtp")) + "graph: { uploads: false }\n",
            "it belongs to `transport: graph`",
        ),
        (
            GRAPH.replace("microsoft365", "google") + "oauth2: { client_id: x }\n",
            "does not say where `graph` is",
        ),
        (
            format!("{GRAPH}{SIGN_IN}").replace(
                "provider: microsoft365",
                "provider: { preset: microsoft365, graph_url: \"http://graph.example/\" }",
            ),
            "this address is not protected",
        ),
    ] {
        let (code, said) = check(&account);
        assert!(code == Some(78) && said.contains(words), "{words}: {said}");
    }
}

#[test]
fn more_than_four_connections_to_graph_are_a_warning() {
    let (code, said) = check(&format!("{GRAPH}{SIGN_IN}pace: {{ connections: 9 }}\n"));
    assert!(code == Some(0) && said.contains("4 requests at once"), "{said}");
}

#[test]
fn an_account_that_cannot_be_asked_is_named_where_verify_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = "accounts:\n  relay: { smtp: { host: 127.0.0.1, tls: none }, user: a@contoso.com }\noutbox: { on_unknown: [verify, resend] }\n";
    std::fs::write(folder.path().join("tidings.yaml"), yaml).unwrap();
    let run = || {
        let output = Command::new(cargo_bin("tidings"))
            .arg("-C")
            .arg(folder.path())
            .arg("check")
            .output()
            .unwrap();
        (
            output.status.code(),
            format!("{}{}", text(&output.stdout), text(&output.stderr)),
        )
    };
    let (code, said) = run();
    assert!(
        code == Some(0)
            && said.contains("what account `relay` sent (smtp): its unknown mails are sent again"),
        "{said}"
    );
    let both = yaml.replace("[verify, resend]", "[hold, resend]");
    std::fs::write(folder.path().join("tidings.yaml"), both).unwrap();
    let (code, said) = run();
    assert!(
        code == Some(78) && said.contains("more than one thing at once"),
        "{said}"
    );
}
