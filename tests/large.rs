//! A large attachment is never whole in memory. Alone in its process, since it measures the process.

use std::fs::File;
use tidings::mail::address::Mailbox;
use tidings::mail::message::{Draft, Part};

#[test]
fn a_large_attachment_is_written_by_pieces() {
    /// Highest memory this process ever had, bytes.
    fn peak() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
    let size = 50_000_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large");
    File::create(&path).unwrap().set_len(size).unwrap();
    let someone: Mailbox = "a@x.example".parse().unwrap();
    let mut out = File::create(dir.path().join("out")).unwrap();
    let before = peak();
    Draft {
        from: &someone,
        reply_to: None,
        to: std::slice::from_ref(&someone),
        cc: &[],
        subject: "large",
        date: &"2026-11-22T09:01:04+01:00[Europe/Berlin]".parse().unwrap(),
        message_id: "a@x.example",
        fields: &[],
        text: "text",
        html: None,
        attachments: vec![Part {
            name: "large".to_owned(),
            content_type: "application/octet-stream".to_owned(),
            size,
            content: Box::new(File::open(&path).unwrap()),
        }],
    }
    .write(&mut out)
    .unwrap();
    assert!(out.metadata().unwrap().len() > 68_000_000);
    let grown = peak() - before;
    assert!(grown < 4_000_000, "memory grew by {grown} bytes");
}
