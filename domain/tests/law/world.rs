//! A small cluster to decide on: three hosts, one image, names for everything.

use newtype_uuid::{GenericUuid, TypedUuid, TypedUuidKind};
use novacron_domain::{
    Applied, Revision, State,
    cluster::{Cluster, ClusterCommand, Founding, Mark, PROTOCOL_VERSION},
    credential::CredentialCommand,
    envelope::{Command, Envelope, Outcome, Request},
    host::{Capacity, Grant, HostCommand},
    id::{Digest, RequestId},
    image::{File, ImageCommand, Part},
    invariant,
    name::Name,
    principal::{Principal, Role},
    rejected::Rejected,
    vm::{Failover, RunPolicy, VmSpec},
};
use uuid::Uuid;

/// The n-th id of a kind, always the same.
pub fn id<K: TypedUuidKind>(n: u128) -> TypedUuid<K> {
    TypedUuid::from_untyped_uuid(Uuid::from_u128(n))
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn spec() -> VmSpec {
    VmSpec {
        vcpus: 1,
        memory_mib: 256,
        image: name("tiny"),
        root_disk_mib: 0,
        pool: None,
        disks: Vec::new(),
        nics: Vec::new(),
        cmdline: String::new(),
        user_data: String::new(),
        run_policy: RunPolicy::OnFailure,
        failover: Failover::Stay,
        failover_priority: 50,
        failover_after: Vec::new(),
        deletion_protection: false,
        host: None,
        labels: Default::default(),
        placement: Default::default(),
    }
}

/// The entry by which a cluster begins, at a protocol.
pub fn founding(protocol_version: u32) -> Command {
    Command::Cluster(ClusterCommand::Found(Box::new(Founding {
        cluster: Cluster { id: id(1), name: name("test") },
        protocol_version,
        node: 1,
        node_name: name("n1"),
        peer_address: "127.0.0.1:1".into(),
        api_address: "127.0.0.1:2".into(),
        store: id(1),
        key_sha256: Digest::sha256(b"key"),
        admin: id(1),
        admin_sha256: Digest::sha256(b"admin"),
        tokens: Vec::new(),
    })))
}

pub fn grant(n: u128) -> Command {
    Command::Host(HostCommand::Grant(Box::new(Grant {
        host: id(n),
        name: name(&format!("h{n}")),
        driver: name("simulator"),
        capacity: Capacity { cpu_millicores: 4000, memory_mib: 1024, disk_mib: 10_000 },
        reserved: Capacity::default(),
        boot: id(n),
        foreign: 0,
    })))
}

pub fn image() -> Command {
    Command::Image(ImageCommand::Create {
        image: id(1),
        name: name("tiny"),
        files: vec![File { part: Part::Kernel, sha256: Digest::sha256(b"k"), size_bytes: 1 }],
        origin: "test".into(),
        holder: Some(1),
    })
}

/// What is refused moves the position, the time and the history's hash, and nothing else.
pub fn check_refusal(before: &State, applied: &Applied) {
    if applied.reply.is_ok() {
        return;
    }
    let mut same = before.clone();
    (same.index, same.chain) = (applied.state.index, applied.state.chain);
    // Of what is remembered some may be forgotten, and nothing comes.
    assert!(applied.state.requests.len() <= before.requests.len());
    (same.now_ms, same.requests) = (applied.state.now_ms, applied.state.requests.clone());
    assert_eq!(same, applied.state);
}

/// A state and its clocks.
pub struct World {
    pub state: State,
    pub now_ms: u64,
}

impl World {
    /// Founded, with three hosts, an image, an operator (credential 2) and a viewer (3).
    pub fn new() -> World {
        World::speaking(PROTOCOL_VERSION)
    }

    /// The same, at a protocol.
    pub fn speaking(protocol: u32) -> World {
        let mut world = World { state: State::default(), now_ms: 1_000 };
        world.apply(Principal::Founder, None, founding(protocol)).reply.unwrap();
        world.node(grant(1)).unwrap();
        world.node(grant(2)).unwrap();
        world.node(grant(3)).unwrap();
        world.admin(image()).unwrap();
        for (n, role) in [(2, Role::Operator), (3, Role::Viewer)] {
            let create = CredentialCommand::Create {
                credential: id(n),
                name: name(role.as_str()),
                role,
                secret_sha256: Digest::sha256(role.as_str().as_bytes()),
                expires_wall_ms: 0,
            };
            world.admin(Command::Credential(create)).unwrap();
        }
        world
    }

    /// Applies one command and checks every invariant.
    pub fn apply(
        &mut self,
        principal: Principal,
        request: Option<Request>,
        command: Command,
    ) -> Applied {
        let wall_ms = 1_700_000_000_000 + self.now_ms;
        let envelope =
            Envelope { at_ms: self.now_ms, wall_ms, principal, request, trace: None, command };
        let applied = self.state.apply(self.state.index + 1, envelope);
        invariant::check(&applied.state).unwrap();
        check_refusal(&self.state, &applied);
        self.state = applied.state.clone();
        applied
    }

    pub fn node(&mut self, command: Command) -> Result<Outcome, Rejected> {
        self.apply(Principal::Node(1), None, command).reply
    }

    pub fn admin(&mut self, command: Command) -> Result<Outcome, Rejected> {
        self.apply(Principal::Credential(id(1)), None, command).reply
    }

    pub fn requested(
        &mut self,
        request: u128,
        body: &[u8],
        since: Option<Revision>,
        command: Command,
    ) -> Result<Outcome, Rejected> {
        let id: RequestId = id(request);
        let request = Request { id, digest: Digest::sha256(body), since };
        self.apply(Principal::Credential(id_admin()), Some(request), command).reply
    }

    pub fn tick(&mut self, ms: u64) {
        self.now_ms += ms;
        let mark = Mark { index: self.state.mark.index, chain: self.state.mark.chain };
        self.node(Command::Cluster(ClusterCommand::Tick(mark))).unwrap();
    }
}

fn id_admin() -> novacron_domain::id::CredentialId {
    id(1)
}
