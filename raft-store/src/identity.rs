//! Certificates: the cluster's own authority, a node's identity, and the TLS settings made of them.
//!
//! Only the stock verifiers of rustls decide. What they cannot know, whether the certificate's node
//! is the one that speaks, is compared after the handshake with [`peer_node`].

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use domain::id::{ClusterId, Digest, NodeId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{ResolvesClientCert, Resumption},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};

/// How long a node's certificate is valid. It renews itself when a third is left.
pub const NODE_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long the authority is valid.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Clocks may differ by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// What is wrong with a certificate or a key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be made or signed.
    #[error("certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// TLS refuses it.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// It cannot be read.
    #[error("{0}")]
    Read(String),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read(what: impl std::fmt::Display) -> IdentityError {
    IdentityError::Read(what.to_string())
}

fn fresh(common_name: &str, validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + validity).into();
    let mut serial = *uuid::Uuid::new_v4().as_bytes();
    serial[0] = (serial[0] & 0x7f) | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

/// The cluster's certificate authority.
pub struct Authority {
    certificate_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new one.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn create(cluster_name: &str) -> Result<Authority, IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = fresh(&format!("NovaCron cluster {cluster_name}"), AUTHORITY_VALIDITY);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate_pem = params.self_signed(&key)?.pem();
        let key_pem = key.serialize_pem();
        Ok(Authority { certificate_pem, key_pem, issuer: Issuer::new(params, key) })
    }

    /// Reads one back.
    ///
    /// # Errors
    /// When a text is not what it should be, or the key is not the certificate's.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Authority, IdentityError> {
        let key = KeyPair::from_pem(key_pem)?;
        let der = certificate(certificate_pem)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(read)?;
        if parsed.public_key().raw != key.subject_public_key_info() || !parsed.is_ca() {
            return Err(read("the authority's certificate and key do not belong together"));
        }
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key)?;
        let (certificate_pem, key_pem) = (certificate_pem.to_owned(), key_pem.to_owned());
        Ok(Authority { certificate_pem, key_pem, issuer })
    }

    /// The certificate, PEM. Not secret.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key, PEM. Whoever has it is the cluster.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Signs the public key of a signing request for a node. What else the request wishes for is
    /// ignored: the names are ours to give.
    ///
    /// # Errors
    /// When the request is malformed or its key is of another kind than ours.
    pub fn sign(&self, request_pem: &str, subject: &Subject) -> Result<String, IdentityError> {
        let request = CertificateSigningRequestParams::from_pem(request_pem)?;
        let algorithm = PublicKeyData::algorithm(&request.public_key);
        if algorithm != &rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(read("the key must be an ECDSA P-256 key"));
        }
        Ok(subject.params()?.signed_by(&request.public_key, &self.issuer)?.pem())
    }
}

/// The SHA-256 of an authority's certificate, which join tokens pin.
///
/// # Errors
/// When the text is no certificate.
pub fn pin(certificate_pem: &str) -> Result<Digest, IdentityError> {
    Ok(Digest::sha256(&certificate(certificate_pem)?))
}

/// Whom a certificate is for.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// `host:port` addresses under which it is reached; other tools than ours check these.
    pub addresses: Vec<String>,
}

impl Subject {
    fn params(&self) -> Result<CertificateParams, IdentityError> {
        let names = [node_name(self.cluster, self.node), cluster_name(self.cluster)];
        let mut params = fresh(&names[0], NODE_VALIDITY);
        let mut alternatives = Vec::new();
        for name in names {
            alternatives.push(SanType::DnsName(name.as_str().try_into()?));
        }
        for address in &self.addresses {
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
            let host = host.trim_matches(['[', ']']);
            let name = match host.parse::<IpAddr>() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(host.try_into()?),
            };
            if !alternatives.contains(&name) {
                alternatives.push(name);
            }
        }
        let uri = spiffe(self.cluster, self.node);
        alternatives.push(SanType::URI(uri.as_str().try_into()?));
        params.subject_alt_names = alternatives;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

fn spiffe(cluster: ClusterId, node: NodeId) -> String {
    format!("spiffe://{cluster}/node/{node}")
}

fn node_name(cluster: ClusterId, node: NodeId) -> String {
    format!("n{node}.{cluster}.novacron")
}

/// The name by which every node of a cluster may be verified.
#[must_use]
pub fn cluster_name(cluster: ClusterId) -> String {
    format!("{cluster}.novacron")
}

/// The name by which `node` alone may be verified.
///
/// # Errors
/// Never, for the names we make.
pub(crate) fn server_name(
    cluster: ClusterId,
    node: NodeId,
) -> Result<ServerName<'static>, IdentityError> {
    node_name(cluster, node).try_into().map_err(read)
}

/// A new key and the request to have it signed: `(request, key)`, PEM.
///
/// # Errors
/// When the operating system gives no randomness.
pub fn signing_request() -> Result<(String, String), IdentityError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok((params.serialize_request(&key)?.pem()?, key.serialize_pem()))
}

/// The SHA-256 of the public key of a signing request.
///
/// # Errors
/// When the text is no signing request.
pub fn request_key_digest(request_pem: &str) -> Result<Digest, IdentityError> {
    let request = CertificateSigningRequestParams::from_pem(request_pem)?;
    Ok(Digest::sha256(&request.public_key.subject_public_key_info()))
}

/// A node's certificate and key, which may be replaced while the node runs: connections made from
/// then on use the new ones.
#[derive(Debug)]
pub struct Identity {
    current: RwLock<Arc<CertifiedKey>>,
    authority: CertificateDer<'static>,
}

impl Identity {
    /// From PEM texts.
    ///
    /// # Errors
    /// When a text is not what it should be, or the key is not the certificate's.
    pub fn load(
        certificate_pem: &str,
        key_pem: &str,
        authority_pem: &str,
    ) -> Result<Arc<Identity>, IdentityError> {
        let authority = certificate(authority_pem)?;
        let key = certified(certificate_pem, key_pem, &authority)?;
        Ok(Arc::new(Identity { current: RwLock::new(Arc::new(key)), authority }))
    }

    /// Replaces certificate and key.
    ///
    /// # Errors
    /// As [`Identity::load`]; the old ones then stay.
    pub fn replace(&self, certificate_pem: &str, key_pem: &str) -> Result<(), IdentityError> {
        let key = certified(certificate_pem, key_pem, &self.authority)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
        Ok(())
    }

    fn current(&self) -> Arc<CertifiedKey> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, IdentityError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone())?;
        Ok(Arc::new(roots))
    }

    /// For listeners. With `peers_only`, callers must have a certificate of the cluster.
    ///
    /// # Errors
    /// When TLS refuses the authority.
    pub fn server(self: &Arc<Self>, peers_only: bool) -> Result<ServerConfig, IdentityError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let builder = if peers_only {
            let verifier = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider());
            builder.with_client_cert_verifier(verifier.build().map_err(read)?)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec()];
        if !peers_only {
            config.alpn_protocols.push(b"http/1.1".to_vec());
        }
        // A resumed session would not verify its caller again.
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// For calls to other nodes.
    ///
    /// # Errors
    /// When TLS refuses the authority.
    pub fn client(self: &Arc<Self>) -> Result<ClientConfig, IdentityError> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.roots()?)
            .with_client_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would present the identity of before a renewal.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

fn certificate(pem: &str) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(read)
}

fn certified(
    certificate_pem: &str,
    key_pem: &str,
    authority: &CertificateDer<'static>,
) -> Result<CertifiedKey, IdentityError> {
    // The authority goes along, so that whoever joins can compare it with the pin of its token.
    let chain = vec![certificate(certificate_pem)?, authority.clone()];
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(read)?;
    Ok(CertifiedKey::from_der(chain, key, &provider())?)
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

/// The node of `cluster` that a verified certificate is for.
///
/// # Errors
/// When it is for no node of this cluster.
#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is another crate's")]
pub(crate) fn peer_node(der: &[u8], cluster: ClusterId) -> Result<NodeId, IdentityError> {
    use x509_parser::prelude::GeneralName;
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(read)?;
    let names = parsed.subject_alternative_name().map_err(read)?;
    let prefix = format!("spiffe://{cluster}/node/");
    let node =
        names.iter().flat_map(|names| &names.value.general_names).find_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(&prefix)?.parse().ok(),
            _ => None,
        });
    node.ok_or_else(|| read("the certificate is for no node of this cluster"))
}

/// The cluster that a node's certificate is of, as the certificate says.
///
/// # Errors
/// When it is no node's.
pub fn cluster_of(der: &[u8]) -> Result<ClusterId, IdentityError> {
    use x509_parser::prelude::GeneralName;
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(read)?;
    let names = parsed.subject_alternative_name().map_err(read)?;
    let names = names.iter().flat_map(|names| &names.value.general_names);
    for name in names {
        if let GeneralName::URI(uri) = name
            && let Some(rest) = uri.strip_prefix("spiffe://")
            && let Some((cluster, _)) = rest.split_once('/')
        {
            return cluster.parse().map_err(read);
        }
    }
    Err(read("the certificate is no node's"))
}

/// A certificate as PEM.
#[must_use]
pub fn to_pem(der: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
    for line in encoded.as_bytes().chunks(64) {
        let _ = writeln!(pem, "{}", String::from_utf8_lossy(line));
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// When a certificate ends, Unix seconds.
///
/// # Errors
/// When the text is no certificate.
pub fn expiry(certificate_pem: &str) -> Result<i64, IdentityError> {
    let der = certificate(certificate_pem)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(read)?;
    Ok(parsed.validity().not_after.timestamp())
}
