//! Setting nodes up: `init` founds a cluster, or has one go on from a backup; `join` enters one, `reset`
//! leaves for good, `recover` goes on without the others.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use domain::{
    Revision, State,
    cluster::{Cluster, Founding, Invitation, PROTOCOL_VERSION},
    id::{ClusterId, CredentialId, Digest, NodeId, StoreId, TokenId},
    name::Name,
    node::Node,
    state::Anew,
};
use newtype_uuid::{GenericUuid, TypedUuid, TypedUuidKind};
use proto::v1;
use raft_store::{
    Founder, Options, Store, Timing, WalOptions,
    identity::{self, Authority, Identity, Subject},
    rescue::{self, Stopped},
};

use crate::{
    api::{JoinSecret, bearer, fresh_secret},
    files::{self, Files, NodeFile},
    pin,
};

/// Join tokens of the founding are good for this long.
const TOKEN_TTL_MS: u64 = 60 * 60 * 1000;

fn mint<K: TypedUuidKind>() -> TypedUuid<K> {
    TypedUuid::from_untyped_uuid(uuid::Uuid::now_v7())
}

/// Who a node is to become.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    /// Its data directory.
    pub directory: &'a Path,
    /// Its name.
    pub name: Name,
    /// Where other nodes reach it.
    pub peer_address: &'a str,
    /// Where clients reach it.
    pub api_address: &'a str,
}

/// What a founding leaves to people.
pub struct Founded {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its authority's certificate, PEM.
    pub authority: String,
    /// The admin credential; shown this once.
    pub bearer: String,
    /// A token per expected node: its name, and what `novacron join` takes.
    pub tokens: Vec<(Name, String)>,
}

/// Founds a cluster in a fresh data directory: afterwards everything in it is durable, and the node
/// can be run.
///
/// # Errors
/// When the directory is in use, or cannot be written.
pub async fn found(setup: &Setup<'_>, cluster_name: Name, expect: &[Name]) -> Result<Founded> {
    begin(setup, Cluster { id: mint(), name: cluster_name }, Founder::NODE, expect, None).await
}

/// Has a cluster go on from a backup, in a fresh data directory: with this node alone, an authority of
/// its own, and an admin credential beside those it had. `epoch` must be later than any that the cluster
/// has had since; the one after the backup's, when none is given.
///
/// # Errors
/// When the file is no whole backup, or as [`found`].
pub async fn restore(
    setup: &Setup<'_>,
    backup: &Path,
    epoch: Option<u16>,
    expect: &[Name],
) -> Result<Founded> {
    let saved = rescue::read_backup(backup)?;
    let cluster = saved.cluster.clone().context("the backup is of no founded cluster")?;
    let node = saved.index + 1;
    let epoch = epoch.unwrap_or(saved.epoch.saturating_add(1));
    if epoch <= saved.epoch {
        bail!("the backup is from epoch {}; give a later --epoch", saved.epoch);
    }
    begin(setup, cluster, node, expect, Some((saved, epoch))).await
}

/// Makes the first node of a cluster, new or from a backup.
async fn begin(
    setup: &Setup<'_>,
    cluster: Cluster,
    node: NodeId,
    expect: &[Name],
    saved: Option<(State, u16)>,
) -> Result<Founded> {
    if files::is_set_up(setup.directory) {
        bail!("{} is set up already; `novacron run` starts it", setup.directory.display());
    }
    let store_id: StoreId = mint();
    let Cluster { id: cluster, name: cluster_name } = cluster;
    let authority = Authority::create(cluster_name.as_str())?;
    let (request, key_pem) = identity::signing_request()?;
    let addresses = vec![setup.peer_address.to_owned(), setup.api_address.to_owned()];
    let certificate_pem = authority.sign(&request, &Subject { cluster, node, addresses })?;
    let identity = Identity::load(&certificate_pem, &key_pem, authority.certificate_pem())?;

    let (admin, admin_secret): (CredentialId, _) = (mint(), fresh_secret());
    let pin = identity::pin(authority.certificate_pem())?;
    let mut tokens = Vec::new();
    let mut invitations = Vec::new();
    for name in expect {
        let secret = fresh_secret();
        invitations.push(Invitation {
            token: mint::<domain::id::TokenKind>() as TokenId,
            secret_sha256: Digest::sha256(secret.as_bytes()),
            node: Some(name.clone()),
            expires_wall_ms: crate::clock::wall_ms() + TOKEN_TTL_MS,
        });
        let addresses = vec![setup.api_address.to_owned()];
        tokens.push((name.clone(), JoinSecret { pin, addresses, secret }.to_string()));
    }
    let founding = Founding {
        cluster: Cluster { id: cluster, name: cluster_name.clone() },
        protocol_version: PROTOCOL_VERSION,
        node,
        node_name: setup.name.clone(),
        peer_address: setup.peer_address.to_owned(),
        api_address: setup.api_address.to_owned(),
        store: store_id,
        key_sha256: identity::request_key_digest(&request)?,
        admin,
        admin_sha256: Digest::sha256(admin_secret.as_bytes()),
        tokens: invitations,
    };
    match saved {
        Some((saved, epoch)) => {
            let anew = anew(&saved, epoch, &founding);
            rescue::restore(setup.directory, &saved, anew).await?;
        }
        None => write_log(setup, &identity, founding).await?,
    }
    let node_file =
        NodeFile { cluster, cluster_name, node, name: setup.name.clone(), store: store_id };
    Files::create(setup.directory, &node_file, &authority, &certificate_pem, &key_pem)?;
    Ok(Founded {
        cluster,
        authority: authority.certificate_pem().to_owned(),
        bearer: bearer(admin, &admin_secret),
        tokens,
    })
}

/// What a founding says, for a cluster that was founded before.
fn anew(saved: &State, epoch: u16, founding: &Founding) -> Anew {
    // Names of credentials are unique; this one is told from those of earlier restorations.
    let name = Name::new(&format!("restored-{}", saved.index)).expect("letters, a dash and digits");
    Anew {
        node: founding.first_node(crate::clock::wall_ms()),
        epoch,
        credentials: vec![founding.admin(name)],
        tokens: founding.join_tokens().collect(),
    }
}

/// Writes the first entries of a cluster's log.
async fn write_log(setup: &Setup<'_>, identity: &Arc<Identity>, founding: Founding) -> Result<()> {
    // The node founds alone and talks to nobody: it listens where nobody can reach it.
    let store = Store::open(
        Options {
            directory: setup.directory.to_owned(),
            store: founding.store,
            cluster: founding.cluster.id,
            node: founding.node,
            peer_address: ([127, 0, 0, 1], 0).into(),
            shared: files::images(setup.directory),
            timing: Timing::default(),
            wal: WalOptions::default(),
        },
        identity,
    )
    .await?;
    let founded = store.found(setup.peer_address, founding).await;
    store.shutdown().await;
    Ok(founded?)
}

/// What a node knows of a cluster that has lost its majority, and what becomes of it when the node goes
/// on alone.
pub struct Survivor {
    stopped: Stopped,
    node: Node,
    /// The names of the other members.
    pub others: Vec<Name>,
    /// The VMs it knows.
    pub vms: usize,
    /// The newest revision that it knows.
    pub revision: Revision,
}

impl Survivor {
    /// Looks into the data directory of a node that does not run.
    ///
    /// # Errors
    /// When it runs, is not set up, or its data cannot be trusted.
    pub fn find(data: &Path) -> Result<Survivor> {
        let files = Files::load(data)?;
        let stopped = Stopped::open(data)?;
        let state = stopped.state();
        let node = state.nodes.get(&files.node.node);
        let node =
            node.context("this node is no member of its cluster; nothing can go on from it")?;
        let node = Node::clone(node);
        let others = state.nodes.values().filter(|row| row.id != node.id);
        Ok(Survivor {
            others: others.map(|row| row.name.clone()).collect(),
            vms: state.vms.len(),
            revision: state.revision(),
            node,
            stopped,
        })
    }

    /// Has the cluster go on with this node alone. Whoever is left behind is refused from here on.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub async fn go_on_alone(self) -> Result<()> {
        self.stopped.go_on_alone(self.node).await?;
        Ok(())
    }
}

/// Enters the cluster that a token is of: afterwards the node can be run.
///
/// # Errors
/// A sentence that names the cause: the token is malformed, unknown, used, expired or for another
/// name; nobody is reached; somebody else answers; the clocks differ.
pub async fn join(setup: &Setup<'_>, token: &str) -> Result<Name> {
    if files::is_set_up(setup.directory) {
        bail!("{} is set up already; `novacron run` starts it", setup.directory.display());
    }
    let token = JoinSecret::parse(token).map_err(anyhow::Error::msg)?;
    let (request, key_pem) = kept_request(setup.directory)?;
    let store_id = kept_store(setup.directory)?;
    let mut failures = Vec::new();
    for address in &token.addresses {
        match ask(setup, &token, address, &request, store_id).await {
            Ok(joined) => return finish(setup, &joined, store_id, &key_pem),
            // A node that answered has the last word: all of them have the same state.
            Err(Failure::Refused(why)) => bail!("{address} refuses: {why}"),
            Err(Failure::Unreachable(why)) => failures.push(format!("  {address}: {why}")),
        }
    }
    bail!(
        "no node of the cluster could be asked:\n{}\nIs the first node running (`novacron run`), \
         and is its API address reachable from here?",
        failures.join("\n")
    )
}

enum Failure {
    Refused(String),
    Unreachable(String),
}

async fn ask(
    setup: &Setup<'_>,
    token: &JoinSecret,
    address: &str,
    request: &str,
    store_id: StoreId,
) -> Result<v1::JoinResponse, Failure> {
    let unreachable = |error: &dyn std::fmt::Display| Failure::Unreachable(error.to_string());
    let (authority, cluster) = match pin::fetch_authority(address, token.pin).await {
        Ok(found) => found,
        Err(pin::PinError::Unreachable(why)) => return Err(Failure::Unreachable(why)),
        Err(error @ pin::PinError::OtherCluster) => {
            return Err(Failure::Refused(error.to_string()));
        }
    };
    let client = client::Client::new(client::Options {
        endpoints: vec![address.to_owned()],
        authority,
        server_name: identity::cluster_name(cluster),
        bearer: String::new(),
        deadline: Duration::from_secs(20),
        traceparent: None,
    })
    .map_err(|error| unreachable(&error))?;
    let message = v1::JoinRequest {
        secret: token.secret.clone(),
        name: setup.name.to_string(),
        peer_address: setup.peer_address.to_owned(),
        api_address: setup.api_address.to_owned(),
        store_id: store_id.to_string(),
        signing_request: request.to_owned(),
        protocol_max: PROTOCOL_VERSION,
        wall_ms: crate::clock::wall_ms(),
    };
    let joined = client.call(message, async |channel, request| {
        v1::clusters_client::ClustersClient::new(channel).join(request).await
    });
    joined.await.map_err(|error| match error {
        client::Error::Refused(_) => Failure::Refused(error.to_string()),
        client::Error::Options(_) | client::Error::Unreachable(_) | client::Error::Timeout(_) => {
            unreachable(&error)
        }
    })
}

fn finish(
    setup: &Setup<'_>,
    joined: &v1::JoinResponse,
    store: StoreId,
    key_pem: &str,
) -> Result<Name> {
    let authority = Authority::load(&joined.authority, &joined.authority_key)?;
    let node_file = NodeFile {
        cluster: joined.cluster_id.parse()?,
        cluster_name: Name::new(&joined.cluster_name)?,
        node: joined.node_id,
        name: setup.name.clone(),
        store,
    };
    Files::create(setup.directory, &node_file, &authority, &joined.certificate, key_pem)?;
    let pending = setup.directory.join("joining");
    std::fs::remove_dir_all(&pending)
        .with_context(|| format!("cannot remove {}", pending.display()))?;
    Ok(node_file.cluster_name)
}

/// The key with which this directory joins. It is kept until the join is through: when the answer
/// is lost, the same key gets the same answer.
fn kept_request(data: &Path) -> Result<(String, String)> {
    let kept = |name: &str| data.join("joining").join(name);
    let pair = (std::fs::read_to_string(kept("request")), std::fs::read_to_string(kept("key")));
    if let (Ok(request), Ok(key)) = pair {
        return Ok((request, key));
    }
    let (request, key) = identity::signing_request()?;
    keep(data, "request", &request)?;
    keep(data, "key", &key)?;
    Ok((request, key))
}

fn kept_store(data: &Path) -> Result<StoreId> {
    if let Ok(text) = std::fs::read_to_string(data.join("joining/store")) {
        return text.parse().context("the file joining/store is damaged; remove the directory");
    }
    let store: StoreId = mint();
    keep(data, "store", &store.to_string())?;
    Ok(store)
}

fn keep(data: &Path, name: &str, text: &str) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let directory = data.join("joining");
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join(name);
    let file =
        std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path);
    file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Empties a data directory, so that the machine can join anew. The node it was is gone for good.
///
/// # Errors
/// When the directory is in use or cannot be emptied.
pub fn reset(data: &Path) -> Result<()> {
    let lock = data.join("lock");
    if let Ok(file) = std::fs::OpenOptions::new().write(true).open(&lock) {
        let operation = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        if rustix::fs::flock(&file, operation).is_err() {
            bail!("{} is in use; stop the node first", data.display());
        }
    }
    // Who its hosts are stays, as what is on them does: another node may take them up.
    for name in ["identity", "joining", "log", "snapshot", "state"] {
        let path = data.join(name);
        match std::fs::remove_dir_all(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
        }
    }
    for name in ["marker", "lock"] {
        let _ = std::fs::remove_file(data.join(name));
    }
    Ok(())
}
