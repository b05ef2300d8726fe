//! Snapshots of producers: each is refused or is the one encoding of a state, which then takes any batches and markers and stays within
//! its bounds.
#![no_main]

use fulmar::time::EpochMs;
use fulmar_broker::id::{Epoch, Offset, ProducerEpoch, ProducerId};
use fulmar_broker::partition::producer_snapshot::{decode, encode, length_max};
use fulmar_broker::partition::producer_state::{Admission, ProducerLimits, ProducerStates, WINDOW_LENGTH};
use fulmar_broker::record::control::{EndMarker, Outcome};
use fulmar_broker::record::{Attributes, BatchHeader};
use libfuzzer_sys::fuzz_target;

const LIMITS: ProducerLimits = ProducerLimits {
    producers_max: 4,
    expiry_ms: 1000,
    protected_ms: 100,
};

/// Numbers of small distance from what the state knows, and a few others.
fn batch(states: &ProducerStates, op: [u8; 6]) -> BatchHeader {
    let [_, id, epoch, sequence, count, kind] = op;
    let id = match kind & 3 {
        0 => ProducerId(i64::from(id)),
        _ => states
            .iter()
            .nth(usize::from(id) % 4)
            .map_or(ProducerId(i64::from(id)), |(id, _)| id),
    };
    let known = states.get(id);
    let after = known
        .and_then(|state| state.batches().last())
        .map_or(0, |batch| batch.last_sequence);
    let epoch = known
        .map_or(0, |state| state.epoch.0)
        .wrapping_add(i16::from(epoch) % 3 - (epoch > 250) as i16);
    let sequence = after.wrapping_add(i32::from(sequence.cast_signed())) & i32::MAX;
    let attributes = if kind & 4 != 0 {
        Attributes::NONE.with_transactional()
    } else {
        Attributes::NONE
    };
    BatchHeader {
        base_offset: Offset::ZERO,
        batch_length: 49,
        leader_epoch: Epoch::NONE,
        crc: 0,
        attributes,
        last_offset_delta: i32::from(count),
        base_timestamp: EpochMs(0),
        max_timestamp: EpochMs(i64::from(count)),
        producer_id: id,
        producer_epoch: ProducerEpoch(epoch.max(0)),
        base_sequence: if kind & 8 != 0 { 0 } else { sequence },
        record_count: i32::from(count) + 1,
    }
}

fn step(states: &mut ProducerStates, op: [u8; 6], now: EpochMs) {
    let header = batch(states, op);
    let placed = BatchHeader {
        base_offset: states.next_offset(),
        ..header
    };
    let marker = EndMarker {
        outcome: Outcome::Abort,
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        coordinator_epoch: 1,
    };
    let before = states.next_offset();
    match op[0] & 7 {
        0..=4 => match states.check(&header, now) {
            Ok(Admission::Append) => {
                states.on_append(&placed, now);
                // At the end of the number range nothing can follow.
                if states.next_offset() > before {
                    let Ok(Admission::Duplicate(known)) = states.check(&header, now) else {
                        panic!("an appended batch is known")
                    };
                    assert_eq!(known.base_offset(), before);
                }
            }
            Ok(Admission::Duplicate(known)) => {
                assert!(known.last_offset < before && known.base_offset().0 >= 0)
            }
            Err(error) => assert!(matches!(error.code(), 19 | 45 | 47 | 48)),
        },
        5 => states.on_append(&placed, now),
        6 => {
            if states.check_marker(&marker).is_ok() {
                assert!(
                    states
                        .on_marker(&marker, before, now)
                        .is_none_or(|first| first < before)
                );
            }
        }
        _ => {
            states.expire(now);
        }
    }
    assert!(states.next_offset() >= before);
}

fuzz_target!(|data: &[u8]| {
    let Some((&flags, bytes)) = data.split_first() else {
        return;
    };
    // The operations stand behind the snapshot.
    let operations = usize::from(flags >> 1) * 6;
    let (snapshot, operations) = bytes.split_at(bytes.len().saturating_sub(operations));
    let mut snapshot = snapshot.to_vec();
    if let (true, Some(end)) = (flags & 1 != 0, snapshot.len().checked_sub(4)) {
        let crc = crc32c::crc32c(&snapshot[..end]);
        snapshot[end..].copy_from_slice(&crc.to_le_bytes());
    }
    let Ok(mut states) = decode(&snapshot, LIMITS) else {
        return;
    };
    if states.displaced() == 0 {
        let mut again = Vec::new();
        encode(&states, &mut again);
        assert_eq!(again, snapshot, "a state has one encoding");
    }
    let mut now = EpochMs(0);
    // Open transactions of a log stay whatever the bound, which then holds again from the next producer on.
    let mut open_max = states
        .iter()
        .filter(|(_, state)| state.transaction_first.is_some())
        .count();
    for (op, _) in operations.as_chunks::<6>().0.iter().zip(0..200) {
        now = EpochMs(now.0 + i64::from(op[0] >> 3) * 20);
        step(&mut states, *op, now);
        let open = states
            .iter()
            .filter(|(_, state)| state.transaction_first.is_some())
            .count();
        open_max = open_max.max(open);
        assert!(states.iter().count() <= LIMITS.producers_max.max(open_max + 1));
        assert!(
            states
                .iter()
                .all(|(_, state)| state.batches().len() <= WINDOW_LENGTH)
        );
    }
    let mut bytes = Vec::new();
    encode(&states, &mut bytes);
    assert!(bytes.len() <= length_max(states.iter().count()));
    let read = decode(
        &bytes,
        ProducerLimits {
            producers_max: 1000,
            ..LIMITS
        },
    )
    .expect("we wrote it");
    assert!(read.iter().eq(states.iter()));
});
