//! Tests of what this crate keeps to itself: the log, snapshots and the copy, whole and damaged.

mod conformance;
mod copy;
mod log;
mod protocol;
mod snapshot;

use domain::{
    State,
    cluster::{Cluster, ClusterCommand, Founding, PROTOCOL_VERSION},
    codec,
    envelope::{Command, Envelope, Request},
    id::Digest,
    name::Name,
    principal::Principal,
    project::ProjectCommand,
};
use newtype_uuid::{GenericUuid, TypedUuid, TypedUuidKind};

use crate::{
    types::{LogEntry, Payload, Position},
    view::View,
};

fn id<K: TypedUuidKind>(n: u128) -> TypedUuid<K> {
    TypedUuid::from_untyped_uuid(uuid::Uuid::from_u128(n))
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn at(index: u64) -> Position {
    Position { term: 1, node: 1, index }
}

fn entry(index: u64) -> LogEntry {
    let bytes = format!("entry {index}").into_bytes().into();
    LogEntry { at: at(index), payload: Payload::Proposal(bytes) }
}

/// The `index`-th command of a small history: the founding, then a project each.
fn command(index: u64) -> Envelope {
    let command = if index == 1 {
        Command::Cluster(ClusterCommand::Found(Box::new(Founding {
            cluster: Cluster { id: id(1), name: name("test") },
            protocol_version: PROTOCOL_VERSION,
            node: 1,
            node_name: name("n1"),
            peer_address: String::new(),
            api_address: String::new(),
            store: id(1),
            key_sha256: Digest::ZERO,
            admin: id(1),
            admin_sha256: Digest::ZERO,
            tokens: Vec::new(),
        })))
    } else {
        Command::Project(ProjectCommand::Create { name: name(&format!("p{index}")) })
    };
    let principal = if index == 1 { Principal::Founder } else { Principal::Credential(id(1)) };
    let request =
        (index > 1).then(|| Request { id: id(index.into()), digest: Digest::ZERO, since: None });
    Envelope { at_ms: index, wall_ms: index, principal, request, trace: None, command }
}

/// The view after `count` commands.
fn view(count: u64) -> View {
    let mut state = State::default();
    for index in 1..=count {
        let envelope = codec::decode(&codec::encode(&command(index))).unwrap();
        let applied = state.apply(index, envelope);
        applied.reply.unwrap();
        state = applied.state;
    }
    View { state, at: (count > 0).then(|| at(count)), ..View::default() }
}
