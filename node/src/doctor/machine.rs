//! What the operating system lets a node have.

use cli::Finding;
use rustix::process::{Resource, getrlimit};

use crate::config::Config;

/// Files besides connections of clients: the log, images, drivers, other nodes.
const OWN_FILES: u64 = 512;

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let wanted = config.api.connections as u64 + OWN_FILES;
    // A node takes what it may have; under systemd that is what its unit says, and not what is seen here.
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let found = format!("{files} open files are allowed to a process that is started from here");
    vec![if files < wanted {
        let remedy = format!(
            "let the unit have LimitNOFILE={wanted} or more, or set api.connections lower: each is a file"
        );
        Finding::warning("machine.files", found, remedy)
    } else {
        Finding::good("machine.files", found)
    }]
}
