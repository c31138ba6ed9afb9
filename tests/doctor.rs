//! Broken accounts, each in one way, with servers that answer as the real ones do: the doctor names the right cause
//! first in all of them. The list is also a table in `docs/doctor.md`, which this test makes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;
#[path = "doctor/world.rs"]
mod world;

use serde_json::Value;
use std::fmt::Write as _;
use tidings::advice::catalog::Catalog;
use tidings::advice::values::Values;
use tidings::cli::Exit;
use tidings::sandbox::smtp::{Act, At, AuthRefusal};
use world::{ALICE, Answer, INVOICES, Patient, SEND, jwt};

/// One broken account.
struct Case {
    /// What is wrong with it.
    broken: &'static str,
    /// Breaks it.
    breaks: fn(&mut Patient),
    /// The step that must be named first.
    step: &'static str,
    /// The catalog's entry, or what the text must say where there is none.
    cause: &'static str,
    /// What the command ends with.
    exit: Exit,
    /// What a person reads is kept as a snapshot under this name.
    snapshot: Option<&'static str>,
}

fn case(
    broken: &'static str,
    step: &'static str,
    cause: &'static str,
    exit: Exit,
    breaks: fn(&mut Patient),
) -> Case {
    Case {
        broken,
        breaks,
        step,
        cause,
        exit,
        snapshot: None,
    }
}

impl Case {
    fn shown(mut self, name: &'static str) -> Case {
        self.snapshot = Some(name);
        self
    }
}

/// A refusal of Microsoft's token endpoint.
fn aadsts(patient: &mut Patient, error: &str, number: u32, words: &str) {
    patient.token = Answer::json(
        if error == "invalid_client" { 401 } else { 400 },
        serde_json::json!({
            "error": error, "error_description": format!("AADSTS{number}: {words} Trace ID: 7d1c Correlation ID: 9a2e"),
            "error_codes": [number], "trace_id": "7d1c", "correlation_id": "9a2e",
        }),
    );
}

fn google_error(patient: &mut Patient, status: u16, error: &str, words: &str) {
    patient.google();
    patient.token = Answer::json(
        status,
        serde_json::json!({ "error": error, "error_description": words }),
    );
}

fn auth_reply(patient: &mut Patient, reply: &'static str) {
    patient.authorize = std::sync::Arc::new(move |_, _| {
        Err(AuthRefusal {
            challenge: None,
            reply: reply.to_owned(),
        })
    });
}

const GUID: &str = "4f0c8a52-1111-2222-3333-0123456789ab";

#[allow(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    use Exit::{BadInput, Config, Credential, Unavailable};
    vec![
        case("the Secret ID was pasted for the secret's Value", "settings", "local-secret-id", Config, |it| {
            it.secret = GUID.to_owned();
            aadsts(it, "invalid_client", 7_000_215, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID.");
        })
        .shown("secret_id_for_value"),
        case("the file of the client secret is not there", "settings", "local-secret-unreadable", Config, |it| {
            it.settings("{ file: secret }", "{ file: no-such-file }");
        }),
        case("offline_access is not among the scopes", "settings", "local-no-refresh-token", Config, |it| {
            it.settings("offline_access, ", "");
        })
        .shown("missing_offline_access"),
        case("the mail server's name is misspelt", "dns", "local-dns-failure", Unavailable, |it| {
            it.settings("host: 127.0.0.1", "host: smtp.office356.invalid");
        }),
        case("nobody listens at the mail server's port", "tcp", "local-connect-refused", Unavailable, |it| {
            it.settings("port: MAILPORT", "port: 1");
        }),
        case("the mail server is closed for maintenance", "greeting", "smtp-service-unavailable", Unavailable, |it| {
            it.fault(At::Greeting, Act::Say("421 4.3.2 Service not available".into()));
        }),
        case("a web server answers at the mail server's port", "greeting", "local-protocol", Unavailable, |it| {
            it.fault(At::Greeting, Act::Say("HTTP/1.1 400 Bad Request".into()));
        }),
        case("a firewall takes STARTTLS out of the server's offers", "tls", "local-starttls-missing", Config, |it| {
            it.fault(At::line("EHLO"), Act::Say("250-sandbox\r\n250 SIZE 1000".into()));
        }),
        case("the certificate is for another name", "tls", "local-tls-certificate", Config, |it| {
            it.certificate(&["mail.elsewhere.example"], 2000..=2100);
        }),
        case("the certificate has run out", "tls", "local-tls-certificate", Config, |it| {
            it.certificate(&["127.0.0.1"], 2000..=2020);
        }),
        case("a proxy's own authority signed the certificate", "tls", "local-tls-certificate", Config, |it| {
            it.settings(", ca_file: ca.pem", "");
        }),
        case("`tls: implicit` for a port that speaks STARTTLS", "tls", "local-tls-failed", Unavailable, |it| {
            it.settings("tls: starttls", "tls: implicit");
        }),
        case("the clock is ten minutes off", "clock", "local-clock-skew", Config, |it| {
            it.clock_ahead = 600;
            aadsts(it, "invalid_client", 700_024, "Client assertion is not within its valid time range.");
        })
        .shown("clock_ten_minutes_off"),
        case("the redirect address is not registered", "sign-in", "ms-redirect-uri-mismatch", Config, |it| {
            it.grant = None;
            it.page = Answer::page(200, "<html><div>AADSTS50011: The redirect URI 'http://127.0.0.1/' specified in the request does not match the redirect URIs configured for the application.</div></html>");
        })
        .shown("redirect_not_registered"),
        case("the tenant's name is misspelt, at the first sign-in", "sign-in", "ms-tenant-not-found", Config, |it| {
            it.grant = None;
            it.page = Answer::page(200, "<html>AADSTS90002: Tenant 'contosso.example' not found.</html>");
        }),
        case("the client id is the object id of the app", "sign-in", "ms-app-not-found", Config, |it| {
            it.grant = None;
            it.page = Answer::page(400, "<html>AADSTS700016: Application with identifier 'x' was not found in the directory.</html>");
        }),
        case("the redirect address is not registered at Google", "sign-in", "google-redirect-uri-mismatch", Config, |it| {
            it.google();
            it.grant = None;
            it.page = Answer::page(400, "<html>Error 400: redirect_uri_mismatch</html>");
        }),
        case("nobody has signed in", "grant", "nobody has signed in", Credential, |it| it.grant = None),
        case("the key file of the state folder was lost", "grant", "does not open the grant", Config, |it| {
            it.lose_key = true;
        }),
        case("Google gave no refresh token", "grant", "local-no-refresh-token", Config, |it| {
            it.google();
            it.grant.as_mut().unwrap().refresh = None;
        }),
        case("the wrong person is signed in", "person", "local-wrong-account", Credential, |it| {
            it.grant.as_mut().unwrap().identity.preferred_username = Some("bob@contoso.example".into());
            it.authorize = std::sync::Arc::new(|mailbox, _| match mailbox {
                "bob@contoso.example" => Ok(mailbox.to_owned()),
                _ => Err(AuthRefusal::exchange()),
            });
        })
        .shown("wrong_person_signed_in"),
        case("the client secret has expired", "token", "ms-secret-expired", Config, |it| {
            aadsts(it, "invalid_client", 7_000_222, "The provided client secret keys for app '4f0c8a52' are expired.");
        })
        .shown("expired_secret"),
        case("the client secret is another app's", "token", "ms-secret-id-instead-of-value", Config, |it| {
            aadsts(it, "invalid_client", 7_000_215, "Invalid client secret provided.");
        }),
        case("the tenant's name is misspelt", "token", "ms-tenant-not-found", Config, |it| {
            aadsts(it, "invalid_request", 90_002, "Tenant 'contosso.example' not found. Check to make sure you have the correct tenant ID.");
        })
        .shown("tenant_misspelt"),
        case("certificate and key do not belong together", "token", "ms-assertion-signature", Config, |it| {
            aadsts(it, "invalid_client", 700_027, "Client assertion failed signature validation.");
        })
        .shown("certificate_and_key_do_not_match"),
        case("the password was changed", "token", "ms-grant-revoked", Credential, |it| {
            aadsts(it, "invalid_grant", 50_173, "The provided grant has expired due to it being revoked, a fresh auth token is needed.");
        }),
        case("the grant lay unused for 90 days", "token", "ms-refresh-token-idle", Credential, |it| {
            aadsts(it, "invalid_grant", 700_082, "The refresh token has expired due to inactivity.");
        }),
        case("a second factor is demanded now", "token", "ms-mfa-required", Credential, |it| {
            aadsts(it, "interaction_required", 50_076, "Due to a configuration change made by your administrator, you must use multi-factor authentication.");
        }),
        case("Conditional Access blocks the sign-in", "token", "ms-ca-blocked", Credential, |it| {
            aadsts(it, "invalid_grant", 53_003, "Access has been blocked by Conditional Access policies.");
        }),
        case("nobody has consented", "token", "ms-consent-missing", Credential, |it| {
            aadsts(it, "invalid_grant", 65_001, "The user or administrator has not consented to use the application.");
        }),
        case("the application is switched off", "token", "ms-app-disabled", Config, |it| {
            aadsts(it, "unauthorized_client", 7_000_112, "Application is disabled.");
        }),
        case("the account is disabled", "token", "ms-user-disabled", Config, |it| {
            aadsts(it, "invalid_grant", 50_057, "The user account is disabled.");
        }),
        case("a public client sends a secret", "token", "ms-public-client-sent-secret", Config, |it| {
            aadsts(it, "invalid_client", 700_025, "Client is public so neither 'client_assertion' nor 'client_secret' should be presented.");
        }),
        case("a confidential client sends no secret", "token", "ms-secret-or-assertion-required", Config, |it| {
            aadsts(it, "invalid_client", 7_000_218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.");
        }),
        case("the Google app is in Testing, and seven days are over", "token", "google-token-revoked", Credential, |it| {
            google_error(it, 400, "invalid_grant", "Token has been expired or revoked.");
        }),
        case("a service account without domain-wide delegation", "token", "google-delegation-missing", Config, |it| {
            google_error(it, 401, "unauthorized_client", "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes requested.");
        })
        .shown("service_account_without_delegation"),
        case("the Google client was deleted", "token", "google-deleted-client", Config, |it| {
            google_error(it, 401, "deleted_client", "The OAuth client was deleted.");
        }),
        case("a proxy answers with an HTML error page", "token", "local-web-page", Unavailable, |it| {
            it.token = Answer::page(502, "<html><head><title>502 Bad Gateway</title></head><body><h1>squid.corp.example</h1></body></html>");
        })
        .shown("html_error_page_of_a_proxy"),
        case("a captive portal answers yes with its own page", "token", "local-web-page", Unavailable, |it| {
            it.token = Answer::page(200, "<html><body>Please accept our terms</body></html>");
        }),
        case("the sign-in server cannot be reached", "token", "local-sign-in-unreached", Unavailable, |it| {
            let token_url = format!("{}token", it.sign_in_url());
            it.settings(&token_url, "http://127.0.0.1:1/token");
        }),
        case("the provider's token service is down", "token", "oauth-token-5xx", Unavailable, |it| {
            it.token = Answer::json(503, serde_json::json!({}));
        }),
        case("the permission to send was not granted", "scopes", "local-scope-narrower", Credential, |it| {
            it.grant.as_mut().unwrap().scopes = vec!["openid".into(), "offline_access".into()];
            it.authorize = std::sync::Arc::new(|_, _| Err(AuthRefusal::exchange()));
        }),
        case("the token is for Graph", "audience", "local-audience", Config, |it| {
            it.access = jwt(serde_json::json!({ "aud": "https://graph.microsoft.com", "scp": "SMTP.Send" }));
            it.authorize = std::sync::Arc::new(|_, _| Err(AuthRefusal::exchange()));
        }),
        case("SMTP AUTH is off for the tenant", "auth", "exo-smtp-auth-off-tenant", Credential, |it| {
            auth_reply(it, "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information. [FR2P281CA0080.DEUP281.PROD.OUTLOOK.COM]");
        })
        .shown("smtp_auth_off"),
        case("SMTP AUTH is off for the mailbox", "auth", "exo-smtp-auth-off-mailbox", Credential, |it| {
            auth_reply(it, "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit https://aka.ms/smtp_auth_disabled for more information.");
        }),
        case("security defaults lock the account out", "auth", "exo-security-defaults", Credential, |it| {
            auth_reply(it, "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy. Contact your administrator.");
        }),
        case("Exchange refuses the token without a reason", "auth", "exo-auth-unsuccessful", Credential, |it| {
            auth_reply(it, "535 5.7.3 Authentication unsuccessful [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]");
        }),
        case("not a member of the shared mailbox", "auth", "local-shared-mailbox", Credential, |it| {
            it.authorize = std::sync::Arc::new(|mailbox, _| match mailbox {
                ALICE => Ok(mailbox.to_owned()),
                _ => Err(AuthRefusal::exchange()),
            });
        })
        .shown("not_a_member_of_the_shared_mailbox"),
        case("the server offers no sign-in with a token", "auth", "local-mechanism-missing", Config, |it| {
            it.offers = Some("AUTH LOGIN PLAIN");
        }),
        case("Gmail does not take the token", "auth", "gmail-bad-credentials", Credential, |it| {
            it.google();
            it.authorize = std::sync::Arc::new(|_, _| Err(AuthRefusal { challenge: None, ..AuthRefusal::google() }));
        }),
        case("the server does not want this sender", "mail from", "smtp-bad-sender-domain", Config, |it| {
            it.fault(At::line("MAIL"), Act::Say("550 5.1.8 Sender domain does not exist".into()));
        }),
        case("the mailbox has no licence", "message", "local-no-licence", Credential, |it| {
            it.send_to = Some("me@contoso.example");
            it.may_send = std::sync::Arc::new(|_, _, _| Err("430 4.2.0 STOREDRV; mailbox logon failure; failed to process message: MapiExceptionLogonFailed: Unable to open message store.".to_owned()));
        })
        .shown("no_licence"),
        case("no right to send as the shared mailbox", "message", "exo-sendas-denied", Credential, |it| {
            it.send_to = Some("me@contoso.example");
            it.may_send = std::sync::Arc::new(|login, _, from| match from {
                INVOICES => Err(tidings::sandbox::smtp::send_as_denied(login, from)),
                _ => Ok(()),
            });
        }),
        case("the shared mailbox cannot be opened", "message", "exo-mailbox-logon-failure", Credential, |it| {
            it.send_to = Some("me@contoso.example");
            it.may_send = std::sync::Arc::new(|_, _, from| match from {
                INVOICES => Err("430 4.2.0 STOREDRV; mailbox logon failure: MapiExceptionLogonFailed".to_owned()),
                _ => Ok(()),
            });
        }),
        case("the server says what nobody knows", "message", "unknown", BadInput, |it| {
            it.send_to = Some("me@contoso.example");
            it.may_send = std::sync::Arc::new(|_, _, _| Err("571 9.9.9 the moon is not in the seventh house".to_owned()));
        })
        .shown("unknown_reply"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_cause_is_named_first_for_every_broken_account() {
    let mut wrong = String::new();
    let mut table = String::new();
    let all = cases();
    assert!(all.len() >= 40, "{}", all.len());
    for (number, case) in all.iter().enumerate() {
        let mut patient = Patient::new().await;
        (case.breaks)(&mut patient);
        let (exit, read) = patient.examined().await;
        let report = &read["accounts"][0];
        let (cause, advice) = (&report["cause"], &report["cause"]["reason"]["advice"]);
        let text = cause["text"].as_str().unwrap_or_default();
        let named = advice == case.cause
            || (case.cause == "unknown" && advice.is_null() && text.contains("do not know"))
            || (advice.is_null() && text.contains(case.cause));
        if cause["step"] != case.step || !named || exit != case.exit {
            let _ = writeln!(
                wrong,
                "{}: wanted {} {} {:?}, got {exit:?} {cause:#}",
                case.broken, case.step, case.cause, case.exit
            );
            continue;
        }
        let _ = writeln!(table, "{}", row(number + 1, case, text, advice));
        if let Some(name) = case.snapshot {
            let shown = patient.shown().await;
            insta::assert_snapshot!(name, shown);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    compare_with_the_docs(&table);
}

fn row(number: usize, case: &Case, text: &str, advice: &Value) -> String {
    let id = advice.as_str();
    let catalog = Catalog::shipped();
    let item = id.and_then(|id| catalog.items().iter().find(|item| item.id == id));
    let says = item.map_or_else(
        || text.replace(".example/", "/"),
        |item| item.advice(&Values::default()).meaning,
    );
    let says = match says.split_once("; nothing was changed") {
        Some(_) => "The key file does not open the grant.".to_owned(),
        None => says,
    };
    let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;");
    format!(
        "| {number} | {} | {} | {} | {} |",
        cell(case.broken),
        case.step,
        cell(&says),
        id.unwrap_or("")
    )
}

const START: &str = "<!-- made by tests/doctor.rs: TIDINGS_BLESS=1 cargo test --test doctor -->\n";
const END: &str = "<!-- to here -->\n";

fn compare_with_the_docs(rows: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/doctor.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(START).expect("the mark of the table");
    let (there, after) = rest.split_once(END).expect("the end of the table");
    let made =
        format!("\n| | broken | step named first | what it says | advice |\n|---|---|---|---|---|\n{rows}\n");
    if std::env::var_os("TIDINGS_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{START}{made}{END}{after}")).unwrap();
        return;
    }
    assert!(
        there == made,
        "docs/doctor.md is not what the test makes: TIDINGS_BLESS=1 cargo test --test doctor"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_account_is_well_in_every_step_and_nothing_is_sent_unasked() {
    let patient = Patient::new().await;
    let (exit, read) = patient.examined().await;
    assert_eq!(exit, Exit::Done, "{read:#}");
    let report = &read["accounts"][0];
    assert_eq!(report["cause"], Value::Null);
    let steps: Vec<&str> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["step"].as_str().unwrap())
        .collect();
    let wanted = [
        "settings",
        "dns",
        "route",
        "tcp",
        "greeting",
        "tls",
        "certificate",
        "ehlo",
        "clock",
        "grant",
        "person",
        "token",
        "scopes",
        "audience",
        "auth",
        "auth",
        "mail from",
        "mail from",
        "message",
    ];
    let mut seen: Vec<&str> = steps.clone();
    seen.sort_by_key(|step| wanted.iter().position(|wanted| wanted == step));
    assert_eq!(seen, wanted, "{read:#}");
    assert_eq!(seen, steps, "told in the order of the way");
    assert!(patient.mail().messages().is_empty());
    insta::assert_snapshot!("healthy", patient.shown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_of_its_own_right_needs_no_sign_in() {
    let mut patient = Patient::new().await;
    patient.grant = None;
    patient.settings("oauth2: {", "oauth2: { grant: client_credentials,");
    patient.settings(
        &format!("[offline_access, \"{SEND}\"]"),
        "[\"https://outlook.office365.com/.default\"]",
    );
    let (exit, read) = patient.examined().await;
    assert_eq!(exit, Exit::Done, "{read:#}");
    let findings = read["accounts"][0]["findings"].as_array().unwrap();
    let of = |step: &str| findings.iter().find(|finding| finding["step"] == step).unwrap();
    assert_eq!(of("grant")["text"], "the application's own: nobody signs in");
    assert_eq!(of("token")["standing"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_real_message_goes_from_each_sender_where_that_is_asked() {
    let mut patient = Patient::new().await;
    patient.send_to = Some("me@contoso.example");
    let (exit, read) = patient.examined().await;
    assert_eq!(exit, Exit::Done, "{read:#}");
    let mut from: Vec<String> = patient
        .mail()
        .messages()
        .into_iter()
        .map(|mail| mail.from)
        .collect();
    from.sort();
    assert_eq!(from, [ALICE, INVOICES]);
    assert!(
        patient
            .mail()
            .messages()
            .iter()
            .all(|mail| mail.to == ["me@contoso.example"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn this_machine_is_looked_at_too_and_what_others_may_read_is_told() {
    let mut patient = Patient::new().await;
    patient.account = None;
    patient.write("secret", "value");
    std::fs::set_permissions(
        patient.path("secret"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .unwrap();
    let (_, read) = patient.examined().await;
    let machine = read["machine"]["findings"].as_array().unwrap();
    let of = |step: &str| {
        machine
            .iter()
            .find(|finding| finding["step"] == step)
            .unwrap_or_else(|| panic!("{step}: {machine:?}"))
    };
    assert_eq!(of("rights")["standing"], "warning");
    assert!(
        of("rights")["reason"]["steps"][0]
            .as_str()
            .unwrap()
            .starts_with("chmod 600 ")
    );
    assert!(of("database")["text"].as_str().unwrap().starts_with("SQLite 3."));
    for step in ["store", "space", "watches"] {
        assert_ne!(of(step)["text"], "", "{step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_advice_of_the_setup_itself_is_what_a_person_reads() {
    let mut patient = Patient::new().await;
    patient.write(
        "advice.yaml",
        "
- id: ms-secret-expired
  provider: microsoft
  stage: token
  match: { aadsts: 7000222 }
  meaning: Ask the service desk.
  class: fix-config
  who: the service desk
  advice: ['Open a ticket for <client id> of <tenant>, asking for <scope>.']
",
    );
    aadsts(&mut patient, "invalid_client", 7_000_222, "expired.");
    let (_, read) = patient.examined_by_the_binary();
    let reason = &read["accounts"][0]["cause"]["reason"];
    assert_eq!(reason["who"], "the service desk", "{read:#}");
    assert_eq!(
        reason["steps"][0],
        format!(
            "Open a ticket for {} of contoso.example, asking for offline_access {SEND}.",
            world::CLIENT
        )
    );
}
