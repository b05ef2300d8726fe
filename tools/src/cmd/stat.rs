//! `fulmar stat`: every counter of a driver, once or again and again.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal};
use std::time::Duration;

use fulmar::counters::CounterRecord;
use fulmar::time::{Clock, EpochMs, SystemClock};
use serde_json::{Value, json};

use crate::args::StatArgs;
use crate::failure::Failure;
use crate::inspect::Inspection;
use crate::render::date::format_utc;
use crate::render::output::{print, print_json};
use crate::render::table::{Align, Table};
use crate::schedule::wait_until;
use crate::signals::stop_requested;

pub(crate) fn run(args: &StatArgs) -> Result<(), Failure> {
    let inspection = Inspection::open(&args.inspect)?;
    if args.interval.is_none() && args.count.is_none() {
        let records = inspection.counters()?;
        return if args.inspect.json {
            print_json(&array(&records))
        } else {
            print(&table(&records))
        };
    }
    let interval = args.interval.unwrap_or(Duration::from_secs(1));
    let mut due = SystemClock.nanos();
    let mut samples = 0;
    loop {
        show_sample(&inspection.counters()?, args.inspect.json)?;
        samples += 1;
        if args.count.is_some_and(|count| samples >= count) {
            return Ok(());
        }
        due = due + interval;
        wait_until(due);
        if stop_requested() {
            return Ok(());
        }
        inspection.check_alive()?;
    }
}

fn show_sample(records: &[CounterRecord], json: bool) -> Result<(), Failure> {
    let EpochMs(now_ms) = SystemClock.now().epoch;
    if json {
        return print_json(&json!({ "time_ms": now_ms, "counters": array(records) }));
    }
    // A terminal shows the latest sample in place; anything else gets one after the other.
    let clear = if io::stdout().is_terminal() {
        "\x1b[H\x1b[2J"
    } else {
        ""
    };
    print(&format!("{clear}{}\n{}\n", format_utc(now_ms), table(records)))
}

fn table(records: &[CounterRecord]) -> String {
    let mut table = Table::new(&[
        ("id", Align::Right),
        ("type", Align::Right),
        ("value", Align::Right),
        ("label", Align::Left),
    ]);
    for record in records {
        table.row(vec![
            record.id.to_string(),
            record.type_id.to_string(),
            record.value.to_string(),
            record.label.clone(),
        ]);
    }
    table.render()
}

fn array(records: &[CounterRecord]) -> Value {
    records
        .iter()
        .map(|record| {
            json!({
                "id": record.id.get(),
                "type": record.type_id,
                "label": record.label,
                "value": record.value,
                "registration_id": record.registration_id,
                "owner_id": record.owner_id,
                "reference_id": record.reference_id,
            })
        })
        .collect()
}
