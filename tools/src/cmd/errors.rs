//! `fulmar errors`: the distinct errors that a driver recorded, the latest last.

#![forbid(unsafe_code)]

use fulmar::report::ErrorRecord;
use serde_json::{Value, json};

use crate::args::ErrorsArgs;
use crate::failure::Failure;
use crate::inspect::Inspection;
use crate::render::date::format_utc;
use crate::render::output::{print, print_json};
use crate::render::table::printable;

pub(crate) fn run(args: &ErrorsArgs) -> Result<(), Failure> {
    let inspection = Inspection::open(&args.inspect)?;
    let mut records = inspection.errors()?;
    records.sort_by_key(|record| record.last);
    if args.inspect.json {
        return print_json(&records.iter().map(object).collect());
    }
    let mut text = String::new();
    for record in &records {
        text.push_str(&paragraph(record));
    }
    let distinct = match records.len() {
        0 => "no errors".to_string(),
        1 => "1 distinct error".to_string(),
        count => format!("{count} distinct errors"),
    };
    print(&format!("{text}{distinct}\n"))
}

/// When and how often, then the text, indented, because a text may have several lines.
fn paragraph(record: &ErrorRecord) -> String {
    let times = if record.count == 1 { "time" } else { "times" };
    let mut text = format!(
        "{} {times}, first {}, last {}\n",
        record.count,
        format_utc(record.first.0),
        format_utc(record.last.0)
    );
    for line in record.text.lines() {
        text.push_str("    ");
        text.push_str(&printable(line));
        text.push('\n');
    }
    text
}

fn object(record: &ErrorRecord) -> Value {
    json!({
        "count": record.count,
        "first_ms": record.first.0,
        "last_ms": record.last.0,
        "text": record.text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar::time::EpochMs;

    #[test]
    fn every_line_of_a_text_is_shown_and_none_can_drive_the_terminal() {
        let record = ErrorRecord {
            count: 2,
            first: EpochMs(0),
            last: EpochMs(1000),
            text: "one\n\u{1b}[2Jtwo".into(),
        };
        assert_eq!(
            paragraph(&record),
            "2 times, first 1970-01-01T00:00:00.000Z, last 1970-01-01T00:00:01.000Z\n    one\n    \u{fffd}[2Jtwo\n"
        );
        assert_eq!(object(&record)["last_ms"], 1000);
    }
}
