//! The Rust SDK of NovaCron.
//!
//! A [`Client`] knows several nodes and goes on with the next one when a node does not answer. That
//! is safe for changes too: each carries a request id, and the cluster executes an id once.

mod backup;
mod changes;
mod error;
mod upload;
mod watch;

pub use backup::Backup;
pub use changes::Changes;
pub use error::Error;
pub use proto::v1;
pub use tonic::Code;
pub use upload::Upload;
pub use watch::Watch;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

/// Whom to ask, and as whom.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port` of some nodes' API.
    pub endpoints: Vec<String>,
    /// The cluster's certificate authority, PEM.
    pub authority: String,
    /// The name that nodes' certificates carry: `CLUSTER-ID.novacron`.
    pub server_name: String,
    /// The bearer credential; empty for the few calls that need none.
    pub bearer: String,
    /// How long a call may take in all, retries included.
    pub deadline: Duration,
    /// The W3C `traceparent` that calls carry, if they belong to a trace.
    pub traceparent: Option<String>,
}

/// A connection to a cluster.
#[derive(Clone)]
pub struct Client {
    channels: Arc<Vec<Channel>>,
    /// The node that answered last.
    current: Arc<AtomicUsize>,
    bearer: Option<MetadataValue<Ascii>>,
    traceparent: Option<MetadataValue<Ascii>>,
    seen: Arc<Mutex<Seen>>,
    deadline: Duration,
}

/// The newest revision that an answer carried, and when.
#[derive(Clone, Copy, Default)]
struct Seen {
    revision: u64,
    at: Option<Instant>,
}

/// How long a revision stands for "lately": much less than the cluster remembers requests.
const SEEN_AGE_MAX: Duration = Duration::from_secs(120);

/// Largest answer, bytes, for whoever calls a method that may give a large one.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Pauses between attempts; the caller's deadline ends them.
fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(1))
        .without_max_times()
        .with_jitter()
        .build()
}

fn wrong(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Options(format!("{what}: {error}"))
}

impl Client {
    /// Prepares connections; they are made when they are used.
    ///
    /// # Errors
    /// [`Error::Options`] when an option cannot be used.
    pub fn new(options: Options) -> Result<Client, Error> {
        if options.endpoints.is_empty() {
            return Err(Error::Options("there is no endpoint to ask".to_owned()));
        }
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&options.authority))
            .domain_name(&options.server_name)
            .timeout(Duration::from_secs(5));
        let mut channels = Vec::new();
        for address in &options.endpoints {
            let endpoint = Endpoint::from_shared(format!("https://{address}"))
                .and_then(|endpoint| endpoint.tls_config(tls.clone()))
                .map_err(|error| wrong(address, &error))?
                .connect_timeout(Duration::from_secs(2))
                .http2_keep_alive_interval(Duration::from_secs(5))
                .keep_alive_timeout(Duration::from_secs(5))
                .tcp_nodelay(true);
            channels.push(endpoint.connect_lazy());
        }
        Client {
            channels: Arc::new(channels),
            current: Arc::default(),
            bearer: None,
            traceparent: None,
            seen: Arc::default(),
            deadline: options.deadline,
        }
        .in_name_of(&options.bearer, options.traceparent)
    }

    /// The same connections, for another caller, as part of another's trace.
    ///
    /// # Errors
    /// [`Error::Options`] when it cannot be sent.
    pub fn in_name_of(&self, bearer: &str, traceparent: Option<String>) -> Result<Client, Error> {
        let bearer = (!bearer.is_empty()).then(|| format!("Bearer {bearer}").parse()).transpose();
        let traceparent = traceparent.map(|text| text.parse()).transpose();
        Ok(Client {
            bearer: bearer.map_err(|error| wrong("the credential", &error))?,
            traceparent: traceparent.map_err(|error| wrong("the traceparent", &error))?,
            seen: Arc::default(),
            ..self.clone()
        })
    }

    /// The same, with so long for a call.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Client {
        Client { deadline, ..self }
    }

    /// What a change is to carry: a fresh request id, and what was seen before it was made. The
    /// cluster refuses an id that may be older than what it remembers, so a client that has seen
    /// nothing lately asks first.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn mutation(&self) -> Result<Option<v1::Mutation>, Error> {
        let since_revision = match self.seen_lately() {
            Some(revision) => revision,
            None => self.learn_revision().await?,
        };
        let request_id = uuid::Uuid::now_v7().to_string();
        Ok(Some(v1::Mutation { request_id, since_revision, validate_only: false }))
    }

    /// Takes note of a revision that an answer carried.
    pub fn note(&self, revision: u64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if revision >= seen.revision {
            *seen = Seen { revision, at: Some(Instant::now()) };
        }
    }

    fn seen_lately(&self) -> Option<u64> {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.at.is_some_and(|at| at.elapsed() < SEEN_AGE_MAX).then_some(seen.revision)
    }

    async fn learn_revision(&self) -> Result<u64, Error> {
        // Any node may answer that has heard of the leader lately.
        const AGE_MS_MAX: u32 = 30_000;
        let freshness = Some(v1::Freshness { max_age_ms: AGE_MS_MAX, ..Default::default() });
        let ask = v1::GetClusterRequest { freshness };
        let cluster = self.call(ask, async |channel, request| {
            v1::clusters_client::ClustersClient::new(channel).get_cluster(request).await
        });
        let revision = cluster.await?.revision;
        self.note(revision);
        Ok(revision)
    }

    /// Calls `method`, and the next node when one cannot answer, until the deadline.
    ///
    /// # Errors
    /// [`Error::Refused`] with what the cluster said; [`Error::Unreachable`] when nobody answered.
    pub async fn call<Q, A>(
        &self,
        message: Q,
        method: impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Error>
    where
        Q: Clone,
    {
        let deadline = Instant::now() + self.deadline;
        let mut pauses = pauses();
        loop {
            let current = self.current();
            let channel = self.channel(current);
            let left = deadline.saturating_duration_since(Instant::now());
            let request = self.request(message.clone(), left);
            let answer = tokio::time::timeout_at(deadline, method(channel, request)).await;
            let status = match answer {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) if error::is_worth_another_try(&status) => status,
                Ok(Err(status)) => return Err(Error::Refused(Box::new(status))),
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            self.move_on(current);
            let next = Instant::now() + pauses.next().unwrap_or_default();
            if next >= deadline {
                return Err(Error::Unreachable(Box::new(status)));
            }
            tokio::time::sleep_until(next).await;
        }
    }

    fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    fn channel(&self, number: usize) -> Channel {
        self.channels[number % self.channels.len()].clone()
    }

    /// The next node is asked from now on, unless another caller has moved on already.
    fn move_on(&self, from: usize) {
        let order = Ordering::Relaxed;
        let _ = self.current.compare_exchange(from, from + 1, order, order);
    }

    fn request<Q>(&self, message: Q, timeout: Duration) -> Request<Q> {
        let mut request = Request::new(message);
        request.set_timeout(timeout);
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        if let Some(traceparent) = &self.traceparent {
            request.metadata_mut().insert("traceparent", traceparent.clone());
        }
        request
    }

    /// Waits until an operation has ended, telling `progress` of each state it is seen in.
    ///
    /// # Errors
    /// As [`Client::call`]; [`Error::Timeout`] after `timeout`.
    pub async fn wait(
        &self,
        operation: &str,
        timeout: Duration,
        mut progress: impl FnMut(&v1::Operation),
    ) -> Result<v1::Operation, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout_ms = u32::try_from(left.as_millis().min(1_000)).unwrap_or(1_000).max(1);
            let wait = v1::WaitOperationRequest { operation: operation.to_owned(), timeout_ms };
            let seen = self
                .call(wait, async |channel, request| {
                    v1::operations_client::OperationsClient::new(channel)
                        .wait_operation(request)
                        .await
                })
                .await?;
            self.note(seen.etag);
            progress(&seen);
            if seen.done {
                return Ok(seen);
            }
            if left.is_zero() {
                return Err(Error::Timeout(operation.to_owned()));
            }
        }
    }

    /// Watches events after `since_revision`, over reconnects and from node to node.
    #[must_use]
    pub fn watch(&self, watch: v1::WatchRequest) -> Watch {
        Watch::new(self.clone(), watch)
    }

    /// What a stream of messages to a node is called with: its channel, and the request that carries
    /// them. A stream is not tried again: who opens it knows what was said already.
    pub fn stream<Q>(&self, messages: Q) -> (Channel, Request<Q>) {
        (self.channel(self.current()), self.stream_request(messages))
    }

    fn stream_request<Q>(&self, messages: Q) -> Request<Q> {
        let mut request = self.request(messages, self.deadline);
        // The deadline is for answers, not for streams.
        request.metadata_mut().remove("grpc-timeout");
        request
    }

    async fn open_watch(
        &self,
        watch: v1::WatchRequest,
    ) -> Result<tonic::Streaming<v1::WatchResponse>, Error> {
        self.call(watch, async |channel, mut request: Request<v1::WatchRequest>| {
            // The deadline is for the answer to begin, not for the stream.
            request.metadata_mut().remove("grpc-timeout");
            v1::events_client::EventsClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .watch(request)
                .await
        })
        .await
    }
}
