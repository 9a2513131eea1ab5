//! Who the node is, and how long others will believe it.

use cli::Finding;

use crate::{
    config::Config,
    files::{self, Files},
};

fn is_denied(error: &anyhow::Error) -> bool {
    let denied = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::PermissionDenied;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(denied))
}

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "certificate";
    let data = &config.node.data_directory;
    if let Err(error) = std::fs::read_dir(data)
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        let found = format!("{}: {error}", data.display());
        return vec![Finding::skipped("node", found, "run this as the node runs: as root")];
    }
    if !files::is_set_up(data) {
        let found = "this machine is no node yet";
        return vec![Finding::skipped("node", found, "novacron init, or novacron join TOKEN")];
    }
    let files = match Files::load(data) {
        Ok(files) => files,
        Err(error) if is_denied(&error) => {
            return vec![Finding::skipped(
                "node",
                format!("{error:#}"),
                "run this as the node runs: as root",
            )];
        }
        Err(error) => {
            let remedy = "restore the directory identity/ from a copy of this node's; or `novacron node reset` and join anew";
            return vec![Finding::bad("node", format!("{error:#}"), remedy)];
        }
    };
    let node = &files.node;
    let mut findings =
        vec![Finding::good("node", format!("{} of the cluster {}", node.name, node.cluster_name))];
    if config.node.name.get_ref() != node.name.as_str() {
        findings.push(Finding::warning(
            "node.name",
            format!(
                "it joined as {}, its configuration says {:?}",
                node.name,
                config.node.name.get_ref()
            ),
            "write the name with which it joined: names are given once",
        ));
    }
    let now_s = i64::try_from(crate::clock::wall_ms() / 1_000).unwrap_or(i64::MAX);
    let left_s = files.certificate_expiry_s().map(|expiry_s| expiry_s - now_s);
    let days = |seconds: i64| seconds / 86_400;
    findings.push(match left_s {
        Err(error) => Finding::bad(CHECK, format!("{error:#}"), "restore identity/ from a copy"),
        Ok(left_s @ ..=0) => Finding::bad(
            CHECK,
            format!("it ended {} days ago: nobody talks to this node", days(-left_s)),
            "start the node: it signs itself a new one, as every node may; and see that the clock is right",
        ),
        Ok(left_s @ ..1_209_600) => Finding::warning(
            CHECK,
            format!("it ends in {} days, and should have been renewed", days(left_s)),
            "a node that runs renews it when a third of its time is left; its log says why it did not",
        ),
        Ok(left_s) => Finding::good(CHECK, format!("good for {} days", days(left_s))),
    });
    findings
}
