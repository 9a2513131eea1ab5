//! What viewers do not read: that a guest's first words to itself hold secrets is nobody's fault.

use client::{Client, v1};
use tonic::Code;
use v1::{events_client::EventsClient, vms_client::VmsClient};

use crate::harness::{Lab, create, done, get, spec};

const SECRET: &str = "hunter2";

async fn found(client: &Client, filter: String) -> Vec<v1::Vm> {
    let page = v1::Page { filter, ..Default::default() };
    let request = v1::ListVmsRequest {
        project: "default".to_owned(),
        page: Some(page),
        ..Default::default()
    };
    let call = client
        .call(request, async |channel, request| VmsClient::new(channel).list_vms(request).await);
    call.await.unwrap().vms
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_read_no_secrets() {
    let lab = Lab::start(1, 1, 0).await;
    lab.image("tiny").await;
    let admin = lab.client();
    let operator = lab.client_as("operator", "doer").await.0;
    let viewer = lab.client_as("viewer", "looker").await.0;
    let spec = v1::VmSpec { user_data: format!("password: {SECRET}"), ..spec() };
    let outcome = create(&admin, "web", spec).await.unwrap();
    done(&admin, &outcome).await;

    for (who, may) in [(&admin, true), (&operator, true), (&viewer, false)] {
        let one = get(who, "web").await.unwrap();
        assert_eq!((one.name.as_str(), format!("{one:?}").contains(SECRET)), ("web", may));
        let all = found(who, String::new()).await;
        assert_eq!((all.len(), format!("{all:?}").contains(SECRET)), (1, may));
        // Nor is it found by asking for it.
        let sought = found(who, format!("spec.userData:{SECRET}")).await;
        assert_eq!(!sought.is_empty(), may);
        let call = who.call(v1::ListEventsRequest::default(), async |channel, request| {
            EventsClient::new(channel).list_events(request).await
        });
        let events = call.await.unwrap().events;
        assert!(events.iter().flat_map(|event| &event.changes).any(|change| change.vm.is_some()));
        assert_eq!(format!("{events:?}").contains(SECRET), may);
        let request = v1::WatchRequest {
            since_revision: events[0].revision,
            kinds: vec!["vm".to_owned()],
            ..Default::default()
        };
        let event = who.watch(request).next().await.unwrap();
        assert_eq!(format!("{event:?}").contains(SECRET), may);
        let request = v1::GetConsoleLogRequest {
            project: "default".to_owned(),
            vm: "web".to_owned(),
            ..Default::default()
        };
        let log = who.call(request, async |channel, request| {
            VmsClient::new(channel).get_console_log(request).await
        });
        let code = log.await.err().and_then(|error| error.code());
        assert_eq!(code != Some(Code::PermissionDenied), may);
    }
    lab.cluster.stop().await;
}
