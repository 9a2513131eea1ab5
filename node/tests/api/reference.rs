//! The reference pages in docs/ are made from what the program itself has: `--help`, the OpenAPI
//! document, the comments of the configuration's fields. `UPDATE=1` writes them anew.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write,
    path::Path,
    process::Command,
};

use serde_json::Value;

const HEAD: &str = "# The commands\n\nWhat `novacron … --help` prints; options that every command has are told once, at the top.\n";

#[test]
fn the_commands_are_documented() {
    let whole = help(&[]);
    let common: HashSet<&str> = parts(&whole).collect();
    let mut page = format!("{HEAD}\n## novacron\n\n```text\n{}\n```\n", whole.trim_end());
    for noun in subcommands(&whole) {
        describe(&[&noun], &common, &mut page);
    }
    check("cli.md", &page);
}

/// A page of docs/ is as it is made here.
pub(crate) fn check(page: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == made, "docs/{page} is old; run `make snapshots` and review it");
}

#[test]
fn the_api_is_documented() {
    let document: Value = serde_json::from_str(proto::OPENAPI).unwrap();
    let mut services: BTreeMap<&str, String> = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (verb, method) in methods.as_object().unwrap() {
            let Some(name) = method["operationId"].as_str() else { continue };
            let text = method["description"].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{name} has no comment in its .proto file");
            let rows = services.entry(method["tags"][0].as_str().unwrap()).or_default();
            writeln!(rows, "| `{name}` | `{} {path}` | {text} |", verb.to_uppercase()).unwrap();
        }
    }
    let mut page = "# The API\n\nOne port, TLS, gRPC and REST: every row is `novacron.v1.SERVICE/METHOD` over gRPC and the path over REST, with the same \
        answer.\nThe whole description is served at `/openapi.json`, and by gRPC reflection. These services are streams and exist in gRPC \
        alone:\n`Changes` (many changes over one call), `Uploads` (files of images), `Consoles` (typing at guests) and `Backups`.\n"
        .to_owned();
    for (service, rows) in services {
        write!(page, "\n## {service}\n| method | path | what it does |\n|---|---|---|\n{rows}")
            .unwrap();
    }
    page.push_str(
        "\n## Messages\n64-bit numbers are text in JSON. What has its default may be left out.\n",
    );
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let Some(name) = name.strip_prefix("novacron.v1.") else { continue };
        let text = schema["description"].as_str().unwrap_or_default();
        write!(page, "\n### {name}\n").unwrap();
        if !text.is_empty() {
            writeln!(page, "{text}\n").unwrap();
        }
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            let text = property["description"].as_str().unwrap_or_default();
            writeln!(page, "- `{field}`: {}. {text}", kind(property)).unwrap();
        }
    }
    let lines: Vec<&str> = page.lines().map(str::trim_end).collect();
    check("api.md", &(lines.join("\n") + "\n"));
}

/// What a property holds.
fn kind(property: &Value) -> String {
    let reference = property["$ref"].as_str().or_else(|| property["allOf"][0]["$ref"].as_str());
    if let Some(reference) = reference {
        let name = reference.rsplit('.').next().unwrap();
        return format!("[{name}](#{})", name.to_lowercase());
    }
    match property["type"].as_str() {
        Some("array") => format!("list of {}", kind(&property["items"])),
        Some("object") => format!("map to {}", kind(&property["additionalProperties"])),
        Some("string") => match property["format"].as_str() {
            Some(format @ ("uint64" | "int64")) => format.to_owned(),
            Some(_) | None => "text".to_owned(),
        },
        Some(other) => other.to_owned(),
        None => "any".to_owned(),
    }
}

#[test]
fn the_configuration_is_documented() {
    let source = include_str!("../../src/config.rs");
    let sections = [
        ("[cluster]", "ClusterSection"),
        ("[node]", "NodeSection"),
        ("[[host]]", "HostSection"),
        ("[[fencing]]", "FencingSection"),
        ("[[receiver]]", "ReceiverSection"),
        ("[log]", "LogSection"),
        ("[traces]", "TracesSection"),
        ("[api]", "ApiSection"),
    ];
    let mut page = "# Configuration\n\n`cluster.toml` is what a node is told by its machine's administrator; \
        [the example](../cluster.toml) has every section. `novacron config check` tells all\nproblems \
        of a file at once, with their lines. An option that is not listed is refused.\n"
        .to_owned();
    for (section, name) in sections {
        write!(page, "\n## {section}\n| option | what it is |\n|---|---|\n").unwrap();
        let start = source.find(&format!("pub struct {name} {{")).unwrap();
        let (mut comment, mut fields) = (String::new(), 0);
        for line in source[start..].lines().skip(1).take_while(|line| *line != "}") {
            let line = line.trim();
            if let Some(text) = line.strip_prefix("///") {
                comment.push_str(text);
            } else if let Some((field, _)) =
                line.strip_prefix("pub ").and_then(|l| l.split_once(':'))
            {
                writeln!(page, "| `{field}` | {} |", std::mem::take(&mut comment).trim()).unwrap();
                fields += 1;
            }
        }
        assert!(fields > 0, "{section} has no options");
    }
    page.push_str(
        "\n# Settings\n\nWhat can change while the cluster runs: `novacron setting list`, `set`, `reset`. \
         The last word of a name is its unit.\n\n| setting | default | bounds | what it is |\n|---|---|---|---|\n",
    );
    for row in domain::setting::DEFINITIONS {
        let (name, default, min, max, meaning) =
            (row.name, row.default, row.min, row.max, row.meaning);
        writeln!(page, "| `{name}` | {default} | {min} to {max} | {meaning} |").unwrap();
    }
    check("configuration.md", &page);
}

fn describe(command: &[&str], common: &HashSet<&str>, page: &mut String) {
    let text = help(command);
    let own: Vec<&str> = parts(&text).filter(|part| !common.contains(part)).collect();
    let (level, name) = ("#".repeat(command.len() + 1), command.join(" "));
    let own = own.join("\n\n");
    write!(page, "\n{level} novacron {name}\n\n```text\n{}\n```\n", own.trim_end()).unwrap();
    for verb in subcommands(&text) {
        describe(&[command, &[&verb]].concat(), common, page);
    }
}

fn help(command: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_novacron"))
        .args(command)
        .arg("--help")
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{command:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

fn parts(help: &str) -> impl Iterator<Item = &str> {
    help.split("\n\n").map(|part| part.strip_prefix("Options:\n").unwrap_or(part))
}

fn subcommands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let rows = lines.take_while(|line| !line.is_empty());
    let names = rows.filter_map(|row| row.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned).collect()
}
