use super::*;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file that settled with this content.
    fn file(&self, name: &str, content: &[u8]) -> FileRef {
        std::fs::write(self.path(name), content).unwrap();
        self.known(name)
    }

    fn known(&self, name: &str) -> FileRef {
        let data = std::fs::metadata(self.path(name)).unwrap();
        FileRef {
            root: self.0.path().to_owned(),
            relative: name.into(),
            size: data.len(),
            mtime_ns: data.mtime() * 1_000_000_000 + data.mtime_nsec(),
        }
    }
}

fn all(file: &FileRef) -> Map<String, Value> {
    read(file, &Part::ALL.into(), &Ground::default()).unwrap()
}

fn one(file: &FileRef, part: Part) -> Value {
    read(file, &[part].into(), &Ground::default()).unwrap()[part.as_str()].clone()
}

#[test]
fn everything_is_read_in_one_go_and_only_what_was_asked() {
    let place = Place::new();
    let file = place.file("orders.csv", b"\xef\xbb\xbfnumber;name\r\n1;\"A;\nB\"\r\n2;C\r\n");
    let facts = all(&file);
    assert_eq!(facts["lines"], 4);
    assert_eq!(facts["first_line"], "number;name");
    assert_eq!(facts["csv"], json!({ "header": ["number", "name"], "rows": 2 }));
    assert_eq!(facts["text"], "number;name\r\n1;\"A;\nB\"\r\n2;C\r\n");
    assert_eq!(facts["mime"], "text/csv");
    let me = rustix::process::getuid().as_raw();
    assert_eq!(facts["owner"], user(me).as_str());
    assert_eq!(
        read(&file, &BTreeSet::new(), &Ground::default()).unwrap(),
        Map::new()
    );
    let abc = place.file("abc", b"abc");
    let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(one(&abc, Part::Sha256), known);
    let empty = all(&place.file("empty.txt", b""));
    assert_eq!(
        (&empty["lines"], &empty["first_line"], &empty["text"]),
        (&json!(0), &json!(""), &json!(""))
    );
    assert_eq!(empty["csv"], json!({ "header": [], "rows": 0 }));
    assert!(empty["sha256"].as_str().unwrap().starts_with("e3b0c442"));
    assert_eq!(one(&place.file("a", b"one\ntwo"), Part::Lines), 2);
}

#[test]
fn the_kind_is_what_stands_in_it_and_else_what_its_name_says() {
    let place = Place::new();
    let kind = |name: &str, content: &[u8]| one(&place.file(name, content), Part::Mime);
    assert_eq!(kind("scan.pdf", b"%PDF-1.7\n"), "application/pdf");
    assert_eq!(
        kind("invoice.pdf", b"MZ\x90\0"),
        "application/vnd.microsoft.portable-executable"
    );
    assert_eq!(kind("photo", b"\xff\xd8\xff\xe0"), "image/jpeg");
    assert_eq!(kind("list.csv", b"a,b\n"), "text/csv");
    assert_eq!(kind("readme", b"hello\n"), "text/plain");
    assert_eq!(kind("blob", b"\x01\x00\x02"), "application/octet-stream");
    let document = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
    assert_eq!(kind("letter.docx", b"PK\x03\x04rest"), document);
    assert_eq!(kind("archive.zip", b"PK\x03\x04rest"), "application/zip");
}

#[test]
fn bytes_that_are_no_text_are_shown_lossily_and_never_fail() {
    let place = Place::new();
    let file = place.file("latin1.txt", b"caf\xe9;\x1b[31m\x00\r\nrest");
    let facts = all(&file);
    assert_eq!(facts["first_line"], "caf\u{fffd};\u{1b}[31m\u{0}");
    assert_eq!(
        facts["csv"],
        json!({ "header": [], "rows": null }),
        "what has NUL bytes has no rows"
    );
    for length in 0..=8 {
        let text = "ä€𝄞x".repeat(TEXT / 4);
        let cut = lossy(&text.as_bytes()[..TEXT - length], true);
        assert!(!cut.contains('\u{fffd}'), "cut {length} before the end");
        assert!(text.starts_with(&cut) && cut.len() > TEXT - length - 4);
    }
    assert_eq!(lossy(b"\x80\x80\x80\x80", true).chars().count(), 4);
}

#[test]
fn a_large_file_is_read_no_further_than_its_facts_need() {
    let place = Place::new();
    let huge = place.path("huge.csv");
    std::fs::write(&huge, "a,b\n1,2\n").unwrap();
    // A hole: no disk is needed, and reading it all would take minutes.
    std::fs::File::options()
        .write(true)
        .open(&huge)
        .unwrap()
        .set_len(10_000_000_000)
        .unwrap();
    let file = place.known("huge.csv");
    let begun = Instant::now();
    let facts = all(&file);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!((&facts["sha256"], &facts["lines"]), (&Value::Null, &Value::Null));
    assert_eq!(facts["csv"]["rows"], Value::Null);
    assert_eq!(facts["first_line"], "a,b");
    assert_eq!(facts["text"].as_str().unwrap().len(), TEXT);
    assert_eq!(facts["mime"], "text/csv");
}

#[test]
fn what_takes_too_long_is_left_out_and_the_rest_is_told() {
    let place = Place::new();
    let long = place.file("long.csv", &b"a,b\n".repeat(500_000));
    let facts = read_within(&long, &long.root, &Part::ALL.into(), Duration::ZERO).unwrap();
    assert_eq!((&facts["sha256"], &facts["lines"]), (&Value::Null, &Value::Null));
    assert_eq!(facts["csv"], json!({ "header": ["a", "b"], "rows": null }));
    assert_eq!(all(&long)["lines"], 500_000);
}

#[test]
fn a_long_line_and_a_bomb_are_what_they_are() {
    let place = Place::new();
    let line = place.file("line.txt", &vec![b'x'; 3_000_000]);
    let facts = all(&line);
    assert_eq!(facts["first_line"].as_str().unwrap().len(), LINE);
    assert_eq!(facts["lines"], 1);
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut bomb, &vec![b'0'; 10_000_000]).unwrap();
    let bomb = place.file("bomb.gz", &bomb.finish().unwrap());
    assert!(bomb.size < 100_000);
    let facts = all(&bomb);
    assert_eq!(facts["mime"], "application/gzip");
    assert!(
        facts["text"].as_str().unwrap().len() < 300_000,
        "nothing was unpacked"
    );
}

#[test]
fn only_the_version_that_settled_is_read_and_no_link_is_followed() {
    let place = Place::new();
    let file = place.file("a.txt", b"first");
    let parts = BTreeSet::from([Part::Text]);
    std::fs::write(place.path("a.txt"), "longer than before").unwrap();
    assert_eq!(
        read(&file, &parts, &Ground::default()),
        Err(Unread::Changed { then: 5, now: 18 })
    );
    std::fs::remove_file(place.path("a.txt")).unwrap();
    assert_eq!(read(&file, &parts, &Ground::default()), Err(Unread::Gone));
    std::os::unix::fs::symlink("/etc/passwd", place.path("a.txt")).unwrap();
    assert_eq!(read(&file, &parts, &Ground::default()), Err(Unread::Gone));
    let fifo = FileRef {
        relative: "pipe".into(),
        ..file.clone()
    };
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert_eq!(
        read(&fifo, &parts, &Ground::default()),
        Err(Unread::Gone),
        "and nobody waits for its writer"
    );
    let outside = FileRef {
        relative: "../a.txt".into(),
        ..file.clone()
    };
    assert!(read(&outside, &parts, &Ground::default()).is_err());
    let away = FileRef {
        root: Path::new("/no/such/folder").into(),
        ..file
    };
    assert_eq!(
        read(&away, &parts, &Ground::default()),
        Err(Unread::Away(Away::Missing))
    );
}
