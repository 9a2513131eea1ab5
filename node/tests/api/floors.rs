//! The floors of the house: imports go down only, and what is dangerous or heavy stays in its room.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// Crates by floor, lowest first.
const FLOORS: &[(&str, u8)] = &[
    ("novacron-domain", 0),
    ("novacron-guard", 0),
    ("novacron-telemetry", 1),
    ("novacron-planner", 1),
    ("novacron-proto", 1),
    ("novacron-drivers", 2),
    ("novacron-raft-store", 2),
    ("novacron-client", 2),
    ("novacron-driver-libvirt", 3),
    ("novacron-actors", 3),
    ("novacron-cli", 3),
    ("novacron", 4),
    ("novacron-lab", 5),
    ("novacron-chaos-tests", 6),
    ("novacron-benchmarks", 6),
];

/// Libraries, and the only crates that may use them.
const WALLS: &[(&str, &[&str])] = &[
    ("ractor", &["novacron-actors"]),
    ("openraft", &["novacron-raft-store"]),
    ("sled", &["novacron-raft-store"]),
    ("virt", &["novacron-driver-libvirt"]),
    ("metrics", &["novacron-telemetry"]),
    ("metrics-exporter-prometheus", &["novacron-telemetry"]),
    ("opentelemetry", &["novacron-telemetry"]),
    ("opentelemetry_sdk", &["novacron-telemetry"]),
    ("opentelemetry-otlp", &["novacron-telemetry"]),
    ("rest_over_grpc", &["novacron-proto", "novacron"]),
    (
        "tonic",
        &[
            "novacron-proto",
            "novacron-raft-store",
            "novacron-drivers",
            "novacron-driver-libvirt",
            "novacron-client",
            // Only the status codes, to choose an exit code.
            "novacron-cli",
            "novacron",
            // etcd speaks it too.
            "novacron-benchmarks",
        ],
    ),
];

#[test]
fn imports_go_down_and_walls_hold() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let floors: BTreeMap<&str, u8> = FLOORS.iter().copied().collect();
    let mut seen = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let floor = floors.get(name).unwrap_or_else(|| panic!("{name} has no floor"));
        for dependency in package["dependencies"].as_array().unwrap() {
            if dependency["kind"] == "dev" {
                continue;
            }
            let used = dependency["name"].as_str().unwrap();
            if let Some(below) = floors.get(used) {
                assert!(below <= floor, "{name} may not use {used}: imports go down only");
                let domain = name == "novacron-domain";
                assert!(!domain, "the law uses nobody");
            }
            if let Some((_, allowed)) = WALLS.iter().find(|(library, _)| *library == used) {
                assert!(allowed.contains(&name), "{name} may not use {used}");
            }
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} dependencies were seen");
}
