//! A mail server that keeps nothing but who came when: as fast as a server can be, so that it measures the
//! sender and not itself.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A message that came.
#[derive(Clone, Debug)]
pub struct Got {
    /// Its subject, as it was written.
    pub subject: String,
    /// When its last byte was here.
    pub at: Instant,
    /// How long it was.
    pub bytes: usize,
}

#[derive(Debug, Default)]
struct Shared {
    got: Mutex<Vec<Got>>,
    grown: Condvar,
}

/// The server; it listens until the process ends.
#[derive(Debug)]
pub struct Sink {
    /// Where, on 127.0.0.1.
    pub port: u16,
    shared: Arc<Shared>,
}

impl Sink {
    pub fn start() -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::<Shared>::default();
        let kept = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                // A client that goes away ends its thread, and nothing else.
                thread::spawn(move || serve(stream, &kept));
            }
        });
        Sink { port, shared }
    }

    /// Forgets what came, for the next measurement.
    pub fn clear(&self) {
        self.shared.got.lock().unwrap().clear();
    }

    /// Waits for so many messages; what came, also if it was too little.
    pub fn wait(&self, count: usize, longest: Duration) -> Vec<Got> {
        let got = self.shared.got.lock().unwrap();
        let (got, _) = self
            .shared
            .grown
            .wait_timeout_while(got, longest, |got| got.len() < count)
            .unwrap();
        got.clone()
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut buffer: Vec<u8> = Vec::with_capacity(256 * 1024);
    let mut chunk = vec![0; 128 * 1024];
    let mut answers = b"220 sink\r\n".to_vec();
    loop {
        while let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
            match verb.as_slice() {
                b"EHLO" => answers
                    .extend_from_slice(b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"),
                b"DATA" => {
                    answers.extend_from_slice(b"354 go on\r\n");
                    stream.write_all(&answers).ok()?;
                    answers.clear();
                    let (subject, bytes) = message(&mut stream, &mut buffer, &mut chunk)?;
                    let at = Instant::now();
                    shared.got.lock().unwrap().push(Got { subject, at, bytes });
                    shared.grown.notify_all();
                    answers.extend_from_slice(b"250 2.0.0 taken\r\n");
                }
                b"QUIT" => {
                    let _ = stream.write_all(b"221 bye\r\n");
                    return None;
                }
                _ => answers.extend_from_slice(b"250 2.0.0 fine\r\n"),
            }
        }
        stream.write_all(&answers).ok()?;
        answers.clear();
        more(&mut stream, &mut buffer, &mut chunk)?;
    }
}

fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>, chunk: &mut [u8]) -> Option<()> {
    match stream.read(chunk) {
        Ok(0) | Err(_) => None,
        Ok(read) => {
            buffer.extend_from_slice(&chunk[..read]);
            Some(())
        }
    }
}

/// Reads up to the final dot; the subject and the length. What follows stays in `buffer`.
fn message(stream: &mut TcpStream, buffer: &mut Vec<u8>, chunk: &mut [u8]) -> Option<(String, usize)> {
    const END: &[u8] = b"\r\n.\r\n";
    let mut subject = None;
    let mut dropped = 0;
    loop {
        if subject.is_none() {
            subject = header(buffer, b"Subject: ");
        }
        let end = dots(buffer).find(|&at| at >= 2 && buffer.get(at - 2..at + 3) == Some(END));
        if let Some(at) = end {
            let bytes = dropped + at;
            buffer.drain(..at + 3);
            return Some((subject.unwrap_or_default(), bytes));
        }
        // The end may be cut; the head of a message comes whole with its first pieces.
        if buffer.len() > 64 * 1024 {
            let keep = buffer.len() - 4;
            dropped += keep;
            buffer.drain(..keep);
        }
        more(stream, buffer, chunk)?;
    }
}

fn dots(buffer: &[u8]) -> impl Iterator<Item = usize> {
    buffer
        .iter()
        .enumerate()
        .filter_map(|(at, &byte)| (byte == b'.').then_some(at))
}

fn header(buffer: &[u8], name: &[u8]) -> Option<String> {
    let start = buffer.windows(name.len()).position(|window| window == name)? + name.len();
    let rest = &buffer[start..];
    let end = rest.iter().position(|&byte| byte == b'\r')?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}
