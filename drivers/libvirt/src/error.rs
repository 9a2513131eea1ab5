//! What libvirt's errors mean.

use drivers::{DriverError, ErrorKind};
use virt::error::{Error, ErrorNumber};

/// A failed call into libvirt.
#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is another crate's")]
pub(crate) fn libvirt(error: &Error) -> DriverError {
    let kind = match error.code().unwrap_or(ErrorNumber::InternalError) {
        ErrorNumber::NoDomain | ErrorNumber::NoNetwork => ErrorKind::NotFound,
        ErrorNumber::OperationInvalid => ErrorKind::Conflict,
        ErrorNumber::XmlError | ErrorNumber::XmlDetail | ErrorNumber::ConfigUnsupported => {
            ErrorKind::Permanent
        }
        ErrorNumber::AuthFailed | ErrorNumber::AccessDenied => ErrorKind::Auth,
        // The connection broke under the call: the daemon may have done it.
        ErrorNumber::Rpc | ErrorNumber::SystemError | ErrorNumber::OperationTimeout => {
            ErrorKind::Ambiguous
        }
        _ => ErrorKind::Transient,
    };
    DriverError::new(kind, error.message().to_owned())
}

/// Whether libvirt knows no such domain.
pub(crate) fn is_missing(error: &Error) -> bool {
    error.code().is_known_and(|code| code == ErrorNumber::NoDomain)
}

/// A failed call into the operating system.
pub(crate) fn io(what: &str) -> impl FnOnce(std::io::Error) -> DriverError {
    let what = what.to_owned();
    move |error| DriverError::new(ErrorKind::Transient, format!("{what}: {error}"))
}
