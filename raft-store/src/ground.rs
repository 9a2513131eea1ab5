//! What a store stands on: clocks, threads, and wires to other nodes. A simulation puts its own in
//! their place.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use domain::id::{ClusterId, NodeId};
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::oneshot,
};
use tokio_rustls::TlsConnector;

use crate::identity;

/// Both clocks.
#[derive(Clone, Copy)]
pub(crate) struct Clocks {
    /// Since the machine booted: it goes on while the machine sleeps and nobody can set it.
    pub(crate) since_boot: fn() -> Duration,
    /// Unix milliseconds.
    pub(crate) wall_ms: fn() -> u64,
}

impl Clocks {
    /// The machine's.
    pub(crate) const MACHINE: Clocks = Clocks { since_boot: guard::since_boot, wall_ms };
}

/// The machine's wall time, Unix milliseconds.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Where work goes that blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aside {
    /// To a thread of its own.
    Thread,
    /// Nowhere, it is done at once: threads come in no order that can be repeated.
    #[cfg(feature = "simulation")]
    Here,
}

impl Aside {
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Aside::Thread => Ok(tokio::task::spawn_blocking(work).await?),
            #[cfg(feature = "simulation")]
            Aside::Here => Ok(work()),
        }
    }

    /// The same for work that takes long and that nobody waits for: it leaves the machine to what others do.
    pub(crate) async fn run_yielding<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Aside::Thread => {
                let (tell, done) = oneshot::channel();
                let work = Arc::new(Mutex::new(Some(work)));
                let take = |work: &Mutex<Option<_>>| {
                    work.lock().unwrap_or_else(PoisonError::into_inner).take()
                };
                let thread = std::thread::Builder::new().name("snapshot".to_owned());
                let theirs = work.clone();
                let spawned = thread.spawn(move || {
                    yields();
                    if let Some(work) = take(&theirs) {
                        let _ = tell.send(work());
                    }
                });
                // The machine may have no thread left: then it is one of those that there are.
                if spawned.is_err()
                    && let Some(work) = take(&work)
                {
                    return self.run(work).await;
                }
                done.await.map_err(|_| io::Error::other("the thread panicked"))
            }
            #[cfg(feature = "simulation")]
            Aside::Here => Ok(work()),
        }
    }
}

/// From now on this thread does what it does when the others leave it time: what they do somebody waits for.
pub(crate) fn yields() {
    /// A tenth of the others' weight. Not the least there is: it must come to its end on a busy machine too.
    const NICE: i32 = 10;
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
}

/// What bytes go to and fro on.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// All of it.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) clocks: Clocks,
    pub(crate) aside: Aside,
    pub(crate) dial: Arc<dyn Dial>,
}

/// How other nodes are reached.
pub(crate) trait Dial: Send + Sync {
    /// Connects to an address, and makes sure that this node is there.
    fn dial(&self, node: NodeId, address: String) -> BoxFuture<'static, io::Result<Box<dyn Wire>>>;
}

/// Over TCP with mutual TLS.
pub(crate) struct Tls {
    pub(crate) cluster: ClusterId,
    pub(crate) connector: TlsConnector,
}

impl Dial for Tls {
    fn dial(&self, node: NodeId, address: String) -> BoxFuture<'static, io::Result<Box<dyn Wire>>> {
        let (connector, cluster) = (self.connector.clone(), self.cluster);
        Box::pin(async move {
            let name = identity::server_name(cluster, node).map_err(io::Error::other)?;
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            Ok(Box::new(connector.connect(name, tcp).await?) as Box<dyn Wire>)
        })
    }
}
