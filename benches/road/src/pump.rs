//! The floor: what any program must do that takes files for mails durably, and nothing else.
//!
//! One thread hears of files, one writes SQLite (WAL, `synchronous=FULL`) in groups: a mail goes out once the
//! commit that holds it is done, and that it was taken is written with the next group. Our own SMTP pool with our own
//! dialogue sends. No rules, no templates, no journal, no gate, no retries: after a crash it would send more twice
//! than it has connections. It runs as a process of its own, as the program does.

use base64::Engine as _;
use rusqlite::{Connection, params};
use rustix::fs::inotify;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use tidings::config::settings::{LoginAs, SmtpSettings, Tls};
use tidings::mail::Envelope;
use tidings::transport::smtp::Smtp;
use tidings::transport::{Content, Limits, Login, Open, Parcel, Verdict};
use tokio::sync::mpsc as queue;

/// What the pump is told on its command line.
#[derive(Clone, Debug)]
pub struct Told {
    /// Where `drop` is, and its database is made.
    pub folder: PathBuf,
    pub port: u16,
    pub connections: usize,
    /// Length of a message.
    pub size: usize,
    /// The file goes along.
    pub attach: bool,
}

impl Told {
    pub fn words(&self) -> Vec<String> {
        vec![
            "pump".to_owned(),
            self.folder.display().to_string(),
            self.port.to_string(),
            self.connections.to_string(),
            self.size.to_string(),
            self.attach.to_string(),
        ]
    }

    pub fn read(words: &[String]) -> Option<Told> {
        let [word, folder, port, connections, size, attach] = words else {
            return None;
        };
        (word == "pump").then_some(())?;
        Some(Told {
            folder: folder.into(),
            port: port.parse().ok()?,
            connections: connections.parse().ok()?,
            size: size.parse().ok()?,
            attach: attach.parse().ok()?,
        })
    }
}

enum Ask {
    Take(String),
    Sent(i64),
}

type Mail = (i64, Arc<[u8]>);

/// Pumps until it is killed.
pub fn run(told: Told) {
    let (ask, asked) = mpsc::channel();
    let (mails, waiting) = queue::unbounded_channel::<Mail>();
    let writer = told.clone();
    std::thread::spawn(move || write(&writer, &asked, &mails));
    let hears = ask.clone();
    let drop = told.folder.join("drop");
    let ready = told.folder.join("ready");
    std::thread::spawn(move || hear(&drop, &ready, &hears));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(send(&told, waiting, ask));
}

fn hear(folder: &Path, ready: &Path, ask: &mpsc::Sender<Ask>) {
    let inotify = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&inotify, folder, inotify::WatchFlags::MOVED_TO).unwrap();
    std::fs::write(ready, b"").unwrap();
    let mut buffer = [MaybeUninit::uninit(); 64 * 1024];
    let mut reader = inotify::Reader::new(inotify, &mut buffer);
    loop {
        let heard = reader.next().unwrap();
        let Some(name) = heard.file_name() else {
            panic!("the kernel's queue ran over");
        };
        let name = name.to_str().unwrap().to_owned();
        ask.send(Ask::Take(name)).unwrap();
    }
}

fn write(told: &Told, asked: &mpsc::Receiver<Ask>, mails: &queue::UnboundedSender<Mail>) {
    let connection = Connection::open(told.folder.join("pump.db")).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE mail (id INTEGER PRIMARY KEY, name TEXT UNIQUE, sent INTEGER, bytes BLOB);",
        )
        .unwrap();
    while let Ok(first) = asked.recv() {
        let mut ready = Vec::new();
        connection
            .prepare_cached("BEGIN IMMEDIATE")
            .unwrap()
            .execute([])
            .unwrap();
        for ask in std::iter::once(first).chain(asked.try_iter().take(1023)) {
            match ask {
                Ask::Take(name) => {
                    let bytes = compose(told, &name);
                    connection
                        .prepare_cached("INSERT INTO mail (name, sent, bytes) VALUES (?1, 0, ?2)")
                        .unwrap()
                        .execute(params![name, bytes])
                        .unwrap();
                    ready.push((connection.last_insert_rowid(), Arc::from(bytes)));
                }
                Ask::Sent(id) => {
                    connection
                        .prepare_cached("UPDATE mail SET sent = 1 WHERE id = ?1")
                        .unwrap()
                        .execute([id])
                        .unwrap();
                }
            }
        }
        connection.prepare_cached("COMMIT").unwrap().execute([]).unwrap();
        for mail in ready {
            mails.send(mail).unwrap();
        }
    }
}

fn compose(told: &Told, name: &str) -> Vec<u8> {
    let mut bytes = format!(
        "From: robot@example.org\r\nTo: ap@example.org\r\nSubject: {name}\r\n\
         Message-ID: <{name}@example.org>\r\nMIME-Version: 1.0\r\n\r\n"
    )
    .into_bytes();
    if told.attach {
        let file = std::fs::read(told.folder.join("drop").join(name)).unwrap();
        bytes.reserve(file.len() / 57 * 78 + 80);
        for piece in file.chunks(57) {
            let line = base64::engine::general_purpose::STANDARD.encode(piece);
            bytes.extend_from_slice(line.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
    }
    while bytes.len() < told.size {
        bytes.extend_from_slice(
            b"a line of text as long as lines of text in mails mostly are, more or less\r\n",
        );
    }
    bytes
}

async fn send(told: &Told, mut waiting: queue::UnboundedReceiver<Mail>, ask: mpsc::Sender<Ask>) {
    let settings = SmtpSettings {
        host: "127.0.0.1".to_owned(),
        port: told.port,
        tls: Tls::None,
        ca_file: None,
        login_as: LoginAs::User,
    };
    let smtp = Arc::new(Smtp::new(&settings, Limits::default(), told.connections).unwrap());
    let robot: tidings::mail::address::Address = "robot@example.org".parse().unwrap();
    let envelope = Envelope::new(robot, vec!["ap@example.org".parse().unwrap()]).unwrap();
    let places = Arc::new(tokio::sync::Semaphore::new(told.connections));
    while let Some((id, bytes)) = waiting.recv().await {
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        let (smtp, ask, envelope) = (Arc::clone(&smtp), ask.clone(), envelope.clone());
        tokio::spawn(async move {
            let parcel = Parcel {
                envelope,
                content: Content::Bytes(bytes),
                message_id: format!("<{id}@example.org>"),
            };
            let report = smtp.submit(&Login::Anonymous, &parcel, &Open, None).await;
            drop(place);
            match report.verdict {
                Verdict::Accepted { .. } => ask.send(Ask::Sent(id)).unwrap(),
                other => panic!("the sink did not take a mail: {other:?}"),
            }
        });
    }
}
