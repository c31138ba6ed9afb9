//! Messages, read back by an independent parser; and mails composed as a rule asks for them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests panic as tests do

use globset::{GlobBuilder, GlobSetBuilder};
use mail_parser::{MessageParser, MimeHeaders as _};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidings::action::Mail;
use tidings::action::email::{Composing, MailSpec, Oversize, Priority, prepare};
use tidings::action::recipients::RecipientSpec;
use tidings::advice::Provider;
use tidings::clock::Clock;
use tidings::config::settings::{
    Account, Credential, Defaults, Outbox, Pace, Recipients, Settings, Transport,
};
use tidings::entry::{Body, NewEntry, OnUnknown};
use tidings::event::{EventId, FileRef};
use tidings::mail::address::Mailbox;
use tidings::mail::attachment::safe_name;
use tidings::mail::message::{Draft, Part};
use tidings::store::Store;
use tidings::template::{Templates, Text};

fn mailbox(text: &str) -> Mailbox {
    text.parse().unwrap()
}

/// What holds for the bytes of every message.
fn is_sound(bytes: &[u8]) {
    assert!(bytes.is_ascii(), "7-bit");
    assert!(!bytes.contains(&0), "no NUL");
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        assert!(at <= 998, "a line of {at} bytes");
        assert!(rest[at..].starts_with(b"\r\n"), "a bare CR or LF");
        rest = &rest[at + 2..];
    }
    assert!(rest.is_empty(), "the last line ends");
}

/// Names of the fields of the message itself.
fn field_names(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    head.split("\r\n")
        .filter(|line| !line.starts_with([' ', '\t']))
        .map(|line| line.split(':').next().unwrap().to_owned())
        .collect()
}

struct Sample {
    from: Mailbox,
    to: Vec<Mailbox>,
    subject: String,
    text: String,
    html: Option<String>,
    fields: Vec<(String, String)>,
    attachments: Vec<(String, Vec<u8>)>,
}

impl Default for Sample {
    fn default() -> Sample {
        Sample {
            from: mailbox("Contoso IT <alice@contoso.com>"),
            to: vec![mailbox("bob@contoso.com")],
            subject: "hello".to_owned(),
            text: "text\n".to_owned(),
            html: Some("<p>page</p>".to_owned()),
            fields: vec![("X-Tidings-Rule".to_owned(), "r".to_owned())],
            attachments: vec![("a.pdf".to_owned(), b"%PDF".to_vec())],
        }
    }
}

impl Sample {
    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        Draft {
            from: &self.from,
            reply_to: None,
            to: &self.to,
            cc: &[],
            subject: &self.subject,
            date: &"2026-11-22T09:01:04+01:00[Europe/Berlin]".parse().unwrap(),
            message_id: "abc@contoso.com",
            fields: &self.fields,
            text: &self.text,
            html: self.html.as_deref(),
            attachments: self
                .attachments
                .iter()
                .map(|(name, content)| Part {
                    name: name.clone(),
                    content_type: "application/octet-stream".to_owned(),
                    size: content.len() as u64,
                    content: Box::new(content.as_slice()),
                })
                .collect(),
        }
        .write(&mut out)
        .unwrap();
        is_sound(&out);
        out
    }
}

const FIELDS: [&str; 10] = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "X-Auto-Response-Suppress",
    "X-Tidings-Rule",
    "MIME-Version",
    "Content-Type",
];

/// Text that tries to be something else.
fn hostile() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("\r\nBcc: evil@x.example\r\n\r\n".to_owned()),
        Just("\n".to_owned()),
        Just("\0".to_owned()),
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        Just("<a@b.example>".to_owned()),
        Just(", ;:=?%*'".to_owned()),
        Just("\u{202E}fdp.exe".to_owned()),
        Just("=?utf-8?Q?boss?=".to_owned()),
        Just("=?utf-8?B?4pyJ".to_owned()),
        Just("%41%0D%0A".to_owned()),
        Just("é漢😀".to_owned()),
        Just(" ".repeat(90)),
        Just("x".repeat(120)),
        any::<String>(),
        "[ -~]{0,80}",
    ];
    proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_subject_name_or_value_breaks_a_header(subject in hostile(), name in hostile(), value in hostile()) {
        let sample = Sample {
            subject: subject.clone(),
            from: Mailbox { name: Some(name.clone()), address: "alice@contoso.com".parse().unwrap() },
            fields: vec![("X-Tidings-Rule".to_owned(), value.clone())],
            ..Sample::default()
        };
        let bytes = sample.bytes();
        prop_assert_eq!(field_names(&bytes), FIELDS);
        let read = MessageParser::default().parse(&bytes).unwrap();
        let line = tidings::mail::header::one_line;
        prop_assert_eq!(read.subject().unwrap_or_default(), line(&subject, 900));
        let from = read.from().unwrap().first().unwrap();
        prop_assert_eq!(from.address().unwrap(), "alice@contoso.com");
        // The parser joins runs of spaces of quoted names; ours has none.
        prop_assert_eq!(from.name().unwrap_or_default(), line(&name, 200));
        prop_assert!(read.bcc().is_none());
        prop_assert_eq!(read.attachment_count(), 1);
    }

    #[test]
    fn no_file_name_breaks_a_part_and_content_stays(
        name in prop_oneof![
            proptest::collection::vec(any::<u8>(), 1..255),
            hostile().prop_map(String::into_bytes),
        ],
        content in proptest::collection::vec(any::<u8>(), 0..5000),
    ) {
        let shown = safe_name(OsStr::from_bytes(&name));
        prop_assert!(!shown.chars().any(char::is_control));
        let sample = Sample { attachments: vec![(shown.clone(), content.clone()), ("b".to_owned(), b"b".to_vec())], ..Sample::default() };
        let bytes = sample.bytes();
        prop_assert_eq!(field_names(&bytes), FIELDS);
        let read = MessageParser::default().parse(&bytes).unwrap();
        prop_assert_eq!(read.attachment_count(), 2);
        let part = read.attachment(0).unwrap();
        prop_assert_eq!(part.attachment_name().unwrap(), shown);
        prop_assert_eq!(part.contents(), content);
    }

    #[test]
    fn bodies_are_read_as_they_were_written(text in hostile(), html in hostile()) {
        let sample = Sample { text: text.clone(), html: Some(html.clone()), ..Sample::default() };
        let bytes = sample.bytes();
        let read = MessageParser::default().parse(&bytes).unwrap();
        let expected = |text: &str| {
            let visible: String = text
                .chars()
                .filter(|c| *c != '\r')
                .map(|c| {
                    let hidden = c.is_control() && c != '\n' && c != '\t' || tidings::visible::is_override(c);
                    if hidden { '\u{FFFD}' } else { c }
                })
                .collect();
            visible.trim_end_matches('\n').to_owned()
        };
        let plain = |text: &str| text.replace("\r\n", "\n").trim_end_matches('\n').to_owned();
        prop_assert_eq!(plain(&read.body_text(0).unwrap()), expected(&text));
        prop_assert_eq!(plain(&read.body_html(0).unwrap()), expected(&html));
    }
}

#[test]
fn names_of_255_bytes_and_odd_ones_come_through() {
    for name in [
        vec![b'a'; 255],
        "ä".repeat(127).into_bytes(),
        b"=?utf-8?B?ZXZpbA==?=.pdf".to_vec(),
        b"a\r\nContent-Type: text/html\r\n\r\n.pdf".to_vec(),
        b"\xff\xfe\x80.pdf".to_vec(),
        b"quote\"back\\slash.pdf".to_vec(),
    ] {
        let shown = safe_name(OsStr::from_bytes(&name));
        let sample = Sample {
            attachments: vec![(shown.clone(), b"x".to_vec())],
            ..Sample::default()
        };
        let bytes = sample.bytes();
        let read = MessageParser::default().parse(&bytes).unwrap();
        assert_eq!(read.attachment(0).unwrap().attachment_name().unwrap(), shown);
    }
}

#[test]
fn the_same_draft_gives_the_same_bytes() {
    assert_eq!(Sample::default().bytes(), Sample::default().bytes());
    let bytes = String::from_utf8(Sample::default().bytes()).unwrap();
    assert!(
        bytes.contains("Date: Sun, 22 Nov 2026 09:01:04 +0100\r\n"),
        "{bytes}"
    );
    assert!(bytes.contains("Message-ID: <abc@contoso.com>\r\n"), "{bytes}");
    assert!(bytes.contains("Auto-Submitted: auto-generated\r\n"), "{bytes}");
}

#[test]
fn a_file_that_is_shorter_or_longer_than_it_was_fails_the_message() {
    for content in [&b"abc"[..], b"abcdefgh"] {
        let mailboxes = [mailbox("a@x.example")];
        let error = Draft {
            from: &mailboxes[0],
            reply_to: None,
            to: &mailboxes,
            cc: &[],
            subject: "x",
            date: &"2026-11-22T09:01:04+01:00[Europe/Berlin]".parse().unwrap(),
            message_id: "a@x.example",
            fields: &[],
            text: "x",
            html: None,
            attachments: vec![Part {
                name: "n".to_owned(),
                content_type: "text/plain".to_owned(),
                size: 5,
                content: Box::new(content),
            }],
        }
        .write(&mut std::io::sink())
        .unwrap_err();
        assert_eq!(error.to_string(), "the attachment n changed while it was read");
    }
}

/// A setup, a watched folder and a store.
struct House {
    dir: tempfile::TempDir,
    settings: Settings,
    templates: Templates,
    store: Store,
    runtime: tokio::runtime::Runtime,
}

impl House {
    fn new() -> House {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["setup", "drop/sub", "state", "elsewhere"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let store = runtime
            .block_on(Store::open(&dir.path().join("state/tidings.db"), Clock::system()))
            .unwrap();
        let account = Account {
            name: "office".to_owned(),
            description: None,
            provider: Provider::Generic,
            user: Some("alice@contoso.com".to_owned()),
            transport: Transport::File {
                folder: dir.path().join("out"),
            },
            credential: Credential::None,
            senders: vec!["alice@contoso.com".parse().unwrap()],
            any_sender: false,
            reply_to: Some(mailbox("ap@contoso.com")),
            signature: None,
            pace: Pace {
                connections: 1,
                per_minute: None,
                per_day: None,
            },
            transcript: None,
        };
        let settings = Settings {
            dir: dir.path().join("setup"),
            emitted: None,
            advice: None,
            alive: None,
            handed_in: tidings::config::handed::HandedIn::default(),
            submission: None,
            accounts: BTreeMap::from([("office".to_owned(), account)]),
            defaults: Defaults {
                account: None,
                from: None,
                timezone: jiff::tz::TimeZone::get("Europe/Berlin").unwrap(),
                template: "plain".to_owned(),
            },
            recipients: Recipients {
                groups: BTreeMap::from([(
                    "ops".to_owned(),
                    vec![mailbox("ops@contoso.com"), mailbox("oncall@contoso.com")],
                )]),
                allow: None,
            },
            calendars: BTreeMap::new(),
            outbox: Outbox {
                fail_over: std::time::Duration::from_secs(900),
                store: dir.path().join("state/tidings.db"),
                first: Duration::from_secs(60),
                longest: Duration::from_secs(3600),
                give_up: Duration::from_secs(86_400),
                on_unknown: OnUnknown::Resend,
                keep: Duration::from_secs(86_400),
            },
            limits: None,
            state: dir.path().join("state"),
            ground: tidings::ground::Ground::default(),
        };
        House {
            dir,
            settings,
            templates: Templates::shipped(),
            store,
            runtime,
        }
    }

    fn allow(mut self, patterns: &[&str]) -> House {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(GlobBuilder::new(pattern).build().unwrap());
        }
        self.settings.recipients.allow = Some(set.build().unwrap());
        self
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// Writes a file into the watched folder; the reference is what the scan would make.
    fn drop_file(&self, relative: impl AsRef<Path>, content: &[u8]) -> FileRef {
        let root = self.path("drop");
        let path = root.join(&relative);
        std::fs::write(&path, content).unwrap();
        let data = std::fs::metadata(&path).unwrap();
        FileRef {
            root,
            relative: relative.as_ref().to_owned(),
            size: data.len(),
            mtime_ns: data.mtime() * 1_000_000_000 + data.mtime_nsec(),
        }
    }

    fn prepare(&self, spec: &MailSpec, file: Option<&FileRef>, data: Value) -> NewEntry {
        let mut facts = json!({
            "event": {"id": 7, "type": "file_arrives", "key": "k", "time": "2026-11-22T08:01:03Z"},
            "rule": {"name": "invoices", "description": null},
            "host": "batch01", "now": "2026-11-22T09:01:04+01:00", "data": data,
        });
        if let Some(file) = file {
            facts["file"] = file.facts();
        }
        let log = self.path("state/job.log");
        prepare(
            spec,
            "key",
            &Composing {
                settings: &self.settings,
                templates: &self.templates,
                spool: self.store.spool(),
                rule: "invoices",
                event: Some(EventId(7)),
                facts: &facts,
                file,
                job_log: log.exists().then_some(log.as_path()),
                now: "2026-11-22T08:01:04Z".parse().unwrap(),
                host: "batch01",
            },
        )
        .unwrap()
    }

    fn bytes(&self, entry: &NewEntry) -> Vec<u8> {
        assert_eq!(entry.held, None);
        let bytes = match &entry.body {
            Body::Inline(bytes) => bytes.clone(),
            Body::Spooled { name, len } => {
                let bytes = std::fs::read(self.store.spool().path(name)).unwrap();
                assert_eq!(bytes.len() as u64, *len);
                bytes
            }
            Body::None => panic!("no body"),
        };
        is_sound(&bytes);
        bytes
    }

    fn reason(&self, entry: &NewEntry) -> String {
        assert!(entry.effect.is_empty() && entry.body == Body::None);
        let reason = entry.held.as_ref().expect("held");
        let text = format!("{} | {}", reason.text, reason.steps.join(" "));
        text.replace(self.dir.path().to_str().unwrap(), "")
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // The store's threads end before its folder goes.
        let _guard = self.runtime.enter();
    }
}

fn spec() -> MailSpec {
    MailSpec {
        account_named: true,
        accounts: Vec::new(),
        account: "office".to_owned(),
        from: mailbox("Invoices <invoices@contoso.com>"),
        to: vec![RecipientSpec::Fixed(mailbox("ap@contoso.com"))],
        cc: Vec::new(),
        bcc: Vec::new(),
        reply_to: None,
        subject: None,
        template: "plain".to_owned(),
        attach: Vec::new(),
        oversize: Oversize::Note,
        max_size: 20_000_000,
        priority: Priority::Normal,
        headers: Vec::new(),
    }
}

fn text(source: &str) -> Text {
    Text::compile(source).unwrap()
}

#[test]
fn a_mail_is_composed_whole() {
    let house = House::new();
    let file = house.drop_file("Rechnung ü.pdf", b"%PDF-1.7 hello");
    let entry = house.prepare(
        &MailSpec {
            cc: vec![RecipientSpec::Fixed(mailbox("cc@contoso.com"))],
            bcc: vec![RecipientSpec::Fixed(mailbox("secret@contoso.com"))],
            subject: Some(text("New: {{file.name}}")),
            attach: vec![text("{{file.path}}")],
            priority: Priority::High,
            headers: vec![("X-Ticket".to_owned(), text("{{rule.name}}"))],
            template: "file-arrived".to_owned(),
            ..spec()
        },
        Some(&file),
        json!({}),
    );
    let bytes = house.bytes(&entry);
    let read = MessageParser::default().parse(&bytes).unwrap();
    assert_eq!(read.subject(), Some("New: Rechnung ü.pdf"));
    assert_eq!(
        read.reply_to().unwrap().first().unwrap().address(),
        Some("ap@contoso.com")
    );
    assert_eq!(read.header_raw("X-Priority").unwrap().trim(), "1 (Highest)");
    assert_eq!(read.header_raw("X-Tidings-Rule").unwrap().trim(), "invoices");
    assert_eq!(read.header_raw("X-Tidings-Event").unwrap().trim(), "7");
    assert_eq!(read.header_raw("X-Ticket").unwrap().trim(), "invoices");
    let part = read.attachment(0).unwrap();
    assert_eq!(part.attachment_name(), Some("Rechnung ü.pdf"));
    assert_eq!(part.contents(), b"%PDF-1.7 hello");
    assert_eq!(part.content_type().unwrap().subtype(), Some("pdf"));
    assert!(
        !String::from_utf8_lossy(&bytes).contains("secret"),
        "Bcc is in the envelope only"
    );
    let mail: Mail = serde_json::from_slice(&entry.effect).unwrap();
    let recipients: Vec<String> = mail
        .envelope
        .recipients()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        recipients,
        ["ap@contoso.com", "cc@contoso.com", "secret@contoso.com"]
    );
    assert_eq!(mail.envelope.return_path().to_string(), "invoices@contoso.com");
    assert_eq!(read.message_id(), Some(mail.message_id.as_str()));
    assert!(mail.message_id.ends_with("@contoso.com"));
    assert_eq!(entry.lane, "office");
    assert_eq!(entry.summary["size"], bytes.len());
    assert_eq!(
        entry.summary["attachments"],
        json!([{"name": "Rechnung ü.pdf", "size": 14}])
    );
    assert_eq!(
        house.bytes(&house.prepare(&spec(), None, json!({}))),
        house.bytes(&house.prepare(&spec(), None, json!({})))
    );
}

#[test]
fn a_templated_recipient_must_be_allowed() {
    let to = |source: &str| MailSpec {
        to: vec![RecipientSpec::Template(text(source))],
        ..spec()
    };
    let house = House::new();
    let at = |who: &str| json!({ "who": who });
    let reason = house.reason(&house.prepare(&to("{{data.who}}"), None, at("eve@evil.example")));
    assert!(
        reason.contains("eve@evil.example")
            && reason.contains("recipients: { allow: [\"eve@evil.example\"] }"),
        "{reason}"
    );
    for (who, expected) in [
        ("", "gave no address"),
        ("not an address", "not one mail address"),
        ("a@contoso.com, b@contoso.com", "not one mail address"),
        ("a@contoso.com\r\nBcc: x@y.example", "not one mail address"),
        ("\"eve@evil.example\"@contoso.com", "not one mail address"),
    ] {
        let reason = house.reason(&house.prepare(&to("{{data.who}}"), None, at(who)));
        assert!(reason.contains(expected), "{who:?}: {reason}");
    }
    let group = house.prepare(&to("{{data.who}}"), None, at("ops"));
    assert_eq!(
        group.summary["to"],
        json!(["ops@contoso.com", "oncall@contoso.com"])
    );
    assert_eq!(group.held, None);
    // A member of a group, a sender, and where replies go: the settings write them out.
    for who in ["oncall@contoso.com", "alice@contoso.com", "ap@contoso.com"] {
        let entry = house.prepare(&to("{{data.who}}"), None, at(who));
        assert_eq!(entry.held, None, "{who}");
    }
    let missing = house.reason(&house.prepare(&to("{{data.whom}}"), None, at("x")));
    assert!(missing.contains("data.whom"), "{missing}");

    let house = house.allow(&["*@contoso.com"]);
    assert_eq!(
        house
            .prepare(&to("{{data.who}}"), None, at("Ann.LEE@Contoso.COM"))
            .held,
        None
    );
    for who in [
        "eve@evil.example",
        "eve@notcontoso.com",
        "eve@contoso.com.evil.example",
        "\"@contoso.com\" <eve@evil.example>",
    ] {
        let entry = house.prepare(&to("{{data.who}}"), None, at(who));
        assert!(
            house.reason(&entry).contains("recipients.allow"),
            "{who}: {:?}",
            entry.held
        );
    }
    // Allowed by the letter, but a server may take them for a route, a program for an option, a reader for
    // another address.
    for who in [
        "eve%evil.example@contoso.com",
        "evil.example!eve@contoso.com",
        "-oQ/tmp@contoso.com",
        "=?utf-8?q?boss?=@contoso.com",
    ] {
        let reason = house.reason(&house.prepare(&to("{{data.who}}"), None, at(who)));
        assert!(reason.contains("may "), "{who}: {reason}");
    }
}

#[test]
fn the_event_s_file_is_attached_only_as_it_settled() {
    let house = House::new();
    let attach = MailSpec {
        attach: vec![text("{{file.path}}")],
        ..spec()
    };
    let file = house.drop_file("sub/a.txt", b"hello");
    assert_eq!(house.prepare(&attach, Some(&file), json!({})).held, None);
    // Changed since.
    std::fs::write(house.path("drop/sub/a.txt"), b"other").unwrap();
    std::fs::File::options()
        .write(true)
        .open(house.path("drop/sub/a.txt"))
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    let reason = house.reason(&house.prepare(&attach, Some(&file), json!({})));
    assert!(
        reason.contains("/drop/sub/a.txt changed before it could be attached"),
        "{reason}"
    );
    // Swapped for a link to a secret.
    std::fs::write(house.path("elsewhere/secret"), b"hello").unwrap();
    std::fs::remove_file(house.path("drop/sub/a.txt")).unwrap();
    let vanished = house.reason(&house.prepare(&attach, Some(&file), json!({})));
    assert!(vanished.contains("vanished before"), "{vanished}");
    std::os::unix::fs::symlink(house.path("elsewhere/secret"), house.path("drop/sub/a.txt")).unwrap();
    let reason = house.reason(&house.prepare(&attach, Some(&file), json!({})));
    assert!(reason.contains("cannot be attached"), "{reason}");
    // Its folder swapped for a link.
    std::fs::remove_dir_all(house.path("drop/sub")).unwrap();
    std::fs::rename(house.path("elsewhere/secret"), house.path("elsewhere/a.txt")).unwrap();
    std::os::unix::fs::symlink(house.path("elsewhere"), house.path("drop/sub")).unwrap();
    let reason = house.reason(&house.prepare(&attach, Some(&file), json!({})));
    assert!(reason.contains("cannot be attached"), "{reason}");
    // A FIFO does not block.
    std::fs::remove_file(house.path("drop/sub")).unwrap();
    std::fs::create_dir(house.path("drop/sub")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(house.path("drop/sub/a.txt"))
        .status()
        .unwrap();
    assert!(made.success());
    let reason = house.reason(&house.prepare(&attach, Some(&file), json!({})));
    assert!(reason.contains("not a regular file"), "{reason}");
}

#[test]
fn other_paths_are_attached_within_bounds() {
    let house = House::new();
    let file = house.drop_file("a.txt", b"hello");
    std::fs::write(house.path("setup/terms.pdf"), b"%PDF-1.7").unwrap();
    std::fs::write(house.path("elsewhere/list.csv"), b"a;b").unwrap();
    std::fs::write(house.path("elsewhere/secret"), b"x").unwrap();
    house.drop_file("b.txt", b"hello");
    std::os::unix::fs::symlink(house.path("elsewhere/secret"), house.path("setup/link")).unwrap();
    let attach = |source: &str, data: Value| {
        let attach = vec![text(source)];
        house.prepare(&MailSpec { attach, ..spec() }, Some(&file), data)
    };
    let names = |entry: &NewEntry| {
        assert_eq!(entry.held, None);
        entry.summary["attachments"].clone()
    };
    assert_eq!(
        names(&attach("terms.pdf", json!({}))),
        json!([{"name": "terms.pdf", "size": 8}])
    );
    let absolute = house.path("elsewhere/list.csv").to_str().unwrap().to_owned();
    assert_eq!(
        names(&attach(&absolute, json!({}))),
        json!([{"name": "list.csv", "size": 3}])
    );
    assert_eq!(
        names(&attach("{{file.folder}}/b.txt", json!({}))),
        json!([{"name": "b.txt", "size": 5}])
    );
    assert_eq!(
        names(&attach("{{data.name}}.pdf", json!({"name": "terms"}))),
        json!([{"name": "terms.pdf", "size": 8}])
    );
    assert_eq!(names(&attach("{{default data.none \"\"}}", json!({}))), json!([]));
    for (source, data, expected) in [
        (
            "{{data.p}}",
            json!({"p": "/etc/passwd"}),
            "may only name files below",
        ),
        (
            "{{data.p}}",
            json!({"p": "../elsewhere/secret"}),
            "leads out of its folder",
        ),
        (
            "{{file.folder}}/../elsewhere/secret",
            json!({}),
            "leads out of its folder",
        ),
        ("{{data.p}}", json!({"p": "link"}), "cannot be attached"),
        ("link", json!({}), "cannot be attached"),
        ("missing.pdf", json!({}), "No such file"),
        (".", json!({}), "not a regular file"),
    ] {
        let reason = house.reason(&attach(source, data));
        assert!(reason.contains(expected), "{source}: {reason}");
    }
}

#[test]
fn the_log_of_a_job_is_attached_or_its_absence_told() {
    let house = House::new();
    let attach = MailSpec {
        attach: vec![text("job.log")],
        ..spec()
    };
    let entry = house.prepare(&attach, None, json!({}));
    let bytes = house.bytes(&entry);
    let read = MessageParser::default().parse(&bytes).unwrap();
    assert!(
        read.body_text(0)
            .unwrap()
            .contains("job.log: the job left no log"),
        "{entry:?}"
    );
    std::fs::write(house.path("state/job.log"), b"line\n").unwrap();
    let entry = house.prepare(&attach, None, json!({}));
    assert_eq!(
        entry.summary["attachments"],
        json!([{"name": "job.log", "size": 5}])
    );
    let by_fact = MailSpec {
        attach: vec![text("{{data.log}}")],
        ..spec()
    };
    let data = json!({"log": house.path("state/job.log").to_str().unwrap()});
    assert_eq!(
        house.prepare(&by_fact, None, data).summary["attachments"],
        entry.summary["attachments"]
    );
}

#[test]
fn what_is_too_big_is_noted_packed_or_holds_the_mail() {
    let house = House::new();
    let noise: Vec<u8> = (0..40_000u32)
        .map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes()[3])
        .collect();
    let small = house.drop_file("small.txt", b"small");
    house.drop_file("wide.txt", &b"line of a log\n".repeat(10_000));
    house.drop_file("noise.bin", &noise);
    let compose = |names: &[&str], oversize: Oversize| {
        let attach = names
            .iter()
            .map(|name| text(&format!("{{{{file.folder}}}}/{name}")))
            .collect();
        let max_size = 20_000;
        house.prepare(
            &MailSpec {
                attach,
                oversize,
                max_size,
                ..spec()
            },
            Some(&small),
            json!({}),
        )
    };
    let noted = compose(&["small.txt", "wide.txt"], Oversize::Note);
    let bytes = house.bytes(&noted);
    let read = MessageParser::default().parse(&bytes).unwrap();
    assert_eq!(read.attachment_count(), 1);
    let body = read.body_text(0).unwrap();
    assert!(
        body.contains("wide.txt (140.0 kB): too big to attach. It lies at "),
        "{body}"
    );
    assert!(read.body_html(0).unwrap().contains("wide.txt"));
    assert_eq!(noted.summary["omitted"][0]["name"], "wide.txt");

    let packed = compose(&["small.txt", "wide.txt"], Oversize::Zip);
    let bytes = house.bytes(&packed);
    let read = MessageParser::default().parse(&bytes).unwrap();
    let part = read.attachment(0).unwrap();
    assert_eq!(part.attachment_name(), Some("attachments.zip"));
    assert!(part.contents().starts_with(b"PK\x03\x04") && part.contents().len() < 5000);
    assert_eq!(read.attachment_count(), 1);
    let alone = compose(&["wide.txt"], Oversize::Zip);
    assert_eq!(alone.summary["attachments"][0]["name"], "wide.txt.zip");

    let still = compose(&["noise.bin"], Oversize::Zip);
    let bytes = house.bytes(&still);
    let read = MessageParser::default().parse(&bytes).unwrap();
    assert!(
        read.body_text(0)
            .unwrap()
            .contains("too big to attach, even packed")
    );

    let reason = house.reason(&compose(&["noise.bin"], Oversize::Fail));
    assert!(reason.contains("the rule allows 20000"), "{reason}");
}

#[test]
fn what_cannot_be_composed_is_held_and_says_why() {
    let house = House::new();
    for (broken, expected) in [
        (
            MailSpec {
                account: "gone".to_owned(),
                ..spec()
            },
            "no account `gone`",
        ),
        (
            MailSpec {
                template: "gone".to_owned(),
                ..spec()
            },
            "no template `gone`",
        ),
        (
            MailSpec {
                template: "job-failed".to_owned(),
                ..spec()
            },
            "job.name` is not among the facts",
        ),
        (
            MailSpec {
                subject: Some(text("{{file.name}}")),
                ..spec()
            },
            "`subject: {{file.name}}`",
        ),
        (
            MailSpec {
                to: Vec::new(),
                ..spec()
            },
            "at least one recipient",
        ),
        (
            MailSpec {
                headers: vec![("Bcc".to_owned(), text("x"))],
                ..spec()
            },
            "`Bcc` cannot be",
        ),
    ] {
        let entry = house.prepare(&broken, None, json!({}));
        let reason = house.reason(&entry);
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(entry.summary["from"], "Invoices <invoices@contoso.com>");
    }
}

#[test]
fn a_message_longer_than_256_kb_goes_to_the_spool() {
    let house = House::new();
    let content: Vec<u8> = (0..1_000_003u32).map(|n| n.to_le_bytes()[0]).collect();
    let file = house.drop_file("large.bin", &content);
    let attach = vec![text("{{file.path}}")];
    let entry = house.prepare(&MailSpec { attach, ..spec() }, Some(&file), json!({}));
    assert!(matches!(&entry.body, Body::Spooled { .. }), "{:?}", entry.held);
    let bytes = house.bytes(&entry);
    let read = MessageParser::default().parse(&bytes).unwrap();
    assert_eq!(read.attachment(0).unwrap().contents(), content);
}
