//! First contact: the authority of a cluster that is known only by the hash in a join token.
//!
//! The first connection believes nothing: it only looks at the certificates that are presented, and
//! is closed. The authority among them is believed if it has the hash of the token, and everything
//! after that goes through the stock verifiers with that authority.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::id::{ClusterId, Digest};
use rustls::{
    DigitallySignedStruct, Error as TlsError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Nobody answers.
    #[error("{0}")]
    Unreachable(String),
    /// Somebody else answers.
    #[error(
        "it belongs to another cluster than the token, or somebody is in between: its authority is \
         not the one that the token pins"
    )]
    OtherCluster,
}

const TIMEOUT: Duration = Duration::from_secs(5);

/// The authority with this hash, PEM, and the cluster it says it is of.
///
/// # Errors
/// [`PinError`].
pub async fn fetch_authority(address: &str, pin: Digest) -> Result<(String, ClusterId), PinError> {
    let unreachable = |error: &dyn std::fmt::Display| PinError::Unreachable(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let looker = Arc::new(Looker { provider: provider.clone(), seen: Mutex::default() });
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unreachable(&error))?
        .dangerous()
        .with_custom_certificate_verifier(looker.clone())
        .with_no_client_auth();
    let connect = async {
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::try_from("novacron").map_err(std::io::Error::other)?;
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map(drop)
    };
    match tokio::time::timeout(TIMEOUT, connect).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(unreachable(&error)),
        Err(_) => return Err(PinError::Unreachable(format!("no answer in {TIMEOUT:?}"))),
    }
    let chain = std::mem::take(&mut *looker.seen.lock().unwrap_or_else(PoisonError::into_inner));
    let authority = chain.iter().find(|certificate| Digest::sha256(certificate) == pin);
    let authority = authority.ok_or(PinError::OtherCluster)?;
    let leaf = chain.first().ok_or(PinError::OtherCluster)?;
    let cluster = raft_store::identity::cluster_of(leaf).map_err(|_| PinError::OtherCluster)?;
    Ok((raft_store::identity::to_pem(authority), cluster))
}

/// Looks at certificates and judges nothing.
#[derive(Debug)]
struct Looker {
    provider: Arc<CryptoProvider>,
    seen: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Looker {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let chain = std::iter::once(leaf).chain(others);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
            chain.map(|certificate| certificate.clone().into_owned()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
