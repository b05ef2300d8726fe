//! `fulmar loss`: what images lost on the way and how often, the latest last. Lost means missing when it was looked for:
//! on reliable streams it was asked for again and came.

#![forbid(unsafe_code)]

use fulmar::report::LossRecord;
use serde_json::{Value, json};

use crate::args::LossArgs;
use crate::failure::Failure;
use crate::inspect::Inspection;
use crate::render::date::format_utc;
use crate::render::output::{print, print_json};
use crate::render::table::{Align, Table};

pub(crate) fn run(args: &LossArgs) -> Result<(), Failure> {
    let inspection = Inspection::open(&args.inspect)?;
    let mut records = inspection.losses()?;
    records.sort_by_key(|record| record.last);
    if args.inspect.json {
        return print_json(&records.iter().map(object).collect());
    }
    if records.is_empty() {
        return print("no loss\n");
    }
    print(&table(&records))
}

fn table(records: &[LossRecord]) -> String {
    let mut table = Table::new(&[
        ("bytes", Align::Right),
        ("observations", Align::Right),
        ("first", Align::Left),
        ("last", Align::Left),
        ("stream", Align::Right),
        ("session", Align::Right),
        ("source", Align::Left),
        ("channel", Align::Left),
    ]);
    for record in records {
        table.row(vec![
            record.total_bytes_lost.to_string(),
            record.observation_count.to_string(),
            format_utc(record.first.0),
            format_utc(record.last.0),
            record.stream_id.to_string(),
            record.session_id.to_string(),
            record.source.clone(),
            record.channel.clone(),
        ]);
    }
    table.render()
}

fn object(record: &LossRecord) -> Value {
    json!({
        "bytes_lost": record.total_bytes_lost,
        "observations": record.observation_count,
        "first_ms": record.first.0,
        "last_ms": record.last.0,
        "stream_id": record.stream_id.get(),
        "session_id": record.session_id.get(),
        "source": record.source,
        "channel": record.channel,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar::id::{SessionId, StreamId};
    use fulmar::time::EpochMs;

    #[test]
    fn a_loss_says_how_much_when_and_whence() {
        let record = LossRecord {
            observation_count: 2,
            total_bytes_lost: 2816,
            first: EpochMs(0),
            last: EpochMs(1000),
            session_id: SessionId(-7),
            stream_id: StreamId(10),
            channel: "aeron:udp?endpoint=h:1".into(),
            source: "1.2.3.4:5\u{1b}".into(),
        };
        let text = table(std::slice::from_ref(&record));
        let row = text.lines().nth(1).expect("one row");
        for word in ["2816", "1970-01-01T00:00:01.000Z", "-7", "1.2.3.4:5\u{fffd}"] {
            assert!(row.contains(word), "{text}");
        }
        let document = object(&record);
        assert_eq!(
            (&document["bytes_lost"], &document["observations"]),
            (&json!(2816), &json!(2))
        );
    }
}
