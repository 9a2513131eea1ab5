//! Tells Prometheus where to look: its HTTP service discovery.

use axum::{
    Json,
    extract::Query,
    response::{IntoResponse, Response},
};
use domain::{State, principal::Role};
use raft_store::Store;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tonic::Status;

use super::{auth, errors, rest};

pub(super) const PATH: &str = "/v1/prometheus/sd";
/// The label of a VM that says where its own exporter listens.
const ADDRESS: &str = "metrics-address";

/// What is asked for.
#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    of: String,
}

/// `?of=nodes` (or nothing), `?of=vms`.
pub(super) async fn targets(store: Store, Query(wanted): Query<Wanted>) -> Response {
    if let Err(status) = auth::caller(Role::Viewer) {
        return rest::response(&status);
    }
    let view = store.view();
    match wanted.of.as_str() {
        "" | "nodes" => Json(nodes(&view.state)).into_response(),
        "vms" => Json(vms(&view.state)).into_response(),
        other => rest::response(&unknown(other)),
    }
}

fn unknown(of: &str) -> Status {
    let message = format!("of={of:?} is not known; ask for of=nodes or of=vms");
    errors::status(tonic::Code::InvalidArgument, &message, "INVALID")
}

/// Its name: several clusters may be in one Prometheus.
fn cluster(state: &State) -> &str {
    state.cluster.as_ref().map_or("", |cluster| cluster.name.as_str())
}

fn nodes(state: &State) -> Vec<Value> {
    let cluster = cluster(state);
    let group = |node: &domain::node::Node| {
        json!({
            "targets": [node.api_address],
            "labels": {
                "__scheme__": "https",
                "__metrics_path__": "/metrics",
                "cluster": cluster,
                "node": node.name.as_str(),
            },
        })
    };
    state.nodes.values().map(|node| group(node)).collect()
}

/// VMs that say where their own exporter listens, by a label.
fn vms(state: &State) -> Vec<Value> {
    let group = |vm: &domain::vm::Vm| {
        let address = vm.spec.labels.iter().find(|(name, _)| name.as_str() == ADDRESS)?.1;
        let mut labels: Map<String, Value> = Map::new();
        labels.insert("cluster".to_owned(), cluster(state).into());
        labels.insert("vm".to_owned(), vm.name.as_str().into());
        labels.insert("project".to_owned(), vm.project.as_str().into());
        labels.insert("__meta_novacron_vm_id".to_owned(), vm.id.to_string().into());
        labels.insert("__meta_novacron_phase".to_owned(), state.phase(vm).as_str().into());
        let host = state.instance_of(vm.id).and_then(|body| state.hosts.get(&body.host));
        if let Some(host) = host {
            labels.insert("__meta_novacron_host".to_owned(), host.name.as_str().into());
        }
        for (name, value) in &vm.spec.labels {
            // Prometheus' names have no dashes and no dots.
            let name = name.as_str().replace(['-', '.', '/'], "_");
            labels.insert(format!("__meta_novacron_label_{name}"), value.as_str().into());
        }
        Some(json!({ "targets": [address], "labels": labels }))
    };
    state.vms.values().filter_map(|vm| group(vm)).collect()
}
