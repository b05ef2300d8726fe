//! The to-driver ring and counters.

use std::hint::black_box;

use fulmar::counters::layout::{METADATA_LENGTH, VALUE_LENGTH};
use fulmar::counters::{Counter, CountersManager};
use fulmar::memory::{Region, View};
use fulmar::ring::mpsc_ring::TRAILER_LENGTH;
use fulmar::ring::{ManyToOneRing, ReadAction, RingCorrupt};
use fulmar::time::{EpochMs, NanoTime, Now};

use super::{Message, OPERATIONS, Work, each, write_number};
use crate::side::BenchError;

/// Bytes of the ring's records.
const RING_LENGTH: usize = 128 << 10;
/// Bytes of payload per command: a usual one with its channel.
const COMMAND_LENGTH: usize = 64;
const COMMAND_TYPE: i32 = 1;
/// Commands per call of a read, as of the conductor.
const READ_LIMIT: usize = 16;

/// A ring, what is written into it, and what was read.
struct Commands {
    ring: ManyToOneRing<View>,
    message: Message,
    scratch: Vec<u8>,
    written: u64,
    /// Commands that were read, and the number in the last of them.
    read: u64,
    last: u64,
}

impl Commands {
    fn new() -> Result<Commands, BenchError> {
        Ok(Commands {
            ring: ManyToOneRing::new(Region::heap(RING_LENGTH + TRAILER_LENGTH).as_view())?,
            message: Message::new(COMMAND_LENGTH),
            scratch: Vec::with_capacity(COMMAND_LENGTH),
            written: 0,
            read: 0,
            last: 0,
        })
    }

    #[inline(always)]
    fn write(&mut self) -> bool {
        self.written += 1;
        write_number(&mut self.message, self.written);
        let message: &[u8] = &self.message;
        self.ring.write(COMMAND_TYPE, black_box(message)).is_ok()
    }

    #[inline(always)]
    fn read(&mut self) -> Result<usize, RingCorrupt> {
        let (read, last) = (&mut self.read, &mut self.last);
        let handler = |type_id, bytes: &[u8]| {
            if let Some(word) = bytes.first_chunk::<8>()
                && type_id == COMMAND_TYPE
            {
                *read += 1;
                *last = u64::from_le_bytes(*word);
            }
            ReadAction::Continue
        };
        self.ring.read(READ_LIMIT, handler, &mut self.scratch)
    }

    /// Everything that was written has been read, in the end.
    fn check(&self) -> Result<(), BenchError> {
        if self.read == self.written && self.last == self.written {
            Ok(())
        } else {
            Err(format!("read {} of {} commands", self.read, self.written).into())
        }
    }
}

struct RingWrite(Commands);

impl Work for RingWrite {
    fn operations(&mut self) -> u64 {
        let mut right = 0;
        for _ in 0..OPERATIONS {
            right += u64::from(self.0.write());
        }
        right
    }

    fn check(&mut self) -> Result<(), BenchError> {
        while self.0.read()? > 0 {}
        self.0.check()
    }
}

struct RingRead(Commands);

impl Work for RingRead {
    fn prepare(&mut self) -> Result<(), BenchError> {
        for _ in 0..OPERATIONS {
            if !self.0.write() {
                return Err("the ring takes no more".into());
            }
        }
        Ok(())
    }

    fn operations(&mut self) -> u64 {
        let before = self.0.read;
        for _ in 0..OPERATIONS / READ_LIMIT {
            // What is missing shows in the number.
            let _ = black_box(self.0.read());
        }
        self.0.read - before
    }

    fn check(&mut self) -> Result<(), BenchError> {
        self.0.check()
    }
}

pub(super) fn ring_write() -> Result<Box<dyn Work>, BenchError> {
    Ok(Box::new(RingWrite(Commands::new()?)))
}

pub(super) fn ring_read() -> Result<Box<dyn Work>, BenchError> {
    Ok(Box::new(RingRead(Commands::new()?)))
}

const COUNTERS: usize = 64;
const NOW: Now = Now {
    nanos: NanoTime(1_000_000),
    epoch: EpochMs(1_000_000),
};

fn counters() -> Result<CountersManager<View>, BenchError> {
    let section = |record_length| Region::heap(COUNTERS * record_length).as_view();
    let manager = CountersManager::new(section(METADATA_LENGTH), section(VALUE_LENGTH), 0)?;
    Ok(manager)
}

/// A counter of a stream, with the key and label that such a counter has.
pub(super) fn counter_allocate() -> Result<Box<dyn Work>, BenchError> {
    let mut manager = counters()?;
    let key = [7; 64];
    let label = "snd-pos: 4711 305419896 1001 aeron:udp?endpoint=127.0.0.1:40123";
    each(move |number| {
        let key = black_box(&key);
        let allocated = manager.allocate(NOW, 1, key, black_box(label), number as i64, 1, 2);
        // A freed id is used again at once, so that it is always the first.
        allocated.is_ok_and(|id| id.0 == 0 && black_box(&mut manager).free(NOW, id))
    })
}

struct Store {
    counter: Counter,
    last: i64,
}

impl Work for Store {
    fn operations(&mut self) -> u64 {
        for _ in 0..OPERATIONS {
            self.last += 1;
            black_box(&self.counter).set_release(self.last);
        }
        OPERATIONS as u64
    }

    fn check(&mut self) -> Result<(), BenchError> {
        if self.counter.get_acquire() == self.last {
            Ok(())
        } else {
            Err("the counter has another value".into())
        }
    }
}

pub(super) fn counter_store() -> Result<Box<dyn Work>, BenchError> {
    let mut manager = counters()?;
    let id = manager.allocate(NOW, 1, &[], "micro", 1, 1, 1)?;
    let counter = manager.counter(id).ok_or("the counter is not there")?;
    Ok(Box::new(Store { counter, last: 0 }))
}
