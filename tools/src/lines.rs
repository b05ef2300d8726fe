//! Lines of a byte stream, read in large blocks: one line is one message, whatever bytes it holds.
//!
//! The block grows to hold the longest line, up to a bound; what has been searched is not searched again, so a line
//! of a megabyte that arrives in small pieces costs one pass.

#![forbid(unsafe_code)]

use std::io::{self, BufRead, Read};
use std::ops::Range;

const BLOCK_LENGTH: usize = 256 * 1024;

/// A line in the reader's block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    range: Range<usize>,
    /// Whether a newline followed it; only the last line may lack one.
    pub(crate) terminated: bool,
}

/// Why no more lines can be had.
#[derive(Debug)]
pub(crate) enum LineError {
    /// A line is longer than a message may be.
    TooLong { limit: usize },
    /// Reading failed.
    Read(io::Error),
}

/// Cuts what `R` gives into lines.
pub(crate) struct Lines<R> {
    input: R,
    block: Vec<u8>,
    start: usize,
    searched: usize,
    filled: usize,
    ended: bool,
    max_length: usize,
}

impl<R: Read> Lines<R> {
    /// Lines of `input`, each of at most `max_length` bytes without its newline.
    pub(crate) fn new(input: R, max_length: usize) -> Lines<R> {
        Lines {
            input,
            block: vec![0; BLOCK_LENGTH],
            start: 0,
            searched: 0,
            filled: 0,
            ended: false,
            max_length,
        }
    }

    /// The next line that is already in memory.
    #[inline]
    pub(crate) fn next_in_memory(&mut self) -> Result<Option<Line>, LineError> {
        let mut rest = &self.block[self.searched..self.filled];
        // The only search for a byte in the standard library that is faster than a loop over bytes.
        let skipped = rest.skip_until(b'\n').expect("reading from memory does not fail");
        self.searched += skipped;
        let terminated = skipped > 0 && self.block[self.searched - 1] == b'\n';
        let is_last = self.ended && self.searched > self.start;
        if !terminated && !is_last {
            return if self.searched - self.start > self.max_length {
                Err(self.too_long())
            } else {
                Ok(None)
            };
        }
        let range = self.start..self.searched - usize::from(terminated);
        self.start = self.searched;
        if range.len() > self.max_length {
            return Err(self.too_long());
        }
        Ok(Some(Line { range, terminated }))
    }

    /// The bytes of a line; valid until the next [`Lines::read_more`].
    #[inline]
    pub(crate) fn bytes(&self, line: &Line) -> &[u8] {
        &self.block[line.range.clone()]
    }

    /// Reads once. False means that the input has ended and that every line has been given out.
    pub(crate) fn read_more(&mut self) -> Result<bool, LineError> {
        if self.ended {
            return Ok(self.start < self.filled);
        }
        self.make_room();
        match self.input.read(&mut self.block[self.filled..]) {
            Ok(0) => self.ended = true,
            Ok(count) => self.filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(LineError::Read(error)),
        }
        Ok(!self.ended || self.start < self.filled)
    }

    fn make_room(&mut self) {
        if self.start == self.filled {
            (self.start, self.searched, self.filled) = (0, 0, 0);
        } else if self.start > 0 {
            self.block.copy_within(self.start..self.filled, 0);
            self.filled -= self.start;
            self.searched -= self.start;
            self.start = 0;
        }
        // Doubling keeps the copying of one long line linear. `next_in_memory` refuses a line once more than its
        // bound is in memory, so the block stays within a small multiple of the bound.
        if self.filled * 2 > self.block.len() {
            self.block.resize(self.block.len() * 2, 0);
        }
    }

    fn too_long(&self) -> LineError {
        LineError::TooLong {
            limit: self.max_length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives at most `step` bytes per read.
    struct Trickle<'a> {
        bytes: &'a [u8],
        step: usize,
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.step.min(self.bytes.len()).min(into.len());
            into[..count].copy_from_slice(&self.bytes[..count]);
            self.bytes = &self.bytes[count..];
            Ok(count)
        }
    }

    fn collect(bytes: &[u8], step: usize, max_length: usize) -> Result<Vec<(Vec<u8>, bool)>, LineError> {
        let mut lines = Lines::new(Trickle { bytes, step }, max_length);
        let mut found = Vec::new();
        while lines.read_more()? {
            while let Some(line) = lines.next_in_memory()? {
                found.push((lines.bytes(&line).to_vec(), line.terminated));
            }
        }
        Ok(found)
    }

    #[test]
    fn lines_put_together_again_are_the_input() {
        let long = vec![b'x'; 1 << 20];
        let mut input = b"a\n\nbc\n".to_vec();
        input.extend_from_slice(&long);
        input.extend_from_slice(b"\n\0\xff\r\nlast without newline");
        for step in [1, 7, 4096, usize::MAX] {
            let lines = collect(&input, step, 1 << 20).unwrap();
            let mut joined = Vec::new();
            for (bytes, terminated) in &lines {
                joined.extend_from_slice(bytes);
                if *terminated {
                    joined.push(b'\n');
                }
            }
            assert_eq!(lines.len(), 6);
            assert_eq!(lines[1].0, b"");
            assert!(joined == input, "step {step}");
        }
    }

    #[test]
    fn an_empty_input_has_no_lines() {
        assert_eq!(collect(b"", 10, 100).unwrap(), vec![]);
        assert_eq!(collect(b"\n", 10, 100).unwrap(), vec![(vec![], true)]);
    }

    #[test]
    fn a_line_longer_than_a_message_is_refused_without_reading_it_all() {
        let input = vec![b'x'; 4 << 20];
        for step in [1000, usize::MAX] {
            let mut lines = Lines::new(Trickle { bytes: &input, step }, 1000);
            let mut refused = false;
            while !refused && lines.read_more().unwrap() {
                refused = matches!(lines.next_in_memory(), Err(LineError::TooLong { limit: 1000 }));
            }
            assert!(refused);
            assert!(lines.block.len() <= 2 * BLOCK_LENGTH);
        }
        assert!(matches!(
            collect(b"short\ntoo long\n", 100, 6),
            Err(LineError::TooLong { limit: 6 })
        ));
        assert_eq!(collect(b"short\n", 100, 5).unwrap().len(), 1);
    }
}
