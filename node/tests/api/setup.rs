//! Joining: every way it can fail names its cause.

use client::v1::{self, tokens_client::TokensClient};
use domain::name::Name;
use novacron::{
    api::JoinSecret,
    founding::{Setup, join},
};

use crate::harness::Lab;

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_join_names_its_cause() {
    let lab = Lab::start(1, 0, 0).await;
    let client = lab.client();
    let directory = tempfile::tempdir().unwrap();
    let token = async |node: &str, ttl_seconds: u32| {
        let mutation = client.mutation().await.unwrap();
        let request = v1::CreateTokenRequest { mutation, node: node.to_owned(), ttl_seconds };
        let made = client.call(request, async |channel, request| {
            TokensClient::new(channel).create_token(request).await
        });
        made.await.unwrap().token
    };
    let join_as = async |name: &str, token: &str| {
        let setup = Setup {
            directory: &directory.path().join(name),
            name: Name::new(name).unwrap(),
            peer_address: "127.0.0.1:1",
            api_address: "127.0.0.1:2",
        };
        join(&setup, token).await.map_err(|error| format!("{error:#}"))
    };
    let check = |result: Result<Name, String>, expected: &str| {
        let error = result.unwrap_err();
        assert!(error.contains(expected), "{expected:?} is missing in {error:?}");
    };

    check(join_as("a", "nonsense").await, "this is no join token");
    // Expired, with a hint at the clocks.
    let short = token("", 1).await;
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    check(join_as("a", &short).await, "expired");
    check(join_as("a", &short).await, "compare the clocks of both machines");
    // Scoped to another name.
    check(join_as("a", &token("b", 60).await).await, "for a node named b, not a");
    // Unknown here.
    let mut unknown = JoinSecret::parse(&token("", 60).await).unwrap();
    unknown.secret = "another".to_owned();
    check(join_as("a", &unknown.to_string()).await, "does not know the join token");
    // Another cluster answers.
    let mut other = JoinSecret::parse(&token("", 60).await).unwrap();
    other.pin = domain::id::Digest::sha256(b"another authority");
    check(join_as("a", &other.to_string()).await, "belongs to another cluster");
    // Nobody answers.
    let mut nobody = JoinSecret::parse(&token("", 60).await).unwrap();
    nobody.addresses = vec!["127.0.0.1:9".to_owned()];
    check(join_as("a", &nobody.to_string()).await, "no node of the cluster could be asked");

    // It works, once; the same machine may ask again, another may not.
    let good = token("", 60).await;
    assert_eq!(join_as("a", &good).await.unwrap().as_str(), "dev");
    check(join_as("a", &good).await, "is set up already");
    check(join_as("b", &good).await, "used by another machine");
    lab.cluster.stop().await;
}
