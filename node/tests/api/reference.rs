//! `docs/cli.md` is what `--help` says. `UPDATE=1` writes it anew.

use std::{collections::HashSet, fmt::Write, path::Path, process::Command};

const HEAD: &str = "# The commands\n\nWhat `novacron … --help` prints; options that every command has are told once, at the top.\n";

#[test]
fn the_commands_are_documented() {
    let whole = help(&[]);
    let common: HashSet<&str> = parts(&whole).collect();
    let mut page = format!("{HEAD}\n## novacron\n\n```text\n{}\n```\n", whole.trim_end());
    for noun in subcommands(&whole) {
        describe(&[&noun], &common, &mut page);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written, page, "run `make snapshots` and review docs/cli.md");
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
