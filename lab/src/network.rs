//! A network of a lab's own: each host in a network namespace, all on one bridge, whose links can be
//! cut one by one and in one direction.
//!
//! Nothing of it has a name on the machine. A namespace lives as long as this process and what runs
//! in it: when they have ended, the kernel has removed every trace.

use std::{
    ffi::OsStr,
    fs::File,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use tokio::sync::oneshot;

use crate::{late::Late, pki::Pki, programs};

/// Why this machine cannot have such networks, if it cannot.
///
/// # Errors
/// The reason in a sentence.
pub fn is_possible() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("networks of one's own need root, for namespaces".to_owned());
    }
    programs::require(&["ip", "nft", "nsenter", "tc"])
}

/// Hosts that one network takes: the last addresses of its range are not theirs.
const HOSTS_MAX: usize = 200;
/// Where the bridge itself answers; what comes through the doors comes from here.
pub(crate) const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
/// Longest time to reach a host through its door.
const DOOR_PATIENCE: Duration = Duration::from_secs(5);

/// What is cut is looked up in a set: a partition is one transaction.
const RULES: &str = "
table bridge lab {
    counter dropped { }
    counter lost { }
    set cut { type ipv4_addr . ipv4_addr; }
    chain links {
        type filter hook forward priority 0; policy accept;
        ip saddr . ip daddr @cut counter name dropped drop
    }
    chain weather {
        type filter hook forward priority 1; policy accept;
    }
}
";

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Space(pub(crate) File);

impl Space {
    pub(crate) fn make() -> Result<Space> {
        // A namespace belongs to a thread; this one ends, and what is kept is the way in.
        let made = std::thread::spawn(|| -> Result<File> {
            #[allow(unsafe_code, reason = "the call is unsafe for other flags")]
            // SAFETY: what is unsafe is to stop sharing open files; this flag leaves them shared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("cannot make a namespace")?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        let made = made.join().map_err(|_| anyhow!("the thread of a namespace has panicked"))?;
        made.map(Space)
    }

    /// The namespace as a path that other processes can open while this one lives.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// A command that runs in the namespace. Its process is the program's own: nothing stands
    /// between.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("--").arg(program);
        command
    }

    /// Feeds a program of this namespace and returns what it printed.
    pub(crate) fn feed(&self, program: &[&str], input: &str) -> Result<Vec<u8>> {
        let mut child = self
            .command(program[0])
            .args(&program[1..])
            .env("PATH", programs::path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {program:?}"))?;
        child.stdin.take().context("it has no input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{program:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output.stdout)
    }
}

/// A bridge and its hosts.
#[derive(Debug)]
pub(crate) struct Network {
    bridge: Space,
    hosts: Vec<Arc<Space>>,
    /// Where each host's door is.
    doors: Vec<SocketAddr>,
    /// Who issues its hypervisors' certificates.
    pki: Pki,
    /// The doors close when it is dropped.
    _open: oneshot::Sender<()>,
}

impl Network {
    /// Makes one. Every host has a door on this machine's loopback, which leads to its `port`: so
    /// people and tests reach it from outside.
    pub(crate) fn make(hosts: usize, port: u16) -> Result<Network> {
        ensure!(hosts <= HOSTS_MAX, "a network has room for {HOSTS_MAX} hosts");
        let bridge = Space::make()?;
        bridge.feed(
            &["ip", "-batch", "-"],
            &format!(
                "link set lo up\nlink add br0 type bridge\naddr add {BRIDGE}/24 dev br0\n\
                 link set br0 up\n"
            ),
        )?;
        bridge.feed(&["nft", "-f", "-"], RULES)?;
        let spaces =
            (0..hosts).map(|host| plug(&bridge, host).map(Arc::new)).collect::<Result<_>>()?;
        let (open, closed) = oneshot::channel();
        let doors = open_doors(&bridge, hosts, port, closed)?;
        Ok(Network { bridge, hosts: spaces, doors, pki: Pki::make()?, _open: open })
    }

    /// A host's address.
    pub(crate) fn address(host: usize) -> Ipv4Addr {
        let last = u8::try_from(host + 1).expect("HOSTS_MAX fits");
        Ipv4Addr::new(10, 77, 0, last)
    }

    /// A host's namespace.
    pub(crate) fn space(&self, host: usize) -> Arc<Space> {
        self.hosts[host].clone()
    }

    /// Who issues its hypervisors' certificates.
    pub(crate) fn pki(&self) -> &Pki {
        &self.pki
    }

    /// Where a host is reached from outside.
    pub(crate) fn door(&self, host: usize) -> SocketAddr {
        self.doors[host]
    }

    /// Listens where all hosts reach it, and none is cut off from it.
    pub(crate) fn listen(&self, port: u16) -> Result<TcpListener> {
        let space = self.bridge.0.try_clone()?;
        let listening = std::thread::spawn(move || -> Result<TcpListener> {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(TcpListener::bind((BRIDGE, port))?)
        });
        listening.join().map_err(|_| anyhow!("the thread that listens has panicked"))?
    }

    /// Drops from now on what goes over these links, each from a host to a host, and nothing else,
    /// in one step.
    pub(crate) fn cut(&self, links: &[(usize, usize)]) -> Result<()> {
        use std::fmt::Write;
        let mut rules = "flush set bridge lab cut\n".to_owned();
        for (from, to) in links {
            let (from, to) = (Network::address(*from), Network::address(*to));
            writeln!(rules, "add element bridge lab cut {{ {from} . {to} }}")?;
        }
        self.bridge.feed(&["nft", "-f", "-"], &rules).map(drop)
    }

    /// How many packets were dropped on cut links so far. A cut after which it has not grown did
    /// not happen.
    pub(crate) fn dropped(&self) -> Result<u64> {
        self.count("bridge", "dropped")
    }

    /// Loses from now on so many of a hundred packets between hosts, whichever chance wants.
    pub(crate) fn lose(&self, percent: u32) -> Result<()> {
        let rules = format!(
            "flush chain bridge lab weather\n\
             add rule bridge lab weather numgen random mod 100 < {percent} counter name lost drop\n"
        );
        self.bridge.feed(&["nft", "-f", "-"], &rules).map(drop)
    }

    /// Loses none any more. The answer is how many were lost so far.
    pub(crate) fn keep(&self) -> Result<u64> {
        self.bridge.feed(&["nft", "flush", "chain", "bridge", "lab", "weather"], "")?;
        self.count("bridge", "lost")
    }

    /// Sends from now on so many of a hundred packets between hosts a second time, whichever chance wants.
    pub(crate) fn send_twice(&self, percent: u32) -> Result<()> {
        use std::fmt::Write;
        let hosts = self.hosts.len();
        let mut rules = SECOND_TABLE.to_owned();
        for from in 0..hosts {
            let (chain, link) = (format!("from{from}"), format!("p{from}"));
            rules.push_str(&second_chain(&chain, &link));
            for to in (0..hosts).filter(|to| *to != from) {
                let address = Network::address(to);
                writeln!(
                    rules,
                    "add rule netdev lab {chain} ip daddr {address} numgen random mod 100 < \
                     {percent} counter name doubled dup to \"p{to}\""
                )?;
            }
        }
        self.bridge.feed(&["nft", "-f", "-"], &rules).map(drop)
    }

    /// Sends each once. The answer is how many were sent twice so far.
    pub(crate) fn send_once(&self) -> Result<u64> {
        let chains = (0..self.hosts.len())
            .map(|from| second_chain(&format!("from{from}"), &format!("p{from}")));
        let rules = SECOND_TABLE.to_owned() + &chains.collect::<String>();
        self.bridge.feed(&["nft", "-f", "-"], &rules)?;
        self.count("netdev", "doubled")
    }

    /// Makes what other hosts send to a host late, by a time up to `most`.
    pub(crate) fn make_late(&self, host: usize, most: Duration) -> Result<Late> {
        Late::begin(self.hosts[host].clone(), most)
    }

    /// Lets a host send so much at most, kbit/s.
    pub(crate) fn narrow(&self, host: usize, rate_kbit: u32) -> Result<()> {
        let queue = format!(
            "qdisc replace dev eth0 root tbf rate {rate_kbit}kbit burst 16kb latency 400ms\n"
        );
        self.hosts[host].feed(&["tc", "-batch", "-"], &queue).map(drop)
    }

    /// Lets it send as fast as it can. The answer is how often something had to wait.
    pub(crate) fn widen(&self, host: usize) -> Result<u64> {
        let seen =
            self.hosts[host].feed(&["tc", "-s", "-j", "qdisc", "show", "dev", "eth0"], "")?;
        let seen: serde_json::Value = serde_json::from_slice(&seen)?;
        self.hosts[host].feed(&["tc", "qdisc", "del", "dev", "eth0", "root"], "")?;
        seen[0]["overlimits"].as_u64().context("the queue does not count")
    }

    fn count(&self, family: &str, counter: &str) -> Result<u64> {
        let listed = self.bridge.feed(&["nft", "-j", "list", "counters", family], "")?;
        let listed: serde_json::Value = serde_json::from_slice(&listed)?;
        let counters = listed["nftables"].as_array().context("no list of counters")?;
        let mut rows = counters.iter().map(|row| &row["counter"]);
        let packets =
            rows.find(|row| row["name"] == counter).and_then(|row| row["packets"].as_u64());
        packets.context("no counter")
    }
}

/// What sends packets a second time: it sees them before the bridge does.
const SECOND_TABLE: &str = "add table netdev lab\nadd counter netdev lab doubled\n";

/// A chain of it, empty, for what comes from a link.
fn second_chain(chain: &str, link: &str) -> String {
    format!(
        "add chain netdev lab {chain} {{ type filter hook ingress device {link} priority 0; }}\n\
         flush chain netdev lab {chain}\n"
    )
}

/// Why this machine cannot send packets twice, if it cannot.
///
/// # Errors
/// The reason in a sentence.
pub fn twice_is_possible() -> Result<(), String> {
    is_possible()?;
    let rules = SECOND_TABLE.to_owned()
        + &second_chain("from", "lo")
        + "add rule netdev lab from counter name doubled dup to \"lo\"\n";
    let tried = Space::make().and_then(|space| space.feed(&["nft", "-f", "-"], &rules));
    tried.map(drop).map_err(|error| format!("packets cannot be sent twice here: {error:#}"))
}

/// A host's namespace, plugged into the bridge.
fn plug(bridge: &Space, host: usize) -> Result<Space> {
    let space = Space::make()?;
    let (address, path) = (Network::address(host), space.path());
    bridge.feed(
        &["ip", "-batch", "-"],
        &format!(
            "link add p{host} type veth peer name eth0 netns {path}\n\
             link set p{host} master br0\nlink set p{host} up\n"
        ),
    )?;
    // No default route: what is looked for elsewhere must fail at once, and not by a timeout.
    let links = format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n");
    space.feed(&["ip", "-batch", "-"], &links)?;
    Ok(space)
}

/// Listens on loopback and carries what comes to the hosts, until `closed`.
fn open_doors(
    bridge: &Space,
    hosts: usize,
    port: u16,
    closed: oneshot::Receiver<()>,
) -> Result<Vec<SocketAddr>> {
    let mut listeners = Vec::new();
    let mut doors = Vec::new();
    for host in 0..hosts {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        doors.push(listener.local_addr()?);
        listeners.push((listener, SocketAddr::from((Network::address(host), port))));
    }
    let space = bridge.0.try_clone()?;
    // Sockets belong to the namespace in which they are made: the listeners to this one, what this
    // thread makes to the bridge's.
    std::thread::Builder::new().name("lab-doors".to_owned()).spawn(move || -> Result<()> {
        move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            for (listener, host) in listeners {
                tokio::spawn(keep_door(tokio::net::TcpListener::from_std(listener)?, host));
            }
            let _ = closed.await;
            Ok(())
        })
    })?;
    Ok(doors)
}

async fn keep_door(listener: tokio::net::TcpListener, host: SocketAddr) {
    while let Ok((mut outside, _)) = listener.accept().await {
        tokio::spawn(async move {
            let inside = tokio::net::TcpStream::connect(host);
            let Ok(Ok(mut inside)) = tokio::time::timeout(DOOR_PATIENCE, inside).await else {
                return;
            };
            let _ = outside.set_nodelay(true);
            let _ = inside.set_nodelay(true);
            let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
        });
    }
}
