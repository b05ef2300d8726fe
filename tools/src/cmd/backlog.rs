//! `fulmar backlog`: unread bytes per subscriber, the most first.

#![forbid(unsafe_code)]

use serde_json::{Value, json};

use crate::args::BacklogArgs;
use crate::failure::Failure;
use crate::inspect::Inspection;
use crate::render::output::{print, print_json};
use crate::render::table::{Align, Table};
use crate::streams::{Stream, Subscriber, join};

pub(crate) fn run(args: &BacklogArgs) -> Result<(), Failure> {
    let inspection = Inspection::open(&args.inspect)?;
    let streams = join(&inspection.counters()?);
    let entries = most_first(&streams);
    if args.inspect.json {
        return print_json(&entries.iter().map(object).collect());
    }
    if entries.is_empty() {
        return print("no subscribers\n");
    }
    print(&table(&entries))
}

/// A subscriber and the stream that it reads.
type Entry<'a> = (&'a Stream, &'a Subscriber);

/// Subscribers of what is gone come last: how much they have not read is unknown.
fn most_first(streams: &[Stream]) -> Vec<Entry<'_>> {
    let mut entries: Vec<Entry<'_>> = streams
        .iter()
        .flat_map(|stream| {
            stream
                .subscribers
                .iter()
                .map(move |subscriber| (stream, subscriber))
        })
        .collect();
    entries.sort_by_key(|(_, subscriber)| std::cmp::Reverse(subscriber.unread()));
    entries
}

fn table(entries: &[Entry<'_>]) -> String {
    let mut table = Table::new(&[
        ("unread", Align::Right),
        ("stream", Align::Right),
        ("session", Align::Right),
        ("subscription", Align::Right),
        ("client", Align::Right),
        ("position", Align::Right),
        ("channel", Align::Left),
    ]);
    for (stream, subscriber) in entries {
        table.row(vec![
            subscriber
                .unread()
                .map_or_else(|| "-".into(), |bytes| bytes.to_string()),
            stream.stream_id.to_string(),
            stream.session_id.to_string(),
            subscriber.registration_id.to_string(),
            subscriber.client_id.to_string(),
            subscriber.position.to_string(),
            subscriber.channel.clone(),
        ]);
    }
    table.render()
}

fn object((stream, subscriber): &Entry<'_>) -> Value {
    json!({
        "unread": subscriber.unread(),
        "stream_id": stream.stream_id,
        "session_id": stream.session_id,
        "registration_id": subscriber.registration_id,
        "client_id": subscriber.client_id,
        "position": subscriber.position,
        "head": subscriber.head,
        "channel": subscriber.channel,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::tests::{counter, looped_back};
    use fulmar::counters::type_id::SUBSCRIBER_POSITION;

    #[test]
    fn the_longest_backlog_comes_first_and_the_unknown_last() {
        let mut records = looped_back();
        records.push(counter(SUBSCRIBER_POSITION, "sub-pos", 6, 99, 0));
        let streams = join(&records);
        let entries = most_first(&streams);
        let ids: Vec<i64> = entries
            .iter()
            .map(|(_, subscriber)| subscriber.registration_id)
            .collect();
        assert_eq!(ids, [4, 3, 6]);
        let document = object(&entries[0]);
        assert_eq!(
            (&document["unread"], &document["head"]),
            (&json!(1984), &json!(3008))
        );
        assert_eq!(object(&entries[2])["unread"], Value::Null);
        let text = table(&entries);
        assert!(
            text.lines().nth(1).is_some_and(|line| line.starts_with("  1984")),
            "{text}"
        );
    }
}
