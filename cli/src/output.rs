//! How results are shown: one table of columns per noun serves every format.

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

/// A format of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// More columns.
    Wide,
    /// The API's own JSON, stable.
    Json,
    /// The same as YAML.
    Yaml,
    /// Only names.
    Name,
}

/// A column: its head, whether only `wide` shows it, and what stands in it.
pub(crate) struct Column {
    pub(crate) head: &'static str,
    pub(crate) wide: bool,
    pub(crate) cell: fn(&Value) -> String,
}

/// A column of every table format.
pub(crate) const fn column(head: &'static str, cell: fn(&Value) -> String) -> Column {
    Column { head, wide: false, cell }
}

/// A column of `wide` alone.
pub(crate) const fn wide(head: &'static str, cell: fn(&Value) -> String) -> Column {
    Column { head, wide: true, cell }
}

/// What stands at a path such as `spec.vcpus`; `-` for nothing.
pub(crate) fn at(row: &Value, path: &str) -> String {
    let mut value = row;
    for step in path.split('.') {
        value = &value[step];
    }
    match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(_) | Value::Null | Value::Array(_) | Value::Object(_) => "-".to_owned(),
    }
}

/// A number that JSON leaves out when it is 0.
pub(crate) fn number(row: &Value, path: &str) -> String {
    match at(row, path).as_str() {
        "-" => "0".to_owned(),
        text => text.to_owned(),
    }
}

/// Shows rows.
pub(crate) fn rows<T: Serialize>(format: Format, rows: &[T], columns: &[Column]) -> Result<()> {
    let values = rows.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    match format {
        Format::Table | Format::Wide => {
            if values.is_empty() {
                eprintln!("there are none");
                return Ok(());
            }
            println!("{}", table(format, &values, columns));
        }
        Format::Json => println!("{}", serde_json::to_string_pretty(&values)?),
        Format::Yaml => print!("{}", serde_saphyr::to_string(&values)?),
        Format::Name => values.iter().for_each(|row| println!("{}", name(row))),
    }
    Ok(())
}

/// Shows one row.
pub(crate) fn row<T: Serialize>(format: Format, row: &T, columns: &[Column]) -> Result<()> {
    let value = serde_json::to_value(row)?;
    match format {
        Format::Table | Format::Wide => {
            println!("{}", table(format, std::slice::from_ref(&value), columns));
        }
        Format::Json => println!("{}", serde_json::to_string_pretty(&value)?),
        Format::Yaml => print!("{}", serde_saphyr::to_string(&value)?),
        Format::Name => println!("{}", name(&value)),
    }
    Ok(())
}

fn name(row: &Value) -> String {
    match at(row, "name").as_str() {
        "-" => at(row, "id"),
        name => name.to_owned(),
    }
}

fn table(format: Format, rows: &[Value], columns: &[Column]) -> String {
    let shown = || columns.iter().filter(|column| !column.wide || format == Format::Wide);
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(shown().map(|column| column.head));
    for row in rows {
        table.add_row(shown().map(|column| (column.cell)(row)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}
