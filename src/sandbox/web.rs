//! What the sandbox's mail services over HTTP share: a listener whose connections can be cut before an answer is out, and
//! faults that are played once each.

use super::oauth;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::serve::Listener;
use serde_json::Value;
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use url::Url;

/// What a service does instead of its duty, or after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// That status and that error code, and Retry-After if given.
    Status(u16, &'static str, Option<&'static str>),
    /// Its duty, and Retry-After beside the usual answer.
    DoneAndWait(&'static str),
    /// That status, and the page of a proxy.
    Page(u16),
    /// A portal wants to be visited first.
    Redirect,
    /// Nothing, and the connection breaks.
    Cut,
    /// Its duty, and the connection breaks before the answer is out.
    DoneAndCut,
    /// Its duty, and an answer with a body of that many bytes.
    DoneAndLong(usize),
    /// Its duty, and an answer whose body never ends.
    DoneAndSlow,
}

/// Faults to come, each for a step of the service's.
#[derive(Debug)]
pub struct Faults<S>(VecDeque<(S, Fault)>);

impl<S> Default for Faults<S> {
    fn default() -> Faults<S> {
        Faults(VecDeque::new())
    }
}

impl<S: PartialEq> Faults<S> {
    /// The next `step` that no fault waits for yet meets this one.
    pub fn add(&mut self, step: S, fault: Fault) {
        self.0.push_back((step, fault));
    }

    /// The fault of this step, if one waits.
    pub fn take(&mut self, step: &S) -> Option<Fault> {
        let at = self.0.iter().position(|(of, _)| of == step)?;
        self.0.remove(at).map(|(_, fault)| fault)
    }
}

impl Fault {
    /// Whether the service does its duty all the same.
    pub fn does(&self) -> bool {
        matches!(
            self,
            Fault::DoneAndWait(_) | Fault::DoneAndCut | Fault::DoneAndLong(_) | Fault::DoneAndSlow
        )
    }

    /// What comes back, where `usual` would have.
    pub fn play(&self, usual: Response, cuts: &Cuts) -> Response {
        let status = |status: u16| StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut usual = usual;
        match self {
            Fault::Status(number, code, wait) => {
                let mut response = error(*number, code, "as the test wants it");
                if let Some(wait) = wait {
                    response
                        .headers_mut()
                        .insert(header::RETRY_AFTER, HeaderValue::from_static(wait));
                }
                response
            }
            Fault::DoneAndWait(wait) => {
                usual
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from_static(wait));
                usual
            }
            Fault::Page(number) => {
                let page = "<html><head><title>proxy.local</title></head><body><h1>Access to this page is restricted</h1></body></html>";
                (status(*number), Html(page)).into_response()
            }
            Fault::Redirect => {
                let to = [(header::LOCATION, "http://portal.example/terms")];
                (StatusCode::FOUND, to).into_response()
            }
            Fault::Cut | Fault::DoneAndCut => {
                cuts.cut();
                usual
            }
            Fault::DoneAndLong(bytes) => (usual.status(), vec![b'x'; *bytes]).into_response(),
            Fault::DoneAndSlow => {
                // A length that the body never reaches.
                let (reader, writer) = tokio::io::duplex(1);
                std::mem::forget(writer);
                let body = Body::from_stream(tokio_util::io::ReaderStream::new(reader));
                (usual.status(), body).into_response()
            }
        }
    }
}

/// An error as Graph writes it; Google's has the same place for its words.
pub fn error(status: u16, code: &str, message: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::json!({ "error": {
        "code": code, "message": message,
        "innerError": { "date": "2026-11-22T12:00:00", "request-id": "sandbox-request" },
    }});
    (status, Json(body)).into_response()
}

/// JSON with a status.
pub fn json(status: StatusCode, body: Value) -> Response {
    (status, Json(body)).into_response()
}

/// Breaks all connections there are.
#[derive(Clone, Debug, Default)]
pub struct Cuts(Arc<AtomicU64>);

impl Cuts {
    /// Now.
    pub fn cut(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// A running service; it stops when this is dropped.
#[derive(Debug)]
pub struct Served {
    /// Where it is: `http://127.0.0.1:PORT/`.
    pub url: Url,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a service works with.
pub struct Shared<K> {
    /// Who may.
    pub sign_in: oauth::Handle,
    /// Where it is.
    pub url: Url,
    /// Breaks its connections.
    pub cuts: Cuts,
    kept: Mutex<K>,
    /// How many mails it has sent.
    pub count: watch::Sender<usize>,
}

impl<K> std::fmt::Debug for Shared<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl<K> Shared<K> {
    /// What it keeps.
    pub fn kept(&self) -> MutexGuard<'_, K> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it has sent so many mails.
    pub async fn sent(&self, count: usize) {
        // The sender is ours: it never ends before us.
        let _ = self.count.subscribe().wait_for(|sent| *sent >= count).await;
    }
}

/// Starts a service on a free port of 127.0.0.1, whose people are those of `sign_in`. It stops when what it gives
/// back second is dropped.
pub async fn open<K: Default>(
    sign_in: oauth::Handle,
    app: impl FnOnce(Arc<Shared<K>>) -> Router,
) -> io::Result<(Arc<Shared<K>>, Served)> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = Url::parse(&format!("http://{}/", socket.local_addr()?)).map_err(io::Error::other)?;
    let shared = Arc::new(Shared {
        sign_in,
        url: url.clone(),
        cuts: Cuts::default(),
        kept: Mutex::default(),
        count: watch::Sender::new(0),
    });
    let cuttable = Cuttable {
        socket,
        cuts: shared.cuts.clone(),
    };
    let app = app(Arc::clone(&shared));
    let task = tokio::spawn(async move {
        // It ends only with its task.
        let _ = axum::serve(cuttable, app).await;
    });
    Ok((shared, Served { url, task }))
}

/// A listener whose connections break when told.
#[derive(Debug)]
struct Cuttable {
    socket: TcpListener,
    cuts: Cuts,
}

impl Listener for Cuttable {
    type Io = Thread;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Thread, SocketAddr) {
        let (stream, from) = Listener::accept(&mut self.socket).await;
        let thread = Thread {
            stream,
            uncut: self.cuts.0.load(Ordering::Acquire),
            cuts: self.cuts.clone(),
        };
        (thread, from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// One of its connections.
#[derive(Debug)]
pub struct Thread {
    stream: TcpStream,
    /// The number of cuts when it began.
    uncut: u64,
    cuts: Cuts,
}

impl Thread {
    fn whole(&self) -> io::Result<()> {
        match self.cuts.0.load(Ordering::Acquire) == self.uncut {
            true => Ok(()),
            false => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
}

impl AsyncRead for Thread {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.whole()?;
        Pin::new(&mut self.stream).poll_read(context, out)
    }
}

impl AsyncWrite for Thread {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.whole()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.whole()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
