//! Cutting a log into datagrams (wire protocol 2.5), and joining neighbours of equal length into runs that the system
//! sends in one piece.
#![forbid(unsafe_code)]

use fulmar::log::{LogBuffers, Payload, scan_datagram};
use fulmar::memory::View;

use crate::io::{SendBatch, SendEntry};

/// Datagrams of one pass: at most [`SendBatch::CAPACITY`].
#[derive(Debug)]
pub struct DatagramRuns<'a> {
    batch: SendBatch<'a>,
    /// For each datagram the bytes on the wire and the position behind it.
    datagrams: [(u32, i64); SendBatch::CAPACITY],
    count: usize,
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
            datagrams: [(0, 0); SendBatch::CAPACITY],
            count: 0,
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
        if scan.length <= 0 || self.count == self.datagrams.len() {
            return false;
        }
        if !self.extend(log, partition, offset, scan.length) {
            return false;
        }
        self.position += i64::from(scan.advance());
        self.bytes += scan.length as usize;
        self.datagrams[self.count] = (scan.length as u32, self.position);
        self.count += 1;
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
        self.count == 0
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
        let taken = self
            .datagrams
            .get(..datagrams.min(self.count))
            .unwrap_or_default();
        let bytes = taken.iter().map(|(bytes, _)| *bytes as usize).sum();
        let end = taken.last().map_or(self.start, |(_, position)| *position);
        (bytes, end)
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
