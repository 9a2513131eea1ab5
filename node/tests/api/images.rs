//! Images' files: taken by one node, kept by several, brought to the hosts that need them.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use client::{Client, Code, Error, Upload, v1};
use domain::id::Digest;
use v1::images_client::ImagesClient;

use crate::harness::{Lab, client, create, done, get, spec};

const PATIENCE: Duration = Duration::from_secs(60);

/// A file whose bytes nobody has yet, and how it is announced.
fn file(directory: &Path, bytes: usize) -> Upload {
    let mut random = fastrand::Rng::new();
    let content: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(bytes).collect();
    let path = directory.join(format!("file-{}", random.u64(..)));
    std::fs::write(&path, &content).unwrap();
    let sha256 = Digest::sha256(&content).to_string();
    Upload { path, sha256, size_bytes: bytes as u64 }
}

async fn make(
    client: &Client,
    name: &str,
    file: &Upload,
    holder: &str,
) -> Result<v1::Outcome, Error> {
    let request = v1::CreateImageRequest {
        mutation: client.mutation().await.unwrap(),
        name: name.to_owned(),
        files: vec![v1::ImageFile {
            part: "raw".to_owned(),
            sha256: file.sha256.clone(),
            size_bytes: file.size_bytes,
        }],
        origin: "a test".to_owned(),
        holder: holder.to_owned(),
    };
    let made = client.call(request, async |channel, request| {
        ImagesClient::new(channel).create_image(request).await
    });
    made.await
}

async fn holders(client: &Client, name: &str) -> Vec<String> {
    let request = v1::GetImageRequest { image: name.to_owned(), freshness: None };
    let call = client.call(request, async |channel, request| {
        ImagesClient::new(channel).get_image(request).await
    });
    call.await.unwrap().holders
}

async fn await_holders(client: &Client, name: &str, count: usize) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let holders = holders(client, name).await;
        if holders.len() >= count {
            return holders;
        }
        assert!(begun.elapsed() < PATIENCE, "{name} is held by {holders:?} alone");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether each node has the file, whole.
fn copies(directory: &Path, file: &Upload) -> Vec<bool> {
    let is_whole = |node: &PathBuf| {
        std::fs::read(node.join("images").join(&file.sha256))
            .is_ok_and(|content| Digest::sha256(&content).to_string() == file.sha256)
    };
    (1..=3).map(|node| directory.join(format!("n{node}"))).map(|node| is_whole(&node)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_survives_its_first_holder_and_reaches_every_host() {
    let mut lab = Lab::start(3, 3, 0).await;
    lab.await_voters(3).await;
    let here = tempfile::tempdir().unwrap();
    let file = file(here.path(), (3 << 20) + 17);
    let admin = lab.client();
    let one = novacron::dev::Access {
        endpoints: lab.cluster.access.endpoints[..1].to_vec(),
        ..lab.cluster.access.clone()
    };

    let mut sent = 0;
    let holder =
        client(&one).upload(std::slice::from_ref(&file), |more| sent += more).await.unwrap();
    assert!(sent <= file.size_bytes);
    // Again: it is there already.
    assert_eq!(client(&one).upload(std::slice::from_ref(&file), |_| ()).await.unwrap(), holder);
    make(&admin, "disk", &file, &holder).await.unwrap();
    let two = await_holders(&admin, "disk", 2).await;
    assert!(two.contains(&holder), "{two:?}");

    // Who took it first is gone, and every host gets it all the same.
    lab.cluster.stop_node(0).await;
    let survivors = lab.cluster.daemons.iter().flatten();
    let hosts: Vec<String> = survivors
        .flat_map(|daemon| {
            let (view, node) = (daemon.store.view(), daemon.store.node());
            let rows = view.state.hosts.values().filter(|host| host.node == node);
            rows.map(|host| host.name.to_string()).collect::<Vec<_>>()
        })
        .collect();
    for host in hosts {
        let on = v1::VmSpec { image: "disk".to_owned(), host: host.clone(), ..spec() };
        let outcome = create(&admin, &format!("on-{host}"), on).await.unwrap();
        assert_eq!(done(&admin, &outcome).await.status, "done", "on {host}");
        assert_eq!(get(&admin, &format!("on-{host}")).await.unwrap().phase, "running");
    }
    assert_eq!(await_holders(&admin, "disk", 3).await.len(), 3);
    assert_eq!(copies(lab.directory(), &file), [true; 3]);
    lab.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_announced_file_is_refused() {
    let lab = Lab::start(1, 1, 0).await;
    let here = tempfile::tempdir().unwrap();
    let file = file(here.path(), 100_000);
    let admin = lab.client();
    let (viewer, _) = lab.client_as("viewer", "looks").await;
    let other = Upload { sha256: "0".repeat(64), ..file.clone() };
    let longer = Upload { size_bytes: file.size_bytes - 1, ..file.clone() };
    let shorter = Upload { size_bytes: file.size_bytes + 1, ..file.clone() };
    let endless = Upload { size_bytes: 1 << 50, ..file.clone() };
    let too_large = Upload { size_bytes: 1 << 40, ..file.clone() };
    let nameless = Upload { sha256: "../../etc/passwd".to_owned(), ..file.clone() };
    let table = [
        (&admin, &other, Code::InvalidArgument, "SHA-256"),
        (&admin, &longer, Code::InvalidArgument, "longer"),
        (&admin, &shorter, Code::InvalidArgument, "too early"),
        (&admin, &endless, Code::InvalidArgument, "size_bytes"),
        (&admin, &too_large, Code::ResourceExhausted, "disk"),
        (&admin, &nameless, Code::InvalidArgument, "sha256"),
        (&viewer, &file, Code::PermissionDenied, ""),
    ];
    for (who, upload, code, word) in table {
        let error = who.upload(std::slice::from_ref(upload), |_| ()).await.unwrap_err();
        assert_eq!(error.code(), Some(code), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    let left = std::fs::read_dir(lab.directory().join("n1/images")).unwrap().count();
    assert_eq!(left, 0, "something was left of what was refused");
    for holder in ["", "nobody", "n1"] {
        let error = make(&admin, "unheld", &file, holder).await.unwrap_err();
        assert_eq!(error.code(), Some(Code::InvalidArgument), "{error}");
        assert!(error.to_string().contains("holder"), "{error}");
    }
    lab.cluster.stop().await;
}

/// Serves `content` to whoever asks, as often as asked.
fn serve(content: Vec<u8>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", content.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content));
        }
    });
    format!("http://{address}/disk.raw")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_takes_files_and_urls() {
    let lab = Lab::start(1, 1, 0).await;
    let here = tempfile::tempdir().unwrap();
    let file = file(here.path(), 300_000);
    let url = serve(std::fs::read(&file.path).unwrap());
    let access = here.path().join("access.json");
    std::fs::write(&access, serde_json::to_vec(&lab.cluster.access).unwrap()).unwrap();
    let path = file.path.to_str().unwrap();
    let (right, wrong) = (file.sha256.as_str(), "0".repeat(64));
    let table: [(&[&str], &str); 7] = [
        (&["one", "--raw", path], ""),
        (&["two", "--raw", &url, "--sha256", right], ""),
        (&["three", "--raw", &url], "without TLS"),
        (&["three", "--raw", &url, "--sha256", &wrong], "SHA-256"),
        (&["three", "--raw", "/nowhere"], "/nowhere"),
        (&["three", "--raw", "https://127.0.0.1:1/x"], "cannot get"),
        (&["one", "--raw", path], "exists already"),
    ];
    for (arguments, complaint) in table {
        let output = Command::new(env!("CARGO_BIN_EXE_novacron"))
            .args(["image", "create"])
            .args(arguments)
            .env("NOVACRON_ACCESS", &access)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), complaint.is_empty(), "{arguments:?}: {said}");
        assert!(said.contains(complaint), "{arguments:?}: {said}");
    }
    assert!(copies(lab.directory(), &file)[0]);
    lab.cluster.stop().await;
}
