//! `fulmar streams`: publications, images and subscribers joined by stream, with how far each has come and how fast.

#![forbid(unsafe_code)]

use fulmar::counters::type_id::{
    PUBLISHER_POSITION, RECEIVER_POSITION, SENDER_POSITION, SUBSCRIBER_POSITION,
};
use fulmar::time::{Clock, EpochMs, SystemClock};
use serde_json::{Value, json};

use crate::args::StreamsArgs;
use crate::failure::Failure;
use crate::inspect::Inspection;
use crate::render::output::{print, print_json};
use crate::render::progress::elapsed;
use crate::render::table::{Align, Table};
use crate::render::units::{format_bytes, whole};
use crate::schedule::wait_until;
use crate::streams::{Earlier, Image, Publication, Stream, Subscriber, join};

pub(crate) fn run(args: &StreamsArgs) -> Result<(), Failure> {
    let inspection = Inspection::open(&args.inspect)?;
    let started = SystemClock.nanos();
    let mut records = inspection.counters()?;
    let mut earlier = None;
    if !args.sample.is_zero() && inspection.is_alive() {
        wait_until(started + args.sample);
        let before = records;
        records = inspection.counters()?;
        earlier = Some(Earlier::new(&before, elapsed(started, SystemClock.nanos())));
    }
    let streams: Vec<Stream> = join(&records)
        .into_iter()
        .filter(|stream| args.stream.is_none_or(|id| stream.stream_id == id))
        .collect();
    let rates = Rates(earlier);
    if args.inspect.json {
        let EpochMs(now_ms) = SystemClock.now().epoch;
        let streams: Vec<Value> = streams.iter().map(|stream| object(stream, &rates)).collect();
        return print_json(&json!({ "time_ms": now_ms, "streams": streams }));
    }
    if streams.is_empty() {
        return print("no streams\n");
    }
    print(&table(&streams, &rates))
}

/// Rates since an earlier sample, if there is one.
struct Rates(Option<Earlier>);

impl Rates {
    fn of(&self, type_id: i32, id: i64, reads: i64, position: Option<i64>) -> Option<f64> {
        self.0.as_ref()?.rate(type_id, id, reads, position)
    }

    fn publication(&self, publication: &Publication) -> Option<f64> {
        self.of(
            PUBLISHER_POSITION,
            publication.registration_id,
            0,
            publication.position,
        )
    }

    fn sender(&self, publication: &Publication) -> Option<f64> {
        let position = publication.sender.as_ref()?.position;
        self.of(SENDER_POSITION, publication.registration_id, 0, position)
    }

    fn image(&self, image: &Image) -> Option<f64> {
        self.of(RECEIVER_POSITION, image.correlation_id, 0, image.position)
    }

    fn subscriber(&self, subscriber: &Subscriber) -> Option<f64> {
        self.of(
            SUBSCRIBER_POSITION,
            subscriber.registration_id,
            subscriber.reads,
            Some(subscriber.position),
        )
    }
}

/// One row for each half of a publication, each image and each subscriber. `behind` counts towards the row it takes
/// from: what is not sent, what has gaps, what is unread; `window` is what may still come.
fn table(streams: &[Stream], rates: &Rates) -> String {
    let mut table = Table::new(&[
        ("stream", Align::Right),
        ("session", Align::Right),
        ("part", Align::Left),
        ("id", Align::Right),
        ("position", Align::Right),
        ("behind", Align::Right),
        ("window", Align::Right),
        ("rate", Align::Right),
        ("note", Align::Left),
        ("channel", Align::Left),
    ]);
    for stream in streams {
        let mut add = |row: Row| table.row(row.cells(stream));
        for publication in &stream.publications {
            publication_rows(publication, rates)
                .into_iter()
                .for_each(&mut add);
        }
        for image in &stream.images {
            add(image_row(image, rates));
        }
        for subscriber in &stream.subscribers {
            add(subscriber_row(subscriber, rates));
        }
    }
    table.render()
}

struct Row {
    part: &'static str,
    id: i64,
    position: Option<i64>,
    behind: Option<i64>,
    window: Option<i64>,
    rate: Option<f64>,
    notes: Vec<String>,
    channel: String,
}

impl Row {
    fn cells(self, stream: &Stream) -> Vec<String> {
        vec![
            stream.stream_id.to_string(),
            stream.session_id.to_string(),
            self.part.to_string(),
            self.id.to_string(),
            cell(self.position),
            cell(self.behind),
            cell(self.window),
            self.rate
                .map_or_else(|| "-".into(), |rate| format!("{}/s", format_bytes(whole(rate)))),
            self.notes.join(", "),
            self.channel,
        ]
    }
}

fn publication_rows(publication: &Publication, rates: &Rates) -> Vec<Row> {
    let kind = if publication.exclusive {
        "exclusive"
    } else {
        "concurrent"
    };
    let mut notes = vec![kind.to_string()];
    if publication.window() == Some(0) {
        notes.push("takes nothing".into());
    }
    let mut rows = vec![Row {
        part: "publication",
        id: publication.registration_id,
        position: publication.position,
        behind: None,
        window: publication.window(),
        rate: rates.publication(publication),
        notes,
        channel: publication.channel.clone(),
    }];
    if let Some(sender) = &publication.sender {
        let mut notes = Vec::new();
        if publication.unsent() > sender.window() {
            notes.push("held back by flow control".to_string());
        }
        note_count(&mut notes, sender.receivers, "receivers");
        note_count(&mut notes, sender.naks_received, "NAKs received");
        note_count(&mut notes, sender.back_pressure_events, "times held back");
        rows.push(Row {
            part: "sender",
            id: publication.registration_id,
            position: sender.position,
            behind: publication.unsent(),
            window: sender.window(),
            rate: rates.sender(publication),
            notes,
            channel: String::new(),
        });
    }
    rows
}

fn image_row(image: &Image, rates: &Rates) -> Row {
    let mut notes = Vec::new();
    note_count(&mut notes, image.naks_sent, "NAKs sent");
    for (name, value) in &image.congestion {
        notes.push(format!("{name} {value}"));
    }
    Row {
        part: "image",
        id: image.correlation_id,
        position: image.position,
        behind: image.incomplete(),
        window: None,
        rate: rates.image(image),
        notes,
        channel: image.channel.clone(),
    }
}

fn subscriber_row(subscriber: &Subscriber, rates: &Rates) -> Row {
    let mut notes = Vec::new();
    if subscriber.slowest {
        notes.push("slowest".to_string());
    }
    if subscriber.head.is_none() {
        notes.push("reads what is gone".to_string());
    }
    Row {
        part: "subscriber",
        id: subscriber.registration_id,
        position: Some(subscriber.position),
        behind: subscriber.unread(),
        window: None,
        rate: rates.subscriber(subscriber),
        notes,
        channel: subscriber.channel.clone(),
    }
}

/// Adds a count that is there and not zero.
fn note_count(notes: &mut Vec<String>, count: Option<i64>, what: &str) {
    if let Some(count) = count
        && count != 0
    {
        notes.push(format!("{count} {what}"));
    }
}

fn cell(value: Option<i64>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

fn object(stream: &Stream, rates: &Rates) -> Value {
    let publications: Vec<Value> = stream
        .publications
        .iter()
        .map(|publication| {
            json!({
                "registration_id": publication.registration_id,
                "channel": publication.channel,
                "exclusive": publication.exclusive,
                "position": publication.position,
                "limit": publication.limit,
                "window": publication.window(),
                "bytes_per_second": rates.publication(publication),
                "sender": publication.sender.as_ref().map(|sender| json!({
                    "position": sender.position,
                    "limit": sender.limit,
                    "window": sender.window(),
                    "unsent": publication.unsent(),
                    "bytes_per_second": rates.sender(publication),
                    "back_pressure_events": sender.back_pressure_events,
                    "naks_received": sender.naks_received,
                    "receivers": sender.receivers,
                })),
            })
        })
        .collect();
    let images: Vec<Value> = stream
        .images
        .iter()
        .map(|image| {
            json!({
                "correlation_id": image.correlation_id,
                "channel": image.channel,
                "position": image.position,
                "high_water_mark": image.high_water_mark,
                "incomplete": image.incomplete(),
                "bytes_per_second": rates.image(image),
                "naks_sent": image.naks_sent,
                "congestion": image.congestion,
            })
        })
        .collect();
    let subscribers: Vec<Value> = stream
        .subscribers
        .iter()
        .map(|subscriber| {
            json!({
                "registration_id": subscriber.registration_id,
                "client_id": subscriber.client_id,
                "channel": subscriber.channel,
                "reads": subscriber.reads,
                "position": subscriber.position,
                "unread": subscriber.unread(),
                "slowest": subscriber.slowest,
                "bytes_per_second": rates.subscriber(subscriber),
            })
        })
        .collect();
    json!({
        "stream_id": stream.stream_id,
        "session_id": stream.session_id,
        "publications": publications,
        "images": images,
        "subscribers": subscribers,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::streams::tests::looped_back;

    #[test]
    fn a_stream_has_a_row_for_each_part() {
        let earlier = Earlier::new(&looped_back(), Duration::from_secs(1));
        let text = table(&join(&looped_back()), &Rates(Some(earlier)));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + 2 + 1 + 2, "{text}");
        for (line, part) in
            lines[1..]
                .iter()
                .zip(["publication", "sender", "image", "subscriber", "subscriber"])
        {
            assert!(line.contains(part), "{line}");
            assert!(line.contains("0 B/s"), "{line}");
        }
        assert!(
            lines[2].contains("held back by flow control, 3 NAKs received"),
            "{text}"
        );
        assert!(
            !lines[4].contains("slowest") && lines[5].contains("slowest"),
            "{text}"
        );
    }

    #[test]
    fn the_document_says_the_same_and_leaves_unknown_rates_out() {
        let streams = join(&looped_back());
        let document = object(&streams[0], &Rates(None));
        assert_eq!(document["publications"][0]["sender"]["unsent"], 1000);
        assert_eq!(document["images"][0]["incomplete"], 960);
        assert_eq!(document["images"][0]["congestion"]["rcv-cc-cubic-wnd"], 1408);
        assert_eq!(document["subscribers"][1]["unread"], 1984);
        assert_eq!(document["subscribers"][1]["slowest"], true);
        assert_eq!(document["subscribers"][1]["bytes_per_second"], Value::Null);
    }
}
