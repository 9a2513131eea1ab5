//! Protocols: when a newer one is in force, and who must not go on then.

use novacron_domain::{
    State,
    cluster::{ClusterCommand, PROTOCOL_VERSION},
    codec::{decode, encode},
    envelope::{Command, Envelope},
    id::Digest,
    node::{Health, Join, NodeCommand},
    principal::Principal,
    rejected::Reason,
    state::{Loader, Record, RecordError},
    token::TokenCommand,
};

use crate::world::{World, founding, id, name};

/// The founding of a cluster by a program that knew no other protocol than the first, as it lies in that cluster's log.
const FIRST_FOUNDING: &str = "81a7436c757374657281a5466f756e648aa7636c757374657282a26964c41000000000000000000000000000000001a46e616d65a474657374a46e6f646501a96e6f64655f6e616d65a26e31ac706565725f61646472657373ab3132372e302e302e313a31ab6170695f61646472657373ab3132372e302e302e313a32a573746f7265c41000000000000000000000000000000001aa6b65795f736861323536c4202c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683a561646d696ec41000000000000000000000000000000001ac61646d696e5f736861323536c4208c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918a6746f6b656e7390";

fn raise(to: u32) -> Command {
    Command::Cluster(ClusterCommand::Raise { to })
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// A cluster of the first protocol.
fn world() -> World {
    let mut world = World { state: State::default(), now_ms: 1_000 };
    let founding = decode::<Command>(&bytes(FIRST_FOUNDING)).unwrap();
    world.apply(Principal::Founder, None, founding).reply.unwrap();
    world
}

/// Lets a machine join whose program understands so much.
fn join(world: &mut World, n: u128, protocol_max: u32) -> Result<u64, Reason> {
    let secret_sha256 = Digest::sha256(&n.to_be_bytes());
    let token = id(n);
    let create =
        TokenCommand::Create { token, secret_sha256, node: None, expires_wall_ms: u64::MAX };
    world.admin(Command::Token(create)).unwrap();
    let join = Join {
        secret_sha256,
        name: name(&format!("n{n}")),
        peer_address: "127.0.0.1:1".into(),
        api_address: "127.0.0.1:2".into(),
        store: id(n),
        key_sha256: secret_sha256,
        protocol_max,
    };
    let joined = Command::Node(NodeCommand::Join(Box::new(join)));
    let reply = world.apply(Principal::Joiner, None, joined).reply;
    reply.map(|outcome| outcome.object.parse().unwrap()).map_err(|rejected| rejected.reason)
}

fn report(world: &mut World, node: u64, protocol_max: u32) {
    let health = Health {
        disk_used_percent: 1,
        condition: None,
        version: "0.2.0".into(),
        protocol_max,
        peer_address: "127.0.0.1:1".into(),
        api_address: "127.0.0.1:2".into(),
    };
    let command = Command::Node(NodeCommand::Report(Box::new(health)));
    world.apply(Principal::Node(node), None, command).reply.unwrap();
}

#[test]
fn all_members_must_understand_what_is_raised() {
    let mut world = world();
    assert_eq!(world.state.protocol_version, 1);
    let second = join(&mut world, 2, 1).unwrap();
    let third = join(&mut world, 3, 2).unwrap();
    // What each of the three understands, what is to be in force, and whether that is granted.
    let steps = [
        ([1, 1, 2], 2, false),
        ([2, 1, 2], 2, false),
        ([2, 2, 2], 3, false),
        ([2, 2, 2], 1, false),
        ([2, 1, 2], 2, false),
        ([3, 2, 3], 2, true),
        ([3, 2, 3], 2, false),
    ];
    let mut since = 0;
    for (maxima, to, granted) in steps {
        for (node, max) in [1, second, third].into_iter().zip(maxima) {
            report(&mut world, node, max);
        }
        let before = world.state.protocol_version;
        let reply = world.node(raise(to));
        assert_eq!(reply.is_ok(), granted, "{maxima:?} to {to}: {reply:?}");
        assert_eq!(world.state.protocol_version, if granted { to } else { before });
        since = if granted { world.state.index } else { since };
        assert_eq!(world.state.protocol_since, since);
    }
    // Who understands less may not join any more; nobody but a node raises it.
    assert_eq!(join(&mut world, 4, 1), Err(Reason::Invalid));
    assert!(join(&mut world, 5, 2).is_ok());
    report(&mut world, second, 3);
    assert_eq!(world.admin(raise(3)).unwrap_err().reason, Reason::PermissionDenied);
}

/// Nodes with older and newer programs agree on the history.
#[test]
fn the_history_of_a_cluster_of_the_first_protocol_is_what_it_was() {
    let command = Command::Token(TokenCommand::Create {
        token: id(9),
        secret_sha256: Digest::ZERO,
        node: None,
        expires_wall_ms: 9,
    });
    let principal = Principal::Credential(id(1));
    let envelope =
        Envelope { at_ms: 1, wall_ms: 2, principal, request: None, trace: None, command };
    let state = world().state;
    let chain = state.apply(state.index + 1, envelope).state.chain;
    // As the program said that knew the first alone.
    let said = "1ed9819efda5b1bdfe510dc80d891695e061a5f655bdd9e8838c0f382bbe1560";
    assert_eq!(chain.to_string(), said);
}

#[test]
fn a_state_of_a_newer_protocol_is_refused() {
    let mut world = world();
    let load = |state: &State| {
        let mut loader = Loader::default();
        for record in state.records() {
            loader.push(decode::<Record>(&encode(&record)).unwrap())?;
        }
        loader.finish()
    };
    world.state.protocol_version = PROTOCOL_VERSION;
    world.state.protocol_since = 7;
    assert_eq!(load(&world.state).unwrap(), world.state);
    world.state.protocol_version = PROTOCOL_VERSION + 1;
    let refused = load(&world.state).unwrap_err();
    assert_eq!(refused, RecordError::Newer(PROTOCOL_VERSION + 1));
    assert!(refused.to_string().contains("install the newer program"), "{refused}");
}

#[test]
fn a_new_cluster_begins_with_the_newest() {
    let mut world = World { state: State::default(), now_ms: 1_000 };
    world.apply(Principal::Founder, None, founding(PROTOCOL_VERSION)).reply.unwrap();
    assert_eq!((world.state.protocol_version, world.state.protocol_since), (PROTOCOL_VERSION, 1));
}
