//! The encoding is a promise: what one release wrote, every later one reads. The golden bytes are
//! committed; a change of them is a change of the protocol and needs a new protocol version.

use std::fmt::Write as _;

use novacron_domain::{
    Revision,
    cluster::{ClusterCommand, Mark, PROTOCOL_VERSION},
    codec::{decode, encode},
    credential::CredentialCommand,
    envelope::{Command, Envelope, Request},
    host::HostCommand,
    id::Digest,
    image::ImageCommand,
    instance::{Body, Ended, Failure, InstanceCommand, Place, Report},
    migration_policy::MigrationPolicyCommand,
    node::{Health, Join, NodeCommand},
    operation::{OperationCommand, Terms, WhenSilent},
    principal::{Principal, Role},
    project::ProjectCommand,
    setting::{Key, SettingCommand},
    token::TokenCommand,
    vm::{Disk, Network, Nic, SpecPatch, VmCommand},
};

use crate::world::{founding, grant, id, image, name, spec};

/// One of every command. The compiler does not see a missing one; the review of this list does.
fn every_command() -> Vec<(&'static str, Command)> {
    let mut full = spec();
    full.disks = vec![Disk { size_mib: 7 }];
    full.nics = vec![Nic { network: Network::Nat }, Nic { network: Network::Bridge(name("br0")) }];
    full.labels = [(name("tier"), "gold".to_owned())].into();
    full.host = Some(name("h1"));
    let (vm, operation) = (id(2), id(3));
    let whole = Some(Box::new(spec()));
    let report = Report {
        generation: Some(2),
        reboots: 1,
        starts: 3,
        failure: Some(Failure { permanent: true, message: "gone".into() }),
        ..Report::seen(id(4), Revision::new(1, 9), Body::Stopped(Ended::Crashed))
    };
    let digest = Digest::sha256(b"secret");
    let join = Join {
        secret_sha256: digest,
        name: name("n2"),
        peer_address: "127.0.0.1:1".into(),
        api_address: "127.0.0.1:2".into(),
        store: id(5),
        key_sha256: digest,
        protocol_max: 1,
    };
    let health = Health {
        disk_used_percent: 12,
        condition: None,
        version: "0.1.0".into(),
        protocol_max: 1,
        peer_address: "127.0.0.1:1".into(),
        api_address: "127.0.0.1:2".into(),
    };
    let project = name("default");
    let credential = CredentialCommand::Create {
        credential: id(6),
        name: name("ops"),
        role: Role::Operator,
        secret_sha256: digest,
        expires_wall_ms: 9,
    };
    let token = TokenCommand::Create {
        token: id(7),
        secret_sha256: digest,
        node: Some(name("n2")),
        expires_wall_ms: 9,
    };
    let create = VmCommand::Create {
        vm,
        project,
        name: name("web"),
        spec: Box::new(full),
        start: true,
        operation,
    };
    let patch = Box::new(SpecPatch { vcpus: Some(2), whole, ..SpecPatch::default() });
    let policy = MigrationPolicyCommand::Set {
        name: name("p"),
        project: Some(name("default")),
        labels: [(name("tier"), "gold".into())].into(),
        terms: Terms {
            deadline_ms: Some(5_000),
            when_silent: WhenSilent::Return,
            ..Terms::default()
        },
    };
    let mark = Mark { index: 8, chain: digest };
    vec![
        ("cluster.found", founding(PROTOCOL_VERSION)),
        ("cluster.tick", Command::Cluster(ClusterCommand::Tick(mark))),
        ("cluster.raise", Command::Cluster(ClusterCommand::Raise { to: 2 })),
        ("node.join", Command::Node(NodeCommand::Join(Box::new(join)))),
        ("node.report", Command::Node(NodeCommand::Report(Box::new(health)))),
        ("node.remove", Command::Node(NodeCommand::Remove { node: 3 })),
        ("token.create", Command::Token(token)),
        ("token.revoke", Command::Token(TokenCommand::Revoke { token: id(7) })),
        ("credential.create", Command::Credential(credential)),
        ("credential.revoke", Command::Credential(CredentialCommand::Revoke { credential: id(6) })),
        ("setting.set", Command::Setting(SettingCommand::Set { key: Key::VotersMax, value: 3 })),
        ("setting.reset", Command::Setting(SettingCommand::Reset { key: Key::VotersMax })),
        ("migration-policy.set", Command::MigrationPolicy(policy)),
        (
            "migration-policy.delete",
            Command::MigrationPolicy(MigrationPolicyCommand::Delete { name: name("p") }),
        ),
        ("project.create", Command::Project(ProjectCommand::Create { name: name("p") })),
        ("project.delete", Command::Project(ProjectCommand::Delete { name: name("p") })),
        ("host.grant", grant(1)),
        ("host.renew", Command::Host(HostCommand::Renew(vec![(id(1), Revision::new(1, 5))]))),
        ("host.confirm-dead", Command::Host(HostCommand::ConfirmDead { host: id(1), boot: id(2) })),
        ("host.remove", Command::Host(HostCommand::Remove { host: id(1) })),
        ("image.create", image()),
        ("image.held", Command::Image(ImageCommand::Held { image: id(1) })),
        ("image.delete", Command::Image(ImageCommand::Delete { image: id(1) })),
        ("vm.create", Command::Vm(create)),
        ("vm.update", Command::Vm(VmCommand::Update { vm, patch, etag: None })),
        ("vm.start", Command::Vm(VmCommand::Start { vm, operation })),
        ("vm.stop", Command::Vm(VmCommand::Stop { vm, force: true, operation })),
        ("vm.reboot", Command::Vm(VmCommand::Reboot { vm, operation })),
        ("vm.pause", Command::Vm(VmCommand::Pause { vm, operation })),
        ("vm.resume", Command::Vm(VmCommand::Resume { vm, operation })),
        ("vm.delete", Command::Vm(VmCommand::Delete { vm, etag: None, operation })),
        ("vm.unplaceable", Command::Vm(VmCommand::Unplaceable([(vm, "full".into())].into()))),
        (
            "instance.place",
            Command::Instance(InstanceCommand::Place(vec![Place {
                vm,
                instance: id(4),
                host: id(1),
            }])),
        ),
        ("instance.report", Command::Instance(InstanceCommand::Report(vec![report]))),
        ("operation.cancel", Command::Operation(OperationCommand::Cancel { operation })),
    ]
}

fn envelope(command: Command) -> Envelope {
    let request = Request { id: id(8), digest: Digest::ZERO, since: Some(Revision::new(1, 2)) };
    let principal = Principal::Credential(id(1));
    Envelope { at_ms: 1, wall_ms: 2, principal, request: Some(request), trace: None, command }
}

#[test]
fn golden_commands() {
    let mut golden = String::new();
    for (name, command) in every_command() {
        let bytes = encode(&command);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(golden, "{name} {hex}");
        assert_eq!(decode::<Command>(&bytes).unwrap(), command, "{name}");
        let envelope = envelope(command);
        assert_eq!(decode::<Envelope>(&encode(&envelope)).unwrap(), envelope, "{name}");
    }
    insta::assert_snapshot!(golden);
}

/// A program that meets what it does not know stops: it never skips a part.
#[test]
fn the_unknown_is_an_error() {
    #[derive(serde::Serialize)]
    struct Newer {
        vm: novacron_domain::id::VmId,
        operation: novacron_domain::id::OperationId,
        politely: bool,
    }
    #[derive(serde::Serialize)]
    enum Verb {
        Start(Newer),
        Hibernate(Newer),
    }
    #[derive(serde::Serialize)]
    enum Noun {
        Vm(Verb),
        Cat,
    }
    let newer = || Newer { vm: id(1), operation: id(2), politely: true };
    let cases = [
        (encode(&Noun::Vm(Verb::Start(newer()))), "unknown field `politely`"),
        (encode(&Noun::Vm(Verb::Hibernate(newer()))), "unknown variant `Hibernate`"),
        (encode(&Noun::Cat), "unknown variant `Cat`"),
        (vec![0xc1], "cannot decode"),
        (Vec::new(), "cannot decode"),
    ];
    for (bytes, expected) in cases {
        let error = decode::<Command>(&bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let mut long = encode(&Command::Host(HostCommand::Remove { host: id(1) }));
    long.push(0);
    assert!(decode::<Command>(&long).unwrap_err().to_string().contains("left over"));
}

/// A field that an older release did not write takes its default.
#[test]
fn the_missing_is_the_default() {
    #[derive(serde::Serialize)]
    struct Older {
        at_ms: u64,
        wall_ms: u64,
        principal: Principal,
        command: Command,
    }
    let command = Command::Host(HostCommand::Remove { host: id(1) });
    let older = Older { at_ms: 1, wall_ms: 2, principal: Principal::Node(1), command };
    assert_eq!(decode::<Envelope>(&encode(&older)).unwrap().request, None);
}

/// Nothing that arrives as bytes may panic or eat memory, however it is bent.
#[test]
fn bent_bytes_are_refused() {
    for (_, command) in every_command() {
        let bytes = encode(&envelope(command));
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bent = bytes.clone();
                bent[at] ^= flip;
                let _ = decode::<Envelope>(&bent);
            }
            assert!(decode::<Envelope>(&bytes[..at]).is_err());
        }
    }
}
