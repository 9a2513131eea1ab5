//! Makes the code of the .proto files: messages, gRPC, JSON, REST and the OpenAPI document. No
//! protoc is needed: protox is a compiler in Rust.

use std::{
    collections::HashMap,
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use protox::prost_reflect::{DescriptorPool, prost_types::FileDescriptorProto};

/// What never leaves the cluster.
const INTERNAL: &[&str] = &["novacron/peer/v1/peer.proto", "novacron/driver/v1/driver.proto"];
/// Part of the public API that REST cannot carry: streams from the client.
const STREAMS: &[&str] = &["novacron/v1/stream.proto"];
const API: &[&str] = &[
    "novacron/v1/vm.proto",
    "novacron/v1/operation.proto",
    "novacron/v1/lock.proto",
    "novacron/v1/migration_policy.proto",
    "novacron/v1/alert.proto",
    "novacron/v1/monitoring.proto",
    "novacron/v1/infrastructure.proto",
    "novacron/v1/admin.proto",
    "novacron/v1/cluster.proto",
    "novacron/v1/event.proto",
];
const PACKAGE: &str = "novacron.v1";

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    internal(&root)?;
    api(&root, &out)
}

fn compiler(root: &Path, files: &[&str]) -> Result<protox::Compiler, Box<dyn Error>> {
    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    for file in compiler.files().filter_map(|file| file.path()) {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    Ok(compiler)
}

fn internal(root: &Path) -> Result<(), Box<dyn Error>> {
    let compiler = compiler(root, INTERNAL)?;
    tonic_prost_build::configure().bytes(".").compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

fn api(root: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    use rest_over_grpc::build::{DescriptorOptions, Generator, OpenApiInfo, ServiceDefinition};
    let mut all = compiler(root, &[API, STREAMS].concat())?;
    tonic_prost_build::configure().btree_map(".").compile_fds(all.file_descriptor_set())?;
    let compiler = compiler(root, API)?;
    // Encoded by the compiler: prost's own types drop the HTTP annotations.
    let descriptors = compiler.encode_file_descriptor_set();
    pbjson_build::Builder::new()
        .register_descriptors(&all.encode_file_descriptor_set())?
        .btree_map(["."])
        .build(&[format!(".{PACKAGE}")])?;
    let options = DescriptorOptions::new().package(format!(".{PACKAGE}"));
    Generator::builder()
        .emit_openapi_spec(Some(OpenApiInfo::new("NovaCron", "v1").add_server("/")))
        .build()
        .add_all(ServiceDefinition::from_fds(&descriptors, &options)?)
        .write(out)?;
    openapi(&compiler.descriptor_pool(), out)?;
    methods(&all.descriptor_pool(), out)?;
    let reflection = all.include_source_info(false).encode_file_descriptor_set();
    fs::write(out.join("descriptors.bin"), reflection)?;
    Ok(())
}

/// Adds what the generator leaves out: descriptions, tags, security, the media type of streams.
fn openapi(pool: &DescriptorPool, out: &Path) -> Result<(), Box<dyn Error>> {
    use serde_json::{Value, json};
    let generated = fs::read(out.join(format!("{PACKAGE}.openapi.json")))?;
    let mut document: Value = serde_json::from_slice(&generated)?;
    document["components"]["securitySchemes"] =
        json!({"bearer": {"type": "http", "scheme": "bearer"}});
    document["security"] = json!([{"bearer": []}]);
    for message in pool.all_messages() {
        let file = message.parent_file_descriptor_proto();
        let Some(schema) = document["components"]["schemas"].get_mut(message.full_name()) else {
            continue;
        };
        if let Some(text) = comment(file, message.path()) {
            schema["description"] = text.into();
        }
        for field in message.fields() {
            let property = schema["properties"].get_mut(field.json_name());
            if let (Some(property), Some(text)) = (property, comment(file, field.path())) {
                property["description"] = text.into();
            }
        }
    }
    let mut methods = HashMap::new();
    for service in pool.services().filter(|service| service.package_name() == PACKAGE) {
        for method in service.methods() {
            methods.insert(method.name().to_owned(), method);
        }
    }
    for (_, path) in document["paths"].as_object_mut().into_iter().flatten() {
        for (_, operation) in path.as_object_mut().into_iter().flatten() {
            let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
            let Some(method) = methods.get(&id) else { continue };
            let service = method.parent_service();
            operation["tags"] = json!([service.name()]);
            if let Some(text) = comment(service.parent_file_descriptor_proto(), method.path()) {
                operation["description"] = text.into();
            }
            if method.is_server_streaming() {
                let content = &mut operation["responses"]["200"]["content"];
                let item = content["application/json"]["schema"]["items"].clone();
                content["text/event-stream"] = json!({"schema": item});
            }
            if matches!(id.as_str(), "Join" | "GetVersion") {
                operation["security"] = json!([]);
            }
        }
    }
    fs::write(out.join("openapi.json"), serde_json::to_string_pretty(&document)?)?;
    Ok(())
}

/// The names of all methods of the public API, as `Service/Method`.
fn methods(pool: &DescriptorPool, out: &Path) -> Result<(), Box<dyn Error>> {
    let services = pool.services().filter(|service| service.package_name() == PACKAGE);
    let methods = services.flat_map(|service| {
        let names = service.methods().map(|method| format!("{}/{}", service.name(), method.name()));
        names.collect::<Vec<_>>()
    });
    let methods: Vec<String> = methods.collect();
    fs::write(out.join("methods.rs"), format!("&{methods:?}"))?;
    Ok(())
}

/// The comment before the element at `path`.
fn comment(file: &FileDescriptorProto, path: &[i32]) -> Option<String> {
    let locations = &file.source_code_info.as_ref()?.location;
    let location = locations.iter().find(|location| location.path == path)?;
    let lines = location.leading_comments.as_deref()?.lines().map(str::trim);
    Some(lines.collect::<Vec<_>>().join(" ").trim().to_owned()).filter(|text| !text.is_empty())
}
