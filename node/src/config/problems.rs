//! What is wrong with a configuration file: all of it at once, each with its line.

use std::{collections::BTreeSet, fmt::Write as _, net::SocketAddr};

use domain::{limit::HOST_POOLS_MAX, name::Name};
use toml::Spanned;

use super::{Config, ConfigError};

/// Why a text is no configuration, and where. It does not quote the line: secrets may stand there, and this goes into logs
/// and bundles.
pub(crate) fn of_toml(error: &toml::de::Error, text: &str) -> String {
    let upto = error.span().map_or(0, |at| at.start).min(text.len());
    let line = text.as_bytes()[..upto].iter().filter(|byte| **byte == b'\n').count() + 1;
    format!("  line {line}: {}", error.message())
}

/// Checks what was read from the text of a file.
///
/// # Errors
/// [`ConfigError`] with all problems at once.
pub(super) fn check(config: &Config, text: &str) -> Result<(), ConfigError> {
    let mut problems = Problems { text, found: String::new() };
    problems.name("cluster.name", &config.cluster.name);
    for name in &config.cluster.expect {
        problems.name("cluster.expect", name);
    }
    problems.name("node.name", &config.node.name);
    problems.address("node.peer_address", &config.node.peer_address);
    problems.address("node.api_address", &config.node.api_address);
    if config.node.peer_address.get_ref() == config.node.api_address.get_ref() {
        problems.add(
            "node.api_address",
            &config.node.api_address,
            "is the peer address too; use another port",
        );
    }
    let peer = config.node.peer_listen.as_ref().unwrap_or(&config.node.peer_address);
    problems.socket("node.peer_listen", peer);
    let api = config.node.api_listen.as_ref().unwrap_or(&config.node.api_address);
    problems.socket("node.api_listen", api);
    let mut names = BTreeSet::new();
    for host in &config.host {
        problems.name("host.name", &host.name);
        if !names.insert(host.name.get_ref()) {
            problems.add("host.name", &host.name, "appears twice; use another");
        }
        if !matches!(host.driver.get_ref().as_str(), "libvirt" | "simulator") {
            problems.add("host.driver", &host.driver, "is not known; use libvirt or simulator");
        }
        if host.pools.len() > HOST_POOLS_MAX {
            let what = format!("has more than {HOST_POOLS_MAX} pools");
            problems.add("host.name", &host.name, &what);
        }
        for (pool, directory) in &host.pools {
            if !directory.is_absolute() {
                let what = format!("has pool {pool} at a relative path; use an absolute one");
                problems.add("host.name", &host.name, &what);
            }
        }
    }
    let mut fenced = BTreeSet::new();
    for agent in &config.fencing {
        problems.name("fencing.host", &agent.host);
        if !fenced.insert(agent.host.get_ref()) {
            problems.add("fencing.host", &agent.host, "appears twice; one agent is enough");
        }
    }
    let mut receivers = BTreeSet::new();
    for receiver in &config.receiver {
        problems.name("receiver.name", &receiver.name);
        if !receivers.insert(receiver.name.get_ref()) {
            problems.add("receiver.name", &receiver.name, "appears twice; use another");
        }
        let url = receiver.url.get_ref();
        if !url.starts_with("https://") && !url.starts_with("http://") {
            let what = "is no address; use http://HOST:PORT or https://HOST";
            problems.add("receiver.url", &receiver.url, what);
        }
    }
    if let Some(traces) = &config.traces {
        let endpoint = traces.endpoint.get_ref();
        let is_https = endpoint.starts_with("https://");
        if !is_https && !endpoint.starts_with("http://") {
            let what = "is no address of a collector; use http://HOST:PORT or https://HOST:PORT";
            problems.add("traces.endpoint", &traces.endpoint, what);
        }
        if is_https && traces.authority.is_none() {
            let what = "wants traces.authority, the certificates that it is trusted by";
            problems.add("traces.endpoint", &traces.endpoint, what);
        }
        if !(0.0..=100.0).contains(&traces.sample_percent) {
            let _ = writeln!(problems.found, "  traces.sample_percent must be 0 to 100");
        }
    }
    if !(1..=100_000).contains(&config.api.connections) {
        let _ = writeln!(problems.found, "  api.connections must be 1 to 100000");
    }
    if problems.found.is_empty() { Ok(()) } else { Err(ConfigError(problems.found)) }
}

/// Problems of a file, gathered so that all are told at once.
struct Problems<'a> {
    text: &'a str,
    found: String,
}

impl Problems<'_> {
    fn add(&mut self, field: &str, value: &Spanned<String>, what: &str) {
        let line = self.text[..value.span().start].matches('\n').count() + 1;
        let _ = writeln!(self.found, "  line {line}: {field} = {:?} {what}", value.get_ref());
    }

    fn name(&mut self, field: &str, value: &Spanned<String>) {
        if Name::new(value.get_ref()).is_err() {
            self.add(field, value, "is not a name: use 1 to 63 of a-z, 0-9 and '-'");
        }
    }

    fn address(&mut self, field: &str, value: &Spanned<String>) {
        let parts = value.get_ref().rsplit_once(':');
        let good =
            parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !good {
            self.add(field, value, "is not host:port");
        }
    }

    fn socket(&mut self, field: &str, value: &Spanned<String>) {
        if value.get_ref().parse::<SocketAddr>().is_err() {
            let what = "is not ip:port; set it when the address others use is a name";
            self.add(field, value, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::TimingPreset;

    const GOOD: &str = r#"
[cluster]
name = "prod"
expect = ["n2"]
[node]
name = "n1"
data_directory = "/var/lib/novacron"
peer_address = "10.0.0.1:7401"
api_address = "10.0.0.1:7400"
[[host]]
name = "h1"
driver = "simulator"
"#;

    #[test]
    fn the_example_of_the_repository_is_good() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster.toml");
        let config = Config::read(&path).unwrap();
        assert_eq!(config.cluster.timing, TimingPreset::Normal);
    }

    #[test]
    fn every_problem_is_told_with_its_line() {
        assert!(Config::parse(GOOD).is_ok());
        let bad = GOOD
            .replace("\"prod\"", "\"Prod!\"")
            .replace("\"n2\"", "\"../n2\"")
            .replace("10.0.0.1:7401", "nowhere")
            .replace("\"simulator\"", "\"vmware\"");
        let error = Config::parse(&bad).unwrap_err().to_string();
        for part in [
            "line 3: cluster.name",
            "line 4: cluster.expect",
            "line 8: node.peer_address",
            "node.peer_listen",
            "line 12: host.driver = \"vmware\" is not known",
        ] {
            assert!(error.contains(part), "{part} is missing in\n{error}");
        }
        let unknown = format!("{GOOD}colour = \"red\"\n");
        let error = Config::parse(&unknown).unwrap_err().to_string();
        assert!(error.contains("colour") && error.contains("13"), "{error}");
    }
}
