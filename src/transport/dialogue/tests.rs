use super::super::{RecipientVerdict, Verdict};
use super::*;
use crate::config::secret::Secret;
use proptest::prelude::*;

fn opening(login: Login) -> Opening {
    Opening {
        helo: "[192.0.2.1]".into(),
        host: "smtp.contoso.com".into(),
        port: 587,
        tls: Tls::None,
        loopback: false,
        login,
    }
}

fn bearer() -> Login {
    Login::Bearer {
        user: "alice@contoso.com".into(),
        token: Secret::new("a-token-that-is-long-enough"),
    }
}

fn password(secret: &str) -> Login {
    Login::Password {
        user: "alice".into(),
        secret: Secret::new(secret),
    }
}

fn envelope(recipients: usize) -> Envelope {
    let to = (0..recipients).map(|number| format!("r{number}@contoso.com").parse().unwrap());
    Envelope::new("alice@contoso.com".parse().unwrap(), to.collect()).unwrap()
}

const SMALL: &[u8] = b"Subject: a\r\n\r\nb\r\n";

fn survey() -> Survey {
    let mut survey = Survey::default();
    survey.push(SMALL);
    survey
}

/// Plays a dialogue against a server that is a function from a command line to its reply. `None`
/// means that the session is ready.
struct Play<'a> {
    dialogue: Dialogue,
    /// One reply, with its line end, to each line; `[body]` and `[gate]` stand for themselves.
    server: Box<dyn FnMut(&str) -> String + 'a>,
    written: Vec<String>,
    inbox: Vec<u8>,
}

impl<'a> Play<'a> {
    fn new(opening: Opening, server: impl FnMut(&str) -> String + 'a) -> Play<'a> {
        let inbox = b"220 ready\r\n".to_vec();
        Play {
            dialogue: Dialogue::new(opening),
            server: Box::new(server),
            written: Vec::new(),
            inbox,
        }
    }

    fn run(&mut self) -> Option<Report> {
        for _ in 0..10_000 {
            match self.dialogue.ask() {
                Ask::Ready => return None,
                Ask::Done(report) => return Some(report),
                Ask::Write(words) => {
                    for line in String::from_utf8(words.bytes).unwrap().split_terminator("\r\n") {
                        self.written.push(line.to_owned());
                        self.inbox.extend((self.server)(line).into_bytes());
                    }
                }
                Ask::Read(_) if self.inbox.is_empty() => {
                    self.dialogue.lost("closed".into(), Local::NoAnswer, true, true);
                }
                Ask::Read(_) => {
                    let bytes = std::mem::take(&mut self.inbox);
                    self.dialogue.receive(&bytes);
                }
                Ask::Secure => self.dialogue.secured(),
                Ask::Body => {
                    self.written.push("[body]".into());
                    let reply = (self.server)("[body]");
                    self.dialogue.receive(reply.as_bytes());
                    self.dialogue.streamed();
                }
                Ask::Gate => {
                    self.written.push("[gate]".into());
                    self.dialogue.passed();
                }
            }
        }
        panic!("it does not end: {:?}", self.written);
    }
}

fn fine(line: &str) -> String {
    match line {
        "DATA" => "354 go on\r\n".into(),
        "[body]" => String::new(),
        line if line.starts_with("EHLO") => "250-hi\r\n250 PIPELINING\r\n".into(),
        _ => "250 2.0.0 fine\r\n".into(),
    }
}

fn refusal(report: Option<Report>) -> Symptom {
    match report.map(|report| report.verdict) {
        Some(Verdict::Refused(symptom)) => symptom,
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_credential_leaves_in_clear_text_except_to_this_machine() {
    let server = |line: &str| match line.split(' ').next() {
        Some("EHLO") => "250-hi\r\n250 AUTH XOAUTH2 PLAIN\r\n".to_owned(),
        Some("AUTH") if line == "AUTH XOAUTH2" => "334 \r\n".to_owned(),
        _ => "235 welcome\r\n".to_owned(),
    };
    for login in [bearer(), password("secret")] {
        let mut play = Play::new(opening(login.clone()), server);
        assert_eq!(refusal(play.run()).local, Some(Local::CredentialInClear));
        assert_eq!(play.written, ["EHLO [192.0.2.1]"]);
        let mut play = Play::new(
            Opening {
                loopback: true,
                ..opening(login)
            },
            server,
        );
        assert!(play.run().is_none());
    }
}

#[test]
fn what_came_before_starttls_is_forgotten() {
    let mut encrypted = false;
    let server = move |line: &str| match line.split(' ').next() {
        Some("EHLO") if encrypted => "250-hi\r\n250 AUTH XOAUTH2\r\n".to_owned(),
        Some("EHLO") => "250-hi\r\n250-AUTH PLAIN OAUTHBEARER\r\n250 STARTTLS\r\n".to_owned(),
        Some("STARTTLS") => {
            encrypted = true;
            "220 go\r\n".to_owned()
        }
        Some("AUTH") => "334 \r\n".to_owned(),
        _ => "235 welcome\r\n".to_owned(),
    };
    let mut play = Play::new(
        Opening {
            tls: Tls::Starttls,
            ..opening(bearer())
        },
        server,
    );
    assert!(play.run().is_none());
    assert_eq!(
        play.written[..4],
        ["EHLO [192.0.2.1]", "STARTTLS", "EHLO [192.0.2.1]", "AUTH XOAUTH2"]
    );
}

#[test]
fn control_characters_in_a_credential_are_not_sent() {
    let server = |line: &str| match line.split(' ').next() {
        Some("EHLO") => "250-hi\r\n250 AUTH LOGIN\r\n".to_owned(),
        _ => "334 \r\n".to_owned(),
    };
    for secret in ["a\r\nMAIL FROM:<x>", "a\0b", "a\x01b"] {
        let mut play = Play::new(
            Opening {
                tls: Tls::Implicit,
                ..opening(password(secret))
            },
            server,
        );
        assert_eq!(refusal(play.run()).local, Some(Local::CredentialCharacters));
        assert_eq!(play.written.len(), 1);
    }
}

#[test]
fn a_refused_token_is_given_in_to_as_its_mechanism_wants_and_the_reason_kept() {
    let challenge = "334 eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=\r\n";
    for (mechanism, gives_in) in [("OAUTHBEARER", "AQ=="), ("XOAUTH2", "")] {
        for last in ["535 5.7.8 no\r\n", "235 strange\r\n", ""] {
            let server = move |line: &str| match line.split(' ').next() {
                Some("EHLO") => format!("250-hi\r\n250 AUTH {mechanism}\r\n"),
                Some("AUTH") => "334 \r\n".to_owned(),
                _ if line == gives_in => last.to_owned(),
                _ => challenge.to_owned(),
            };
            let mut play = Play::new(
                Opening {
                    tls: Tls::Implicit,
                    ..opening(bearer())
                },
                server,
            );
            let symptom = refusal(play.run());
            assert_eq!(symptom.stage, Some(Stage::SmtpAuth));
            assert_eq!(symptom.code, Some(if last.starts_with('5') { 535 } else { 334 }));
            assert!(
                symptom.text.contains(r#"{"status":"invalid_token"}"#),
                "{symptom:?}"
            );
            assert_eq!(play.written.last().map(String::as_str), Some(gives_in));
            assert!(play.dialogue.is_over());
        }
    }
}

#[test]
fn an_old_server_is_greeted_with_helo_only_if_nothing_needs_ehlo() {
    let server = |line: &str| match line.split(' ').next() {
        Some("EHLO") => "502 what?\r\n".to_owned(),
        _ => "250 hi\r\n".to_owned(),
    };
    let mut play = Play::new(opening(Login::Anonymous), server);
    assert!(play.run().is_none());
    assert_eq!(play.written, ["EHLO [192.0.2.1]", "HELO [192.0.2.1]"]);
    for opening in [
        Opening {
            tls: Tls::Starttls,
            ..opening(Login::Anonymous)
        },
        opening(password("secret")),
    ] {
        let mut play = Play::new(opening, server);
        assert_eq!(refusal(play.run()).code, Some(502));
    }
}

#[test]
fn envelope_goes_in_one_write_if_offered_and_the_dot_only_behind_the_gate() {
    let mut play = Play::new(opening(Login::Anonymous), fine);
    assert!(play.run().is_none());
    play.written.clear();
    play.dialogue.begin(&envelope(2), &survey(), false);
    let Ask::Write(words) = play.dialogue.ask() else {
        panic!()
    };
    let group = String::from_utf8(words.bytes).unwrap();
    assert_eq!(
        group,
        "MAIL FROM:<alice@contoso.com>\r\nRCPT TO:<r0@contoso.com>\r\nRCPT TO:<r1@contoso.com>\r\nDATA\r\n"
    );
    play.inbox = b"250 a\r\n250 b\r\n250 c\r\n354 d\r\n".to_vec();
    let report = play.run().unwrap();
    assert!(matches!(report.verdict, Verdict::Accepted { .. }));
    assert_eq!(play.written, ["[body]", "[gate]", "."]);
}

#[test]
fn a_refusal_in_the_middle_of_the_message_is_heard_and_the_gate_not_asked() {
    let server = |line: &str| match line {
        "[body]" => "552 5.3.4 too big\r\n".to_owned(),
        line => fine(line),
    };
    let mut play = Play::new(opening(Login::Anonymous), server);
    assert!(play.run().is_none());
    play.dialogue.begin(&envelope(1), &survey(), false);
    assert_eq!(refusal(play.run()).code, Some(552));
    assert!(play.dialogue.is_over() && play.dialogue.farewell().is_none());
    assert_eq!(play.written.last().unwrap(), "[body]");
}

#[test]
fn a_reply_nobody_asked_for_ends_the_session() {
    let mut play = Play::new(opening(Login::Anonymous), |line: &str| match line {
        "DATA" => "354 go\r\n250 already accepted\r\n".to_owned(),
        line => fine(line),
    });
    assert!(play.run().is_none());
    play.dialogue.begin(&envelope(1), &survey(), false);
    let report = play.run().unwrap();
    assert!(
        matches!(
            report.verdict,
            Verdict::Unreached {
                local: Local::Protocol,
                ..
            }
        ),
        "{report:?}"
    );
}

#[test]
fn nonsense_to_the_dot_is_unknown() {
    for nonsense in ["354 more\r\n", "hello\r\n", ""] {
        let mut play = Play::new(opening(Login::Anonymous), |line: &str| match line {
            "." => nonsense.to_owned(),
            line => fine(line),
        });
        assert!(play.run().is_none());
        play.dialogue.begin(&envelope(1), &survey(), false);
        assert!(
            matches!(play.run().unwrap().verdict, Verdict::Unknown { .. }),
            "{nonsense}"
        );
    }
}

#[test]
fn after_a_refusal_the_session_starts_over_with_rset() {
    let mut refusals = 1;
    let mut play = Play::new(opening(Login::Anonymous), move |line: &str| match line {
        "." if refusals > 0 => {
            refusals -= 1;
            "554 5.6.0 no\r\n".to_owned()
        }
        line => fine(line),
    });
    assert!(play.run().is_none());
    for (number, resets) in [0, 1, 1].into_iter().enumerate() {
        play.dialogue.begin(&envelope(1), &survey(), false);
        let report = play.run().unwrap();
        assert_eq!(matches!(report.verdict, Verdict::Accepted { .. }), number > 0);
        let said = play.written.iter().filter(|line| *line == "RSET").count();
        assert_eq!(said, resets, "mail {number}");
    }
}

const REPLIES: [&str; 7] = [
    "250 ok",
    "251 will forward",
    "450 busy",
    "452 too many",
    "550 5.1.1 unknown",
    "552 full",
    "503 what",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn whoever_was_accepted_gets_it_once_and_nobody_else_is_called_accepted(
        replies in proptest::collection::vec(0..REPLIES.len(), 1..12),
        mail in prop_oneof![9 => Just("250 ok"), 1 => Just("550 5.7.1 not you")],
        data in prop_oneof![9 => Just("354 go"), 1 => Just("451 later"), 1 => Just("554 none")],
        dot in prop_oneof![9 => Just("250 ok"), 1 => Just("451 later"), 1 => Just("554 no")],
        pipelining: bool,
    ) {
        let wanted = replies.clone();
        let mut play = Play::new(opening(Login::Anonymous), move |line: &str| {
            let reply = match line.split([' ', ':']).next().unwrap() {
                "EHLO" if pipelining => "250-hi\r\n250 PIPELINING",
                "MAIL" => mail,
                "RCPT" => {
                    let number: usize = line["RCPT TO:<r".len()..].split('@').next().unwrap().parse().unwrap();
                    REPLIES[wanted[number]]
                }
                "DATA" => data,
                "." => dot,
                "[body]" => return String::new(),
                _ => "250 fine",
            };
            format!("{reply}\r\n")
        });
        prop_assert!(play.run().is_none());
        play.dialogue.begin(&envelope(replies.len()), &survey(), false);
        let report = play.run().unwrap();

        let taken: Vec<usize> = (0..replies.len()).filter(|number| REPLIES[replies[*number]].starts_with('2')).collect();
        let whole = mail.starts_with('2') && !taken.is_empty() && data.starts_with('3');
        prop_assert_eq!(play.written.contains(&"[body]".to_owned()), whole);
        prop_assert_eq!(play.written.contains(&"[gate]".to_owned()), whole);
        let accepted: Vec<String> = report.recipients.iter()
            .filter(|(_, verdict)| matches!(verdict, RecipientVerdict::Accepted))
            .map(|(to, _)| to.local().to_owned())
            .collect();
        let went = whole && dot.starts_with('2');
        prop_assert_eq!(matches!(report.verdict, Verdict::Accepted { .. }), went);
        let want: Vec<String> = taken.iter().filter(|_| went).map(|number| format!("r{number}")).collect();
        prop_assert_eq!(accepted, want);
        // Nobody is spoken of twice, and the session can be used again.
        prop_assert!(report.recipients.len() <= replies.len());
        prop_assert!(!play.dialogue.is_over());
        play.dialogue.begin(&envelope(1), &survey(), false);
        prop_assert!(play.run().is_some());
    }
}

proptest! {
    #[test]
    fn any_server_leads_to_an_end(
        answers in proptest::collection::vec(
            prop_oneof!["[2-5][0-9]{2}[ -][a-zA-Z0-9=]{0,8}\r\n", "(250|334|354|220|421) x\r\n", "[ -~]{0,20}\r\n", Just(String::new())],
            0..40,
        ),
        tls in prop_oneof![Just(Tls::None), Just(Tls::Starttls), Just(Tls::Implicit)],
        kind in 0..3,
    ) {
        let login = match kind { 0 => Login::Anonymous, 1 => bearer(), _ => password("secret") };
        let mut answers = answers.into_iter();
        let mut play = Play::new(
            Opening { tls, loopback: true, ..opening(login) },
            move |_: &str| answers.next().unwrap_or_default(),
        );
        let mut report = play.run();
        if report.is_none() {
            play.dialogue.begin(&envelope(3), &survey(), true);
            report = play.run();
        }
        let gate = play.written.iter().any(|line| line == "[gate]");
        match report.unwrap().verdict {
            Verdict::Accepted { .. } | Verdict::Unknown { .. } => prop_assert!(gate),
            Verdict::Unreached { .. } => prop_assert!(!gate),
            Verdict::Refused(_) | Verdict::GateClosed(_) => {}
        }
    }

    #[test]
    fn many_recipients_go_in_groups(recipients in 95..320_usize) {
        let mut play = Play::new(opening(Login::Anonymous), fine);
        prop_assert!(play.run().is_none());
        play.dialogue.begin(&envelope(recipients), &survey(), false);
        let report = play.run().unwrap();
        prop_assert_eq!(report.recipients.len(), recipients);
    }
}
