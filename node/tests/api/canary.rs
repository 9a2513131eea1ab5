//! Canaries on hosts that are well: their times are metrics. What becomes of others is in the law's tests.

use std::time::{Duration, Instant};

use client::{Client, v1};
use v1::alerts_client::AlertsClient;

use crate::{harness::Lab, metrics::scrape, migration::set};

const PATIENCE: Duration = Duration::from_secs(90);

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What a node counts under a name, 0 when it does not.
async fn counted(lab: &Lab, series: &str) -> f64 {
    let text = scrape(lab, 0).await;
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}

async fn failing(client: &Client) -> Vec<String> {
    let filter = "rule=canary-failing AND state=firing".to_owned();
    let page = Some(v1::Page { filter, ..Default::default() });
    let request = v1::ListAlertsRequest { page, freshness: None };
    let call = client.call(request, async |channel, request| {
        AlertsClient::new(channel).list_alerts(request).await
    });
    call.await.unwrap().alerts.into_iter().map(|alert| alert.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_fly_where_all_is_well() {
    let lab = Lab::start(1, 2, 0).await;
    let client = lab.client();
    set(&client, "canary-interval-ms", 1).await;
    lab.image("canary").await;
    for what in ["create", "delete"] {
        let series = format!(
            "novacron_canary_duration_seconds_count{{provider=\"simulator\",what=\"{what}\"}}"
        );
        until(what, async || counted(&lab, &series).await >= 3.0).await;
    }
    for host in ["host-0001", "host-0002"] {
        let series = format!("novacron_canary_failures{{host=\"{host}\"}}");
        assert!(counted(&lab, &series).await < 1.0, "{host}");
    }
    assert_eq!(failing(&client).await, [""; 0]);
    lab.cluster.stop().await;
}
