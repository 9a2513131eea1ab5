//! The public API: gRPC and REST on one TLS port, the same answer for both.
//!
//! The way of a request: [`measure`] (counts it, whatever becomes of it) → limits (before anybody knows who asks) → [`auth`] (who asks) → the noun's
//! handler (read: what may the role see; change: [`change`], and `decide` has the last word).

mod admin;
mod alerts;
mod auth;
mod backups;
mod change;
mod changes;
mod clusters;
mod console;
mod discovery;
mod errors;
mod events;
mod filter;
mod hosts;
mod images;
mod list;
mod locks;
mod measure;
mod migration_policies;
mod monitoring;
mod operations;
mod plan;
mod relay;
mod rest;
mod secret;
mod uploads;
mod vms;

pub use secret::{JoinSecret, bearer, fresh_secret};

use std::{path::PathBuf, sync::Arc, time::Duration};

use domain::State;
use proto::v1;
use raft_store::{Consistency, Store, View};
use tonic::Status;

use crate::{files::Files, metrics::Node};
use measure::Methods;

/// Largest request body, bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What handlers work with.
#[derive(Clone)]
pub struct Api {
    /// The state.
    pub(crate) store: Store,
    /// This node's files: the authority signs those who join.
    pub(crate) files: Arc<Files>,
    /// The hosts this node drives: their consoles are read here.
    pub(crate) hosts: Vec<Arc<actors::LocalHost>>,
    /// This node's copies of images.
    pub(crate) images: Arc<actors::ImageFiles>,
    /// The consoles that somebody is attached to.
    pub(crate) attached: console::Attached,
    /// So many files may come at one time.
    pub(crate) uploads: Arc<tokio::sync::Semaphore>,
    /// So many streams of changes may be open at one time.
    pub(crate) streams: Arc<tokio::sync::Semaphore>,
    /// So many backups may be made at one time.
    pub(crate) backups: Arc<tokio::sync::Semaphore>,
    /// How often an address may ask.
    pub(crate) limits: Arc<auth::RateLimits>,
    /// Connections to the other nodes.
    pub(crate) connections: relay::Connections,
    /// What this node has measured of its hosts.
    pub(crate) monitor: Arc<actors::Monitor>,
    /// The data directory.
    pub(crate) directory: PathBuf,
}

impl Api {
    /// A view that is as fresh as the request wants.
    async fn view(&self, freshness: Option<&v1::Freshness>) -> Result<Arc<View>, Status> {
        let consistency = match freshness {
            Some(v1::Freshness { min_revision: revision @ 1.., .. }) => {
                Consistency::AtLeast(domain::Revision::from_u64(*revision))
            }
            Some(v1::Freshness { max_age_ms: age @ 1.., .. }) => {
                Consistency::MaxAge(Duration::from_millis(u64::from(*age)))
            }
            Some(v1::Freshness { stale: true, .. }) => Consistency::AtLeast(domain::Revision::ZERO),
            Some(_) | None => Consistency::Linearizable,
        };
        self.store.read(consistency).await.map_err(errors::read)
    }
}

/// Finds a row by its id or its name.
fn find<'a, T, K: std::str::FromStr>(
    text: &str,
    by_id: impl FnOnce(K) -> Option<&'a T>,
    by_name: impl FnOnce(domain::name::Name) -> Option<&'a T>,
) -> Option<&'a T> {
    let found = text.parse().ok().and_then(by_id);
    found.or_else(|| domain::name::Name::new(text).ok().and_then(by_name))
}

/// See [`auth::RateLimits`].
pub(crate) fn rate_limits(per_second: std::num::NonZeroU32) -> Arc<auth::RateLimits> {
    Arc::new(auth::RateLimits::new(per_second))
}

/// The whole of the API as one service.
pub(crate) fn router(api: Api) -> axum::Router {
    use v1::{
        alerts_server::AlertsServer, backups_server::BackupsServer, changes_server::ChangesServer,
        clusters_server::ClustersServer, consoles_server::ConsolesServer,
        credentials_server::CredentialsServer, events_server::EventsServer,
        hosts_server::HostsServer, images_server::ImagesServer, locks_server::LocksServer,
        migration_policies_server::MigrationPoliciesServer, monitoring_server::MonitoringServer,
        operations_server::OperationsServer, projects_server::ProjectsServer,
        settings_server::SettingsServer, tokens_server::TokensServer,
        uploads_server::UploadsServer, vms_server::VmsServer,
    };
    let (health, health_service) = tonic_health::server::health_reporter();
    drop(health);
    let mut grpc = tonic::service::Routes::default()
        .add_service(VmsServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX))
        .add_service(OperationsServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX))
        .add_service(HostsServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX))
        .add_service(LocksServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX))
        .add_service(
            MigrationPoliciesServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX),
        )
        .add_service(MonitoringServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX))
        .add_service(AlertsServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX))
        .add_service(ImagesServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX))
        .add_service(ProjectsServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX))
        .add_service(SettingsServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX))
        .add_service(CredentialsServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX))
        .add_service(TokensServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX))
        .add_service(ClustersServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX))
        .add_service(EventsServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX))
        .add_service(ConsolesServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX))
        .add_service(BackupsServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX))
        .add_service(ChangesServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX))
        .add_service(UploadsServer::new(api.clone()).max_decoding_message_size(BODY_BYTES_MAX))
        .add_service(health_service);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    match reflection {
        Ok(reflection) => grpc = grpc.add_service(reflection),
        Err(error) => tracing::error!(%error, "reflection is not served"),
    }
    let state = (api.store.clone(), api.limits.clone());
    let router = grpc.into_axum_router().reset_fallback().merge(rest::plain_routes(&api));
    rest::with_rest(router, &api)
        .layer(axum::middleware::from_fn(rest::readable_errors))
        .layer(axum::middleware::from_fn(auth::grpc_timeout))
        .layer(axum::middleware::from_fn_with_state(Arc::new(state), auth::admit))
        .layer(axum::middleware::from_fn_with_state(
            Arc::new(Methods::of_the_api()),
            measure::measure,
        ))
}

/// The project a request names; empty is the default one.
fn project(text: &str) -> Result<domain::name::Name, Status> {
    match text {
        "" => Ok(domain::name::Name::default_project()),
        text => proto::convert::name("project", text).map_err(errors::rejected),
    }
}

/// A VM by its name in a project, or by its id.
fn vm<'a>(
    state: &'a State,
    project: &domain::name::Name,
    text: &str,
) -> Option<&'a domain::vm::Vm> {
    find(
        text,
        |id: domain::id::VmId| {
            state.vms.get(&id).map(|vm| &**vm).filter(|vm| vm.project == *project)
        },
        |name| state.vm_named(project, &name).map(|vm| &**vm),
    )
}
