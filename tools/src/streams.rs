//! The counters of a driver joined into streams: who publishes, what arrives, who reads, and how far each has come.
//! Pure: counters in, streams out. Counters are written by others, so anything may be missing, stale or absurd.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use fulmar::counters::CounterRecord;
use fulmar::counters::type_id::{
    FLOW_CONTROL_RECEIVERS, PER_IMAGE, PUBLISHER_LIMIT, PUBLISHER_POSITION, RECEIVER_HIGH_WATER_MARK,
    RECEIVER_NAKS_SENT, RECEIVER_POSITION, SENDER_BACK_PRESSURE, SENDER_LIMIT, SENDER_NAKS_RECEIVED,
    SENDER_POSITION, SUBSCRIBER_POSITION, StreamKey, read_stream_key,
};

/// One session of one stream, as one driver sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) stream_id: i32,
    pub(crate) session_id: i32,
    /// Usually one at most: a session is a publication.
    pub(crate) publications: Vec<Publication>,
    /// One for each endpoint at which the session arrives.
    pub(crate) images: Vec<Image>,
    pub(crate) subscribers: Vec<Subscriber>,
}

/// A publication of this driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) registration_id: i64,
    pub(crate) channel: String,
    pub(crate) exclusive: bool,
    /// Up to where publishers have written.
    pub(crate) position: Option<i64>,
    /// Up to where they may write.
    pub(crate) limit: Option<i64>,
    /// What a network publication has besides.
    pub(crate) sender: Option<Sender>,
}

/// The sending half of a network publication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sender {
    /// Up to where everything was sent.
    pub(crate) position: Option<i64>,
    /// Up to where flow control lets it send.
    pub(crate) limit: Option<i64>,
    pub(crate) back_pressure_events: Option<i64>,
    pub(crate) naks_received: Option<i64>,
    /// Receivers that flow control knows, if its strategy counts them.
    pub(crate) receivers: Option<i64>,
}

/// A session that arrives from the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) correlation_id: i64,
    pub(crate) channel: String,
    /// Up to where everything has arrived.
    pub(crate) position: Option<i64>,
    /// The end of the latest that has arrived.
    pub(crate) high_water_mark: Option<i64>,
    pub(crate) naks_sent: Option<i64>,
    /// What congestion control shows, by the name of the counter.
    pub(crate) congestion: BTreeMap<String, i64>,
}

/// A subscription that reads the session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subscriber {
    pub(crate) registration_id: i64,
    pub(crate) client_id: i64,
    pub(crate) channel: String,
    /// The publication or image that it reads.
    pub(crate) reads: i64,
    pub(crate) position: i64,
    /// Up to where it could have read; unknown if what it reads has no counters any more.
    pub(crate) head: Option<i64>,
    /// No other subscriber of the same publication or image is further behind; only said if there is more than one.
    pub(crate) slowest: bool,
}

impl Publication {
    /// Bytes that publishers may still write.
    pub(crate) fn window(&self) -> Option<i64> {
        distance(self.position?, self.limit?)
    }

    /// Written bytes that have not been sent.
    pub(crate) fn unsent(&self) -> Option<i64> {
        distance(self.sender.as_ref()?.position?, self.position?)
    }
}

impl Sender {
    /// Bytes that flow control lets it send.
    pub(crate) fn window(&self) -> Option<i64> {
        distance(self.position?, self.limit?)
    }
}

impl Image {
    /// Bytes between what is complete and the latest that has arrived: they hold gaps, or have just come.
    pub(crate) fn incomplete(&self) -> Option<i64> {
        distance(self.position?, self.high_water_mark?)
    }
}

impl Subscriber {
    /// Bytes that it has not read.
    pub(crate) fn unread(&self) -> Option<i64> {
        distance(self.position, self.head?)
    }
}

/// From `position` to `limit`. Counters are sampled one after the other, so a limit can look passed.
fn distance(position: i64, limit: i64) -> Option<i64> {
    limit.checked_sub(position).map(|bytes| bytes.max(0))
}

/// Joins counters into streams, in the order of stream and session ids.
pub(crate) fn join(records: &[CounterRecord]) -> Vec<Stream> {
    let mut streams = BTreeMap::new();
    for record in records {
        if !is_of_stream(record.type_id) {
            continue;
        }
        let key = read_stream_key(&record.key);
        let place = (key.stream_id.get(), key.session_id.get());
        let stream: &mut Stream = streams.entry(place).or_insert_with(|| Stream {
            stream_id: place.0,
            session_id: place.1,
            ..Stream::default()
        });
        stream.add(record, key);
    }
    let mut streams: Vec<Stream> = streams.into_values().collect();
    for stream in &mut streams {
        stream.settle_subscribers();
    }
    streams
}

fn is_of_stream(type_id: i32) -> bool {
    matches!(
        type_id,
        PUBLISHER_LIMIT
            | PUBLISHER_POSITION
            | SENDER_POSITION
            | SENDER_LIMIT
            | SENDER_BACK_PRESSURE
            | SENDER_NAKS_RECEIVED
            | FLOW_CONTROL_RECEIVERS
            | RECEIVER_HIGH_WATER_MARK
            | RECEIVER_POSITION
            | RECEIVER_NAKS_SENT
            | PER_IMAGE
            | SUBSCRIBER_POSITION
    )
}

impl Stream {
    fn add(&mut self, record: &CounterRecord, key: StreamKey) {
        let value = Some(record.value);
        match record.type_id {
            PUBLISHER_LIMIT => self.publication(&key).limit = value,
            PUBLISHER_POSITION => {
                let publication = self.publication(&key);
                publication.position = value;
                publication.exclusive = record.label.starts_with("pub-pos (exclusive)");
            }
            SENDER_POSITION => self.sender(&key).position = value,
            SENDER_LIMIT => self.sender(&key).limit = value,
            SENDER_BACK_PRESSURE => self.sender(&key).back_pressure_events = value,
            SENDER_NAKS_RECEIVED => self.sender(&key).naks_received = value,
            FLOW_CONTROL_RECEIVERS => self.sender(&key).receivers = value,
            RECEIVER_HIGH_WATER_MARK => self.image(&key).high_water_mark = value,
            RECEIVER_POSITION => self.image(&key).position = value,
            RECEIVER_NAKS_SENT => self.image(&key).naks_sent = value,
            PER_IMAGE => {
                let name = record.label.split(':').next().unwrap_or_default().to_owned();
                self.image(&key).congestion.insert(name, record.value);
            }
            _ => self.subscribers.push(Subscriber {
                registration_id: key.registration_id.get(),
                client_id: record.owner_id,
                channel: key.channel,
                reads: record.reference_id,
                position: record.value,
                head: None,
                slowest: false,
            }),
        }
    }

    fn publication(&mut self, key: &StreamKey) -> &mut Publication {
        let id = key.registration_id.get();
        let found = self
            .publications
            .iter()
            .position(|publication| publication.registration_id == id);
        let index = found.unwrap_or_else(|| {
            self.publications.push(Publication {
                registration_id: id,
                channel: key.channel.clone(),
                ..Publication::default()
            });
            self.publications.len() - 1
        });
        &mut self.publications[index]
    }

    fn sender(&mut self, key: &StreamKey) -> &mut Sender {
        self.publication(key).sender.get_or_insert_default()
    }

    fn image(&mut self, key: &StreamKey) -> &mut Image {
        let id = key.registration_id.get();
        let found = self.images.iter().position(|image| image.correlation_id == id);
        let index = found.unwrap_or_else(|| {
            self.images.push(Image {
                correlation_id: id,
                channel: key.channel.clone(),
                ..Image::default()
            });
            self.images.len() - 1
        });
        &mut self.images[index]
    }

    /// Finds what each subscriber reads, and who is slowest on each.
    fn settle_subscribers(&mut self) {
        for subscriber in &mut self.subscribers {
            let image = self
                .images
                .iter()
                .find(|image| image.correlation_id == subscriber.reads);
            let publication = self
                .publications
                .iter()
                .find(|publication| publication.registration_id == subscriber.reads);
            subscriber.head = match (image, publication) {
                (Some(image), _) => image.position,
                (None, Some(publication)) => publication.position,
                (None, None) => None,
            };
        }
        let positions: Vec<(i64, i64)> = self
            .subscribers
            .iter()
            .map(|subscriber| (subscriber.reads, subscriber.position))
            .collect();
        for subscriber in &mut self.subscribers {
            let mut fellows = positions.iter().filter(|(reads, _)| *reads == subscriber.reads);
            let least = fellows.clone().map(|(_, position)| *position).min();
            subscriber.slowest = fellows.nth(1).is_some() && least == Some(subscriber.position);
        }
    }
}

/// Positions at an earlier time, to tell rates.
pub(crate) struct Earlier {
    positions: BTreeMap<(i32, i64, i64), i64>,
    since: Duration,
}

impl Earlier {
    /// Remembers `records`, which were taken `since` ago.
    pub(crate) fn new(records: &[CounterRecord], since: Duration) -> Earlier {
        let positions = records
            .iter()
            .filter(|record| is_of_stream(record.type_id))
            .map(|record| {
                (
                    identity(record.type_id, record.registration_id, record.reference_id),
                    record.value,
                )
            })
            .collect();
        Earlier { positions, since }
    }

    /// Bytes per second; unknown for what was not there.
    pub(crate) fn rate(&self, type_id: i32, id: i64, reads: i64, position: Option<i64>) -> Option<f64> {
        let before = *self.positions.get(&identity(type_id, id, reads))?;
        let moved = u64::try_from(position?.checked_sub(before)?).ok()?;
        Some(crate::render::units::per_second(moved, self.since))
    }
}

fn identity(type_id: i32, id: i64, reads: i64) -> (i32, i64, i64) {
    (type_id, id, reads)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use fulmar::counters::CounterState;
    use fulmar::counters::type_id::stream_key;
    use fulmar::id::{CounterId, RegistrationId, SessionId, StreamId};

    /// A counter of stream 10, session 7.
    pub(crate) fn counter(
        type_id: i32,
        name: &str,
        registration_id: i64,
        reads: i64,
        value: i64,
    ) -> CounterRecord {
        let channel = "aeron:udp?endpoint=h:1";
        CounterRecord {
            id: CounterId(100),
            type_id,
            state: CounterState::Allocated,
            key: stream_key(
                RegistrationId(registration_id),
                SessionId(7),
                StreamId(10),
                channel,
            ),
            label: format!("{name}: {registration_id} 7 10 {channel}"),
            value,
            registration_id,
            owner_id: 55,
            reference_id: reads,
            free_for_reuse_deadline_ms: i64::MAX,
        }
    }

    /// A publication, its image on the same driver, and two subscribers of the image.
    pub(crate) fn looped_back() -> Vec<CounterRecord> {
        vec![
            counter(PUBLISHER_POSITION, "pub-pos (exclusive)", 1, 0, 5000),
            counter(PUBLISHER_LIMIT, "pub-lmt", 1, 0, 9000),
            counter(SENDER_POSITION, "snd-pos", 1, 0, 4000),
            counter(SENDER_LIMIT, "snd-lmt", 1, 0, 4096),
            counter(SENDER_NAKS_RECEIVED, "snd-naks-received", 1, 0, 3),
            counter(RECEIVER_HIGH_WATER_MARK, "rcv-hwm", 2, 0, 3968),
            counter(RECEIVER_POSITION, "rcv-pos", 2, 0, 3008),
            counter(PER_IMAGE, "rcv-cc-cubic-wnd", 2, 0, 1408),
            counter(SUBSCRIBER_POSITION, "sub-pos", 3, 2, 3008),
            counter(SUBSCRIBER_POSITION, "sub-pos", 4, 2, 1024),
        ]
    }

    #[test]
    fn the_parts_of_a_session_are_joined() {
        let streams = join(&looped_back());
        assert_eq!(streams.len(), 1);
        let stream = &streams[0];
        assert_eq!((stream.stream_id, stream.session_id), (10, 7));
        let publication = &stream.publications[0];
        assert!(publication.exclusive);
        assert_eq!(publication.window(), Some(4000));
        assert_eq!(publication.unsent(), Some(1000));
        let sender = publication.sender.as_ref().expect("a network publication");
        assert_eq!(sender.window(), Some(96));
        assert_eq!((sender.naks_received, sender.receivers), (Some(3), None));
        let image = &stream.images[0];
        assert_eq!(image.incomplete(), Some(960));
        assert_eq!(image.congestion.get("rcv-cc-cubic-wnd"), Some(&1408));
        let unread: Vec<_> = stream.subscribers.iter().map(Subscriber::unread).collect();
        assert_eq!(unread, [Some(0), Some(1984)]);
        let slowest: Vec<_> = stream
            .subscribers
            .iter()
            .map(|subscriber| subscriber.slowest)
            .collect();
        assert_eq!(slowest, [false, true]);
    }

    #[test]
    fn whoever_reads_alone_is_not_called_slow_and_ipc_has_no_sender() {
        let streams = join(&[
            counter(PUBLISHER_POSITION, "pub-pos (concurrent)", 1, 0, 640),
            counter(SUBSCRIBER_POSITION, "sub-pos", 3, 1, 64),
        ]);
        let subscriber = &streams[0].subscribers[0];
        assert_eq!(subscriber.unread(), Some(576));
        assert!(!subscriber.slowest);
        let publication = &streams[0].publications[0];
        assert!(publication.sender.is_none() && !publication.exclusive);
        assert_eq!((publication.window(), publication.unsent()), (None, None));
    }

    #[test]
    fn missing_stale_and_absurd_counters_are_survived() {
        let streams = join(&[
            counter(SUBSCRIBER_POSITION, "", 3, 99, i64::MIN),
            counter(RECEIVER_POSITION, "", 2, 0, i64::MAX),
            counter(RECEIVER_HIGH_WATER_MARK, "", 2, 0, i64::MIN),
            counter(PER_IMAGE, "", 2, 0, 1),
            counter(SUBSCRIBER_POSITION, "", 3, 2, i64::MIN),
            counter(12_345, "of an application", 1, 0, 1),
        ]);
        assert_eq!(streams.len(), 1);
        assert_eq!(streams[0].subscribers[0].unread(), None);
        assert_eq!(
            streams[0].subscribers[1].unread(),
            None,
            "further than a number goes"
        );
        assert_eq!(streams[0].images[0].incomplete(), None);
    }

    #[test]
    fn rates_are_told_for_what_moved_and_was_there_before() {
        let mut before = looped_back();
        before[0].value = 1000;
        let earlier = Earlier::new(&before, Duration::from_millis(500));
        let rate = earlier.rate(PUBLISHER_POSITION, 1, 0, Some(5000));
        assert_eq!(rate, Some(8000.0));
        assert_eq!(earlier.rate(PUBLISHER_POSITION, 9, 0, Some(5000)), None);
        assert_eq!(
            earlier.rate(PUBLISHER_POSITION, 1, 0, Some(10)),
            None,
            "another one by the same id"
        );
    }
}
