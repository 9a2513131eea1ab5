//! `novacron-lab-rpc-proxy LISTEN CONNECT PKI STRIKE STRUCK`: carries what libvirt daemons say to the one at
//! CONNECT, and strikes at a message once, as the file STRIKE says. Before it strikes it writes into the
//! file STRUCK: `MICROSECONDS STRIKE`. Towards the callers it is the daemon, and towards the daemon a
//! caller: PKI holds the host's certificates.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use novacron_lab::rpc::{Blow, HEADER_BYTES, MESSAGE_BYTES_MAX, Message, Strike};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What every connection shares.
struct Proxy {
    daemon: SocketAddr,
    accept: TlsAcceptor,
    connect: TlsConnector,
    strike: Strike,
    struck: AtomicBool,
    proof: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, daemon, pki, strike, proof] = &arguments[..] else {
        anyhow::bail!("usage: novacron-lab-rpc-proxy LISTEN CONNECT PKI STRIKE STRUCK");
    };
    // When the lab is killed, it goes too.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let (accept, connect) = ends(Path::new(pki))?;
    let strike = std::fs::read_to_string(strike)?.parse()?;
    let proxy = Arc::new(Proxy {
        daemon: daemon.parse()?,
        accept,
        connect,
        strike,
        struck: AtomicBool::new(false),
        proof: proof.into(),
    });
    let listener = TcpListener::bind(listen).await?;
    std::fs::write(&proxy.proof, "")?;
    loop {
        let (caller, _) = listener.accept().await?;
        let proxy = proxy.clone();
        // A connection that fails is one that has ended; both sides see it.
        tokio::spawn(async move { proxy.carry(caller).await });
    }
}

/// The two ends of TLS: as the daemon, and as one that calls it.
fn ends(pki: &Path) -> Result<(TlsAcceptor, TlsConnector)> {
    let certificate = |name: &str| CertificateDer::from_pem_file(pki.join(name));
    let key = |name: &str| PrivateKeyDer::from_pem_file(pki.join(name));
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate("servercert.pem")?], key("serverkey.pem")?)?;
    // libvirt takes the first thing that it can read for the daemon's consent.
    server.send_tls13_tickets = 0;
    let mut roots = RootCertStore::empty();
    roots.add(certificate("cacert.pem")?)?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate("clientcert.pem")?], key("clientkey.pem")?)?;
    Ok((Arc::new(server).into(), Arc::new(client).into()))
}

impl Proxy {
    async fn carry(&self, caller: TcpStream) -> Result<()> {
        let daemon = TcpStream::connect(self.daemon).await?;
        caller.set_nodelay(true)?;
        daemon.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.daemon.ip().into());
        let daemon = self.connect.connect(name, daemon).await?;
        let caller = self.accept.accept(caller).await?;
        let (mut calls, mut to_caller) = tokio::io::split(caller);
        let (mut replies, mut to_daemon) = tokio::io::split(daemon);
        // The daemon says first, outside of any message, that it takes the caller's certificate.
        let taken = replies.read_u8().await?;
        to_caller.write_u8(taken).await?;
        to_caller.flush().await?;
        let hole = AtomicBool::new(false);
        // When one direction ends, both connections do.
        tokio::select! {
            ended = self.pump(&mut calls, &mut to_daemon, &hole) => ended,
            ended = self.pump(&mut replies, &mut to_caller, &hole) => ended,
        }
    }

    /// Carries messages in one direction until the connection breaks or is to break.
    async fn pump(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        hole: &AtomicBool,
    ) -> Result<()> {
        loop {
            let mut message = vec![0; HEADER_BYTES];
            from.read_exact(&mut message).await?;
            let header: [u8; HEADER_BYTES] = message[..].try_into()?;
            let length = u32::from_be_bytes(header[..4].try_into()?) as usize;
            let fits = (HEADER_BYTES..=MESSAGE_BYTES_MAX).contains(&length);
            ensure!(fits, "a message of {length} bytes");
            message.resize(length, 0);
            from.read_exact(&mut message[HEADER_BYTES..]).await?;
            if Message::of(&header) == Some(self.strike.message)
                && !self.struck.swap(true, Ordering::SeqCst)
            {
                self.note().context("a strike that cannot be proved is none")?;
                match self.strike.blow {
                    Blow::Drop => return Ok(()),
                    Blow::Hold(time) => tokio::time::sleep(time).await,
                    Blow::Hole => hole.store(true, Ordering::SeqCst),
                }
            }
            if !hole.load(Ordering::SeqCst) {
                to.write_all(&message).await?;
                to.flush().await?;
            }
        }
    }

    fn note(&self) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
        Ok(std::fs::write(&self.proof, format!("{now} {}\n", self.strike))?)
    }
}
