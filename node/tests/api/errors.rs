//! What goes wrong and how it is told: the table of docs/errors.md, row by row.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use client::v1;
use novacron::dev::Access;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use v1::{
    clusters_client::ClustersClient, credentials_client::CredentialsClient,
    events_client::EventsClient, operations_client::OperationsClient, vms_client::VmsClient,
};

use crate::harness::{Lab, client, create, done, get, spec};

/// The reason of a refusal, and its sentence.
fn reason<T: std::fmt::Debug>(result: Result<T, client::Error>) -> (String, String) {
    let error = result.unwrap_err();
    (error.reason(), error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_has_its_answer() {
    let lab = Lab::start(3, 3, 0).await;
    lab.image("tiny").await;
    let admin = lab.client();
    let (viewer, _) = lab.client_as("viewer", "looker").await;

    // Credentials: wrong, revoked, too weak.
    let wrong = Access { bearer: "nct.AAAA.bbbb".to_owned(), ..lab.cluster.access.clone() };
    assert_eq!(reason(get(&client(&wrong), "web").await).0, "UNAUTHENTICATED");
    let forged = format!("{}x", lab.cluster.access.bearer);
    let forged = Access { bearer: forged, ..lab.cluster.access.clone() };
    let (code, said) = reason(get(&client(&forged), "web").await);
    assert_eq!(
        (code.as_str(), said.as_str()),
        ("UNAUTHENTICATED", "the credential is unknown here")
    );
    let none = Access { bearer: String::new(), ..lab.cluster.access.clone() };
    assert_eq!(reason(get(&client(&none), "web").await).0, "UNAUTHENTICATED");
    let (code, said) = reason(create(&viewer, "web", spec()).await);
    assert_eq!(code, "PERMISSION_DENIED");
    assert!(said.contains("needs the role operator; the credential has viewer"), "{said}");
    let (gone, _) = lab.client_as("operator", "short-lived").await;
    let revoke = v1::RevokeCredentialRequest {
        mutation: admin.mutation().await.unwrap(),
        credential: "short-lived".to_owned(),
    };
    admin
        .call(revoke, async |channel, request| {
            CredentialsClient::new(channel).revoke_credential(request).await
        })
        .await
        .unwrap();
    let mut last = String::new();
    // Other nodes hear of it a moment later; a change is judged when it is applied, at once.
    for _ in 0..50 {
        match create(&gone, "web", spec()).await {
            Ok(_) => panic!("a revoked credential was believed"),
            Err(error) => last = error.to_string(),
        }
    }
    assert!(last.contains("revoked"), "{last}");

    // Fields: all problems at once.
    let bad = v1::VmSpec {
        vcpus: 0,
        memory_mib: 1,
        image: "../etc".to_owned(),
        run_policy: "sometimes".to_owned(),
        ..Default::default()
    };
    let error = create(&admin, "web", bad).await.unwrap_err();
    let fields: Vec<String> = error.violations().into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["spec.image", "spec.run_policy"]);
    let bad = v1::VmSpec { vcpus: 0, memory_mib: 1, ..spec() };
    let error = create(&admin, "web", bad).await.unwrap_err();
    let fields: Vec<String> = error.violations().into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["spec.vcpus", "spec.memory_mib"]);
    let (code, said) = reason(create(&admin, "../web", spec()).await);
    assert_eq!(code, "INVALID");
    assert!(said.contains("use 1 to 63 of a-z, 0-9 and '-'"), "{said}");
    let long = v1::VmSpec { user_data: "x".repeat(20_000), ..spec() };
    assert_eq!(reason(create(&admin, "web", long).await).0, "INVALID");

    // The same request twice has one effect; the same id for another request is refused.
    let request = v1::CreateVmRequest {
        mutation: admin.mutation().await.unwrap(),
        name: "web".to_owned(),
        spec: Some(spec()),
        ..Default::default()
    };
    let send = async |request: v1::CreateVmRequest| {
        admin
            .call(request, async |channel, request| {
                VmsClient::new(channel).create_vm(request).await
            })
            .await
    };
    let first = send(request.clone()).await.unwrap();
    assert_eq!(send(request.clone()).await.unwrap(), first);
    let other = v1::CreateVmRequest { name: "other".to_owned(), ..request };
    assert_eq!(reason(send(other).await).0, "REQUEST_ID_REUSED");
    assert_eq!(reason(create(&admin, "web", spec()).await).0, "NAME_TAKEN");
    done(&admin, &first).await;

    // The same words for another verb are another request.
    let huge = v1::VmSpec { memory_mib: 4 << 20, ..spec() };
    let operation = create(&admin, "huge", huge).await.unwrap().operation;
    let mutation = admin.mutation().await.unwrap();
    let cancel =
        v1::CancelOperationRequest { mutation: mutation.clone(), operation: operation.clone() };
    let cancelled = admin.call(cancel, async |channel, request| {
        OperationsClient::new(channel).cancel_operation(request).await
    });
    cancelled.await.unwrap();
    let abandon = v1::AbandonOperationRequest { mutation, operation };
    let abandoned = admin.call(abandon, async |channel, request| {
        OperationsClient::new(channel).abandon_operation(request).await
    });
    assert_eq!(reason(abandoned.await).0, "REQUEST_ID_REUSED");

    // A dry run changes nothing.
    let mut mutation = admin.mutation().await.unwrap().unwrap();
    mutation.validate_only = true;
    let dry = v1::CreateVmRequest {
        mutation: Some(mutation),
        name: "dry".to_owned(),
        spec: Some(spec()),
        ..Default::default()
    };
    send(dry).await.unwrap();
    assert_eq!(reason(get(&admin, "dry").await).0, "NOT_FOUND");

    // A client that has seen nothing asks first: an id without a revision is refused once the cluster
    // has forgotten any request.
    let first = lab.client().mutation().await.unwrap().unwrap();
    assert!(first.since_revision > 0);

    // Etags and immutable fields.
    let update = async |etag: u64, spec: v1::VmSpec| v1::UpdateVmRequest {
        mutation: admin.mutation().await.unwrap(),
        vm: "web".to_owned(),
        spec: Some(spec),
        etag,
        ..Default::default()
    };
    let send = async |request: v1::UpdateVmRequest| {
        admin
            .call(request, async |channel, request| {
                VmsClient::new(channel).update_vm(request).await
            })
            .await
    };
    assert_eq!(reason(send(update(1, spec()).await).await).0, "ETAG_MISMATCH");
    let moved = v1::VmSpec { host: "host-0001".to_owned(), ..spec() };
    assert_eq!(reason(send(update(0, moved).await).await).0, "FIELD_IMMUTABLE");

    // Page tokens belong to their list.
    for n in 0..5 {
        create(&admin, &format!("page-{n}"), spec()).await.unwrap();
    }
    let list = async |filter: &str, page_token: String| {
        let page =
            v1::Page { page_size: 2, page_token, filter: filter.to_owned(), ..Default::default() };
        let request = v1::ListVmsRequest { page: Some(page), ..Default::default() };
        admin
            .call(request, async |channel, request| VmsClient::new(channel).list_vms(request).await)
            .await
    };
    let first = list("name:page", String::new()).await.unwrap();
    assert_eq!(first.vms.len(), 2);
    let second = list("name:page", first.next_page_token.clone()).await.unwrap();
    assert_eq!(second.vms[0].name, "page-2");
    let (code, said) = reason(list("name:web", first.next_page_token).await);
    assert_eq!(code, "INVALID");
    assert!(said.contains("belongs to another list"), "{said}");
    assert_eq!(reason(list("colour=red", String::new()).await).0, "INVALID");

    // A watch from a history that is no more.
    let watch = v1::WatchRequest { since_revision: 9 << 48, ..Default::default() };
    let refused = admin
        .call(watch, async |channel, request| EventsClient::new(channel).watch(request).await)
        .await;
    assert_eq!(refused.err().unwrap().reason(), "OTHER_HISTORY");

    // A client that speaks no TLS is told so.
    let endpoint = &lab.cluster.access.endpoints[0];
    let mut plain = tokio::net::TcpStream::connect(endpoint).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("400") && answer.contains("https://"), "{answer:?}");
    lab.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_waits_says_for_what() {
    let lab = Lab::start(1, 2, 0).await;
    lab.image("tiny").await;
    let client = lab.client();
    let big = v1::VmSpec { vcpus: 512, ..spec() };
    let outcome = create(&client, "big", big).await.unwrap();
    let mut said = v1::Operation::default();
    let (begun, patience) = (Instant::now(), Duration::from_secs(30));
    // At first it may say that no host is there yet.
    while said.message != "no host of 2: 2 without enough cpu" {
        let waited = client.wait(&outcome.operation, Duration::from_millis(500), |seen| {
            said = seen.clone();
        });
        assert!(matches!(waited.await, Err(client::Error::Timeout(_))));
        assert!(begun.elapsed() < patience, "{said:?}");
    }
    assert_eq!((said.status.as_str(), said.done), ("queued", false));
    lab.cluster.stop().await;
}

/// What watchers of VMs are sent after a revision, until one of the VMs is gone.
async fn until_gone(client: client::Client, since: u64) -> Vec<(u64, Vec<String>)> {
    let mut watch = client.watch(v1::WatchRequest {
        since_revision: since,
        kinds: vec!["vm".to_owned()],
        project: String::new(),
    });
    let mut sent = Vec::new();
    loop {
        let event = watch.next().await.unwrap();
        let gone = event.changes.iter().any(|change| change.deleted);
        let objects = event.changes.into_iter().map(|change| change.object).collect();
        sent.push((event.revision, objects));
        if gone {
            return sent;
        }
    }
}

/// Who watches from the same revision on is sent the same, also of a VM that is gone by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_comes_late_misses_nothing() {
    const PATIENCE: Duration = Duration::from_secs(60);
    let lab = Lab::start(1, 1, 0).await;
    lab.image("tiny").await;
    let client = lab.client();
    let made = create(&client, "brief", spec()).await.unwrap();
    let live = tokio::spawn(until_gone(lab.client(), made.revision));
    done(&client, &made).await;
    let delete = v1::DeleteVmRequest {
        mutation: client.mutation().await.unwrap(),
        vm: "brief".to_owned(),
        ..Default::default()
    };
    let delete = client
        .call(delete, async |channel, request| VmsClient::new(channel).delete_vm(request).await);
    done(&client, &delete.await.unwrap()).await;
    let live = tokio::time::timeout(PATIENCE, live).await.unwrap().unwrap();
    let late = tokio::time::timeout(PATIENCE, until_gone(lab.client(), made.revision));
    assert_eq!(late.await.unwrap(), live);
    assert!(live.len() > 2, "too little happens to it: {live:?}");
    lab.cluster.stop().await;
}

/// A watch ends soon after its credential is revoked, and resumes over nodes without a gap.
#[tokio::test(flavor = "multi_thread")]
async fn watches_end_with_their_credential_and_miss_nothing() {
    let mut lab = Lab::start(3, 3, 0).await;
    lab.image("tiny").await;
    let admin = lab.client();
    let (watcher, _) = lab.client_as("viewer", "watcher").await;
    let begun = create(&admin, "vm-0", spec()).await.unwrap();
    done(&admin, &begun).await;
    let mut watch = watcher.watch(v1::WatchRequest {
        since_revision: begun.revision,
        kinds: vec!["vm".to_owned()],
        project: String::new(),
    });
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let watching = tokio::spawn(async move {
        let mut last = 0;
        loop {
            match watch.next().await {
                Ok(event) => {
                    assert!(event.revision > last, "back in time: {} after {last}", event.revision);
                    last = event.revision;
                    for vm in event.changes.into_iter().filter_map(|change| change.vm) {
                        tell.send((vm.name, vm.phase)).unwrap();
                    }
                }
                Err(error) => return error,
            }
        }
    });
    for n in 1..10 {
        let outcome = create(&admin, &format!("vm-{n}"), spec()).await.unwrap();
        done(&admin, &outcome).await;
        if n == 5 {
            lab.cluster.stop_node(0).await;
            lab.cluster.start_node(0).await.unwrap();
        }
    }
    // Each is seen running, also those that were made while the watch looked for another node.
    let mut missing: BTreeSet<String> = (1..10).map(|n| format!("vm-{n}")).collect();
    while !missing.is_empty() {
        let seen = tokio::time::timeout(Duration::from_secs(60), told.recv()).await;
        let (name, phase) =
            seen.unwrap_or_else(|_| panic!("never seen running: {missing:?}")).unwrap();
        if phase == "running" {
            missing.remove(&name);
        }
    }
    let revoke = v1::RevokeCredentialRequest {
        mutation: admin.mutation().await.unwrap(),
        credential: "watcher".to_owned(),
    };
    admin
        .call(revoke, async |channel, request| {
            CredentialsClient::new(channel).revoke_credential(request).await
        })
        .await
        .unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), watching).await;
    let error = ended.expect("the watch outlives its credential").unwrap();
    assert_eq!(error.reason(), "UNAUTHENTICATED");
    lab.cluster.stop().await;
}

/// Whoever guesses join tokens, which anybody may, leaves nothing in the log.
#[tokio::test(flavor = "multi_thread")]
async fn guessed_tokens_are_not_proposed() {
    /// More than a cluster without VMs writes by itself in a quarter of a minute.
    const GUESSES: u64 = 100;
    let lab = Lab::start(1, 1, 0).await;
    let entries = || {
        let daemon = lab.cluster.daemons[0].as_ref().unwrap();
        daemon.store.view().at.unwrap().index
    };
    let (signing_request, _) = raft_store::identity::signing_request().unwrap();
    let client = client(&Access { bearer: String::new(), ..lab.cluster.access.clone() });
    let before = entries();
    for guess in 0..GUESSES {
        let request = v1::JoinRequest {
            secret: format!("guess-{guess}"),
            name: "stranger".to_owned(),
            peer_address: "127.0.0.1:1".to_owned(),
            api_address: "127.0.0.1:2".to_owned(),
            store_id: uuid::Uuid::new_v4().to_string(),
            signing_request: signing_request.clone(),
            protocol_max: 1,
            ..Default::default()
        };
        let joined = client.call(request, async |channel, request| {
            ClustersClient::new(channel).join(request).await
        });
        assert_eq!(reason(joined.await).0, "TOKEN_UNKNOWN");
    }
    let written = entries() - before;
    assert!(written < GUESSES, "{GUESSES} guesses made {written} entries of the log");
    lab.cluster.stop().await;
}
