//! Cutting a log into datagrams (wire protocol 2.5), and joining neighbours of equal length into runs that the system
//! sends in one piece.
#![forbid(unsafe_code)]

use fulmar::log::{LogBuffers, Payload, scan_datagram};
use fulmar::memory::View;

use crate::io::{SendBatch, SendEntry};

/// Datagrams of one pass, in at most [`SendBatch::CAPACITY`] runs.
#[derive(Debug)]
pub struct DatagramRuns<'a> {
    batch: SendBatch<'a>,
    /// For each run the position behind it, which padding may put further than its bytes.
    ends: [i64; SendBatch::CAPACITY],
    bytes: usize,
    start: i64,
    position: i64,
    run: Option<Run>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    partition: usize,
    offset: i32,
    length: i32,
    segment: i32,
    /// The last datagram is shorter: nothing can follow.
    is_closed: bool,
}

impl<'a> DatagramRuns<'a> {
    /// Starts at a position.
    #[must_use]
    pub fn new(position: i64) -> Self {
        Self {
            batch: SendBatch::new(),
            ends: [position; SendBatch::CAPACITY],
            bytes: 0,
            start: position,
            position,
            run: None,
        }
    }

    /// Takes the next datagram of at most `max_length` bytes; `false` if there is none.
    #[inline]
    pub fn push(&mut self, log: &'a LogBuffers<View>, max_length: i32) -> bool {
        let shape = log.shape();
        let (partition, offset) = (shape.partition(self.position), shape.offset(self.position));
        let scan = scan_datagram(log.term(partition), offset, max_length);
        if scan.length <= 0 || !self.extend(log, partition, offset, scan.length) {
            return false;
        }
        self.position += i64::from(scan.advance());
        self.bytes += scan.length as usize;
        if let Some(end) = self.ends.get_mut(self.batch.len().wrapping_sub(1)) {
            *end = self.position;
        }
        true
    }

    /// Puts a datagram behind the current run if it continues it, else starts a new one.
    fn extend(&mut self, log: &'a LogBuffers<View>, partition: usize, offset: i32, length: i32) -> bool {
        let continued = self.run.filter(|run| {
            !run.is_closed
                && run.partition == partition
                && run.offset + run.length == offset
                && length <= run.segment
                && (run.length + length) as usize <= SendBatch::RUN_LENGTH_MAX
        });
        let run = match continued {
            Some(run) => Run {
                length: run.length + length,
                is_closed: length < run.segment,
                ..run
            },
            None => Run {
                partition,
                offset,
                length,
                segment: length,
                is_closed: false,
            },
        };
        let Some(entry) = entry_of(log, &run) else {
            return false;
        };
        match self.batch.entries_mut().last_mut() {
            Some(last) if continued.is_some() => *last = entry,
            _ => {
                if !self.batch.push(entry) {
                    return false;
                }
            }
        }
        self.run = Some(run);
        true
    }

    /// Whether there are no datagrams.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Position behind the last datagram.
    #[inline]
    #[must_use]
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Bytes of all datagrams.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What to send.
    pub fn batch(&mut self) -> &mut SendBatch<'a> {
        &mut self.batch
    }

    /// Bytes of the first `datagrams` datagrams and the position behind them.
    #[must_use]
    pub fn up_to(&self, datagrams: usize) -> (usize, i64) {
        let (mut left, mut bytes, mut position) = (datagrams, 0, self.start);
        for (entry, end) in self.batch.entries().iter().zip(self.ends) {
            let count = entry.datagrams();
            if left < count {
                // The datagrams of a run but its last follow each other without padding.
                let part = left * entry.step();
                return (bytes + part, position + part as i64);
            }
            left -= count;
            bytes += entry.bytes.len();
            position = end;
        }
        (bytes, position)
    }
}

fn entry_of<'a>(log: &'a LogBuffers<View>, run: &Run) -> Option<SendEntry<'a>> {
    let bytes: Payload<'a> = log
        .term(run.partition)
        .payload(run.offset as usize, run.length as usize)?;
    Some(if run.length > run.segment {
        SendEntry::run(bytes, u16::try_from(run.segment).ok()?, None)
    } else {
        SendEntry::datagram(bytes, None)
    })
}
