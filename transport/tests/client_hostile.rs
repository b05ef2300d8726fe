//! Whatever stands in shared memory, the client neither panics nor hangs: regions are scribbled over between and
//! within its calls.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod scripted;

use std::time::Duration;

use fulmar::Action;
use fulmar::memory::{AtomicBuffer, Region};
use proptest::prelude::*;
use scripted::{FakeDriver, ManualClock, connect, run};

#[derive(Clone, Debug)]
enum Act {
    /// Region, word (reduced to the region's), value.
    Scribble(u8, u32, i64),
    /// A word of the log's metadata, tails and flags most of all.
    Metadata(u8, i64),
    Offer(usize),
    Claim(usize),
    Poll(usize),
    Controlled,
    Block,
    Say(i32, Vec<u8>),
    Add,
    Run,
    Queries,
}

fn value() -> impl Strategy<Value = i64> {
    prop_oneof![
        any::<i64>(),
        any::<i32>().prop_map(i64::from),
        Just(0),
        Just(-1),
        Just(i64::MAX),
        Just(i64::MIN),
        (0i64..70_000).prop_map(|offset| (5i64 << 32) + offset),
        (0i64..70_000),
    ]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0u8..8, any::<u32>(), value()).prop_map(|(region, word, value)| Act::Scribble(region, word, value)),
        3 => (0u8..64, value()).prop_map(|(word, value)| Act::Metadata(word, value)),
        3 => (0usize..9000).prop_map(Act::Offer),
        1 => (0usize..1500).prop_map(Act::Claim),
        3 => (0usize..30).prop_map(Act::Poll),
        1 => Just(Act::Controlled),
        1 => Just(Act::Block),
        1 => (0x0F00i32..0x0F10, proptest::collection::vec(any::<u8>(), 0..90)).prop_map(|(t, b)| Act::Say(t, b)),
        1 => Just(Act::Add),
        1 => Just(Act::Run),
        1 => Just(Act::Queries),
    ];
    proptest::collection::vec(act, 1..80)
}

fn scribble(region: &Region, word: usize, value: i64) {
    let words = region.len() / 8;
    region.as_view().store_relaxed_i64(word % words * 8, value);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(std::env::var("HOSTILE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300)))]

    #[test]
    fn nothing_in_shared_memory_makes_the_client_panic(acts in acts()) {
        let clock = ManualClock::new();
        let mut driver = FakeDriver::start(&clock);
        let (client, _) = connect(&driver);
        let (publication, shared) = driver.add_publication(&client, 1, 10, 1 << 20);
        let (mut exclusive, own) = driver.add_exclusive_publication(&client, 2, 10, 1 << 20);
        let mut subscription = driver.add_subscription(&client, 10, &[&shared, &own]);
        driver.create_heartbeat(client.client_id());
        client.invoke();
        let logs = [shared.log.region().clone(), own.log.region().clone()];
        let cnc = driver.cnc.region().clone();
        let message = vec![9u8; 9000];
        for act in &acts {
            match act {
                Act::Scribble(0, word, value) => scribble(&cnc, *word as usize, *value),
                // The beginnings of terms, where frames are.
                Act::Scribble(region @ 1..=4, word, value) => {
                    scribble(&logs[usize::from(region & 1)], (*word as usize % 3) * 8192 + *word as usize % 97, *value);
                }
                Act::Scribble(region, word, value) => {
                    scribble(&logs[usize::from(region & 1)], *word as usize, *value);
                }
                Act::Metadata(word, value) => {
                    for log in &logs {
                        let start = log.len() - 4096;
                        log.as_view().store_relaxed_i64(start + usize::from(*word) * 8, *value);
                    }
                }
                Act::Offer(length) => {
                    let _ = publication.offer(&message[..*length]);
                    let _ = exclusive.offer(&message[..*length]);
                }
                Act::Claim(length) => {
                    if let Ok(claim) = publication.try_claim(*length) {
                        let _ = claim.commit();
                    }
                    if let Ok(claim) = exclusive.try_claim(*length) {
                        let _ = claim.commit();
                    }
                    let _ = exclusive.append_padding(*length);
                }
                Act::Poll(limit) => {
                    let mut sum = 0u64;
                    subscription.poll(
                        |payload, header| {
                            sum += payload.to_vec().len() as u64;
                            sum += header.reserved_value() as u64 & 1;
                            if sum.is_multiple_of(5) {
                                scribble(&logs[0], sum as usize, -1);
                            }
                        },
                        *limit,
                    );
                }
                Act::Controlled => {
                    subscription.controlled_poll(|payload, _| if payload.len() % 2 == 0 { Action::Commit } else { Action::Abort }, 10);
                }
                Act::Block => {
                    subscription.block_poll(|block| assert!(block.frames.len() <= 65536), 5000);
                }
                Act::Say(type_id, bytes) => {
                    // The transmitter itself may have been scribbled over.
                    if let Ok(mut transmitter) =
                        fulmar::ring::BroadcastTransmitter::new(driver.cnc.to_clients())
                    {
                        let _ = transmitter.transmit(*type_id, bytes);
                    }
                }
                Act::Add => drop(client.async_add_publication("aeron:ipc", 11)),
                Act::Run => run(&client, &driver, Duration::from_millis(600)),
                Act::Queries => {
                    let _ = (publication.position(), publication.position_limit(), publication.is_connected());
                    let _ = (publication.channel_status(), subscription.local_addresses());
                    for image in subscription.images() {
                        let _ = (image.is_end_of_stream(), image.active_transport_count());
                    }
                    if let Some(counters) = client.counters() {
                        let mut count = 0;
                        counters.for_each(|_| count += 1);
                        prop_assert!(count <= 128);
                    }
                }
            }
        }
        client.close();
        prop_assert!(client.is_closed());
    }
}
