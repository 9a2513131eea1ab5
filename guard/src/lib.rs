//! How a host's node and driver speak with its guard: a line asked, a line answered, over a Unix
//! socket.
//!
//! The node tells each renewal of the host's lease, the driver asks before it lets a guest execute.
//! Calls block, for [`PATIENCE`] at most.

mod broken;
mod request;

pub use broken::is_broken;
pub use request::{Level, Request, WATCHDOG, Warrant, deadline, may_pet, since_boot};

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// The manufacturer in the SMBIOS of every guest of ours. It is among QEMU's arguments.
pub const MANUFACTURER: &str = "NovaCron";

/// The family in the SMBIOS of guests that are to stay: they are spared. It is among QEMU's arguments from
/// the first to the last instruction, so nobody can disagree about it.
pub const SPARED_FAMILY: &str = "failover-stay";

/// Why a guard did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers.
    #[error("the guard at {0} does not answer: {1}; see that novacron-guard runs")]
    Silent(PathBuf, std::io::Error),
    /// It will not.
    #[error("the guard refuses: {0}")]
    Refused(String),
}

/// Asks the guard that listens at `socket`; the answer is what it says after `ok`.
///
/// # Errors
/// When it does not answer in time, or refuses.
pub fn ask(socket: &Path, request: &Request) -> Result<String, Error> {
    let silent = |error| Error::Silent(socket.to_owned(), error);
    let said = exchange(socket, request).map_err(silent)?;
    match said.trim_end().split_once(' ').unwrap_or((said.trim_end(), "")) {
        ("ok", rest) => Ok(rest.to_owned()),
        (_, why) if said.ends_with('\n') => Err(Error::Refused(why.to_owned())),
        _ => Err(silent(std::io::ErrorKind::UnexpectedEof.into())),
    }
}

fn exchange(socket: &Path, request: &Request) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut said = String::new();
    BufReader::new(stream).read_line(&mut said)?;
    Ok(said)
}
