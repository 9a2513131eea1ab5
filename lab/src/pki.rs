//! Certificates for the hypervisors of a lab, as an operator's own authority would issue them: what
//! one daemon says to another, and what is copied of a guest, is encrypted.

use std::{net::Ipv4Addr, path::Path};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// The authority of one lab.
#[derive(Debug)]
pub(crate) struct Pki {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn make() -> Result<Pki> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "NovaCron lab");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Pki { certificate, issuer: Issuer::new(params, key) })
    }

    /// Writes what the daemon at `address` and its guests' processes look for: libvirt and QEMU have
    /// names of their own for the same files.
    pub(crate) fn write(&self, directory: &Path, address: Ipv4Addr) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![address.to_string()])?;
        params.distinguished_name.push(DnType::CommonName, address.to_string());
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate, key) = (params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem());
        std::fs::create_dir_all(directory)?;
        let files = [
            (&self.certificate, ["cacert.pem", "ca-cert.pem"].as_slice()),
            (
                &certificate,
                &["servercert.pem", "clientcert.pem", "server-cert.pem", "client-cert.pem"],
            ),
            (&key, &["serverkey.pem", "clientkey.pem", "server-key.pem", "client-key.pem"]),
        ];
        for (text, names) in files {
            for name in names {
                std::fs::write(directory.join(name), text)?;
            }
        }
        Ok(())
    }
}
