//! The driver protocol: the same trait on both sides of a Unix socket. A driver that is heavy, or
//! that may crash, lives in a process of its own and never takes a node with it.

mod client;
mod server;

pub use client::RemoteDriver;
pub use server::serve;

use std::sync::Arc;

use domain::{
    Fence, codec,
    id::{Digest, VmId},
    instance::{Body, Ended, Landing},
    operation::CopyPolicy,
};
use proto::driver as pb;
use tonic::Status;

use crate::{Departure, DriverError, ErrorKind, Observation, Order};

/// The version this program speaks.
pub const PROTOCOL: u32 = 5;

/// The metadata that carries the kind of a failure.
const KIND: &str = "novacron-kind";

fn status(error: &DriverError) -> Status {
    let mut status = Status::unknown(error.message.clone());
    let kind = tonic::metadata::MetadataValue::from_static(error.kind.as_str());
    status.metadata_mut().insert(KIND, kind);
    status
}

/// A failure that came over the socket. One without a kind came from the way: it may have happened.
fn failure(status: &Status) -> DriverError {
    let kind = status.metadata().get(KIND).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| ErrorKind::ALL.into_iter().find(|k| k.as_str() == kind));
    DriverError::new(kind.unwrap_or(ErrorKind::Ambiguous), status.message())
}

fn protocol(what: impl std::fmt::Display) -> DriverError {
    DriverError::new(ErrorKind::Protocol, what.to_string())
}

const fn body_name(body: Body) -> &'static str {
    match body {
        Body::Absent => "absent",
        Body::Ready => "ready",
        Body::Running => "running",
        Body::Paused => "paused",
        Body::Stopped(Ended::Shutdown) => "shutdown",
        Body::Stopped(Ended::Killed) => "killed",
        Body::Stopped(Ended::Crashed) => "crashed",
        Body::Stopped(Ended::Migrated) => "migrated",
        Body::Incoming => "incoming",
        Body::Arrived => "arrived",
    }
}

fn body_named(name: &str) -> Option<Body> {
    let all = [
        Body::Absent,
        Body::Ready,
        Body::Running,
        Body::Paused,
        Body::Stopped(Ended::Shutdown),
        Body::Stopped(Ended::Killed),
        Body::Stopped(Ended::Crashed),
        Body::Stopped(Ended::Migrated),
        Body::Incoming,
        Body::Arrived,
    ];
    all.into_iter().find(|body| body_name(*body) == name)
}

fn vm(text: &str) -> Result<VmId, DriverError> {
    text.parse().map_err(protocol)
}

fn write_order(order: &Order) -> pb::Order {
    pb::Order {
        vm: order.vm.to_string(),
        fence: order.fence.as_u64(),
        project: order.project.to_string(),
        name: order.name.to_string(),
        spec: codec::encode(&order.spec).into(),
        generation: order.generation,
        reboots: order.reboots,
        pool: order.pool.map(|pool| pool.to_string()).unwrap_or_default(),
        disks_made: order.disks_made,
        lease: order.lease.as_u64(),
        image: codec::encode(&*order.image).into(),
        files: order.files.iter().map(|(file, path)| (file.to_string(), path_text(path))).collect(),
    }
}

fn write_departure(departure: &Departure) -> pb::Departure {
    pb::Departure {
        vm: departure.vm.to_string(),
        fence: departure.fence.as_u64(),
        address: departure.landing.address.clone(),
        definition: departure.landing.definition.clone(),
        bandwidth_mib_s: departure.policy.bandwidth_mib_s,
        downtime_ms: departure.policy.downtime_ms,
        auto_converge: departure.policy.auto_converge,
        rounds_max: departure.policy.rounds_max,
        connections: departure.policy.connections.into(),
        stalled_downtime_ms: departure.policy.stalled_downtime_ms,
        at_rest: departure.at_rest,
        pooled: departure.pooled,
    }
}

fn read_departure(departure: pb::Departure) -> Result<Departure, DriverError> {
    Ok(Departure {
        vm: vm(&departure.vm)?,
        fence: Fence::from_u64(departure.fence),
        landing: Landing { address: departure.address, definition: departure.definition },
        policy: CopyPolicy {
            bandwidth_mib_s: departure.bandwidth_mib_s,
            downtime_ms: departure.downtime_ms,
            auto_converge: departure.auto_converge,
            connections: u8::try_from(departure.connections).unwrap_or(u8::MAX),
            rounds_max: departure.rounds_max,
            stalled_downtime_ms: departure.stalled_downtime_ms,
        },
        at_rest: departure.at_rest,
        pooled: departure.pooled,
    })
}

fn path_text(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

fn read_order(order: &pb::Order) -> Result<Order, DriverError> {
    let name = |text: &str| domain::name::Name::new(text).map_err(protocol);
    let file = |(sha256, path): (&String, &String)| {
        let digest =
            Digest::from_hex(sha256).ok_or_else(|| protocol(format!("file {sha256:?}")))?;
        Ok((digest, path.into()))
    };
    Ok(Order {
        vm: vm(&order.vm)?,
        fence: Fence::from_u64(order.fence),
        lease: Fence::from_u64(order.lease),
        project: name(&order.project)?,
        name: name(&order.name)?,
        spec: Arc::new(codec::decode(&order.spec).map_err(protocol)?),
        generation: order.generation,
        reboots: order.reboots,
        pool: match order.pool.as_str() {
            "" => None,
            pool => Some(pool.parse().map_err(protocol)?),
        },
        disks_made: order.disks_made,
        image: std::sync::Arc::new(codec::decode(&order.image).map_err(protocol)?),
        files: order.files.iter().map(file).collect::<Result<_, DriverError>>()?,
    })
}

fn write_observation(seen: &Observation) -> pb::Observation {
    pb::Observation {
        vm: seen.vm.to_string(),
        fence: seen.fence.as_u64(),
        body: body_name(seen.body).to_owned(),
        generation: seen.generation,
        reboots: seen.reboots,
        starts: seen.starts,
    }
}

fn read_observation(seen: &pb::Observation) -> Result<Observation, DriverError> {
    let body = body_named(&seen.body).ok_or_else(|| protocol(format!("body {:?}", seen.body)))?;
    Ok(Observation {
        vm: vm(&seen.vm)?,
        fence: Fence::from_u64(seen.fence),
        body,
        generation: seen.generation,
        reboots: seen.reboots,
        starts: seen.starts,
    })
}
