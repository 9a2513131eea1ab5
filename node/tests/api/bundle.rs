//! What is gathered for somebody who helps holds what helps, and no secret.

use std::path::Path;

use clap::Parser;
use novacron::bundle::{gather, write};

use crate::harness::{Lab, create, done, spec};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    common: cli::Common,
}

const SECRETS: [&str; 3] = ["hunter2", "of-the-agent", "of-the-hook"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_has_everything_but_secrets() {
    let lab = Lab::start(2, 2, 0).await;
    lab.image("tiny").await;
    let client = lab.client();
    let spec = client::v1::VmSpec {
        user_data: format!("#cloud-config\npassword: {}\n", SECRETS[0]),
        ..spec()
    };
    let outcome = create(&client, "web", spec).await.unwrap();
    done(&client, &outcome).await;
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let access = &lab.cluster.access;
    let access_file = serde_json::json!({
        "endpoints": access.endpoints, "authority": access.authority,
        "server_name": access.server_name, "bearer": access.bearer,
    });
    std::fs::write(file("access.json"), access_file.to_string()).unwrap();
    let config = format!(
        "[cluster]\nname = \"c\"\n[node]\nname = \"n1\"\ndata_directory = \"/nowhere/data\"\n\
         peer_address = \"127.0.0.1:1\"\napi_address = \"127.0.0.1:2\"\n\
         [[fencing]]\nhost = \"h1\"\nprogram = \"/bin/false\"\narguments = [\"-p\", \"{}\"]\n\
         [[receiver]]\nname = \"chat\"\nkind = \"webhook\"\nurl = \"https://chat.example/{}\"\n",
        SECRETS[1], SECRETS[2]
    );
    std::fs::write(file("cluster.toml"), config).unwrap();

    let cli = Cli::parse_from([Path::new("x"), Path::new("--access"), &file("access.json")]);
    let parts = gather(&file("cluster.toml"), &cli.common).await;
    for part in &parts {
        for secret in SECRETS.into_iter().chain([access.bearer.as_str()]) {
            assert!(!part.text.contains(secret), "{secret} is in {}", part.name);
        }
        if part.name.ends_with(".json") {
            let read = serde_json::from_str::<serde_json::Value>(&part.text);
            assert!(read.is_ok(), "{}: {}", part.name, part.text);
        }
    }
    let of = |name: &str| parts.iter().find(|part| part.name == name).unwrap().text.as_str();
    assert!(of("vms.json").contains("\"web\""));
    assert!(of("cluster.toml").contains("/nowhere/data"));
    assert!(of("doctor.json").contains("cluster.votes"));
    let metrics = parts.iter().filter(|part| part.name.starts_with("metrics/"));
    assert_eq!(metrics.filter(|part| part.text.contains("novacron_raft_term")).count(), 2);

    // One that is not understood tells only why.
    let broken = format!("[[fencing]]\narguments = [\n\"--password\", \"{}\",\n", SECRETS[1]);
    std::fs::write(file("cluster.toml"), broken).unwrap();
    let parts = gather(&file("cluster.toml"), &cli.common).await;
    assert!(parts.iter().all(|part| !part.text.contains(SECRETS[1])));
    let told = parts.iter().find(|part| part.name == "cluster.toml").unwrap();
    assert!(told.text.contains("line "), "{}", told.text);

    write(&parts, &file("bundle")).unwrap();
    assert!(write(&parts, &file("bundle")).is_err(), "what was there was overwritten");
    let packed = std::fs::File::open(file("bundle")).unwrap();
    let mut archive = tar::Archive::new(zstd::Decoder::new(packed).unwrap());
    assert_eq!(archive.entries().unwrap().count(), parts.len());
    lab.cluster.stop().await;
}
