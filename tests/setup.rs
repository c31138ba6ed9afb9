//! What a sound setup comes to mean: presets, defaults, watches, the order of work.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::path::Path;
use tempfile::TempDir;
use tidings::advice::Provider;
use tidings::config::document::Document;
use tidings::config::settings::{Account, Credential, LoginAs, OAuth2, Pace, SmtpSettings, Tls, Transport};
use tidings::config::{raw, schema, shape};
use tidings::rule::Trigger;
use tidings::rule::load::{self, Away, Setup};
use tidings::source::{Settle, Wanted};

const SETTINGS: &str = "\
accounts:
  office:
    provider: microsoft365
    user: alice@contoso.com
    senders: [invoices@contoso.com]
    oauth2: { tenant: contoso.onmicrosoft.com, client_id: 4f0c8a52 }
recipients:
  groups: { ops: [ops@contoso.com, oncall@contoso.com] }
";

fn folder(settings: &str, rules: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("drop")).unwrap();
    std::fs::create_dir(dir.path().join("rules")).unwrap();
    std::fs::write(dir.path().join("tidings.yaml"), settings).unwrap();
    std::fs::write(dir.path().join("rules/a.yaml"), rules).unwrap();
    dir
}

fn loaded(settings: &str, rules: &str) -> Setup {
    let dir = folder(settings, rules);
    load::setup(dir.path()).unwrap_or_else(|problems| {
        panic!(
            "{}",
            problems
                .iter()
                .map(|problem| problem.render(false))
                .collect::<String>()
        )
    })
}

/// The only account of some settings.
fn account(settings: &str) -> Account {
    let mut setup = loaded(settings, "rules: {}\n");
    setup.settings.accounts.pop_first().unwrap().1
}

fn smtp(account: &Account) -> &SmtpSettings {
    match &account.transport {
        Transport::Smtp(smtp) => smtp,
        _ => panic!("no smtp"),
    }
}

fn oauth2(account: &Account) -> &OAuth2 {
    match &account.credential {
        Credential::OAuth2(oauth2) => oauth2,
        other => panic!("{other:?}"),
    }
}

/// A rule file of one rule about files in `drop`: the trigger's further keys, the rule's further keys.
fn rule(keys: &str, rest: &str) -> String {
    format!("rules:\n  a:\n    when: {{ file_arrives: {{ in: drop, {keys} }} }}\n{rest}")
}

const MAIL: &str = "    mail: { to: ops }\n";

#[test]
fn microsoft365_knows_servers_scopes_and_pace() {
    let account = account(SETTINGS);
    assert_eq!(account.provider, Provider::Microsoft);
    assert_eq!(
        account.pace,
        Pace {
            connections: 3,
            per_minute: Some(30),
            per_day: Some(10_000)
        }
    );
    let senders: Vec<String> = account.senders.iter().map(ToString::to_string).collect();
    assert_eq!(senders, ["alice@contoso.com", "invoices@contoso.com"]);
    assert!(!account.any_sender);
    let smtp = smtp(&account);
    assert_eq!(
        (smtp.host.as_str(), smtp.port, smtp.tls, smtp.login_as),
        ("smtp.office365.com", 587, Tls::Starttls, LoginAs::Sender)
    );
    let oauth2 = oauth2(&account);
    assert_eq!(
        oauth2.token_url.as_ref().unwrap().as_str(),
        "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token"
    );
    assert_eq!(
        oauth2.scopes,
        ["https://outlook.office.com/SMTP.Send", "offline_access"]
    );
    assert_eq!(oauth2.redirect.port(), Some(0));
    assert_eq!(oauth2.login_hint.as_deref(), Some("alice@contoso.com"));
}

#[test]
fn google_asks_for_a_refresh_token() {
    let account =
        account("accounts: { g: { provider: google, user: a@example.com, oauth2: { client_id: x } } }");
    assert_eq!(smtp(&account).host, "smtp.gmail.com");
    let extra: Vec<(&str, &str)> = oauth2(&account)
        .authorize_extra
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(extra, [("access_type", "offline"), ("prompt", "consent")]);
    assert_eq!(oauth2(&account).scopes, ["https://mail.google.com/"]);
}

#[test]
fn single_keys_of_a_preset_can_be_overridden() {
    let account = account(
        "accounts:
  m:
    provider:
      preset: microsoft365
      token_url: http://127.0.0.1:1/{tenant}
      scopes: [a]
      pace: { per_minute: 5 }
      smtp: { host: smtp.office365.us }
    user: a@example.com
    pace: { connections: 1 }
    oauth2: { tenant: t, client_id: x, redirect: 'http://[::1]' }
",
    );
    assert_eq!(account.provider, Provider::Microsoft);
    assert_eq!(
        account.pace,
        Pace {
            connections: 1,
            per_minute: Some(5),
            per_day: Some(10_000)
        }
    );
    assert_eq!(smtp(&account).host, "smtp.office365.us");
    assert_eq!(smtp(&account).login_as, LoginAs::Sender);
    let oauth2 = oauth2(&account);
    assert_eq!(
        oauth2.token_url.as_ref().unwrap().as_str(),
        "http://127.0.0.1:1/t"
    );
    assert_eq!(
        oauth2.authorize_url.as_ref().unwrap().as_str(),
        "https://login.microsoftonline.com/t/oauth2/v2.0/authorize"
    );
    assert_eq!(oauth2.scopes, ["a"]);
}

#[test]
fn an_issuer_is_enough_and_port_465_is_implicit_tls() {
    let account = account(
        "accounts:
  p:
    provider: { issuer: 'https://id.example.org', scopes: openid }
    smtp: { host: mail.example.org, port: 465 }
    user: a@example.com
    oauth2: { client_id: x }
",
    );
    assert_eq!(smtp(&account).tls, Tls::Implicit);
    assert!(oauth2(&account).authorize_url.is_none());
    assert!(oauth2(&account).issuer.is_some());
}

#[test]
fn a_relay_without_addresses_may_send_as_anyone() {
    let account = account("accounts: { r: { smtp: { host: localhost, tls: none } } }");
    assert!(account.any_sender);
    assert_eq!(smtp(&account).port, 25);
}

#[test]
fn a_state_folder_is_where_the_database_is() {
    let setup = loaded(
        "accounts: { r: { transport: file } }\noutbox: { store: 'sqlite:/var/lib/tidings/t.db' }\n",
        "rules: {}\n",
    );
    assert_eq!(setup.settings.state, Path::new("/var/lib/tidings"));
    assert_eq!(setup.settings.outbox.store, Path::new("/var/lib/tidings/t.db"));
}

#[test]
fn rules_share_a_watch_whatever_they_look_for_in_it() {
    let text = |name: &str, keys: &str| {
        format!("  {name}:\n    when: {{ file_arrives: {{ in: ./drop/, {keys} }} }}\n{MAIL}")
    };
    let rules = format!(
        "rules:\n{}{}",
        text("a", "match: '*.csv'"),
        text("b", "match: '*.pdf'")
    );
    let one = loaded(SETTINGS, &rules);
    assert_eq!(one.watches.len(), 1);
    assert_eq!(one.watches[0].wanted.len(), 2);
    for rule in &one.rules {
        assert!(
            matches!(&rule.triggers[0], Trigger::FileArrives { watch, .. } if *watch == one.watches[0].id)
        );
    }
    let rules = format!(
        "rules:\n{}{}",
        text("a", "match: '*.csv'"),
        text("b", "settle: 10s")
    );
    let two = loaded(SETTINGS, &rules);
    assert_eq!(two.watches.len(), 2);
    let ten = Settle::After(std::time::Duration::from_secs(10));
    assert!(two.watches.iter().any(|watch| watch.settle == ten));
}

#[test]
fn a_watch_keeps_its_name_when_patterns_change() {
    let dir = folder(SETTINGS, "");
    let id = |keys: &str| {
        std::fs::write(dir.path().join("rules/a.yaml"), rule(keys, MAIL)).unwrap();
        load::setup(dir.path()).unwrap().watches[0].id.clone()
    };
    assert_eq!(id("match: '*.csv'"), id("match: '**/*.pdf', ignore: x"));
    assert_ne!(id("match: '*.csv'"), id("match: '*.csv', existing: process"));
}

#[test]
fn which_files_a_pattern_takes() {
    let cases: [(&str, &[&str], &[&str]); 9] = [
        ("", &["a", "x/a.csv", "x/y/a"], &[]),
        ("match: '*.csv'", &["a.csv"], &["a.pdf", "x/a.csv"]),
        (
            "match: '*.csv', recursive: true",
            &["a.csv", "x/y/a.csv"],
            &["x/a.pdf"],
        ),
        ("match: '**/*.csv'", &["a.csv", "x/y/a.csv"], &["a.pdf"]),
        ("match: '**/*.csv', recursive: false", &["a.csv"], &["x/a.csv"]),
        ("match: 'x/*.csv'", &["x/a.csv"], &["a.csv", "x/y/a.csv"]),
        ("recursive: false", &["a"], &["x/a"]),
        (
            "ignore: ['~*', 'done/**']",
            &["a", "x/a"],
            &["~a", "x/~a", "done/a", "done/x/a"],
        ),
        ("match: '*.{csv,txt}'", &["a.csv", "a.txt"], &["a.pdf"]),
    ];
    for (keys, taken, left) in cases {
        let setup = loaded(SETTINGS, &rule(keys, MAIL));
        let wanted: &Wanted = &setup.watches[0].wanted[0];
        let root = &setup.watches[0].root;
        for (names, takes) in [(taken, true), (left, false)] {
            for name in names {
                let sees = load::trigger::sees(root, wanted, &root.join(name));
                assert_eq!(sees, takes, "{keys}: {name}");
            }
        }
    }
}

#[test]
fn a_mail_beside_work_is_told_after_it_went_well_and_groups_are_people() {
    let rest = "    delete: true\n    copy: kept/\n    mail: { to: ops, cc: Bob <bob@contoso.com> }\n";
    let setup = loaded(SETTINGS, &rule("", rest));
    let rule = &setup.rules[0];
    assert!(rule.mails.is_empty());
    let mail = &rule.on_success.mails[0];
    assert_eq!(mail.account, "office");
    assert_eq!(mail.from.to_string(), "alice@contoso.com");
    assert_eq!(
        (mail.to.len(), mail.cc.len(), mail.template.as_str()),
        (2, 1, "plain")
    );
    // The copy is made while there is something to copy, whatever is written first.
    assert_eq!(format!("{:?}", rule.work.last().unwrap()), "Delete");
    assert_eq!(rule.place, "rules/a.yaml:2");
}

#[test]
fn a_default_sender_is_used_where_the_account_has_it() {
    let settings = "\
accounts:
  one: { transport: file, senders: one@example.com }
  two: { transport: file, user: two@example.com }
  any: { transport: file }
defaults: { account: one, from: One <one@example.com> }
";
    let from = |account: &str| {
        let mail = format!("    mail: {{ account: {account}, to: x@example.com }}\n");
        loaded(settings, &rule("", &mail)).rules[0].mails[0]
            .from
            .to_string()
    };
    assert_eq!(from("one"), "One <one@example.com>");
    assert_eq!(from("two"), "two@example.com");
    assert_eq!(from("any"), "One <one@example.com>");
}

#[test]
fn a_share_that_is_away_keeps_no_setup_from_running() {
    let dir = folder(
        SETTINGS,
        "rules:\n  a:\n    when: { file_arrives: { in: /no/such/share } }\n    mail: { to: ops }\n",
    );
    assert!(load::setup(dir.path()).is_err());
    let setup = load::load(dir.path(), Away::BadLuck).unwrap();
    assert_eq!(setup.watches.len(), 1);
    assert_eq!(setup.warnings.len(), 1);
}

/// What runs is read by serde from the text; the mistakes are found in our own tree. Both must see
/// the same.
#[test]
fn the_tree_and_serde_read_the_same() {
    let text = r#"
rules:
  a:
    when: [{ schedule: { every: 1h } }]
    data:
      a: 1
      b: 1.5
      c: [true, false, null, ~, no, on, yes, 012, '7', 1e3, -4, 07:00, 10MB, "é\n\u00e4"]
      d: |
        two
        lines
      e: >-
        folded
        text
      f: plain text
        over lines
      g: {}
      h: []
      12: number
      true: word
    mail: &mail { to: ops, subject: 'a: ''b''' }
  b:
    when: { schedule: { every: 2h } }
    mail:
      <<: *mail
      subject: own
"#;
    let mut problems = Vec::new();
    let document = Document::parse(Path::new("a"), text.to_owned(), &mut problems).unwrap();
    let tree: raw::rules::Rules = serde_json::from_value(document.root.to_json()).unwrap();
    let read = shape::read::<raw::rules::Rules>(document, &schema::RULES, &mut problems).unwrap();
    assert_eq!(problems, []);
    assert_eq!(read.raw, tree);
}

#[test]
fn each_cloud_has_servers_and_scopes_of_its_own_and_single_keys_override_them() {
    let cloud = |words: &str| account(&SETTINGS.replace("provider: microsoft365", words));
    let high = cloud("provider: microsoft365\n    cloud: gcc_high");
    assert_eq!(smtp(&high).host, "smtp.office365.us");
    let signs_in = oauth2(&high);
    assert_eq!(signs_in.scopes[0], "https://outlook.office365.us/SMTP.Send");
    assert_eq!(
        signs_in.token_url.as_ref().unwrap().as_str(),
        "https://login.microsoftonline.us/contoso.onmicrosoft.com/oauth2/v2.0/token"
    );
    let dod = cloud("provider: { preset: microsoft365, smtp: { host: mail.example.mil } }\n    cloud: dod");
    assert_eq!(smtp(&dod).host, "mail.example.mil");
    let private = account(&SETTINGS.replace("tenant: contoso.onmicrosoft.com", "tenant: consumers"));
    assert_eq!(smtp(&private).host, "smtp-mail.outlook.com");
    assert_eq!(smtp(&private).login_as, LoginAs::User);
}
