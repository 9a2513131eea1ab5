//! The accept loop of every listener: TLS, and limits that hold before anybody is authenticated.
//!
//! Connections end with the loop. (A server that lets them go on answers for a node that is gone.)

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::{Connected, TcpConnectInfo, TlsConnectInfo};
use tower::Service;

/// What a caller may take before anybody knows who it is.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at one time. One caller may have half of them.
    pub connections: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time from the handshake to the first whole request header.
    pub first_request: Duration,
    /// Streams of one connection.
    pub streams: u32,
    /// Bytes of one request's headers.
    pub header_bytes: u32,
    /// Time that open requests are given when the listener stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 1_024,
            handshake: Duration::from_secs(5),
            first_request: Duration::from_secs(10),
            streams: 1_024,
            header_bytes: 32 << 10,
            drain: Duration::from_secs(2),
        }
    }
}

/// Serves `service` on `listener` until `stop` becomes true. A handler finds the caller's
/// certificates in its request, as tonic puts them there.
pub async fn serve<S, B>(
    listener: TcpListener,
    tls: rustls::ServerConfig,
    service: S,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let tls = TlsAcceptor::from(Arc::new(tls));
    let slots = Arc::new(Semaphore::new(limits.connections));
    let callers = Arc::new(Callers::default());
    let builder = builder(&limits);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((tcp, address, slot)) = accepted else { continue };
        let Some(place) = Callers::admit(&callers, address, limits.connections.div_ceil(2)) else {
            tracing::debug!(%address, "a caller has too many connections");
            continue;
        };
        let (tls, service, builder) = (tls.clone(), service.clone(), builder.clone());
        let watcher = graceful.watcher();
        connections.spawn(async move {
            let _held = (slot, place);
            let _ = tcp.set_nodelay(true);
            let stream = match tokio::time::timeout(limits.handshake, handshake(&tls, tcp)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a caller failed the TLS handshake");
                    return;
                }
                Err(_) => return,
            };
            let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let seen = Arc::new(AtomicBool::new(false));
            let service = introduce(service, stream.connect_info(), seen.clone());
            let builder = if is_h2 { builder.http2_only() } else { builder.http1_only() };
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(watcher.watch(connection));
            let first = tokio::time::timeout(limits.first_request, &mut connection).await;
            if first.is_err() && seen.load(Ordering::Relaxed) {
                let _ = connection.await;
            }
        });
    }
    drop(listener);
    // Watches and streams of entries have no end of their own: after a while they are cut.
    let _ = tokio::time::timeout(limits.drain, graceful.shutdown()).await;
    connections.shutdown().await;
}

type Slot = tokio::sync::OwnedSemaphorePermit;

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, IpAddr, Slot)> {
    let slot = slots.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((tcp, address)) => Some((tcp, address.ip(), slot)),
        Err(error) => {
            // Out of file descriptors, say: it must not spin.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

/// Whose an address is, as far as limits go: who has one of IPv6 has 2^64 of them.
#[must_use]
pub fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// How many connections each caller has: nobody may keep all others out.
#[derive(Default)]
struct Callers(Mutex<BTreeMap<IpAddr, usize>>);

impl Callers {
    /// A place for one more connection, unless this caller has `most`.
    fn admit(this: &Arc<Callers>, address: IpAddr, most: usize) -> Option<Place> {
        let whose = whose(address);
        let mut all = this.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(whose).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { whose, callers: this.clone() })
    }
}

struct Place {
    whose: IpAddr,
    callers: Arc<Callers>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.callers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.whose);
            }
        }
    }
}

/// The TLS handshake. Whoever speaks plain HTTP is told so, instead of a connection that breaks.
async fn handshake(tls: &TlsAcceptor, mut tcp: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    /// The first byte of every TLS connection.
    const HANDSHAKE_RECORD: u8 = 0x16;
    let mut first = [0];
    tcp.peek(&mut first).await?;
    if first[0] == HANDSHAKE_RECORD {
        return tls.accept(tcp).await;
    }
    let text = "this port speaks TLS only: use https://\n";
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{text}",
        text.len()
    );
    tcp.write_all(answer.as_bytes()).await?;
    tcp.shutdown().await?;
    Err(std::io::Error::other("the caller speaks no TLS"))
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    const WINDOW_BYTES: u32 = 1 << 20;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.first_request)
        .max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_bytes)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES);
    builder
}

/// Puts who calls into each request, where tonic and handlers look for it.
fn introduce<S>(
    service: S,
    caller: TlsConnectInfo<TcpConnectInfo>,
    seen: Arc<AtomicBool>,
) -> TowerToHyperService<
    impl Service<Request<Incoming>, Response = S::Response, Error = S::Error, Future = S::Future>
    + Clone,
>
where
    S: Service<Request<Incoming>> + Clone,
{
    TowerToHyperService::new(tower::util::MapRequest::new(
        service,
        move |mut request: Request<Incoming>| {
            seen.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(caller.get_ref().clone());
            request.extensions_mut().insert(caller.clone());
            request
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_the_places_of_all() {
        const MOST: usize = 2;
        let callers = Arc::new(Callers::default());
        let enter = |address: &str| Callers::admit(&callers, address.parse().unwrap(), MOST);
        let mut places = vec![enter("10.0.0.1").unwrap(), enter("::ffff:10.0.0.1").unwrap()];
        assert!(enter("10.0.0.1").is_none());
        assert!(enter("10.0.0.2").is_some());
        places.pop();
        assert!(enter("10.0.0.1").is_some());
        // One network of IPv6 is one caller.
        places.extend([enter("fd00::1").unwrap(), enter("fd00::ff:1").unwrap()]);
        assert!(enter("fd00::2:0:0:3").is_none());
        assert!(enter("fd00:0:0:1::1").is_some());
        places.clear();
        assert!(callers.0.lock().unwrap().is_empty());
    }
}
