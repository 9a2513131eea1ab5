//! What ends a host's guests when the host cannot renew its lease.

use std::path::PathBuf;

use ::guard::{Level, Request, Warrant};
use async_trait::async_trait;

use crate::{DriverError, ErrorKind};

/// A host's guard. It is no driver: it must work when the driver does not.
#[async_trait]
pub trait Guard: Send + Sync + 'static {
    /// Lets guests execute until the deadline that follows from a renewal of the host's lease, and ends
    /// them then. The answer is what it makes sure of under this lease.
    async fn hold(&self, warrant: Warrant) -> Result<Level, DriverError>;

    /// Ends every guest at once, also those that are to stay.
    async fn end(&self) -> Result<(), DriverError>;
}

/// A guard that is a process of its own.
pub struct GuardProcess {
    socket: PathBuf,
}

impl GuardProcess {
    /// The one that listens at `socket`.
    #[must_use]
    pub fn new(socket: PathBuf) -> GuardProcess {
        GuardProcess { socket }
    }

    async fn ask(&self, request: Request) -> Result<String, DriverError> {
        let socket = self.socket.clone();
        let asked = tokio::task::spawn_blocking(move || ::guard::ask(&socket, &request));
        // To connect to one that stands still may take for ever.
        let asked = match tokio::time::timeout(2 * ::guard::PATIENCE, asked).await {
            Ok(asked) => asked,
            Err(_) => return Err(DriverError::new(ErrorKind::Transient, "the guard stands still")),
        };
        let failed = |error: &dyn std::fmt::Display| {
            DriverError::new(ErrorKind::Transient, error.to_string())
        };
        match asked {
            Ok(Ok(said)) => Ok(said),
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(failed(&error)),
        }
    }
}

#[async_trait]
impl Guard for GuardProcess {
    async fn hold(&self, warrant: Warrant) -> Result<Level, DriverError> {
        let said = self.ask(Request::Hold(warrant)).await?;
        // An older one has no watchdog and says nothing.
        Ok(if said == Level::Watchdog.as_str() { Level::Watchdog } else { Level::Guard })
    }

    async fn end(&self) -> Result<(), DriverError> {
        self.ask(Request::End).await.map(drop)
    }
}
