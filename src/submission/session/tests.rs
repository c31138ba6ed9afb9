use super::*;

fn terms() -> Terms {
    Terms {
        host: "here.example".to_owned(),
        tls: false,
        sign_in: false,
        here: true,
        max_size: 1_000,
    }
}

/// Says the lines one after the other, answers what is asked, and notes everything.
struct Driver {
    session: Session,
    said: String,
    mails: Vec<Mail>,
    over: bool,
}

impl Driver {
    fn new(terms: Terms) -> Driver {
        let (session, greeting) = Session::new(terms);
        let mut driver = Driver {
            session,
            said: String::new(),
            mails: Vec::new(),
            over: false,
        };
        driver.work(vec![greeting]);
        driver
    }

    fn work(&mut self, todo: Vec<Do>) {
        for step in todo {
            match step {
                Do::Say(text) => {
                    assert!(text.ends_with("\r\n") && text.is_ascii(), "{text:?}");
                    self.said.push_str(&text);
                }
                Do::Secure => {
                    let more = self.session.secured();
                    self.work(more);
                }
                Do::SignIn { user, password } => {
                    let right = user == "scanner" && password.expose() == "pass";
                    let more = self.session.signed_in(user, Some(right));
                    self.work(more);
                }
                Do::Recipient(text) => {
                    let verdict = match text.starts_with("no") {
                        true => Err(Refusal::new(
                            What::Unknown,
                            "nobody is known here by the n\u{e4}me",
                            "",
                        )),
                        false => Ok(()),
                    };
                    let more = self.session.recipient(text, verdict);
                    self.work(more);
                }
                Do::Read => {
                    let more = self.session.message(Ended::Whole(b"x\r\n".to_vec()));
                    self.work(more);
                }
                Do::Take(mail) => {
                    self.mails.push(mail);
                    let more = self.session.taken(Taken::Kept(7));
                    self.work(more);
                }
                Do::HangUp => self.over = true,
            }
        }
    }

    fn say(&mut self, lines: &[&str]) -> String {
        self.said.clear();
        for line in lines {
            let todo = self.session.line(line.as_bytes());
            self.work(todo);
        }
        self.said.clone()
    }

    /// The codes of the replies.
    fn codes(&mut self, lines: &[&str]) -> Vec<String> {
        let said = self.say(lines);
        let last = said.lines().filter(|line| line.as_bytes().get(3) == Some(&b' '));
        last.map(|line| line[..3].to_owned()).collect()
    }
}

#[test]
fn a_weak_client_hands_a_mail_in() {
    let mut driver = Driver::new(terms());
    assert_eq!(driver.said, "220 here.example ESMTP tidings\r\n");
    let said = driver.say(&[
        "helo scanner",
        "mail from: scan@old.local",
        "RCPT TO: <a@x.example>",
        "data",
    ]);
    assert_eq!(
        said,
        "250 here.example\r\n250 2.1.0 sender fine\r\n250 2.1.5 recipient fine\r\n\
         354 end with a line that is only a dot\r\n250 2.0.0 kept as entry 7\r\n"
    );
    let mail = &driver.mails[0];
    assert_eq!(
        (mail.from.as_str(), mail.to.as_slice()),
        ("scan@old.local", &["a@x.example".to_owned()][..])
    );
    assert_eq!(driver.codes(&["QUIT"]), ["221"]);
    assert!(driver.over);
}

#[test]
fn what_is_out_of_turn_is_said_and_changes_nothing() {
    let mut driver = Driver::new(terms());
    assert_eq!(
        driver.codes(&[
            "MAIL FROM:<a@x>",
            "EHLO x",
            "RCPT TO:<a@x>",
            "DATA",
            "MAIL FROM:<a@x>",
            "MAIL FROM:<b@x>",
            "DATA",
            "RCPT TO:<nobody>",
            "RCPT TO:<>",
            "RCPT TO:a@x b@x",
            "DATA",
            "RSET",
            "RCPT TO:<a@x>",
            "STARTTLS",
            "AUTH PLAIN",
        ]),
        [
            "503", "250", "503", "503", "250", "503", "554", "550", "501", "555", "554", "250", "503", "502",
            "503"
        ]
    );
    assert!(driver.mails.is_empty() && !driver.over);
}

#[test]
fn parameters_are_those_that_were_offered() {
    let mut driver = Driver::new(terms());
    driver.say(&["EHLO x"]);
    for (line, code) in [
        (
            "MAIL FROM:<a@x.example> SIZE=999 BODY=8BITMIME SMTPUTF8 AUTH=<>",
            "250",
        ),
        ("MAIL FROM:<a@x.example> SIZE=1001", "552"),
        ("MAIL FROM:<a@x.example> SIZE=many", "501"),
        ("MAIL FROM:<a@x.example> RET=HDRS", "555"),
        ("MAIL FROM:<>", "250"),
        ("MAIL FROM:<@relay,@other:a@x.example>", "250"),
        ("MAIL FROM:<\"a>b\"@x.example>", "250"),
        ("MAIL FROM:<a@x.example>RCPT", "501"),
        ("MAIL FROM:<a@x.example", "501"),
        ("MAIL FROM: <a@b@c>", "553"),
        ("MAIL TO:<a@x.example>", "501"),
    ] {
        assert_eq!(driver.codes(&[line, "RSET"])[0], code, "{line}");
    }
}

#[test]
fn with_passwords_nobody_hands_in_without_one_and_none_is_taken_where_others_read() {
    let with = Terms {
        tls: true,
        sign_in: true,
        here: false,
        ..terms()
    };
    let mut driver = Driver::new(with);
    let offers = driver.say(&["EHLO x"]);
    assert!(
        offers.contains("STARTTLS") && !offers.contains("AUTH"),
        "{offers}"
    );
    // \0scanner\0pass
    let plain = "AUTH PLAIN AHNjYW5uZXIAcGFzcw==";
    assert_eq!(driver.codes(&["MAIL FROM:<a@x>", plain]), ["530", "538"]);
    driver.say(&["STARTTLS"]);
    assert_eq!(
        driver.codes(&["MAIL FROM:<a@x>"]),
        ["503"],
        "what was said before TLS is forgotten"
    );
    let offers = driver.say(&["EHLO x"]);
    assert!(
        !offers.contains("STARTTLS") && offers.contains("AUTH PLAIN LOGIN"),
        "{offers}"
    );
    assert_eq!(
        driver.codes(&["MAIL FROM:<a@x>", plain, "MAIL FROM:<a@x>"]),
        ["530", "235", "250"]
    );
    assert_eq!(driver.session.user(), Some("scanner"));
}

#[test]
fn the_ways_to_sign_in() {
    let with = || Terms {
        sign_in: true,
        ..terms()
    };
    for lines in [
        &["AUTH PLAIN", "AHNjYW5uZXIAcGFzcw=="][..],
        &["auth plain c2Nhbm5lcgBzY2FubmVyAHBhc3M="],
        &["AUTH LOGIN", "c2Nhbm5lcg==", "cGFzcw=="],
        &["AUTH LOGIN c2Nhbm5lcg==", "cGFzcw=="],
    ] {
        let mut driver = Driver::new(with());
        driver.say(&["EHLO x"]);
        assert_eq!(driver.codes(lines).last().unwrap(), "235", "{lines:?}");
    }
    for (lines, code) in [
        (&["AUTH PLAIN", "*"][..], "501"),
        (&["AUTH PLAIN", "????"], "501"),
        (&["AUTH PLAIN YQ=="], "501"),
        (&["AUTH PLAIN Ym9zcwBzY2FubmVyAHBhc3M="], "535"),
        (&["AUTH CRAM-MD5"], "504"),
        (&["AUTH LOGIN", "c2Nhbm5lcg==", "*"], "501"),
    ] {
        let mut driver = Driver::new(with());
        driver.say(&["EHLO x"]);
        assert_eq!(driver.codes(lines).last().unwrap(), code, "{lines:?}");
    }
    let mut driver = Driver::new(with());
    driver.say(&["EHLO x"]);
    let wrong = ["AUTH PLAIN AHNjYW5uZXIAd3Jvbmc="; 3];
    assert_eq!(driver.codes(&wrong), ["535"; 3]);
    assert!(driver.over, "who guesses is sent away");
    assert!(!format!("{:?}", driver.session).contains("wrong"));
}

#[test]
fn a_browser_that_was_led_here_and_who_only_errs_are_sent_away() {
    for line in ["GET / HTTP/1.1", "POST /mail HTTP/1.1", "Host: localhost:2525"] {
        let mut driver = Driver::new(terms());
        assert_eq!(driver.codes(&[line]), ["554"]);
        assert!(driver.over, "{line}");
    }
    let mut driver = Driver::new(terms());
    for _ in 0..MISTAKES {
        driver.say(&["what"]);
    }
    assert!(driver.over);
}

#[test]
fn a_message_that_is_no_good_ends_the_mail_and_not_the_session() {
    for (ended, code) in [(Ended::Bare, "554"), (Ended::TooLarge, "552")] {
        let mut driver = Driver::new(terms());
        driver.say(&["EHLO x", "MAIL FROM:<a@x.example>", "RCPT TO:<b@x.example>"]);
        let todo = driver.session.line(b"DATA");
        assert!(matches!(todo.last(), Some(Do::Read)));
        // What comes before the message was asked for is nobody's turn.
        assert!(matches!(
            driver.session.clone().line(b"x").last(),
            Some(Do::HangUp)
        ));
        let todo = driver.session.message(ended);
        driver.said.clear();
        driver.work(todo);
        assert!(driver.said.starts_with(code), "{}", driver.said);
        assert_eq!(driver.codes(&["DATA", "MAIL FROM:<a@x.example>"]), ["503", "250"]);
    }
}

proptest::proptest! {
    #[test]
    fn no_line_brings_the_session_down(lines in proptest::collection::vec("[ -~\u{e4}\u{0}]{0,40}", 0..10)) {
        let mut driver = Driver::new(terms());
        for line in &lines {
            driver.say(&[line]);
        }
        let verbs = ["MAIL FROM:", "RCPT TO:", "AUTH ", "EHLO "];
        for (line, verb) in lines.iter().zip(verbs.iter().cycle()) {
            driver.say(&[&format!("{verb}{line}")]);
        }
        assert!(driver.mails.is_empty());
    }
}
