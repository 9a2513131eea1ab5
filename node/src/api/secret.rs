//! Secrets that people carry: bearer credentials and join tokens. Only their hashes are kept.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::id::{CredentialId, Digest};
use newtype_uuid::GenericUuid;

/// 244 random bits.
#[must_use]
pub fn fresh_secret() -> String {
    let (a, b) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    URL_SAFE_NO_PAD.encode([a.as_bytes().as_slice(), b.as_bytes()].concat())
}

/// A credential's bearer text: a prefix that scanners for leaked secrets know, its id, its secret.
#[must_use]
pub fn bearer(credential: CredentialId, secret: &str) -> String {
    let id = URL_SAFE_NO_PAD.encode(credential.into_untyped_uuid().as_bytes());
    format!("nct.{id}.{secret}")
}

/// Reads a bearer text: the credential's id, and the hash of its secret.
pub(crate) fn read_bearer(text: &str) -> Option<(CredentialId, Digest)> {
    let (id, secret) = text.strip_prefix("nct.")?.split_once('.')?;
    let id: [u8; 16] = URL_SAFE_NO_PAD.decode(id).ok()?.try_into().ok()?;
    let id = CredentialId::from_untyped_uuid(uuid::Uuid::from_bytes(id));
    Some((id, Digest::sha256(secret.as_bytes())))
}

/// What `novacron join` takes: the cluster's authority, pinned, where to ask, and the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinSecret {
    /// SHA-256 of the authority's certificate.
    pub pin: Digest,
    /// `host:port` of nodes that can admit.
    pub addresses: Vec<String>,
    /// The token's secret.
    pub secret: String,
}

impl JoinSecret {
    /// Reads a token.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<JoinSecret, String> {
        let malformed = || {
            "this is no join token: it looks like `ncj.…`, in one piece; `novacron token create` \
             makes one"
                .to_owned()
        };
        let parts: Vec<&str> = text.trim().split('.').collect();
        let ["ncj", pin, addresses, secret] = parts.as_slice() else { return Err(malformed()) };
        let pin = URL_SAFE_NO_PAD.decode(pin).map_err(|_| malformed())?;
        let pin: [u8; 32] = pin.try_into().map_err(|_| malformed())?;
        let addresses = URL_SAFE_NO_PAD.decode(addresses).map_err(|_| malformed())?;
        let addresses = String::from_utf8(addresses).map_err(|_| malformed())?;
        Ok(JoinSecret {
            pin: Digest::from_bytes(pin),
            addresses: addresses.split(',').map(str::to_owned).collect(),
            secret: (*secret).to_owned(),
        })
    }
}

impl std::fmt::Display for JoinSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pin = URL_SAFE_NO_PAD.encode(self.pin.as_bytes());
        let addresses = URL_SAFE_NO_PAD.encode(self.addresses.join(","));
        write!(f, "ncj.{pin}.{addresses}.{}", self.secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_as_they_were_written() {
        let id = CredentialId::from_untyped_uuid(uuid::Uuid::from_u128(7));
        let secret = fresh_secret();
        let read = read_bearer(&bearer(id, &secret)).unwrap();
        assert_eq!(read, (id, Digest::sha256(secret.as_bytes())));
        let token = JoinSecret {
            pin: Digest::sha256(b"x"),
            addresses: vec!["10.0.0.1:7400".into(), "[::1]:7400".into()],
            secret,
        };
        assert_eq!(JoinSecret::parse(&token.to_string()), Ok(token));
        for bad in ["", "ncj", "ncj.a.b.c", "nct.a.b", "ncj.a.b"] {
            assert!(JoinSecret::parse(bad).is_err(), "{bad}");
            assert!(read_bearer(bad).is_none(), "{bad}");
        }
    }
}
