//! Making a TCP connection to a name that may have several addresses.

use crate::advice::Local;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// How long one address is tried alone before the next joins in (RFC 8305 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses tried at most.
const ADDRESSES: usize = 8;

/// Connects to the first address of `host` that answers, without Nagle's delay. On failure: one
/// sentence, and what it was.
pub(super) async fn connect(host: &str, port: u16, until: Instant) -> Result<TcpStream, (String, Local)> {
    let addresses = match timeout_at(until, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => interleaved(found.collect()),
        Ok(Err(error)) => return Err((format!("no address for {host}: {error}"), Local::DnsFailure)),
        Err(_) => return Err((format!("no address for {host} in time"), Local::DnsFailure)),
    };
    if addresses.is_empty() {
        return Err((format!("no address for {host}"), Local::DnsFailure));
    }
    match timeout_at(until, race(&addresses)).await {
        Ok(Ok(stream)) => {
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(failures)) => Err((
            format!("no connection to {host} port {port}: {}", failures.join("; ")),
            Local::ConnectFailed,
        )),
        Err(_) => {
            let tried: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            let text = format!(
                "no connection to {host} port {port} in time (tried {})",
                tried.join(", ")
            );
            Err((text, Local::ConnectFailed))
        }
    }
}

/// IPv6 and IPv4 in turn, so that one broken family costs one head start.
fn interleaved(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (six, four): (Vec<_>, Vec<_>) = found.into_iter().partition(SocketAddr::is_ipv6);
    let longest = six.len().max(four.len());
    let pairs = (0..longest).flat_map(|place| [six.get(place), four.get(place)]);
    pairs.flatten().copied().take(ADDRESSES).collect()
}

async fn race(addresses: &[SocketAddr]) -> Result<TcpStream, Vec<String>> {
    let mut tries = JoinSet::new();
    let mut failures = Vec::new();
    let mut rest = addresses.iter().copied();
    loop {
        if let Some(address) = rest.next() {
            tries.spawn(async move {
                TcpStream::connect(address)
                    .await
                    .map_err(|error| format!("{}: {error}", address.ip()))
            });
        }
        let head_start = if rest.len() == 0 {
            Duration::MAX
        } else {
            HEAD_START
        };
        match tokio::time::timeout(head_start, tries.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(failure)))) => failures.push(failure),
            Ok(Some(Err(_))) | Err(_) => {}
            Ok(None) => return Err(failures),
        }
    }
}

/// The address as what EHLO takes where a name is not to be had (RFC 5321 4.1.3). Any server must
/// take it, and it is always true.
pub(super) fn literal(own: IpAddr) -> String {
    match own.to_canonical() {
        IpAddr::V4(four) => format!("[{four}]"),
        IpAddr::V6(six) => format!("[IPv6:{six}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_address_does_not_keep_us_from_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let closed = SocketAddr::from(([127, 0, 0, 1], 1));
        let stream = race(&[closed, closed, good]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert_eq!(race(&[closed, closed]).await.unwrap_err().len(), 2);
    }

    #[test]
    fn families_take_turns() {
        let parse = |text: &str| text.parse().unwrap();
        let found = vec![parse("[::1]:1"), parse("[::2]:1"), parse("1.1.1.1:1")];
        assert_eq!(
            interleaved(found),
            [parse("[::1]:1"), parse("1.1.1.1:1"), parse("[::2]:1")]
        );
        assert_eq!(literal("::1".parse().unwrap()), "[IPv6:::1]");
        assert_eq!(literal("::ffff:10.0.0.1".parse().unwrap()), "[10.0.0.1]");
    }
}
