//! How the store fails.

use std::path::PathBuf;

/// A data directory that cannot be used as it is. The node stops: it never repairs silently, and
/// never serves from what it does not trust. Exit code 3.
#[derive(Debug, thiserror::Error)]
pub enum DamageError {
    /// A file is not as it was written.
    #[error(
        "{} is damaged at byte {offset}: {what}; this node must not serve. If the other nodes are \
         well, run `novacron node reset` here and join again; else restore a backup",
        file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A newer program wrote a file. It is whole.
    #[error("{}: {what}", file.display())]
    Newer {
        /// The file.
        file: PathBuf,
        /// How that is known, and what to do.
        what: String,
    },
    /// What belongs together does not fit together.
    #[error(
        "{}: {what}; this node must not serve. If the other nodes are well, run `novacron node \
         reset` here and join again; else restore a backup",
        directory.display()
    )]
    Inconsistent {
        /// The directory.
        directory: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Another process uses the directory.
    #[error("{} is in use by another process", directory.display())]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
}

impl DamageError {
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> DamageError {
        let path = path.to_owned();
        move |source| DamageError::Io { path, source }
    }
}
