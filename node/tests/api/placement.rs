//! Where VMs go by rules about hosts and about each other, and what a plan says of it before.

use client::{Client, Error, v1};
use v1::{hosts_client::HostsClient, vms_client::VmsClient};

use crate::{
    harness::{Lab, create, done, get, spec},
    scripted::until,
};

async fn label(client: &Client, host: &str, rack: &str) {
    let request = v1::LabelHostRequest {
        mutation: client.mutation().await.unwrap(),
        host: host.to_owned(),
        set: [("rack".to_owned(), rack.to_owned())].into(),
        remove: Vec::new(),
    };
    let labelled = client.call(request, async |channel, request| {
        HostsClient::new(channel).label_host(request).await
    });
    client.note(labelled.await.unwrap().revision);
}

async fn plan(client: &Client, vms: Vec<(&str, v1::VmSpec)>) -> Result<Vec<String>, Error> {
    let vms = vms.into_iter().map(|(name, spec)| v1::WantedVm {
        name: name.to_owned(),
        spec: Some(spec),
        ..Default::default()
    });
    let request = v1::PlanVmsRequest { vms: vms.collect(), freshness: None };
    let planned = client
        .call(request, async |channel, request| VmsClient::new(channel).plan_vms(request).await)
        .await?;
    let words = |row: v1::PlannedVm| {
        format!(
            "{} {} {} {} {} {}",
            row.name,
            row.action,
            row.fields.join(","),
            row.takes,
            row.host,
            row.message
        )
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
    };
    Ok(planned.vms.into_iter().map(words).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_what_comes_and_it_comes() {
    let lab = Lab::start(1, 3, 0).await;
    lab.image("tiny").await;
    let client = lab.client();
    for (host, rack) in [("host-0001", "a"), ("host-0002", "a"), ("host-0003", "b")] {
        label(&client, host, rack).await;
    }
    let labels = |app: &str| [("app".to_owned(), app.to_owned())].into();
    let db = v1::VmSpec {
        labels: labels("db"),
        placement: Some(v1::PlacementRules {
            apart_from: labels("db"),
            domain: "rack".to_owned(),
            ..Default::default()
        }),
        ..spec()
    };
    let wanted = || vec![("db1", db.clone()), ("db2", db.clone()), ("db3", db.clone())];
    let planned = plan(&client, wanted()).await.unwrap();
    let nowhere = "no host of 3: 2 to be apart from VM db1, which is in rack a, 1 to be apart from VM \
                   db2, which is in rack b";
    let expected =
        ["db1 create host-0001", "db2 create host-0003", &format!("db3 create {nowhere}")];
    assert_eq!(planned, expected);
    assert_eq!(get(&client, "db1").await.unwrap_err().reason(), "NOT_FOUND", "it changes nothing");

    for (name, spec) in wanted().into_iter().take(2) {
        let outcome = create(&client, name, spec).await.unwrap();
        assert_eq!(done(&client, &outcome).await.status, "done");
    }
    create(&client, "db3", db.clone()).await.unwrap();
    until("the reason", async || {
        get(&client, "db3").await.unwrap().message.contains("apart from VM")
    })
    .await;
    for (name, host) in [("db1", "host-0001"), ("db2", "host-0003"), ("db3", "")] {
        assert_eq!(get(&client, name).await.unwrap().host, host, "{name}");
    }
    // What is there is compared, and what would be refused is said.
    let bigger = v1::VmSpec { memory_mib: 128, labels: labels("data"), ..db.clone() };
    let other = v1::VmSpec { image: "other".to_owned(), ..db.clone() };
    let bad = v1::VmSpec {
        placement: Some(v1::PlacementRules { scoring: "best".to_owned(), ..Default::default() }),
        ..spec()
    };
    let rows = vec![("db1", db), ("db2", bigger), ("db1", other), ("new", bad)];
    assert_eq!(
        plan(&client, rows).await.unwrap(),
        [
            "db1 unchanged host-0001",
            "db2 update memory_mib,labels next_start host-0003",
            "db1 refused image spec.image can never change; create a new VM",
            "new refused spec.placement.scoring: use spread or pack",
        ]
    );
    lab.cluster.stop().await;
}
