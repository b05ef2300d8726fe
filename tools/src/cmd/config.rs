//! `fulmar config`: what a driver started with these options would run with, and why.

#![forbid(unsafe_code)]

use fulmar_media_driver::config::Row;
use serde_json::{Value, json};

use crate::args::ConfigArgs;
use crate::failure::Failure;
use crate::render::output::{print, print_json};
use crate::render::table::{Align, Table};
use crate::settings;

pub(crate) fn run(args: &ConfigArgs) -> Result<(), Failure> {
    let settings = settings::collect(&args.settings)?;
    settings.conclude().map_err(|error| settings::refuse(&error))?;
    settings::warn(&settings);
    let mut rows = settings.explain();
    if args.changed {
        rows.retain(|row| row.value != row.default);
    }
    if args.json {
        print_json(&Value::Array(rows.iter().map(object).collect()))
    } else {
        print(&table(&rows))
    }
}

/// One line per setting: its value, where that comes from, and what the setting does.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = Table::new(&[
        ("setting", Align::Left),
        ("value", Align::Left),
        ("from", Align::Left),
        ("meaning", Align::Left),
    ]);
    for row in rows {
        table.row(vec![
            row.key.to_string(),
            row.value.clone(),
            row.source.to_string(),
            row.doc.to_string(),
        ]);
    }
    table.render()
}

fn object(row: &Row) -> Value {
    json!({
        "key": row.key,
        "env": row.env_name,
        "value": row.value,
        "source": row.source.to_string(),
        "default": row.default,
        "unit": row.unit,
        "bounds": row.bounds,
        "doc": row.doc,
    })
}
