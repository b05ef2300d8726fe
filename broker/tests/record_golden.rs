//! Batches that real clients made, read byte for byte (kafka gateway, section 3). They were taken from the record builders of
//! the clients, before any broker had touched them, or were sent by a client to a broker that keeps bytes as they are.
#![forbid(unsafe_code)]

use fulmar::time::EpochMs;
use fulmar_broker::id::{Epoch, Offset, ProducerEpoch, ProducerId};
use fulmar_broker::record::validate::{self, Compressed, Keys, ProduceRules};
use fulmar_broker::record::{BatchBuilder, BatchMut, BatchView, Codec, NewRecord, Producer, TimestampType};

const RULES: ProduceRules = ProduceRules {
    message_length_max: validate::MESSAGE_LENGTH_MAX,
    segment_length_max: 1 << 30,
    timestamp_type: TimestampType::CreateTime,
    timestamp_before_max_ms: i64::MAX,
    timestamp_after_max_ms: validate::TIMESTAMP_AFTER_MAX_MS,
    keys: Keys::Optional,
    compressed: Compressed::Trusted,
};
const NOW: EpochMs = EpochMs(1_700_000_002_000);

/// kafka-python 3.0.12, producer 4242 of epoch 3 from sequence 17 on: "key" = "value" at ...123 ms; no key, "second", the headers h1 = v1,
/// h1 = null, "" = "" at ...100 ms; "k" without a value at ...456 ms.
const KAFKA_PYTHON: &str = "0000000000000000000000620000000002d3448ce00000000000020000018bcfe5687b0000018bcfe569c80000000000\
     001092000300000011000000031c000000066b65790a76616c75650030002d02010c7365636f6e640604683104763104\
     683101000010009a0504026b0100";

/// kafka-python 3.0.12, gzip: 20 times "key" = five bytes repeated 20 times, one millisecond apart.
const KAFKA_PYTHON_GZIP: &str = "0000000000000000000000ac000000000256d62ca90001000000130000018bcfe568000000018bcfe56813ffffffffff\
     ffffffffffffffffff000000141f8b0800b35a036b02ffbdcdc10980201880d15f119190080991081189f6eae0a9ae05\
     6dd8100dd3147d97777daf1211bbb7fb51d7769ced67e455a235fb19c37ed6b29f73ecd775ece73dfbf53dfb0d03fb85\
     c07ee3c87e31b25f4aec374dec37cfec9733fb95c27eb5b2dfb2b0dfba82df074c157cdec0080000";

/// aiokafka 0.14.0: "a" = 70 times "1" with the header trace = 00 01; "b" = "2" one second later. Its leader epoch is -1, where
/// kafka-python writes 0.
const AIOKAFKA: &str = "000000000000000000000094ffffffff026f8e5c780000000000010000018bcfe568000000018bcfe56be8ffffffffff\
     ffffffffffffffffff00000002ae0100000002618c013131313131313131313131313131313131313131313131313131\
     3131313131313131313131313131313131313131313131313131313131313131313131313131313131313131020a7472\
     6163650400011200d00f020262023200";

/// librdkafka 2.16.0, idempotent, as its own mock cluster stored it at offset 0: "key" = "value" with headers h = v, n = null at ...123 ms;
/// no key, "second" at ...100 ms; "k" without a value at ...456 ms.
const LIBRDKAFKA: &str = "00000000000000000000005d00000000028de273d20000000000020000018bcfe5687b0000018bcfe569c80000000025\
     942da0000000000000000000032a000000066b65790a76616c75650402680276026e0118002d02010c7365636f6e6400\
     10009a0504026b0100";

/// librdkafka 2.16.0, lz4, the same way: 20 times "key" = "value" repeated 20 times, one millisecond apart.
const LIBRDKAFKA_LZ4: &str = "0000000000000000000000d10000000002a009a6100003000000130000018bcfe568000000018bcfe56813ffffffffff\
     ffffffffffffffffff0000001404224d1860408291000000ff01dc01000000066b6579c80176616c756505004c6f00dc\
     0100020270005b2f040470005b2f060670005b2f080870005b2f0a0a70005b2f0c0c70005b2f0e0e70005b2f10107000\
     5b2f121270005b2f141470005b2f161670005b2f181870005b2f1a1a70005b2f1c1c70005b2f1e1e70005b2f20207000\
     5b2f222270005b2f242470005b2f262670005350616c75650000000000";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("the vectors are hexadecimal"))
        .collect()
}

fn check(batch: &[u8]) -> validate::ValidBatch<'_> {
    let view = validate::frame(batch, 9).expect("clients send whole batches");
    validate::check(view, &RULES, NOW).expect("clients send good batches")
}

#[test]
fn an_idempotent_batch_of_kafka_python() {
    let bytes = bytes(KAFKA_PYTHON);
    let valid = check(&bytes);
    let header = valid.view().header();
    assert_eq!(
        (header.producer_id, header.producer_epoch),
        (ProducerId(4242), ProducerEpoch(3))
    );
    assert_eq!((header.base_sequence, header.last_sequence()), (17, 19));
    assert_eq!((header.record_count, header.last_offset_delta), (3, 2));
    assert_eq!(
        (header.base_timestamp, header.max_timestamp),
        (EpochMs(1_700_000_000_123), EpochMs(1_700_000_000_456))
    );
    assert_eq!(valid.max_timestamp(), EpochMs(1_700_000_000_456));
    let records: Vec<_> = valid.view().records().unwrap().map(Result::unwrap).collect();
    assert_eq!(records.len(), 3);
    assert_eq!(
        (records[0].key, records[0].value),
        (Some(&b"key"[..]), Some(&b"value"[..]))
    );
    assert_eq!((records[1].key, records[1].value), (None, Some(&b"second"[..])));
    assert_eq!((records[2].key, records[2].value), (Some(&b"k"[..]), None));
    assert_eq!(
        records
            .iter()
            .map(|record| record.timestamp_delta)
            .collect::<Vec<_>>(),
        [0, -23, 333]
    );
    assert_eq!(
        records[1].headers.collect::<Vec<_>>(),
        [(&b"h1"[..], Some(&b"v1"[..])), (b"h1", None), (b"", Some(b""))]
    );
}

/// The same records through our builder are the same bytes, but for the leader epoch, which has no meaning.
#[test]
fn our_builder_makes_the_same_bytes_as_the_clients() {
    let mut builder = BatchBuilder::new(4096);
    builder.set_producer(Producer {
        id: ProducerId(4242),
        epoch: ProducerEpoch(3),
        base_sequence: 17,
    });
    builder
        .push(
            EpochMs(1_700_000_000_123),
            &NewRecord::new(Some(b"key"), Some(b"value")),
        )
        .unwrap();
    let headers: [(&[u8], Option<&[u8]>); 3] = [(b"h1", Some(b"v1")), (b"h1", None), (b"", Some(b""))];
    let second = NewRecord {
        key: None,
        value: Some(b"second"),
        headers: &headers,
    };
    builder.push(EpochMs(1_700_000_000_100), &second).unwrap();
    builder
        .push(EpochMs(1_700_000_000_456), &NewRecord::new(Some(b"k"), None))
        .unwrap();
    let mut ours = builder.finish().unwrap().to_vec();
    BatchMut::parse(&mut ours).unwrap().place(Offset(0), Epoch(0));
    assert_eq!(ours, bytes(KAFKA_PYTHON));

    builder.clear();
    let headers: [(&[u8], Option<&[u8]>); 1] = [(b"trace", Some(&[0, 1]))];
    let first = NewRecord {
        key: Some(b"a"),
        value: Some(&[b'1'; 70]),
        headers: &headers,
    };
    builder.push(EpochMs(1_700_000_000_000), &first).unwrap();
    builder
        .push(
            EpochMs(1_700_000_001_000),
            &NewRecord::new(Some(b"b"), Some(b"2")),
        )
        .unwrap();
    assert_eq!(builder.finish().unwrap(), bytes(AIOKAFKA));
}

#[test]
fn a_compressed_batch_is_known_by_its_header() {
    let bytes = bytes(KAFKA_PYTHON_GZIP);
    let valid = check(&bytes);
    let header = valid.view().header();
    assert_eq!(header.attributes.codec(), Some(Codec::Gzip));
    assert_eq!((header.record_count, header.last_offset_delta), (20, 19));
    assert!(!header.has_producer());
    assert_eq!(valid.max_timestamp(), EpochMs(1_700_000_000_019));
    assert!(valid.view().records().is_none());
    assert_eq!(valid.view().record_bytes()[..2], [0x1f, 0x8b]);

    let bytes = self::bytes(LIBRDKAFKA_LZ4);
    let valid = check(&bytes);
    let header = valid.view().header();
    assert_eq!(header.attributes.codec(), Some(Codec::Lz4));
    assert_eq!((header.record_count, header.last_offset_delta), (20, 19));
    assert_eq!(valid.max_timestamp(), EpochMs(1_700_000_000_019));
    assert!(valid.view().records().is_none());
    assert_eq!(valid.view().record_bytes()[..4], 0x184d_2204_u32.to_le_bytes());
}

#[test]
fn an_idempotent_batch_of_librdkafka() {
    let bytes = bytes(LIBRDKAFKA);
    let valid = check(&bytes);
    let header = valid.view().header();
    assert_eq!(
        (header.producer_id, header.producer_epoch),
        (ProducerId(630468000), ProducerEpoch(0))
    );
    assert_eq!(
        (header.base_sequence, header.last_sequence(), header.record_count),
        (0, 2, 3)
    );
    assert_eq!(valid.max_timestamp(), EpochMs(1_700_000_000_456));
    let records: Vec<_> = valid.view().records().unwrap().map(Result::unwrap).collect();
    assert_eq!(
        records[0].headers.collect::<Vec<_>>(),
        [(&b"h"[..], Some(&b"v"[..])), (b"n", None)]
    );
    assert_eq!((records[1].key, records[1].value), (None, Some(&b"second"[..])));
    assert_eq!((records[2].key, records[2].value), (Some(&b"k"[..]), None));
}

/// What the fuzzer starts from is these batches, behind the byte that has their checksums made to fit.
#[test]
fn the_seeds_of_the_fuzzer_are_these_batches() {
    let seeds = [
        ("kafka_python", KAFKA_PYTHON),
        ("kafka_python_gzip", KAFKA_PYTHON_GZIP),
        ("aiokafka", AIOKAFKA),
        ("librdkafka", LIBRDKAFKA),
        ("librdkafka_lz4", LIBRDKAFKA_LZ4),
    ];
    for (name, hex) in seeds {
        let path = format!("{}/fuzz/seeds/record_batch/{name}", env!("CARGO_MANIFEST_DIR"));
        let seed = std::fs::read(&path).unwrap();
        assert_eq!(seed, [&[1], &*bytes(hex)].concat(), "{name}");
    }
}

#[test]
fn a_stored_batch_differs_from_the_sent_one_in_its_place_only() {
    for hex in [
        KAFKA_PYTHON,
        KAFKA_PYTHON_GZIP,
        AIOKAFKA,
        LIBRDKAFKA,
        LIBRDKAFKA_LZ4,
    ] {
        let sent = bytes(hex);
        let mut stored = sent.clone();
        BatchMut::parse(&mut stored)
            .unwrap()
            .place(Offset(1_000_000), Epoch(7));
        let view = BatchView::parse_verified(&stored).unwrap();
        assert_eq!(view.header().base_offset, Offset(1_000_000));
        assert_eq!(view.header().leader_epoch, Epoch(7));
        assert_eq!((&stored[8..12], &stored[16..]), (&sent[8..12], &sent[16..]));
    }
}
