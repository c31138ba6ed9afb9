//! Submission against a real server on a real socket: the sandbox, well-behaved and not.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // helpers of tests are tests, too

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidings::advice::{Class, Disposition, Local, Provider, Stage, Symptom, advise, disposition};
use tidings::clock::Clock;
use tidings::config::secret::Secret;
use tidings::config::settings::{LoginAs, SmtpSettings, Tls};
use tidings::mail::Envelope;
use tidings::sandbox::Authority;
use tidings::sandbox::smtp::{Act, At, AuthRefusal, Faults, Server, Settings, send_as_denied};
use tidings::transport::smtp::{IDLE, Smtp};
use tidings::transport::transcript::Transcript;
use tidings::transport::{
    Content, Gate, GateClosed, Limits, Login, Open, Parcel, RecipientVerdict, Report, Verdict,
};

const TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJub25jZSI6InRlc3QtdG9rZW4tMTIzNDU2Nzg5MCJ9";
const MESSAGE: &str = "From: Invoices <invoices@contoso.com>\r\nTo: ap@contoso.com\r\nSubject: hello\r\n\r\nOne\r\n.\r\nTwo\r\n";

fn parcel(from: &str, to: &[&str], content: &str) -> Parcel {
    let to = to.iter().map(|to| to.parse().unwrap()).collect();
    Parcel {
        envelope: Envelope::new(from.parse().unwrap(), to).unwrap(),
        content: Content::Bytes(content.as_bytes().into()),
        message_id: "<1@contoso.com>".into(),
    }
}

fn hello() -> Parcel {
    parcel("invoices@contoso.com", &["ap@contoso.com"], MESSAGE)
}

fn bearer(user: &str) -> Login {
    Login::Bearer {
        user: user.into(),
        token: Secret::new(TOKEN),
    }
}

fn settings(server: &Server, tls: Tls, ca_file: Option<&Path>) -> SmtpSettings {
    SmtpSettings {
        host: "localhost".into(),
        port: server.address().port(),
        tls,
        ca_file: ca_file.map(Path::to_owned),
        login_as: LoginAs::Sender,
    }
}

fn plain(server: &Server) -> Smtp {
    let settings = SmtpSettings {
        host: "127.0.0.1".into(),
        ..settings(server, Tls::None, None)
    };
    Smtp::new(&settings, Limits::default(), 1).unwrap()
}

async fn faulty(faults: Vec<Faults>) -> Server {
    Server::start(Settings {
        faults,
        record: true,
        ..Settings::open()
    })
    .await
    .unwrap()
}

async fn send(smtp: &Smtp, parcel: &Parcel) -> Report {
    smtp.submit(&Login::Anonymous, parcel, &Open, None).await
}

fn refused(report: &Report) -> &Symptom {
    match &report.verdict {
        Verdict::Refused(symptom) => symptom,
        other => panic!("not refused: {other:?}"),
    }
}

fn is_accepted(report: &Report) -> bool {
    matches!(report.verdict, Verdict::Accepted { .. })
}

/// A contoso with one member, alice, who may open the invoices mailbox and send as it.
struct Contoso {
    server: Server,
    _folder: tempfile::TempDir,
    ca_file: std::path::PathBuf,
}

impl Contoso {
    async fn start(change: impl FnOnce(&mut Settings, &Authority)) -> Contoso {
        let authority = Authority::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, authority.pem()).unwrap();
        let authorize = |mailbox: &str, secret: &str| match (mailbox, secret) {
            ("alice@contoso.com" | "invoices@contoso.com", TOKEN | "password") => {
                Ok("alice@contoso.com".into())
            }
            _ => Err(AuthRefusal::exchange()),
        };
        let may_send = |account: &str, mailbox: &str, from: &str| {
            if from == mailbox {
                Ok(())
            } else {
                Err(send_as_denied(account, from))
            }
        };
        let mut settings = Settings::exchange(
            authority.server().unwrap(),
            Arc::new(authorize),
            Arc::new(may_send),
        );
        settings.record = true;
        change(&mut settings, &authority);
        let server = Server::start(settings).await.unwrap();
        Contoso {
            server,
            _folder: folder,
            ca_file,
        }
    }

    fn smtp(&self, tls: Tls) -> Smtp {
        Smtp::new(
            &settings(&self.server, tls, Some(&self.ca_file)),
            Limits::default(),
            2,
        )
        .unwrap()
    }
}

// ---- signing in

#[tokio::test]
async fn shared_mailbox_is_opened_with_the_members_token_over_starttls() {
    let contoso = Contoso::start(|_, _| {}).await;
    let report = contoso
        .smtp(Tls::Starttls)
        .submit(&bearer("invoices@contoso.com"), &hello(), &Open, None)
        .await;
    assert!(is_accepted(&report), "{report:?}");
    assert!(matches!(report.recipients[..], [(_, RecipientVerdict::Accepted)]));
    let received = &contoso.server.received(1).await[0];
    assert_eq!(received.account.as_deref(), Some("alice@contoso.com"));
    assert_eq!(received.mailbox.as_deref(), Some("invoices@contoso.com"));
    assert_eq!(received.mechanism.as_deref(), Some("XOAUTH2"));
    assert_eq!(received.to, ["ap@contoso.com"]);
    assert!(received.encrypted);
    assert_eq!(String::from_utf8_lossy(&received.bytes), MESSAGE);
    // The token went in a line of its own, never with the command.
    assert!(
        contoso.server.heard()[0]
            .iter()
            .any(|line| line == "AUTH XOAUTH2")
    );
}

#[tokio::test]
async fn oauthbearer_is_preferred_and_tls_may_come_first() {
    let contoso = Contoso::start(|settings, _| {
        settings.tls = Tls::Implicit;
        settings.offers.push("AUTH PLAIN OAUTHBEARER XOAUTH2".into());
    })
    .await;
    let smtp = contoso.smtp(Tls::Implicit);
    let report = smtp
        .submit(&bearer("invoices@contoso.com"), &hello(), &Open, None)
        .await;
    assert!(is_accepted(&report), "{report:?}");
    assert_eq!(
        contoso.server.messages()[0].mechanism.as_deref(),
        Some("OAUTHBEARER")
    );
}

#[tokio::test]
async fn passwords_sign_in_with_plain_or_login() {
    for mechanism in ["PLAIN", "LOGIN"] {
        let contoso = Contoso::start(|settings, _| {
            settings.offers = vec![format!("AUTH XOAUTH2 {mechanism}")];
        })
        .await;
        let login = Login::Password {
            user: "invoices@contoso.com".into(),
            secret: Secret::new("password"),
        };
        let report = contoso
            .smtp(Tls::Starttls)
            .submit(&login, &hello(), &Open, None)
            .await;
        assert!(is_accepted(&report), "{report:?}");
        assert_eq!(contoso.server.messages()[0].mechanism.as_deref(), Some(mechanism));
    }
}

#[tokio::test]
async fn a_token_is_not_sent_to_a_server_that_only_takes_passwords() {
    let contoso = Contoso::start(|settings, _| settings.offers = vec!["AUTH PLAIN LOGIN".into()]).await;
    let report = contoso
        .smtp(Tls::Starttls)
        .submit(&bearer("invoices@contoso.com"), &hello(), &Open, None)
        .await;
    assert_eq!(refused(&report).local, Some(Local::MechanismMissing));
    assert!(
        contoso.server.heard()[0]
            .iter()
            .all(|line| !line.starts_with("AUTH"))
    );
}

#[tokio::test]
async fn the_reason_in_a_refusals_challenge_is_kept() {
    let contoso = Contoso::start(|settings, _| {
        settings.authorize = Arc::new(|_, _| Err(AuthRefusal::google()));
    })
    .await;
    let smtp = contoso.smtp(Tls::Starttls);
    let report = smtp
        .submit(&bearer("invoices@contoso.com"), &hello(), &Open, None)
        .await;
    let symptom = refused(&report);
    assert_eq!(
        (symptom.code, symptom.enhanced.as_deref()),
        (Some(535), Some("5.7.8"))
    );
    assert!(
        symptom.text.contains(r#"{"status":"401","schemes":"bearer""#),
        "{symptom:?}"
    );
    // The empty line that lets the server go on, then goodbye.
    let heard = &contoso.server.heard()[0];
    assert_eq!(heard[heard.len() - 2..], ["", "QUIT"]);
    let advice = advise(symptom, Provider::Google);
    assert_eq!(advice.id, "gmail-bad-credentials");
    assert_eq!(disposition(symptom, &advice, false), Disposition::RenewToken);
    assert_eq!(disposition(symptom, &advice, true), Disposition::Hold);
}

#[tokio::test]
async fn who_may_not_send_as_another_learns_it_after_the_message() {
    let contoso = Contoso::start(|_, _| {}).await;
    let smtp = contoso.smtp(Tls::Starttls);
    let report = smtp
        .submit(&bearer("alice@contoso.com"), &hello(), &Open, None)
        .await;
    let symptom = refused(&report);
    assert_eq!(symptom.stage, Some(Stage::SmtpData));
    let advice = advise(symptom, Provider::Microsoft);
    assert_eq!(
        (advice.id.as_str(), advice.class),
        ("exo-sendas-denied", Class::FixPermission)
    );
    assert_eq!(disposition(symptom, &advice, false), Disposition::Hold);
    assert!(contoso.server.messages().is_empty());
    // The session is still good for a mail that may be sent.
    let own = parcel(
        "alice@contoso.com",
        &["x@contoso.com"],
        "From: alice@contoso.com\r\n\r\nhello\r\n",
    );
    assert!(is_accepted(
        &smtp.submit(&bearer("alice@contoso.com"), &own, &Open, None).await
    ));
    assert_eq!(contoso.server.connections(), 1);
}

#[tokio::test]
async fn too_many_connections_of_a_mailbox_are_a_throttle() {
    let contoso = Contoso::start(|settings, _| settings.connections = Some(0)).await;
    let smtp = contoso.smtp(Tls::Starttls);
    let report = smtp
        .submit(&bearer("invoices@contoso.com"), &hello(), &Open, None)
        .await;
    let symptom = refused(&report);
    let advice = advise(symptom, Provider::Microsoft);
    assert_eq!(disposition(symptom, &advice, true), Disposition::Throttle);
}

// ---- encryption

#[tokio::test]
async fn without_starttls_nothing_is_said() {
    let server = faulty(Vec::new()).await;
    let report = Smtp::new(&settings(&server, Tls::Starttls, None), Limits::default(), 1)
        .unwrap()
        .submit(&bearer("a@x"), &hello(), &Open, None)
        .await;
    assert_eq!(refused(&report).local, Some(Local::StarttlsMissing));
    let heard = &server.heard()[0];
    assert!(
        heard
            .iter()
            .all(|line| line.starts_with("EHLO") || line == "QUIT"),
        "{heard:?}"
    );
}

#[tokio::test]
async fn plain_text_behind_the_starttls_reply_ends_the_session() {
    let contoso = Contoso::start(|settings, _| {
        let injected = "250-hello\r\n250 AUTH PLAIN\r\n".into();
        settings.faults = vec![Faults::one(At::line("STARTTLS"), Act::Append(injected))];
    })
    .await;
    let smtp = contoso.smtp(Tls::Starttls);
    let report = smtp
        .submit(&bearer("invoices@contoso.com"), &hello(), &Open, None)
        .await;
    assert_eq!(refused(&report).local, Some(Local::StarttlsInjected));
}

#[tokio::test]
async fn certificates_that_cannot_be_trusted_are_explained() {
    type Make = fn(&Authority) -> Arc<rustls::ServerConfig>;
    let cases: [(Make, &str); 4] = [
        (
            |a| a.server_for(&["mail.other.example"], 2000..=2100).unwrap(),
            "is for mail.other.example, not for localhost",
        ),
        (
            |a| a.server_for(&["localhost"], 2000..=2001).unwrap(),
            "ran out on 2001-12-31",
        ),
        (
            |a| a.server_for(&["localhost"], 2090..=2100).unwrap(),
            "valid from 2090-01-01 only",
        ),
        (
            |_| Authority::new().unwrap().server().unwrap(),
            "put its certificate into `ca_file`",
        ),
    ];
    for (make, words) in cases {
        for tls in [Tls::Starttls, Tls::Implicit] {
            let contoso = Contoso::start(|settings, authority| {
                settings.tls = tls;
                settings.certificate = Some(make(authority));
            })
            .await;
            let report = contoso
                .smtp(tls)
                .submit(&bearer("invoices@contoso.com"), &hello(), &Open, None)
                .await;
            match &report.verdict {
                Verdict::Unreached {
                    text,
                    transient: false,
                    local: Local::TlsCertificate,
                } => {
                    assert!(text.contains(words), "{text}");
                }
                other => panic!("{words}: {other:?}"),
            }
            assert!(contoso.server.messages().is_empty());
        }
    }
}

#[tokio::test]
async fn a_ca_file_without_certificates_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, "nothing").unwrap();
    let server = faulty(Vec::new()).await;
    let error = Smtp::new(
        &settings(&server, Tls::Implicit, Some(&path)),
        Limits::default(),
        1,
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("ca.pem: there is none in it"),
        "{error}"
    );
}

// ---- recipients, content

#[tokio::test]
async fn accepted_recipients_get_the_mail_and_refused_ones_are_named() {
    for pipelining in [true, false] {
        let mut settings = Settings {
            record: true,
            ..Settings::open()
        };
        if !pipelining {
            settings.offers.retain(|offer| offer != "PIPELINING");
        }
        settings.faults = vec![Faults {
            at: vec![
                (At::line("RCPT TO:<b@"), Act::Say("550 5.1.1 no such user".into())),
                (At::line("RCPT TO:<c@"), Act::Say("450 4.2.1 later".into())),
            ],
            ..Faults::default()
        }];
        let server = Server::start(settings).await.unwrap();
        let to = ["a@contoso.com", "b@contoso.com", "c@contoso.com", "d@contoso.com"];
        let report = send(&plain(&server), &parcel("x@contoso.com", &to, MESSAGE)).await;
        assert!(is_accepted(&report), "{report:?}");
        let codes: Vec<_> = report
            .recipients
            .iter()
            .map(|(to, verdict)| match verdict {
                RecipientVerdict::Accepted => (to.local(), None),
                RecipientVerdict::Refused(symptom) => (to.local(), symptom.code),
            })
            .collect();
        assert_eq!(
            codes,
            [("a", None), ("b", Some(550)), ("c", Some(450)), ("d", None)]
        );
        assert_eq!(server.messages()[0].to, ["a@contoso.com", "d@contoso.com"]);
    }
}

#[tokio::test]
async fn with_every_recipient_refused_nothing_is_sent_even_if_the_server_asks_for_it() {
    for data in ["554 no valid recipients", "354 go on"] {
        let server = faulty(vec![Faults {
            at: vec![
                (At::line("RCPT"), Act::Say("550 5.1.1 no such user".into())),
                (At::line("DATA"), Act::Say(data.into())),
            ],
            ..Faults::default()
        }])
        .await;
        let smtp = plain(&server);
        let report = send(&smtp, &hello()).await;
        assert_eq!(refused(&report).code, Some(550));
        assert_eq!(report.recipients.len(), 1);
        assert!(server.messages().is_empty());
        // And the session is in step: it goes on with RSET.
        assert_eq!(refused(&send(&smtp, &hello()).await).code, Some(550));
        assert_eq!(server.connections(), 1);
        assert!(server.heard()[0].contains(&"RSET".to_owned()));
    }
}

#[tokio::test]
async fn a_message_above_the_servers_size_is_not_uploaded() {
    let server = Server::start(Settings {
        offers: vec!["SIZE 50".into()],
        record: true,
        ..Settings::open()
    })
    .await
    .unwrap();
    let smtp = plain(&server);
    let report = send(&smtp, &hello()).await;
    assert_eq!(refused(&report).local, Some(Local::MessageTooBig));
    let small = parcel("a@contoso.com", &["b@contoso.com"], "Subject: x\r\n\r\ny\r\n");
    assert!(is_accepted(&send(&smtp, &small).await));
    assert!(
        server.heard()[0].contains(&"MAIL FROM:<a@contoso.com> SIZE=17".to_owned()),
        "{:?}",
        server.heard()
    );
}

#[tokio::test]
async fn what_a_message_needs_is_announced_or_refused_here() {
    let server = faulty(Vec::new()).await;
    let bare = Server::start(Settings {
        offers: Vec::new(),
        ..Settings::open()
    })
    .await
    .unwrap();
    let cases = [
        (
            parcel("a@x.de", &["b@x.de"], "A: b\r\n\r\n\u{e9}\r\n"),
            " BODY=8BITMIME",
            Local::EightBitUnsupported,
        ),
        (
            parcel("a@x.de", &["j\u{f6}rg@x.de"], "A: b\r\n\r\nc\r\n"),
            " SMTPUTF8",
            Local::Smtputf8Unsupported,
        ),
        (
            parcel("a@x.de", &["b@x.de"], "A: \u{e9}\r\n\r\nc\r\n"),
            " BODY=8BITMIME SMTPUTF8",
            Local::Smtputf8Unsupported,
        ),
    ];
    for (parcel, announced, local) in cases {
        assert!(is_accepted(&send(&plain(&server), &parcel).await));
        let heard = server.heard();
        let mail = heard
            .last()
            .unwrap()
            .iter()
            .find(|line| line.starts_with("MAIL"))
            .unwrap();
        assert!(mail.ends_with(announced), "{mail}");
        assert_eq!(refused(&send(&plain(&bare), &parcel).await).local, Some(local));
    }
    assert!(bare.messages().is_empty());
}

#[tokio::test]
async fn line_ends_are_made_whole_and_dots_survive() {
    let server = faulty(Vec::new()).await;
    let text = "A: b\n\n.\n..\r.hidden\r\nlast";
    assert!(is_accepted(
        &send(&plain(&server), &parcel("a@x.de", &["b@x.de"], text)).await
    ));
    let got = String::from_utf8(server.messages()[0].bytes.clone()).unwrap();
    assert_eq!(got, "A: b\r\n\r\n.\r\n..\r\n.hidden\r\nlast\r\n");
}

#[tokio::test]
async fn a_spooled_message_is_streamed_and_a_changed_one_is_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("message");
    let line = format!("{}\r\n", ".x".repeat(35));
    let text = format!("Subject: big\r\n\r\n{}", line.repeat(40_000));
    std::fs::write(&path, &text).unwrap();
    let server = faulty(Vec::new()).await;
    let smtp = plain(&server);
    let mut parcel = hello();
    parcel.content = Content::File {
        path: path.clone(),
        len: text.len() as u64,
    };
    assert!(is_accepted(&send(&smtp, &parcel).await));
    assert!(server.messages()[0].bytes == text.as_bytes());
    std::fs::write(&path, &text[..1000]).unwrap();
    let report = send(&smtp, &parcel).await;
    assert!(
        matches!(
            report.verdict,
            Verdict::Unreached {
                local: Local::MessageUnreadable,
                ..
            }
        ),
        "{report:?}"
    );
    assert_eq!(server.messages().len(), 1);
}

// ---- the gate and what lies around it

struct Watching<'a> {
    server: &'a Server,
    asked: AtomicUsize,
    answer: Result<(), GateClosed>,
}

impl Gate for Watching<'_> {
    fn pass(&self) -> Pin<Box<dyn Future<Output = Result<(), GateClosed>> + Send + '_>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        assert!(self.server.messages().is_empty());
        Box::pin(std::future::ready(self.answer.clone()))
    }
}

#[tokio::test]
async fn the_gate_is_asked_once_and_a_shut_one_sends_nothing() {
    let server = faulty(Vec::new()).await;
    let smtp = plain(&server);
    let shut = Watching {
        server: &server,
        asked: AtomicUsize::new(0),
        answer: Err(GateClosed("lease lost".into())),
    };
    let report = smtp.submit(&Login::Anonymous, &hello(), &shut, None).await;
    assert!(matches!(report.verdict, Verdict::GateClosed(_)), "{report:?}");
    assert!(server.messages().is_empty());
    let open = Watching {
        server: &server,
        asked: AtomicUsize::new(0),
        answer: Ok(()),
    };
    assert!(is_accepted(
        &smtp.submit(&Login::Anonymous, &hello(), &open, None).await
    ));
    assert_eq!(shut.asked.into_inner() + open.asked.into_inner(), 2);
    assert_eq!(
        server.connections(),
        2,
        "the connection inside DATA was not used again"
    );
}

#[tokio::test]
async fn cut_behind_the_dot_is_unknown_whether_it_was_stored_or_not() {
    for (at, stored) in [(At::Dot, 0), (At::Stored, 1)] {
        let server = faulty(vec![Faults::one(at, Act::Cut)]).await;
        let report = send(&plain(&server), &hello()).await;
        assert!(matches!(report.verdict, Verdict::Unknown { .. }), "{report:?}");
        assert_eq!(server.messages().len(), stored);
        let symptom = report.verdict.symptom().unwrap();
        assert_eq!(advise(&symptom, Provider::Generic).id, "local-data-timeout");
    }
}

#[tokio::test]
async fn cut_at_any_byte_loses_nothing_and_doubles_only_what_was_called_unknown() {
    let mut cuts = Vec::new();
    for offset in 0..420 {
        cuts.push(Faults {
            cut_after_read: Some(offset),
            ..Faults::default()
        });
        cuts.push(Faults {
            cut_after_written: Some(offset),
            ..Faults::default()
        });
    }
    let (mut unknown, mut unreached, mut clean) = (0, 0, 0);
    for cut in cuts {
        let server = faulty(vec![cut.clone(), Faults::default()]).await;
        let smtp = plain(&server);
        let report = send(&smtp, &hello()).await;
        let taken = server.messages().len();
        match &report.verdict {
            Verdict::Accepted { .. } => {
                assert_eq!(taken, 1, "{cut:?}");
                clean += 1;
                continue;
            }
            Verdict::Unknown { .. } => unknown += 1,
            Verdict::Unreached { transient: true, .. } => {
                assert_eq!(taken, 0, "{cut:?}: said to be unsent, but it was taken");
                unreached += 1;
            }
            other => panic!("{cut:?}: {other:?}"),
        }
        assert!(is_accepted(&send(&smtp, &hello()).await), "{cut:?}");
        assert_eq!(server.messages().len(), taken + 1, "{cut:?}");
    }
    assert!(
        unknown > 20 && unreached > 250 && clean > 100,
        "{unknown} {unreached} {clean}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_the_dot_may_take_nine_minutes() {
    let server = faulty(vec![Faults::one(At::Dot, Act::Wait(Duration::from_secs(9 * 60)))]).await;
    let report = send(&plain(&server), &hello()).await;
    assert!(is_accepted(&report), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn after_ten_minutes_without_an_answer_to_the_dot_it_is_unknown() {
    let server = faulty(vec![Faults::one(
        At::Dot,
        Act::Wait(Duration::from_secs(11 * 60)),
    )])
    .await;
    let report = send(&plain(&server), &hello()).await;
    assert!(matches!(report.verdict, Verdict::Unknown { .. }), "{report:?}");
}

#[tokio::test]
async fn going_away_is_told_with_the_servers_words() {
    let words = "421 4.3.2 System not accepting network messages";
    for at in [
        At::Greeting,
        At::line("EHLO"),
        At::line("MAIL"),
        At::line("RCPT"),
        At::line("DATA"),
    ] {
        let server = faulty(vec![Faults::one(at.clone(), Act::Say(words.into()))]).await;
        let report = send(&plain(&server), &hello()).await;
        assert_eq!(refused(&report).text, words, "{at:?}");
        assert!(advise(refused(&report), Provider::Generic).class.is_transient());
    }
}

#[tokio::test]
async fn nobody_there_is_unreached() {
    let server = faulty(Vec::new()).await;
    let mut settings = settings(&server, Tls::None, None);
    drop(server);
    let smtp = Smtp::new(&settings, Limits::default(), 1).unwrap();
    let report = send(&smtp, &hello()).await;
    assert!(
        matches!(
            report.verdict,
            Verdict::Unreached {
                transient: true,
                local: Local::ConnectFailed,
                ..
            }
        ),
        "{report:?}"
    );
    settings.host = "no-such-host.invalid".into();
    let report = send(&Smtp::new(&settings, Limits::default(), 1).unwrap(), &hello()).await;
    assert!(
        matches!(
            report.verdict,
            Verdict::Unreached {
                transient: true,
                local: Local::DnsFailure,
                ..
            }
        ),
        "{report:?}"
    );
}

// ---- connections

#[tokio::test]
async fn one_connection_carries_many_mails_up_to_a_limit() {
    let server = faulty(Vec::new()).await;
    let smtp = plain(&server);
    for _ in 0..150 {
        assert!(is_accepted(&send(&smtp, &hello()).await));
    }
    assert_eq!((server.messages().len(), server.connections()), (150, 2));
    smtp.close().await;
    let report = send(&smtp, &hello()).await;
    assert!(matches!(report.verdict, Verdict::Unreached { .. }), "{report:?}");
}

#[tokio::test]
async fn a_connection_that_died_while_idle_costs_no_attempt() {
    let second = || At::line("MAIL FROM:<second@");
    let died = [
        (second(), Act::Cut),
        (second(), Act::Say("421 4.4.2 idle for too long".into())),
        (
            At::Stored,
            Act::Append("421 4.7.0 enough for this connection\r\n".into()),
        ),
    ];
    for (at, act) in died {
        let server = faulty(vec![Faults::one(at, act), Faults::default()]).await;
        let smtp = plain(&server);
        assert!(is_accepted(&send(&smtp, &hello()).await));
        let second = parcel("second@contoso.com", &["b@contoso.com"], MESSAGE);
        assert!(is_accepted(&send(&smtp, &second).await));
        assert_eq!((server.messages().len(), server.connections()), (2, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn rested_connections_are_probed_and_old_ones_closed() {
    let server = faulty(Vec::new()).await;
    let smtp = plain(&server);
    assert!(is_accepted(&send(&smtp, &hello()).await));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(is_accepted(&send(&smtp, &hello()).await));
    assert_eq!(server.connections(), 1);
    assert!(server.heard()[0].contains(&"RSET".to_owned()));
    tokio::time::sleep(IDLE * 2).await;
    assert_eq!(
        server.heard()[0].last().unwrap(),
        "QUIT",
        "nobody asked for it, it was closed all the same"
    );
    assert!(is_accepted(&send(&smtp, &hello()).await));
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn there_are_never_more_connections_than_allowed_and_users_do_not_share_one() {
    let contoso = Contoso::start(|_, _| {}).await;
    let smtp = Arc::new(contoso.smtp(Tls::Starttls));
    let tasks: Vec<_> = (0..12)
        .map(|number| {
            let smtp = Arc::clone(&smtp);
            tokio::spawn(async move {
                let user = if number % 2 == 0 {
                    "alice@contoso.com"
                } else {
                    "invoices@contoso.com"
                };
                let text = format!("From: {user}\r\n\r\nhello\r\n");
                let parcel = parcel(user, &["b@contoso.com"], &text);
                smtp.submit(&bearer(user), &parcel, &Open, None).await
            })
        })
        .collect();
    for task in tasks {
        let report = task.await.unwrap();
        assert!(is_accepted(&report), "{report:?}");
    }
    assert_eq!(contoso.server.most_connections(), 2);
    for received in contoso.server.messages() {
        assert_eq!(received.mailbox.as_ref(), Some(&received.from));
    }
}

#[tokio::test]
async fn the_idle_connection_of_one_user_makes_room_for_another() {
    let contoso = Contoso::start(|_, _| {}).await;
    let settings = settings(&contoso.server, Tls::Starttls, Some(&contoso.ca_file));
    let smtp = Smtp::new(&settings, Limits::default(), 1).unwrap();
    for user in ["alice@contoso.com", "invoices@contoso.com", "alice@contoso.com"] {
        let parcel = parcel(
            user,
            &["b@contoso.com"],
            &format!("From: {user}\r\n\r\nhello\r\n"),
        );
        assert!(is_accepted(
            &smtp.submit(&bearer(user), &parcel, &Open, None).await
        ));
    }
    assert_eq!(
        (contoso.server.connections(), contoso.server.most_connections()),
        (3, 1)
    );
}

// ---- transcripts

#[tokio::test]
async fn a_transcript_shows_all_but_secrets_and_the_message() {
    use base64::Engine as _;
    use std::os::unix::fs::PermissionsExt as _;
    let echo = AuthRefusal {
        challenge: Some(format!(r#"{{"status":"400","got":"{TOKEN}"}}"#)),
        reply: format!("535 5.7.3 bad token {}", &TOKEN[..30]),
    };
    let refusals = Arc::new(Mutex::new(vec![echo]));
    let contoso = Contoso::start(|settings, _| {
        settings.authorize = Arc::new(move |_, _| match refusals.lock().unwrap().pop() {
            Some(refusal) => Err(refusal),
            None => Ok("alice@contoso.com".into()),
        });
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("transcript");
    let transcript = Transcript::open(&path, Clock::system()).unwrap();
    let smtp = contoso.smtp(Tls::Starttls);
    let login = bearer("invoices@contoso.com");
    let report = smtp.submit(&login, &hello(), &Open, Some(&transcript)).await;
    assert!(!format!("{report:?}").contains(&TOKEN[..12]), "{report:?}");
    assert!(is_accepted(
        &smtp.submit(&login, &hello(), &Open, Some(&transcript)).await
    ));

    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let payload = format!("user=invoices@contoso.com\x01auth=Bearer {TOKEN}\x01\x01");
    let payload = base64::engine::general_purpose::STANDARD.encode(payload);
    for secret in [&TOKEN[..12], &payload[60..]] {
        assert!(!text.contains(secret), "{text}");
    }
    for shown in [
        "encrypted with TLS 1.3",
        "C: AUTH XOAUTH2",
        "\"status\":\"400\"",
        &format!("[{} bytes]", MESSAGE.len()),
        "S: 250 2.0.0",
    ] {
        assert!(text.contains(shown), "{shown} in\n{text}");
    }
    assert!(!text.contains("Subject: hello"));
}

#[tokio::test]
#[ignore = "a measurement, not a test: run it by name with --nocapture"]
async fn rate_of_small_mails_over_one_connection() {
    let server = Server::start(Settings::open()).await.unwrap();
    let smtp = plain(&server);
    let parcel = hello();
    let start = std::time::Instant::now();
    for _ in 0..5_000 {
        assert!(is_accepted(&send(&smtp, &parcel).await));
    }
    println!("{:.0} mails a second", 5_000.0 / start.elapsed().as_secs_f64());
}
