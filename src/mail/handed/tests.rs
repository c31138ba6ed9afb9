use super::*;
use mail_parser::MessageParser;

fn leave(raw: &[u8]) -> Vec<u8> {
    leave_as(raw, false)
}

fn leave_as(raw: &[u8], changed: bool) -> Vec<u8> {
    let from: Mailbox = "IT <it@contoso.com>".parse().unwrap();
    let date: jiff::Zoned = "2026-03-02T08:30:00+01:00[Europe/Berlin]".parse().unwrap();
    let message = Incoming::parse(raw).unwrap();
    write(
        &message,
        &Leaving {
            from: &from,
            from_changed: changed,
            keep_sender: false,
            message_id: "made.up@contoso.com",
            date: &date,
            resolve: &|listed| match listed.address.as_str() {
                "root" => vec!["Ops <ops@contoso.com>".parse().unwrap()],
                _ => Vec::new(),
            },
        },
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn what_is_complete_stays_as_it_is() {
    let raw = "From: Ann <it@contoso.com>\r\nTo: a@x.example,\r\n\tB <b@x.example>\r\nSubject: =?utf-8?q?=C3=A4?=\r\n\
               Date: Mon, 2 Mar 2026 08:00:00 +0100\r\nMessage-ID: <1@x>\r\nX-Odd:  two  spaces \r\n\
               Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
               --b\r\nContent-Type: text/plain\r\n\r\n.\r\n..two\r\n--b--\r\n";
    assert_eq!(
        text(&leave(raw.as_bytes())),
        raw.replace("X-Odd:  two", "X-Odd: two")
    );
}

#[test]
fn what_is_missing_is_added_and_bcc_never_leaves() {
    insta::assert_snapshot!(
        text(&leave(b"Subject: hi\nBcc: secret@x.example\nbcc : more@x.example\nReturn-Path: <x@y>\n\nbody")),
        @r"
    Subject: hi
    From: IT <it@contoso.com>
    To: undisclosed-recipients:;
    Date: Mon, 2 Mar 2026 08:30:00 +0100
    Message-ID: <made.up@contoso.com>

    body
    "
    );
}

#[test]
fn names_without_a_domain_and_text_that_is_not_ascii_are_written_anew() {
    insta::assert_snapshot!(
        text(&leave_as(
            "From: root (Cron Daemon)\nTo: root, Zoë <z@x.example>\nCc: nobody\nSubject: Grüße\nSender: boss@x.example\n\nb\n"
                .as_bytes(),
            true
        )),
        @r"
    From: IT <it@contoso.com>
    X-Original-From: root (Cron Daemon)
    To: Ops <ops@contoso.com>,
     =?utf-8?B?Wm/Dqw==?= <z@x.example>
    Subject: =?utf-8?B?R3LDvMOfZQ==?=
    Date: Mon, 2 Mar 2026 08:30:00 +0100
    Message-ID: <made.up@contoso.com>

    b
    "
    );
}

#[test]
fn what_may_stand_once_stands_once() {
    let left = text(&leave(
        b"From: it@contoso.com\nSubject: one\nSubject: two\nTo: a@x\nMessage-ID: no id\nDate: d\nDate: e\n\n",
    ));
    assert_eq!(left.matches("Subject:").count(), 1, "{left}");
    assert_eq!(left.matches("Date:").count(), 1, "{left}");
    assert!(
        left.contains("Subject: one\r\n") && !left.contains("no id"),
        "{left}"
    );
}

#[test]
fn a_body_comes_out_as_it_went_in_however_frail_it_is() {
    let long = "x".repeat(3_000);
    for (body, head) in [
        (format!("{long}\n.\nFrom here\n"), ""),
        ("progress 1%\rprogress 2%\rdone\n".to_owned(), ""),
        ("Grüße\nund mehr \n".to_owned(), ""),
        (
            format!("ä{long}\n"),
            "Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n",
        ),
    ] {
        let raw = format!("To: a@x.example\n{head}\n{body}");
        let left = leave(raw.as_bytes());
        for line in left.split(|byte| *byte == b'\n') {
            assert!(line.len() <= 999, "{}", line.len());
            assert!(!line[..line.len().saturating_sub(1)].contains(&b'\r'));
        }
        let read = MessageParser::default().parse(&left).unwrap();
        assert_eq!(
            read.body_text(0).unwrap().replace("\r\n", "\n"),
            body,
            "{}",
            String::from_utf8_lossy(&left)
        );
    }
}

#[test]
fn eight_bit_text_that_says_what_it_is_is_kept_byte_for_byte() {
    let raw = "To: a@x.example\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n\nGrüße\n";
    let left = text(&leave(raw.as_bytes()));
    assert!(left.ends_with("\r\n\r\nGrüße\r\n"), "{left}");
    assert_eq!(left.matches("8bit").count(), 1, "{left}");
    let raw = "To: a@x.example\nContent-Type: text/plain; charset=UTF-8\n\nGrüße\n";
    let left = text(&leave(raw.as_bytes()));
    assert!(
        left.contains("MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n"),
        "{left}"
    );
}

#[test]
fn a_field_of_many_addresses_is_broken_and_none_is_lost() {
    let all: Vec<String> = (0..200).map(|n| format!("somebody{n}@contoso.com")).collect();
    let left = leave(format!("To: {}\n\nx", all.join(",")).as_bytes());
    let read = MessageParser::default().parse(&left).unwrap();
    assert_eq!(read.to().unwrap().iter().count(), 200);
    assert!(left.split(|byte| *byte == b'\n').all(|line| line.len() <= 999));
}

proptest::proptest! {
    /// Whatever a message says, a reader finds our From, one of it, no Bcc, and no bare CR, LF or NUL.
    #[test]
    fn no_message_makes_another_reader_see_other_fields(
        raw in "((From|To|Bcc|Subject|X-A)[ ]?:[ a-z@<,\"\u{e4}\r]{0,12}\r?\n|[ \t][a-z:\r]{0,5}\n|\n|[a-z\r\u{0}]{1,9}\n){0,12}"
    ) {
        let left = leave_as(raw.as_bytes(), true);
        let mut at = 0;
        while let Some(place) = left[at..].iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            assert_eq!(left[at + place..].get(..2), Some(&b"\r\n"[..]), "{raw:?}");
            at += place + 2;
        }
        assert!(!left.contains(&0));
        let end = left.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&left[..end]).to_lowercase();
        let names: Vec<&str> = head.lines().filter(|line| !line.starts_with([' ', '\t'])).filter_map(|line| line.split(':').next()).collect();
        assert!(!names.contains(&"bcc"), "{raw:?}\n{head}");
        let froms = Incoming::parse(raw.as_bytes()).unwrap().all("from").count().max(1);
        assert_eq!(names.iter().filter(|name| **name == "from").count(), froms, "{raw:?}\n{head}");
    }
}
