//! The cluster as one of its nodes sees it.

use std::time::Duration;

use cli::{Finding, Verdict};
use client::{Client, v1};
use v1::{clusters_client::ClustersClient, operations_client::OperationsClient};

pub(super) async fn examine(client: &Client) -> Vec<Finding> {
    let asked = client.call(v1::GetClusterRequest::default(), async |channel, request| {
        ClustersClient::new(channel).get_cluster(request).await
    });
    let cluster = match asked.await {
        Ok(cluster) => cluster,
        Err(error) => {
            return vec![Finding::bad(
                "cluster",
                error.to_string(),
                "start its nodes; `novacron cluster status` asks one without the others",
            )];
        }
    };
    let mut findings = vec![votes(&cluster), hosts(&cluster)];
    for node in &cluster.nodes {
        findings.extend(lag(node));
    }
    findings.extend(versions(&cluster));
    findings.extend(stuck(client).await);
    findings.extend(clock(client).await);
    findings
}

fn votes(cluster: &v1::Cluster) -> Finding {
    const CHECK: &str = "cluster.votes";
    if cluster.leader.is_empty() {
        let remedy = "a majority of the voters must run and reach each other; if they are lost for good, see `novacron node recover`";
        return Finding::bad(CHECK, "there is no leader: nothing can be changed", remedy);
    }
    if cluster.answered_by != cluster.leader {
        let found = format!("{} leads, and {} answered", cluster.leader, cluster.answered_by);
        let remedy = "only the leader knows who is behind: give --access with its address first";
        return Finding::skipped(CHECK, found, remedy);
    }
    let found = format!("{} leads; {} more voters may be lost", cluster.leader, cluster.losable);
    if cluster.losable == 0 && cluster.nodes.len() > 1 {
        return Finding::warning(
            CHECK,
            found,
            "bring the nodes back that are down, or have others join",
        );
    }
    if cluster.nodes.len() == 1 {
        return Finding::warning(
            CHECK,
            found,
            "with three nodes one may be lost: `novacron token create` there, `novacron join` on others",
        );
    }
    Finding::good(CHECK, found)
}

fn hosts(cluster: &v1::Cluster) -> Finding {
    let found = format!("{} of {} hosts are ready", cluster.hosts_ready, cluster.hosts);
    if cluster.hosts_ready < cluster.hosts {
        return Finding::bad(
            "cluster.hosts",
            found,
            "`novacron host list` names those that are lost, `host describe` says why",
        );
    }
    Finding::good("cluster.hosts", found)
}

/// Only the leader knows; what is as it should be is not told node by node.
fn lag(node: &v1::Node) -> Vec<Finding> {
    let check = format!("node.{}", node.name);
    let mut findings = Vec::new();
    if let Some(silent_ms @ 5_000..) = node.silent_ms {
        let found =
            format!("the leader has not heard of it for {:?}", Duration::from_millis(silent_ms));
        findings.push(Finding::bad(&check, found, "start it, or mend its network"));
    } else if let Some(behind @ 10_000..) = node.behind {
        let found = format!("it is {behind} entries behind");
        findings.push(Finding::warning(
            &check,
            found,
            "its disk or its network is too slow: run `novacron doctor` there",
        ));
    }
    if node.disk_used_percent >= 80 {
        let found = format!("its data disk is {} % full", node.disk_used_percent);
        findings.push(Finding::warning(
            &check,
            found,
            "make room there: from 90 % on the cluster takes nothing new; see docs/limits.md",
        ));
    }
    findings
}

fn versions(cluster: &v1::Cluster) -> Option<Finding> {
    let mut versions: Vec<&str> = cluster.nodes.iter().map(|node| node.version.as_str()).collect();
    versions.retain(|version| !version.is_empty());
    versions.sort_unstable();
    versions.dedup();
    (versions.len() > 1).then(|| {
        let found = format!("nodes run {}", versions.join(" and "));
        Finding::warning(
            "cluster.versions",
            found,
            "go on with the upgrade until all run the newest",
        )
    })
}

async fn stuck(client: &Client) -> Option<Finding> {
    let request = v1::ListOperationsRequest {
        page: Some(v1::Page {
            page_size: 1_000,
            filter: "status=stuck".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let asked = client.call(request, async |channel, request| {
        OperationsClient::new(channel).list_operations(request).await
    });
    let stuck = asked.await.ok()?.operations.len();
    (stuck > 0).then(|| {
        let found = format!("{stuck} operations are stuck");
        let remedy =
            "`novacron operation list --filter status=stuck`; retry, resume or abandon them";
        Finding::warning("cluster.operations", found, remedy)
    })
}

/// How far this machine's clock is from that of the node that answers, which says its own to the second.
async fn clock(client: &Client) -> Option<Finding> {
    const CHECK: &str = "clock";
    let asked = client.call(v1::GetVersionRequest {}, async |channel, request| {
        let answered = ClustersClient::new(channel).get_version(request).await?;
        let date = answered.metadata().get("date").and_then(|date| date.to_str().ok());
        Ok(tonic::Response::new(date.map(str::to_owned)))
    });
    let date = asked.await.ok()??;
    let theirs = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(&date).ok()?;
    let apart = jiff::Timestamp::now().duration_since(theirs).as_secs_f64().abs();
    let remedy = "keep the clocks of all machines with chrony or systemd-timesyncd: certificates and credentials end by them";
    let found = format!("{apart:.0} s from the node that answered");
    Some(match super::grade(apart, 3.0, 30.0) {
        Verdict::Good | Verdict::Skipped => Finding::good(CHECK, found),
        Verdict::Warning => Finding::warning(CHECK, found, remedy),
        Verdict::Bad => Finding::bad(CHECK, found, remedy),
    })
}
