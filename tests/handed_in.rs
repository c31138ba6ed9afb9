//! The submission listener of the daemon, with raw clients and with Python's: what is taken is on disk, what is
//! refused says why, and no trick brings a second message in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Daemon, Site, json_lines, text};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A port that is free now.
fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn settings(site: &Site, submission: &str) -> String {
    site.settings(&format!(
        "recipients: {{ groups: {{ ops: [ops@example.org] }}, allow: ['*@example.org'] }}\n\
         handed_in: {{ senders: {{ '*@old.local': 'Scans <robot@example.org>' }}, recipients: {{ root: ops }} }}\n\
         submission: {submission}\n"
    ))
}

async fn listening(submission: &str) -> (Site, Daemon, u16) {
    let site = Site::new("rules: {}\n").await;
    let port = port();
    site.write(
        "tidings.yaml",
        &settings(&site, &submission.replace("PORT", &port.to_string())),
    );
    let daemon = site.started().await;
    (site, daemon, port)
}

/// A client that says what it is told to.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(port: u16) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut client = Client(BufReader::new(stream));
        assert!(client.reply().starts_with("220 "));
        client
    }

    /// A reply whole, or nothing where the connection was closed.
    fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            if self.0.read_line(&mut reply).unwrap_or(0) == 0
                || reply.as_bytes()[start..].get(3) != Some(&b'-')
            {
                return reply;
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    fn say(&mut self, line: &str) -> String {
        self.write(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    fn hand_in(&mut self, from: &str, to: &str, message: &str) -> String {
        let mail = self.say(&format!("MAIL FROM:<{from}>"));
        if !mail.starts_with("250") {
            return mail;
        }
        let rcpt = self.say(&format!("RCPT TO:<{to}>"));
        if !rcpt.starts_with("250") {
            self.say("RSET");
            return rcpt;
        }
        assert!(self.say("DATA").starts_with("354"));
        self.write(message.replace('\n', "\r\n").as_bytes());
        self.say(".")
    }

    /// Everything that comes until it is closed.
    fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest);
        text(&rest)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scanner_that_knows_little_hands_its_scans_in() {
    let (site, daemon, port) = listening("{ listen: '127.0.0.1:PORT' }").await;
    let mut client = Client::new(port);
    assert!(client.say("HELO scanner").starts_with("250 "));
    let scan = "From: \"Copier 2\" <copier2@old.local>\nTo: root\nSubject: Scan\nMessage-ID: <1@copier2>\n\n..stuffed\n";
    let taken = client.hand_in("copier2@old.local", "root", scan);
    assert!(taken.starts_with("250 2.0.0 kept as entry 1"), "{taken}");
    assert!(client.say("QUIT").starts_with("221"));
    let mail = site.mails(1).await.remove(0);
    assert_eq!(
        (mail.from.as_str(), mail.to.as_slice()),
        ("robot@example.org", &["ops@example.org".to_owned()][..])
    );
    let whole = text(&mail.bytes);
    assert!(
        whole.starts_with("From: Scans <robot@example.org>\r\n"),
        "{whole}"
    );
    assert!(
        whole.contains("Message-ID: <1@copier2>\r\n") && whole.ends_with("\r\n\r\n.stuffed\r\n"),
        "{whole}"
    );
    let show = site.ok(&["outbox", "show", "1"]);
    assert!(show.contains("handed in submission by 127.0.0.1"), "{show}");
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_message_of_the_same_client_is_taken_once_and_another_with_its_id_is_not_lost() {
    let (site, daemon, port) = listening("{ listen: '127.0.0.1:PORT' }").await;
    let mail = |date: &str, body: &str| {
        format!(
            "From: robot@example.org\nTo: a@example.org\nDate: {date}\nMessage-ID: <same@copier>\n\n{body}\n"
        )
    };
    let first = mail("Mon, 2 Mar 2026 08:00:00 +0100", "page 1");
    let again = mail("Mon, 2 Mar 2026 08:01:00 +0100", "page 1");
    let mut client = Client::new(port);
    client.say("EHLO copier");
    let mut kept = |to: &str, message: &str| {
        let reply = client.hand_in("robot@example.org", to, message);
        reply
            .strip_prefix("250 2.0.0 kept as entry ")
            .unwrap_or_else(|| panic!("{reply}"))
            .to_owned()
    };
    let entry = kept("a@example.org", &first);
    assert_eq!(kept("a@example.org", &again), entry);
    let to_another = kept("b@example.org", &first);
    let other = mail("Mon, 2 Mar 2026 08:00:00 +0100", "page 2");
    let another_page = kept("a@example.org", &other);
    assert!(to_another != entry && another_page != entry && another_page != to_another);
    // Also after a restart: what counts is in the store.
    assert_eq!(daemon.stop(), Some(0));
    let daemon = site.started().await;
    let mut client = Client::new(port);
    client.say("EHLO copier");
    let reply = client.hand_in("robot@example.org", "a@example.org", &again);
    assert_eq!(reply, format!("250 2.0.0 kept as entry {entry}"));
    assert_eq!(site.mails(3).await.len(), 3);
    assert_eq!(json_lines(&site.ok(&["events", "list", "--json"])).len(), 3);
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_why_and_keep_nothing() {
    let (site, daemon, port) = listening("{ listen: '127.0.0.1:PORT', per_minute: 2 }").await;
    let mut client = Client::new(port);
    client.say("EHLO x");
    for (from, to, message, words) in [
        (
            "robot@example.org",
            "a@elsewhere.example",
            "",
            "550 5.7.1 `a@elsewhere.example` may not be written to",
        ),
        (
            "robot@example.org",
            "nobody",
            "",
            "550 5.1.1 nobody is known here by the name `nobody`",
        ),
        (
            "robot@example.org",
            "a@example.org,b@example.org",
            "",
            "550 5.1.1",
        ),
        (
            "robot@example.org",
            "a@example.org",
            "From: ceo@example.org\n\nx\n",
            "550 5.7.1 not taken: no account may send as",
        ),
        (
            "robot@example.org",
            "a@example.org",
            "From: root\nFrom: ceo@example.org\n\nx\n",
            "554 5.6.0",
        ),
    ] {
        let reply = client.hand_in(from, to, message);
        assert!(reply.starts_with(words), "{to} {message}: {reply}");
        if message.len() > 3 {
            // Those that came to the end count against the pace.
            client = Client::new(port);
            client.say("EHLO x");
        }
    }
    let reply = client.hand_in("robot@example.org", "a@example.org", "From: root\n\nx\n");
    assert!(
        reply.starts_with("451 4.3.0 not taken: more than 2 messages in a minute"),
        "{reply}"
    );
    assert_eq!(site.ok(&["outbox", "list", "--json"]), "");
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_trick_brings_a_second_message_in() {
    let (site, daemon, port) = listening("{ listen: '127.0.0.1:PORT' }").await;
    let begin = || {
        let mut client = Client::new(port);
        client.say("EHLO x");
        client.say("MAIL FROM:<robot@example.org>");
        client.say("RCPT TO:<a@example.org>");
        client
    };
    let second = "MAIL FROM:<robot@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nFrom: root\r\n\r\nsmuggled\r\n.\r\n";
    for end in ["\n.\n", "\r\n.\n", "\n.\r\n", "\r\n.\r", "\r.\r\n"] {
        let mut client = begin();
        assert!(client.say("DATA").starts_with("354"));
        client.write(format!("From: root\r\n\r\none{end}{second}").as_bytes());
        let reply = client.reply();
        assert!(reply.starts_with("554 5.6.0"), "{end:?}: {reply}");
        assert!(client.say("NOOP").starts_with("250"), "{end:?}");
    }
    // Who does not wait for our words did not mean them.
    let mut client = begin();
    client.write(b"DATA\r\nFrom: root\r\n\r\nearly\r\n.\r\n");
    assert!(
        client
            .rest()
            .contains("554 5.5.0 you spoke before it was your turn")
    );
    let mut client = Client::new(port);
    client.write(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nHELO x\r\nMAIL FROM:<robot@example.org>\r\n");
    assert!(client.rest().contains("this is no web server"));
    let mut client = Client::new(port);
    client.write(b"EHLO x\nMAIL FROM:<robot@example.org>\n");
    assert!(client.rest().contains("a line ends with CRLF"));
    assert_eq!(site.ok(&["outbox", "list", "--json"]), "");
    drop(daemon);
}

fn certificate(site: &Site) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    site.write("smtp.pem", &made.cert.pem());
    site.write("smtp.key", &made.signing_key.serialize_pem());
    site.write("secrets/scanner", "correct horse\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn python_s_client_signs_in_over_tls_and_hands_in_what_it_composed() {
    let python = Command::new("python3")
        .args(["-c", "import smtplib, ssl"])
        .status();
    if !python.is_ok_and(|status| status.success()) {
        let insists = std::env::var_os("TIDINGS_TEST_SERVICES").is_some_and(|value| value != "0");
        assert!(!insists, "python3 is missing");
        println!("skipped: python3 is missing");
        return;
    }
    let site = Site::new("rules: {}\n").await;
    let port = port();
    certificate(&site);
    site.write(
        "tidings.yaml",
        &settings(
            &site,
            &format!(
                "{{ listen: '127.0.0.1:{port}', tls: {{ cert: smtp.pem, key: smtp.key }}, \
                 users: {{ scanner: {{ password: {{ file: secrets/scanner }} }} }} }}"
            ),
        ),
    );
    let daemon = site.started().await;
    let script = format!(
        r#"
import smtplib, ssl
from email.message import EmailMessage
def connect():
    s = smtplib.SMTP("localhost", {port}, timeout=30)
    s.starttls(context=ssl.create_default_context(cafile={cafile:?}))
    return s
m = EmailMessage()
m["From"] = "Scanner <copier@old.local>"
m["To"] = "Äpfel & Co <a@example.org>, b@example.org"
m["Subject"] = "Gescannt: Übersicht"
m.set_content("Grüße\n.\n" + "x" * 2000 + "\n")
m.add_attachment(bytes(range(256)) * 8000, maintype="application", subtype="pdf", filename="Scan März.pdf")
s = connect()
try:
    s.login("scanner", "wrong")
    raise SystemExit("the wrong password was taken")
except smtplib.SMTPAuthenticationError as error:
    assert error.smtp_code == 535, error
try:
    s.sendmail("x@old.local", ["a@example.org"], "x")
    raise SystemExit("taken without a password")
except smtplib.SMTPSenderRefused as error:
    assert error.smtp_code == 530, error
s.login("scanner", "correct horse")
s.send_message(m)
s.quit()
s = connect()
s.user, s.password = "scanner", "correct horse"
s.ehlo()
s.auth("LOGIN", s.auth_login)
refused = s.sendmail("copier@old.local", ["root", "x@elsewhere.example"], "Subject: two\r\n\r\nx\r\n")
assert list(refused) == ["x@elsewhere.example"], refused
s.quit()
"#,
        cafile = site.path("smtp.pem").display().to_string(),
    );
    let mut child = Command::new("python3")
        .arg("-")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        text(&output.stderr),
        site.log()
    );
    let mut mails = site.mails(2).await;
    mails.sort_by_key(|mail| mail.bytes.len());
    assert_eq!(
        (mails[0].subject.as_str(), mails[0].to[0].as_str()),
        ("two", "ops@example.org")
    );
    let scan = &mails[1];
    assert_eq!(scan.subject, "Gescannt: Übersicht");
    assert_eq!(scan.to, ["a@example.org", "b@example.org"]);
    assert_eq!(scan.attachments[0].0, "Scan März.pdf");
    assert_eq!(
        scan.attachments[0].1,
        (0..=255u8).cycle().take(256 * 8000).collect::<Vec<_>>()
    );
    assert!(scan.text.contains("Grüße"), "{}", scan.text);
    assert!(
        !site.log().contains("correct horse") && !site.log().contains("wrong\""),
        "{}",
        site.log()
    );
    let show = site.ok(&["outbox", "list", "--json"]);
    assert!(show.contains("submission by scanner at 127.0.0.1"), "{show}");
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_opens_moves_and_shuts_the_door_and_one_that_cannot_leaves_it_as_it_was() {
    let site = Site::new("rules: {}\n").await;
    let daemon = site.started().await;
    let (one, two) = (port(), port());
    let open = |port: u16| TcpStream::connect(("127.0.0.1", port)).is_ok();
    site.write(
        "tidings.yaml",
        &settings(&site, &format!("{{ listen: '127.0.0.1:{one}' }}")),
    );
    site.ok(&["reload"]);
    let mut inside = Client::new(one);
    inside.say("EHLO x");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap();
    site.write(
        "tidings.yaml",
        &settings(&site, &format!("{{ listen: ['127.0.0.1:{two}', '{busy}'] }}")),
    );
    let refused = site.run(&["reload"]);
    assert!(!refused.status.success());
    let said = format!("{}{}", text(&refused.stdout), text(&refused.stderr));
    assert!(said.contains(&format!("cannot listen on {busy}")), "{said}");
    assert!(open(one) && !open(two));

    site.write(
        "tidings.yaml",
        &settings(
            &site,
            &format!("{{ listen: ['127.0.0.1:{one}', '127.0.0.1:{two}'] }}"),
        ),
    );
    site.ok(&["reload"]);
    assert!(open(one) && open(two));
    site.write("tidings.yaml", &site.settings(""));
    site.ok(&["reload"]);
    site.until("nobody listens", || !open(one) && !open(two)).await;
    // Who is inside goes on under the rules he came in by.
    let kept = inside.hand_in("x@old.local", "a@example.org", "From: x@old.local\n\nx\n");
    assert!(kept.starts_with("250 2.0.0"), "{kept}");
    assert_eq!(daemon.stop(), Some(0));
    let mut daemon = {
        site.write(
            "tidings.yaml",
            &settings(&site, &format!("{{ listen: '{busy}' }}")),
        );
        site.daemon()
    };
    assert_eq!(daemon.wait(), Some(69), "{}", site.log());
    assert!(
        site.log().contains(&format!("cannot listen on {busy}")),
        "{}",
        site.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_open_to_others_is_refused_by_check() {
    let site = Site::new("rules: {}\n").await;
    certificate(&site);
    let users = "users: { scanner: { password: { file: secrets/scanner } } }";
    let tls = "tls: { cert: smtp.pem, key: smtp.key }";
    let check = |submission: &str| {
        site.write("tidings.yaml", &settings(&site, submission));
        let output = site.run(&["check"]);
        (
            output.status.success(),
            text(&output.stderr) + &text(&output.stdout),
        )
    };
    for (submission, words) in [
        (
            "{ listen: '0.0.0.0:2525' }".to_owned(),
            "everybody on the network could send mail through it",
        ),
        (
            format!("{{ listen: '0.0.0.0:2525', {tls} }}"),
            "everybody on the network",
        ),
        (
            format!("{{ listen: '[::]:2525', {users} }}"),
            "could be read on the network",
        ),
        (
            "{ listen: 2525.example }".to_owned(),
            "is not an address to listen on",
        ),
        (
            "{ tls: { cert: none.pem, key: smtp.key } }".to_owned(),
            "none.pem",
        ),
    ] {
        let (fine, said) = check(&submission);
        assert!(!fine && said.contains(words), "{submission}: {said}");
    }
    for submission in [
        "{}".to_owned(),
        "{ listen: ['127.0.0.1:2525', '[::1]:2525', 'localhost:2526'] }".to_owned(),
        format!("{{ listen: '0.0.0.0:587', {users}, {tls} }}"),
    ] {
        let (fine, said) = check(&submission);
        assert!(fine, "{submission}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_when_all_places_are_taken_or_says_nothing_is_told_so() {
    let (site, daemon, port) = listening("{ listen: '127.0.0.1:PORT', connections: 1, timeout: 1s }").await;
    let mut first = Client::new(port);
    let second = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut second = Client(BufReader::new(second));
    assert!(second.rest().starts_with("421 4.4.2"), "no place");
    let farewell = first.rest();
    assert!(
        farewell.contains("421 4.4.2") && farewell.contains("said nothing for too long"),
        "{farewell}"
    );
    let began = std::time::Instant::now();
    assert_eq!(daemon.stop(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(20), "{}", site.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn smtp_on_stdin_is_the_same_session() {
    let site = Site::new("rules: {}\n").await;
    site.write("tidings.yaml", &settings(&site, "{}"));
    let mut child = site
        .command(&["sendmail", "-bs"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut say = |line: &str, code: &str| {
        stdin.write_all(line.as_bytes()).unwrap();
        let mut reply = String::new();
        stdout.read_line(&mut reply).unwrap();
        assert!(reply.starts_with(code), "{line}: {reply}");
    };
    say("", "220");
    say("HELO x\r\n", "250");
    say("MAIL FROM:<root>\r\n", "250");
    say("RCPT TO:<root>\r\n", "250");
    say("DATA\r\n", "354");
    say("Subject: x\r\n\r\nx\r\n.\r\n", "250 2.0.0 kept as entry 1");
    say("QUIT\r\n", "221");
    assert!(child.wait().unwrap().success());
}
