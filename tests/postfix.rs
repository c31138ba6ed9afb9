//! Submission to a mail server that is not ours: Debian's Postfix, with STARTTLS and Cyrus SASL,
//! started privately on loopback. What arrives is read back from its mailbox.
//!
//! Postfix needs root (its queue belongs to several users). Where it, the SASL tools or root are
//! missing, the tests say so and pass; with `TIDINGS_TEST_SERVICES=1` they fail instead.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // helpers of tests are tests, too

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tidings::advice::Stage;
use tidings::config::secret::Secret;
use tidings::config::settings::{LoginAs, SmtpSettings, Tls};
use tidings::mail::Envelope;
use tidings::transport::smtp::Smtp;
use tidings::transport::{Content, Limits, Login, Open, Parcel, RecipientVerdict, Report, Verdict};

const USER: &str = "robot@example.test";
const PASSWORD: &str = "correct horse";

/// Every line a transport could trip over: dots, 8-bit text, spaces at the end, empty lines last.
const MESSAGE: &str = concat!(
    "Date: Mon, 02 Mar 2026 08:30:00 +0100\r\n",
    "From: \"Robot, Inc.\" <robot@example.test>\r\n",
    "To: inbox@example.test\r\n",
    "Subject: =?utf-8?q?Rechnung_f=C3=BCr_M=C3=A4rz?=\r\n",
    "Message-ID: <1.tidings@example.test>\r\n",
    "Auto-Submitted: auto-generated\r\n",
    "X-Tidings-Rule: invoice-arrived\r\n",
    "MIME-Version: 1.0\r\n",
    "Content-Type: text/plain; charset=utf-8\r\n",
    "Content-Transfer-Encoding: 8bit\r\n",
    "\r\n",
    ".\r\n",
    "..two dots\r\n",
    ".a dot, and Grüße mit Umlaut\r\n",
    "From here on  \r\n",
    "\r\n",
    ".\r\n",
    "\r\n",
);

#[tokio::test]
async fn a_mail_through_postfix_arrives_byte_for_byte() {
    let Some(server) = Postfix::start() else { return };
    let smtp = server.client();
    let large = format!("{MESSAGE}{}", "All work and no play.\r\n".repeat(20_000));
    for message in [MESSAGE, large.as_str()] {
        let report = submit(&smtp, PASSWORD, &["inbox@example.test"], message).await;
        let Verdict::Accepted { reply } = &report.verdict else {
            panic!("{report:?}\n{}", server.log());
        };
        assert!(reply.contains("queued as"), "{reply}");
        let arrived = server.mail_for("inbox").await;
        // The server puts its own lines on top and stores LF; below them nothing may differ.
        let ours = message.replace("\r\n", "\n");
        let top = arrived
            .strip_suffix(ours.as_str())
            .unwrap_or_else(|| panic!("changed on the way:\n{arrived:.2000}"));
        assert!(top.starts_with("Return-Path: <robot@example.test>\n"), "{top}");
        assert!(top.contains("with ESMTPSA id "), "signed in, over TLS: {top}");
    }
    smtp.close().await;
}

#[tokio::test]
async fn postfix_s_refusals_keep_its_words_and_name_the_recipient() {
    let Some(server) = Postfix::start() else { return };
    let smtp = server.client();
    let report = submit(
        &smtp,
        PASSWORD,
        &["inbox@example.test", "nobody@example.test"],
        MESSAGE,
    )
    .await;
    assert!(matches!(report.verdict, Verdict::Accepted { .. }), "{report:?}");
    for (address, verdict) in &report.recipients {
        match (address.local(), verdict) {
            ("inbox", RecipientVerdict::Accepted) => {}
            ("nobody", RecipientVerdict::Refused(symptom)) => {
                assert_eq!(
                    (symptom.code, symptom.enhanced.as_deref()),
                    (Some(550), Some("5.1.1"))
                );
                assert!(symptom.text.contains("nobody of that name"), "{symptom:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(report.recipients.len(), 2);
    server.mail_for("inbox").await;

    let smtp = server.client();
    let report = submit(&smtp, "wrong", &["inbox@example.test"], MESSAGE).await;
    let Verdict::Refused(symptom) = report.verdict else {
        panic!("{report:?}");
    };
    assert_eq!((symptom.stage, symptom.code), (Some(Stage::SmtpAuth), Some(535)));
    assert!(!format!("{symptom:?}").contains("wrong"), "{symptom:?}");
}

#[tokio::test]
async fn a_file_dropped_in_a_folder_is_in_the_mailbox_behind_postfix() {
    let Some(server) = Postfix::start() else { return };
    let setup = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = setup.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("secrets/robot", &format!("{PASSWORD}\n"));
    write(
        "tidings.yaml",
        &format!(
            "accounts:\n  house:\n    user: {USER}\n    password: {{ user: {USER}, secret: {{ file: secrets/robot }} }}\n\
             \x20   smtp: {{ host: localhost, port: {}, tls: starttls, ca_file: {} }}\n\
             defaults: {{ from: '\"Robot, Inc.\" <{USER}>' }}\n",
            server.port,
            server.path("cert.pem").display()
        ),
    );
    write(
        "rules/inbox.yaml",
        "rules:\n  inbox:\n    when: { file_arrives: { in: drop, existing: process } }\n\
         \x20   mail: { to: inbox@example.test, template: file-arrived, attach: \"{{file.path}}\" }\n",
    );
    let content = "Grüße\r\n.\r\n..dots, and a line without an end".repeat(3);
    write("drop/März Übersicht.txt", &content);
    let run = Command::new(assert_cmd::cargo::cargo_bin("tidings"))
        .arg("-C")
        .arg(setup.path())
        .args(["run", "--once"])
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&run.stderr),
        server.log()
    );
    let arrived = server.mail_for("inbox").await;
    assert!(
        arrived.contains("with ESMTPSA id "),
        "signed in, over TLS: {arrived:.1000}"
    );
    let mail = mail_parser::MessageParser::default().parse(&arrived).unwrap();
    assert_eq!(mail.subject(), Some("New file: März Übersicht.txt"));
    let from = mail.from().unwrap().first().unwrap();
    assert_eq!((from.name(), from.address()), (Some("Robot, Inc."), Some(USER)));
    let attachment = mail.attachment(0).unwrap();
    assert_eq!(
        mail_parser::MimeHeaders::attachment_name(attachment),
        Some("März Übersicht.txt")
    );
    assert_eq!(attachment.contents(), content.as_bytes());
}

async fn submit(smtp: &Smtp, password: &str, to: &[&str], message: &str) -> Report {
    let to = to.iter().map(|to| to.parse().unwrap()).collect();
    let parcel = Parcel {
        envelope: Envelope::new(USER.parse().unwrap(), to).unwrap(),
        content: Content::Bytes(message.as_bytes().into()),
        message_id: "<1.tidings@example.test>".into(),
    };
    let login = Login::Password {
        user: USER.into(),
        secret: Secret::new(password),
    };
    smtp.submit(&login, &parcel, &Open, None).await
}

/// A Postfix of our own: configuration, queue, certificate and mailboxes in one temporary folder.
/// Stopped when dropped.
struct Postfix {
    folder: tempfile::TempDir,
    port: u16,
}

impl Postfix {
    /// `None`, with the reason printed, where it cannot run and nobody insists.
    fn start() -> Option<Postfix> {
        if let Some(reason) = missing() {
            let insists = std::env::var_os("TIDINGS_TEST_SERVICES").is_some_and(|value| value != "0");
            assert!(!insists, "Postfix cannot be tested: {reason}");
            println!("skipped: {reason}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        // Its processes run as `postfix` and must get in.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Postfix { folder, port };
        server.configure();
        let output = server.postfix("start");
        assert!(output.0, "postfix did not start: {}\n{}", output.1, server.log());
        let greeting = server.wait(|| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
            let mut start = [0; 4];
            stream.read_exact(&mut start).ok()?;
            stream.write_all(b"QUIT\r\n").ok()?;
            Some(start)
        });
        assert_eq!(&greeting, b"220 ", "{}", server.log());
        Some(server)
    }

    fn configure(&self) {
        let (uid, gid) = postfix_user().unwrap();
        let dir = self.path("");
        let dir = dir.display();
        for name in ["conf", "conf/sasl", "queue", "data", "mail"] {
            fs::create_dir(self.path(name)).unwrap();
        }
        for name in ["data", "mail"] {
            chown(self.path(name), Some(uid), Some(gid)).unwrap();
        }
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(self.path("cert.pem"), certificate.cert.pem()).unwrap();
        fs::write(self.path("key.pem"), certificate.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(self.path("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(
            self.path("conf/main.cf"),
            format!(
                "compatibility_level = 3.6\n\
                 myhostname = mail.example.test\n\
                 mydestination =\n\
                 mynetworks =\n\
                 inet_interfaces = 127.0.0.1\n\
                 inet_protocols = ipv4\n\
                 queue_directory = {dir}/queue\n\
                 data_directory = {dir}/data\n\
                 meta_directory = /etc/postfix\n\
                 maillog_file = {dir}/log\n\
                 maillog_file_prefixes = {dir}\n\
                 alias_maps =\n\
                 alias_database =\n\
                 local_recipient_maps =\n\
                 virtual_mailbox_domains = example.test\n\
                 virtual_mailbox_base = {dir}/mail\n\
                 virtual_mailbox_maps = inline:{{ {{inbox@example.test=inbox/}}, {{robot@example.test=robot/}} }}\n\
                 virtual_uid_maps = static:{uid}\n\
                 virtual_gid_maps = static:{gid}\n\
                 virtual_minimum_uid = 1\n\
                 smtpd_tls_cert_file = {dir}/cert.pem\n\
                 smtpd_tls_key_file = {dir}/key.pem\n\
                 smtpd_tls_security_level = may\n\
                 smtpd_tls_auth_only = yes\n\
                 smtpd_sasl_auth_enable = yes\n\
                 smtpd_sasl_type = cyrus\n\
                 smtpd_sasl_path = smtpd\n\
                 cyrus_sasl_config_path = {dir}/conf/sasl\n\
                 smtpd_sasl_local_domain = example.test\n\
                 smtpd_relay_restrictions = permit_sasl_authenticated, reject\n\
                 smtpd_recipient_restrictions = check_recipient_access\n  \
                   inline:{{ {{nobody@example.test = 550 5.1.1 nobody of that name}} }}, permit_sasl_authenticated, reject\n\
                 default_transport = error:nothing leaves this machine\n"
            ),
        )
        .unwrap();
        // No chroot, no local delivery, no client that could send anything further.
        let port = self.port;
        fs::write(
            self.path("conf/master.cf"),
            format!(
                "{port} inet n - n - - smtpd\n\
                 postlog unix-dgram n - n - 1 postlogd\n\
                 pickup unix n - n 60 1 pickup\n\
                 cleanup unix n - n - 0 cleanup\n\
                 qmgr unix n - n 300 1 qmgr\n\
                 tlsmgr unix - - n 1000? 1 tlsmgr\n\
                 rewrite unix - - n - - trivial-rewrite\n\
                 bounce unix - - n - 0 bounce\n\
                 defer unix - - n - 0 bounce\n\
                 trace unix - - n - 0 bounce\n\
                 verify unix - - n - 1 verify\n\
                 proxymap unix - - n - - proxymap\n\
                 error unix - - n - - error\n\
                 retry unix - - n - - error\n\
                 discard unix - - n - - discard\n\
                 virtual unix - n n - - virtual\n\
                 anvil unix - - n - 1 anvil\n\
                 scache unix - - n - 1 scache\n"
            ),
        )
        .unwrap();
        // Debian's Postfix reads `sasl/smtpd.conf` below its configuration, whatever is set.
        fs::write(
            self.path("conf/sasl/smtpd.conf"),
            format!(
                "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {dir}/sasldb2\nmech_list: PLAIN LOGIN\n"
            ),
        )
        .unwrap();
        let mut passwords = Command::new(program("saslpasswd2").unwrap())
            .args(["-p", "-c", "-f"])
            .arg(self.path("sasldb2"))
            .args(["-u", "example.test", "robot"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        passwords
            .stdin
            .take()
            .unwrap()
            .write_all(PASSWORD.as_bytes())
            .unwrap();
        assert!(passwords.wait().unwrap().success());
        chown(self.path("sasldb2"), Some(uid), Some(gid)).unwrap();
    }

    fn client(&self) -> Smtp {
        // One provider of cryptography a process; a second test finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let settings = SmtpSettings {
            host: "localhost".into(),
            port: self.port,
            tls: Tls::Starttls,
            ca_file: Some(self.path("cert.pem")),
            login_as: LoginAs::User,
        };
        Smtp::new(&settings, Limits::default(), 1).unwrap()
    }

    /// Takes the mail out of a mailbox, when it is there. It need not be UTF-8 for a server, but
    /// here it is.
    async fn mail_for(&self, mailbox: &str) -> String {
        let new = self.path("mail").join(mailbox).join("new");
        self.wait(|| {
            let path = fs::read_dir(&new).ok()?.next()?.unwrap().path();
            let mail = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            Some(String::from_utf8(mail).unwrap())
        })
    }

    fn wait<T>(&self, mut ready: impl FnMut() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(value) = ready() {
                return value;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn postfix(&self, verb: &str) -> (bool, String) {
        let output = Command::new(program("postfix").unwrap())
            .arg("-c")
            .arg(self.path("conf"))
            .arg(verb)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        let folder = self.folder.path();
        if name.is_empty() {
            folder.to_owned()
        } else {
            folder.join(name)
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if !self.postfix("stop").0 {
            self.postfix("abort");
        }
    }
}

/// What this machine lacks.
fn missing() -> Option<String> {
    for name in ["postfix", "saslpasswd2"] {
        if program(name).is_none() {
            return Some(format!(
                "there is no `{name}` (Debian: postfix libsasl2-modules sasl2-bin)"
            ));
        }
    }
    if !rustix::process::geteuid().is_root() {
        return Some("Postfix starts only as root".to_owned());
    }
    postfix_user()
        .is_none()
        .then(|| "there is no user `postfix`".to_owned())
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder: PathBuf| folder.join(name))
        .find(|path: &PathBuf| Path::is_file(path))
}

fn postfix_user() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let user = users.lines().find_map(|line| line.strip_prefix("postfix:"))?;
    let mut fields = user.split(':').skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}
