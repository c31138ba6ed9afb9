//! A message too big for one request: a draft of it without its attachments, then each attachment, then `send`.
//!
//! ```text
//!   POST messages (MIME)  -> id        nothing is sent yet
//!   POST attachments                   each below 3 MB
//!   POST createUploadSession, PUT ..   each from 3 to 150 MB, by pieces, taken up again where it broke off
//!   gate
//!   POST send             -> 202
//! ```
//!
//! Text, page, Message-ID and all other fields are those of the frozen message; only its outermost structure is made anew by
//! the service. A draft whose mail was not sent is removed again.

use super::{Attempt, WHOLE, coded, sent};
use crate::advice::{Local, Stage};
use crate::config::capability::GRAPH_ATTACHMENT as BIGGEST;
use crate::mail::parsed::{self, Apart, Attached};
use crate::transport::Verdict;
use crate::transport::web::refusal::{lost, ours, unreadable, verdict};
use crate::transport::web::source::{Bytes, Source, SourceError, blocking, open};
use crate::transport::web::{Answer, Method, Request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::time::Duration;
use url::Url;

/// From here on an attachment needs an upload session.
const SESSION: u64 = 3 * 1024 * 1024;
/// Bytes of one piece: a multiple of 320 KiB below 4 MB.
const PIECE: u64 = 12 * 320 * 1024;
/// How often one piece is tried again.
const AGAIN: u32 = 4;
/// Longest wait within an upload; a longer one is the outbox's business.
const PATIENCE: Duration = Duration::from_secs(30);

impl Attempt<'_> {
    pub(super) async fn large(&self, source: &Source) -> Verdict {
        let most = usize::try_from(WHOLE / 4 * 3).unwrap_or(usize::MAX);
        let kept = source.clone();
        let apart = blocking(move || {
            let mut reader = BufReader::new(open(kept.content())?);
            Ok(parsed::apart(&mut reader, most)?)
        });
        let too_big = |text: String| ours(Stage::Graph, Local::MessageTooBig, text);
        let Apart { rest, attachments } = match apart.await {
            Ok(Some(apart)) => apart,
            Ok(None) => {
                return too_big(format!(
                    "the message has {} bytes, and what is too big in it is no attachment that could be uploaded",
                    source.size()
                ));
            }
            Err(error) => return unreadable(&error, Stage::Graph),
        };
        if let Some(one) = attachments.iter().find(|one| one.size > BIGGEST) {
            return too_big(format!("{} has {} bytes; Graph takes 150 MB", one.name, one.size));
        }
        let mime = [source.bcc(), &rest].concat();
        if coded(mime.len() as u64) > WHOLE {
            return too_big(format!("the text alone has {} bytes", mime.len()));
        }
        let request = self
            .to(Method::POST, &["messages"])
            .with("text/plain", STANDARD.encode(mime).into_bytes());
        let draft = match self.prepare(request).await {
            Ok(answer) => answer
                .json()
                .and_then(|json| Some(json.get("id")?.as_str()?.to_owned())),
            Err(verdict) => return verdict,
        };
        let Some(draft) = draft else {
            return Verdict::Unreached {
                text: "Graph made a draft and did not say which".to_owned(),
                transient: true,
                local: Local::HttpPage,
            };
        };
        for one in &attachments {
            if let Err(verdict) = self.attach(&draft, one, source).await {
                self.remove(&draft).await;
                return verdict;
            }
        }
        let request = self.to(Method::POST, &["messages", &draft, "send"]);
        let handed = self.graph.web.hand_over(request, self.gate, self.transcript);
        let verdict = match handed.await {
            Ok(answer) => sent(&answer),
            Err(error) => lost(error, true),
        };
        if !matches!(verdict, Verdict::Accepted { .. } | Verdict::Unknown { .. }) {
            self.remove(&draft).await;
        }
        verdict
    }

    /// A request that sends nothing and must succeed.
    async fn prepare(&self, request: Request<'_>) -> Result<Answer, Verdict> {
        match self.graph.web.ask(request, self.transcript).await {
            Ok(answer) if matches!(answer.status, 200 | 201) && answer.json().is_some() => Ok(answer),
            Ok(answer) => Err(verdict(&answer, Stage::Graph, false)),
            Err(error) => Err(lost(error, false)),
        }
    }

    /// A draft that stays behind would be in nobody's way, so a failure is not told.
    async fn remove(&self, draft: &str) {
        let request = self.to(Method::DELETE, &["messages", draft]);
        let removed = self.graph.web.ask(request, self.transcript).await;
        if !matches!(&removed, Ok(answer) if answer.status == 204) {
            tracing::debug!("a draft could not be removed");
        }
    }

    async fn attach(&self, draft: &str, one: &Attached, source: &Source) -> Result<(), Verdict> {
        if one.size >= SESSION {
            return self.upload(draft, one, source).await;
        }
        let (piece, _) = Reading::at(source, one, 0).take(one.size).await?;
        let body = json!({
            "@odata.type": "#microsoft.graph.fileAttachment",
            "name": one.name,
            "contentType": one.content_type,
            "contentBytes": STANDARD.encode(piece),
        });
        let request = self
            .to(Method::POST, &["messages", draft, "attachments"])
            .with("application/json", body.to_string().into_bytes());
        self.prepare(request).await.map(|_| ())
    }

    async fn upload(&self, draft: &str, one: &Attached, source: &Source) -> Result<(), Verdict> {
        let item = json!({ "AttachmentItem": {
            "attachmentType": "file", "name": one.name, "size": one.size, "contentType": one.content_type,
        }});
        let request = self
            .to(
                Method::POST,
                &["messages", draft, "attachments", "createUploadSession"],
            )
            .with("application/json", item.to_string().into_bytes());
        let answer = self.prepare(request).await?;
        let address = answer
            .json()
            .and_then(|json| Url::parse(json.get("uploadUrl")?.as_str()?).ok());
        let Some(address) = address else {
            return Err(Verdict::Unreached {
                text: format!("{} opened an upload and did not say where", answer.host),
                transient: true,
                local: Local::HttpPage,
            });
        };
        let mut reading = Reading::at(source, one, 0);
        let mut failures = 0;
        loop {
            let start = reading.offset;
            let (piece, rest) = reading.take(PIECE).await?;
            let end = start + piece.len() as u64;
            // The address is the permission: a token beside it would be refused, or worse, taken somewhere else.
            let request = Request::new(Method::PUT, address.clone(), None)
                .field("content-range", format!("bytes {start}-{}/{}", end - 1, one.size))
                .with("application/octet-stream", piece);
            let answered = self.graph.web.ask(request, self.transcript).await;
            let failed = match answered {
                Ok(answer) if answer.status == 201 => return Ok(()),
                Ok(answer) if matches!(answer.status, 200 | 202) => {
                    let next = next_expected(answer.json().as_ref()).unwrap_or(end);
                    failures = if next > start { 0 } else { failures + 1 };
                    if failures > AGAIN {
                        return Err(verdict(&answer, Stage::Graph, false));
                    }
                    if next >= one.size {
                        return Ok(());
                    }
                    reading = if next == end {
                        rest
                    } else {
                        Reading::at(source, one, next)
                    };
                    continue;
                }
                Ok(answer) => Err(answer),
                Err(error) => Ok(lost(error, false)),
            };
            failures += 1;
            let wait = Duration::from_secs(1 << failures.min(4));
            let wait = match &failed {
                Err(answer) if !matches!(answer.status, 408 | 409 | 416 | 429 | 500..) => {
                    return Err(verdict(answer, Stage::Graph, false));
                }
                Err(answer) => wait.max(answer.retry_after.unwrap_or_default()),
                Ok(_) => wait,
            };
            if failures > AGAIN || wait > PATIENCE {
                return Err(failed.unwrap_or_else(|answer| verdict(&answer, Stage::Graph, false)));
            }
            tokio::time::sleep(wait).await;
            // What came before it broke off need not be sent again.
            let asked = Request::new(Method::GET, address.clone(), None);
            let status = self.graph.web.ask(asked, self.transcript).await.ok();
            let next = status
                .filter(|answer| answer.status == 200)
                .and_then(|answer| next_expected(answer.json().as_ref()));
            reading = Reading::at(source, one, next.unwrap_or(start).min(one.size));
            if reading.offset >= one.size {
                return Ok(());
            }
        }
    }
}

/// Where the service wants to be told on: the first number of its first expected range, whether written as a list of
/// texts (`["12345-"]`) or as one.
fn next_expected(answer: Option<&Value>) -> Option<u64> {
    let answer = answer?;
    let ranges = answer
        .get("nextExpectedRanges")
        .or_else(|| answer.get("NextExpectedRanges"))?;
    let first = match ranges {
        Value::Array(list) => list.first()?,
        other => other,
    };
    first.as_str()?.split('-').next()?.trim().parse().ok()
}

/// An attachment, read on from some byte of it.
struct Reading {
    source: Source,
    one: Attached,
    offset: u64,
    /// Absent until the first piece.
    open: Option<Box<dyn io::Read + Send>>,
}

impl Reading {
    fn at(source: &Source, one: &Attached, offset: u64) -> Reading {
        Reading {
            source: source.clone(),
            one: one.clone(),
            offset,
            open: None,
        }
    }

    /// The next bytes, at most `most`, and the reading behind them.
    async fn take(mut self, most: u64) -> Result<(Vec<u8>, Reading), Verdict> {
        let read = blocking(move || {
            let wanted = most.min(self.one.size.saturating_sub(self.offset));
            let mut open = match self.open.take() {
                Some(open) => open,
                None => self.begin()?,
            };
            let mut piece = Vec::new();
            open.by_ref().take(wanted).read_to_end(&mut piece)?;
            if piece.len() as u64 != wanted {
                return Err(SourceError::Read(io::ErrorKind::UnexpectedEof.into()));
            }
            self.offset += wanted;
            self.open = Some(open);
            Ok((piece, self))
        });
        read.await.map_err(|error| unreadable(&error, Stage::Graph))
    }

    fn begin(&self) -> io::Result<Box<dyn io::Read + Send>> {
        let mut text: Bytes = open(self.source.content())?;
        text.seek(SeekFrom::Start(self.one.place.start))?;
        let length = self.one.place.end - self.one.place.start;
        let mut decoded = parsed::decoded(text.take(length));
        let skipped = io::copy(&mut decoded.by_ref().take(self.offset), &mut io::sink())?;
        if skipped != self.offset {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Box::new(decoded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_range_is_read_in_each_form_that_was_seen() {
        for (answer, next) in [
            (json!({"nextExpectedRanges": ["327680-"]}), Some(327_680)),
            (json!({"nextExpectedRanges": ["0-1", "5-"]}), Some(0)),
            (json!({"NextExpectedRanges": ["2097152"]}), Some(2_097_152)),
            (json!({"nextExpectedRanges": "12-99"}), Some(12)),
            (json!({"nextExpectedRanges": []}), None),
            (json!({"nextExpectedRanges": [7]}), None),
            (json!([]), None),
        ] {
            assert_eq!(next_expected(Some(&answer)), next, "{answer}");
        }
    }

    #[test]
    fn pieces_are_multiples_of_320_kib_below_4_mb() {
        assert_eq!(PIECE % (320 * 1024), 0);
        const { assert!(PIECE < 4_000_000) };
    }
}
