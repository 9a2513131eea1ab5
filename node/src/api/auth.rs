//! Who asks: one layer in front of gRPC and REST alike.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use domain::principal::{Principal, Role};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock};
use http::{HeaderMap, header::AUTHORIZATION};
use raft_store::{Consistency, Store, View, listener};
use tonic::{Code, Status, transport::server::TcpConnectInfo};

use super::{errors, rest, secret};

/// A caller that has shown who it is.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    pub(crate) role: Role,
}

tokio::task_local! {
    /// Set around the handler, for both faces. A returned stream is polled outside: it reads this
    /// before it is returned.
    static CALLER: Caller;
}

/// Who asks, if its role is at least this.
pub(crate) fn caller(least: Role) -> Result<Caller, Status> {
    let nobody = || errors::unauthenticated("send a credential as `Authorization: Bearer …`");
    let caller = CALLER.try_with(Clone::clone).map_err(|_| nobody())?;
    if caller.role < least {
        let message = format!("this needs the role {least}; the credential has {}", caller.role);
        return Err(errors::denied(&message));
    }
    Ok(caller)
}

/// How often one address may ask.
pub(crate) struct RateLimits {
    /// Requests of any kind.
    all: DefaultKeyedRateLimiter<IpAddr>,
    /// Requests with a wrong credential, or with none where one is needed.
    failed: DefaultKeyedRateLimiter<IpAddr>,
}

impl RateLimits {
    /// `per_second` requests of one address, and a tenth of that with a wrong credential.
    pub(crate) fn new(per_second: NonZeroU32) -> RateLimits {
        let failed = NonZeroU32::new(per_second.get() / 10).unwrap_or(NonZeroU32::MIN);
        let limit = |rate: NonZeroU32| RateLimiter::keyed(Quota::per_second(rate));
        RateLimits { all: limit(per_second), failed: limit(failed) }
    }

    /// Waits until the address may ask again.
    pub(crate) async fn wait(&self, address: IpAddr) {
        self.all.until_key_ready(&listener::whose(address)).await;
    }

    fn check(limiter: &DefaultKeyedRateLimiter<IpAddr>, address: IpAddr) -> Result<(), Status> {
        /// Addresses remembered at one time; those that rest are forgotten first.
        const ADDRESSES_MAX: usize = 10_000;
        if limiter.len() > ADDRESSES_MAX {
            limiter.retain_recent();
        }
        limiter.check_key(&listener::whose(address)).map_err(|not_yet| {
            errors::too_many(not_yet.wait_time_from(limiter.clock().now()).max(MIN_WAIT))
        })
    }
}

const MIN_WAIT: Duration = Duration::from_millis(1);

/// Paths that need no credential: what tells nothing, and what carries a token of its own.
const OPEN: &[&str] = &[
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/v1/version",
    "/v1/cluster:join",
    "/novacron.v1.Clusters/GetVersion",
    "/novacron.v1.Clusters/Join",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
];

/// Those of them that carry a token of their own: it may be wrong as well as a credential.
const JOIN: &[&str] = &["/v1/cluster:join", "/novacron.v1.Clusters/Join"];

pub(crate) async fn admit(
    State(shared): State<Arc<(Store, Arc<RateLimits>)>>,
    request: Request,
    next: Next,
) -> Response {
    let (store, limits) = &*shared;
    let address =
        request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    let address = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
    let grpc = is_grpc(request.headers());
    let refuse = |status: Status| {
        if grpc { status.into_http::<Body>() } else { rest::response(&status) }
    };
    if let Err(status) = RateLimits::check(&limits.all, address) {
        return refuse(status);
    }
    let path = request.uri().path();
    let open = OPEN.contains(&path) || (path == "/metrics" && address.is_loopback());
    if JOIN.contains(&path)
        && let Err(status) = RateLimits::check(&limits.failed, address)
    {
        return refuse(status);
    }
    let mut identified = identify(&store.view(), request.headers());
    // This node may not have heard of the credential yet: it has just started, or is behind.
    if matches!(identified, Err(Unidentified::Unknown)) && !open {
        if let Err(status) = RateLimits::check(&limits.failed, address) {
            return refuse(status);
        }
        let newest = store.read(Consistency::Linearizable);
        identified = match tokio::time::timeout(CATCH_UP_TIMEOUT, newest).await {
            Ok(Ok(view)) => identify(&view, request.headers()),
            // It cannot tell a wrong credential from a new one.
            Ok(Err(_)) | Err(_) => Err(Unidentified::Refused(Box::new(errors::status(
                Code::Unavailable,
                "the credential is not known to this node, which cannot ask the others; try another",
                "NOT_FRESH",
            )))),
        };
    }
    match identified {
        Ok(caller) => CALLER.scope(caller, next.run(request)).await,
        Err(_) if open => next.run(request).await,
        Err(Unidentified::Refused(status)) => refuse(*status),
        Err(Unidentified::Unknown) => {
            refuse(errors::unauthenticated("the credential is unknown here"))
        }
    }
}

/// Why nobody was recognised.
enum Unidentified {
    /// There is no such credential in the view; a newer one may have it.
    Unknown,
    Refused(Box<Status>),
}

impl From<Status> for Unidentified {
    fn from(status: Status) -> Unidentified {
        Unidentified::Refused(Box::new(status))
    }
}

/// How long a request with an unknown credential waits for this node to catch up.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(5);

fn identify(view: &View, headers: &HeaderMap) -> Result<Caller, Unidentified> {
    let missing = || errors::unauthenticated("send a credential as `Authorization: Bearer …`");
    let value = headers.get(AUTHORIZATION).ok_or_else(missing)?;
    let text = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
    let (id, hash) = text.and_then(secret::read_bearer).ok_or_else(|| {
        errors::unauthenticated("the credential is malformed; it looks like `nct.…`")
    })?;
    let known = view.state.credentials.get(&id);
    // Hashes are compared, not secrets: how long a comparison takes says nothing about a secret.
    if known.is_none_or(|credential| credential.secret_sha256 != hash) {
        return Err(Unidentified::Unknown);
    }
    let principal = Principal::Credential(id);
    let role = view.state.role_of(&principal, crate::clock::wall_ms()).map_err(errors::rejected)?;
    Ok(Caller { principal, role })
}

/// Whether a caller may still go on: streams ask again and again.
pub(crate) fn is_still_valid(store: &Store, caller: &Caller) -> bool {
    let role = store.view().state.role_of(&caller.principal, crate::clock::wall_ms());
    role.is_ok_and(|role| role >= Role::Viewer)
}

/// The same caller, with the role that it has by now.
///
/// # Errors
/// When its credential is not valid any more.
pub(crate) fn renewed(store: &Store, caller: Caller) -> Result<Caller, Status> {
    let role = store.view().state.role_of(&caller.principal, crate::clock::wall_ms());
    Ok(Caller { role: role.map_err(errors::rejected)?, ..caller })
}

/// Does something in a caller's name.
pub(crate) async fn scope<T>(caller: Caller, what: impl Future<Output = T>) -> T {
    CALLER.scope(caller, what).await
}

pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Keeps the caller's own deadline, up to the answer's headers.
pub(crate) async fn grpc_timeout(request: Request, next: Next) -> Response {
    let limit = is_grpc(request.headers()).then(|| timeout_of(request.headers())).flatten();
    let Some(limit) = limit else { return next.run(request).await };
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Status::deadline_exceeded("the caller's deadline passed").into_http::<Body>(),
    }
}

fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = if number.len() <= 8 { number.parse().ok()? } else { return None };
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who asks often is refused, told when to come again, and in nobody else's way.
    #[test]
    fn an_address_is_refused_by_itself() {
        let limits = RateLimits::new(NonZeroU32::MIN);
        let ask = |limiter, address: &str| RateLimits::check(limiter, address.parse().unwrap());
        for limiter in [&limits.all, &limits.failed] {
            for (address, another) in
                [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8:0:1::1")]
            {
                assert!(ask(limiter, address).is_ok());
                let refused = ask(limiter, address).unwrap_err();
                assert_eq!(refused.code(), Code::ResourceExhausted);
                assert!(refused.message().contains("try again in"), "{}", refused.message());
                assert!(ask(limiter, another).is_ok(), "{another}");
            }
            // A network of one caller's own is one caller.
            assert!(ask(limiter, "2001:db8::2").is_err());
            assert!(ask(limiter, "::ffff:192.0.2.1").is_err());
        }
    }
}
