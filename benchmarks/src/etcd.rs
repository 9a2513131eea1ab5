//! etcd as it is run in earnest: three members, TLS among them and to their clients, who show certificates.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lab::free_address;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustix::process::{Pid, Signal, kill_process};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::api::{StatusRequest, maintenance_client::MaintenanceClient};

const MEMBERS: usize = 3;
/// How long it may take to be ready.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running cluster.
pub(crate) struct Etcd {
    members: Vec<Member>,
    tls: ClientTlsConfig,
    _directory: tempfile::TempDir,
}

struct Member {
    command: Command,
    process: Child,
    client: String,
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Etcd {
    /// Starts one with etcd's defaults.
    ///
    /// # Errors
    /// When etcd is not installed, or not ready in time.
    pub(crate) async fn start() -> Result<Etcd> {
        let directory = tempfile::Builder::new().prefix("nc-etcd").tempdir_in("/tmp")?;
        let tls = Tls::make(directory.path())?;
        let ports: Vec<(u16, u16)> = (0..MEMBERS)
            .map(|_| Ok((free_address()?.port(), free_address()?.port())))
            .collect::<Result<_>>()?;
        let peers: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(member, (_, peer))| format!("m{member}=https://127.0.0.1:{peer}"))
            .collect();
        let mut members = Vec::new();
        for (member, (client, peer)) in ports.iter().enumerate() {
            let client = format!("https://127.0.0.1:{client}");
            let peer = format!("https://127.0.0.1:{peer}");
            let data = directory.path().join(format!("m{member}"));
            let log = std::fs::File::create(directory.path().join(format!("m{member}.log")))?;
            let mut command = Command::new("etcd");
            command
                .args(["--name", &format!("m{member}"), "--data-dir"])
                .arg(&data)
                .args(["--initial-cluster", &peers.join(",")])
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--quota-backend-bytes", "8589934592", "--log-level", "error"])
                .args(tls.arguments())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log);
            let process =
                command.spawn().context("etcd does not start; `make bench` installs it")?;
            members.push(Member { command, process, client });
        }
        let etcd = Etcd { members, tls: tls.client()?, _directory: directory };
        etcd.await_ready().await?;
        Ok(etcd)
    }

    /// The processes of its members.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.members.iter().map(|member| member.process.id()).collect()
    }

    /// Stops its members' processes.
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets them go on, and waits for so long and until they have a leader.
    pub(crate) async fn resume(&self, settle: Duration) -> Result<()> {
        self.signal(Signal::CONT)?;
        tokio::time::sleep(settle).await;
        self.await_ready().await
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let mut processes = self.members.iter().map(|member| Pid::from_child(&member.process));
        Ok(processes.try_for_each(|process| kill_process(process, signal))?)
    }

    /// Kills a member at once.
    pub(crate) fn kill(&mut self, member: usize) -> Result<()> {
        let process = &mut self.members[member].process;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// Starts it again.
    pub(crate) fn run(&mut self, member: usize) -> Result<()> {
        let member = &mut self.members[member];
        member.process = member.command.spawn()?;
        Ok(())
    }

    /// Waits until every member answers and knows the leader.
    pub(crate) async fn await_ready(&self) -> Result<()> {
        let begun = Instant::now();
        while let Err(error) = self.leader().await {
            if begun.elapsed() > PATIENCE {
                bail!("etcd was not ready after {PATIENCE:?}: {error:#}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Which member leads, by what the first one says.
    ///
    /// # Errors
    /// When none does, or one does not answer.
    pub(crate) async fn leader(&self) -> Result<usize> {
        let mut named = Vec::new();
        for member in 0..self.members.len() {
            let channel = self.channel(member)?;
            let status = MaintenanceClient::new(channel).status(StatusRequest {}).await?;
            let status = status.into_inner();
            let me = status.header.context("a status without a header")?.member_id;
            named.push((me, status.leader));
        }
        let (_, leader) = named[0];
        named.iter().position(|(me, _)| *me == leader).context("there is no leader")
    }

    /// So many connections to the member that leads.
    ///
    /// # Errors
    /// When none does.
    pub(crate) async fn channels(&self, count: usize) -> Result<Vec<Channel>> {
        self.await_ready().await?;
        let leader = self.leader().await?;
        (0..count).map(|_| self.channel(leader)).collect()
    }

    pub(crate) fn channel(&self, member: usize) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(self.members[member].client.clone())?;
        Ok(endpoint.tls_config(self.tls.clone())?.tcp_nodelay(true).connect_lazy())
    }
}

/// Certificates of one authority.
struct Tls {
    directory: PathBuf,
}

impl Tls {
    fn make(directory: &Path) -> Result<Tls> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "benchmarks");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![Ipv4Addr::LOCALHOST.to_string()])?;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &issuer)?.pem();
        let files =
            [("ca.pem", authority), ("cert.pem", certificate), ("key.pem", key.serialize_pem())];
        for (file, text) in files {
            std::fs::write(directory.join(file), text)?;
        }
        Ok(Tls { directory: directory.to_owned() })
    }

    fn arguments(&self) -> Vec<String> {
        let file = |name: &str| self.directory.join(name).display().to_string();
        let (authority, certificate, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
        let options = [
            ("--trusted-ca-file", &authority),
            ("--cert-file", &certificate),
            ("--key-file", &key),
            ("--peer-trusted-ca-file", &authority),
            ("--peer-cert-file", &certificate),
            ("--peer-key-file", &key),
        ];
        let flags = ["--client-cert-auth".to_owned(), "--peer-client-cert-auth".to_owned()];
        flags.into_iter().chain(options.map(|(flag, file)| format!("{flag}={file}"))).collect()
    }

    fn client(&self) -> Result<ClientTlsConfig> {
        let read = |name: &str| std::fs::read_to_string(self.directory.join(name));
        Ok(ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem")?))
            .identity(Identity::from_pem(read("cert.pem")?, read("key.pem")?))
            .domain_name("127.0.0.1"))
    }
}
