//! What VMs and hosts use: measured where they are, and told by every node.

use std::time::{Duration, Instant};

use client::{Client, v1};
use domain::operation::Kind;
use v1::monitoring_client::MonitoringClient;

use crate::{
    harness::{Lab, client, create, done, get, spec},
    kinds::act,
};

const PATIENCE: Duration = Duration::from_secs(60);

async fn use_of_vms(client: &Client) -> v1::ListUseResponse {
    let call = client.call(v1::ListUseRequest::default(), async |channel, request| {
        MonitoringClient::new(channel).list_vm_use(request).await
    });
    call.await.unwrap()
}

async fn use_of_hosts(client: &Client) -> v1::ListUseResponse {
    let call = client.call(v1::ListUseRequest::default(), async |channel, request| {
        MonitoringClient::new(channel).list_host_use(request).await
    });
    call.await.unwrap()
}

async fn series(client: &Client, vm: &str) -> v1::Series {
    let request = v1::GetVmMetricsRequest { vm: vm.to_owned(), ..Default::default() };
    let call = client.call(request, async |channel, request| {
        MonitoringClient::new(channel).get_vm_metrics(request).await
    });
    call.await.unwrap()
}

/// The same, of all nodes: one that is slow to answer is named, and asked again.
async fn whole_series(client: &Client, vm: &str) -> v1::Series {
    let begun = Instant::now();
    loop {
        let series = series(client, vm).await;
        if series.silent.is_empty() {
            return series;
        }
        assert!(begun.elapsed() < PATIENCE, "{:?} do not answer", series.silent);
    }
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A simulated guest keeps one processor busy.
fn check(samples: &[v1::Sample]) {
    for sample in samples {
        assert!((0.8..1.2).contains(&sample.cpus), "{sample:?}");
        assert!((sample.memory_bytes - 67_108_864.0).abs() < 1.0, "{sample:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_tells_what_vms_and_hosts_use() {
    let mut lab = Lab::start(3, 3, 0).await;
    lab.await_voters(3).await;
    lab.image("tiny").await;
    let all = lab.client();
    let made = create(&all, "web", spec()).await.unwrap();
    assert_eq!(done(&all, &made).await.status, "done");
    let first = get(&all, "web").await.unwrap().host;
    until("a sample", async || use_of_vms(&all).await.uses.len() == 1).await;
    // Each node by itself.
    for endpoint in &lab.cluster.access.endpoints {
        let mut access = lab.cluster.access.clone();
        access.endpoints = vec![endpoint.clone()];
        let one = client(&access);
        until("the same through each node", async || {
            let found = use_of_vms(&one).await;
            if !found.silent.is_empty() {
                return false;
            }
            let Some(web) = found.uses.first() else { return false };
            let named = (web.name.as_str(), web.project.as_str(), &web.host);
            assert_eq!((found.uses.len(), named), (1, ("web", "default", &first)));
            check(std::slice::from_ref(web.sample.as_ref().unwrap()));
            true
        })
        .await;
        until("its host through each node", async || {
            let hosts = use_of_hosts(&one).await;
            let is_told = hosts.uses.iter().any(|host| host.name == first);
            assert!(is_told || !hosts.silent.is_empty(), "{hosts:?}");
            is_told
        })
        .await;
        let series = whole_series(&one, "web").await;
        assert_eq!(series.step_seconds, 10);
        assert!(!series.samples.is_empty());
        check(&series.samples);
    }

    // It moves, and its past with it.
    let past = whole_series(&all, "web").await.samples.last().unwrap().at;
    let to = (1..=3).map(|number| format!("host-{number:04}")).find(|host| *host != first);
    let moved = act(&all, Kind::Migrate, "web", &to.clone().unwrap()).await.unwrap();
    assert_eq!(done(&all, &moved).await.status, "done");
    until("a sample there", async || {
        let uses = use_of_vms(&all).await.uses;
        uses.iter().any(|row| Some(&row.host) == to.as_ref() && row.sample.is_some())
    })
    .await;
    let both = whole_series(&all, "web").await;
    assert!(both.samples.iter().any(|sample| sample.at == past), "its past is told too");
    let times: Vec<u64> = both.samples.iter().map(|sample| sample.at).collect();
    assert!(times.is_sorted_by(|one, other| one < other), "each time once: {times:?}");
    assert!(both.samples.last().unwrap().at > past);

    // A node that does not answer is named.
    let number = |host: &str| host.rsplit('-').next().unwrap().parse::<usize>().unwrap() - 1;
    let lost = number(&first) % 3;
    lab.cluster.stop_node(lost).await;
    let mut access = lab.cluster.access.clone();
    access.endpoints.remove(lost);
    let others = client(&access);
    until("that it is missed", async || {
        series(&others, "web").await.silent == [format!("n{}", lost + 1)]
    })
    .await;
    lab.cluster.stop().await;
}
