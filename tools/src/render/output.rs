//! Standard output through one big buffer. What is written is flushed when the buffer is full, and whenever the
//! writer has nothing to do, so that a quiet stream shows its last message at once and a busy one costs a system
//! call per quarter megabyte. Writing goes to a duplicate of the descriptor, past the line buffer of the library.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::failure::Failure;
use crate::signals::{ATOMIC_WRITE, stop_requested, wait_for_output};

const FLUSH_LENGTH: usize = 256 * 1024;
/// How long a command that was asked to stop waits for its reader.
const LAST_WAIT: Duration = Duration::from_millis(500);

/// Buffered standard output.
pub(crate) struct Output {
    file: File,
    buffer: Vec<u8>,
}

impl Output {
    /// Opens standard output.
    pub(crate) fn open() -> Result<Output, Failure> {
        let descriptor = io::stdout().as_fd().try_clone_to_owned();
        Ok(Output {
            file: File::from(descriptor.map_err(|error| Failure::output(&error))?),
            buffer: Vec::with_capacity(2 * FLUSH_LENGTH),
        })
    }

    /// The buffer to append to; call [`Output::flush_if_full`] after each message.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Writes the buffer out when it has grown long.
    #[inline]
    pub(crate) fn flush_if_full(&mut self) -> Result<(), Failure> {
        if self.buffer.len() >= FLUSH_LENGTH {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Writes the buffer out. A reader that takes nothing holds the command back, but not from being stopped.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.write_buffer();
        self.buffer.clear();
        // One message of 16 MiB should not keep its memory for the rest of the run.
        self.buffer.shrink_to(2 * FLUSH_LENGTH);
        written
    }

    fn write_buffer(&self) -> Result<(), Failure> {
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            let chunk = if stop_requested() {
                // From here on no write may block: only what a ready reader takes at once.
                let is_ready = wait_for_output(self.file.as_fd(), LAST_WAIT);
                if !is_ready.map_err(|error| Failure::output(&error))? {
                    return Err(Failure::new(format!(
                        "stopped while the reader of standard output took nothing; {} bytes were not printed",
                        rest.len()
                    )));
                }
                &rest[..rest.len().min(ATOMIC_WRITE)]
            } else {
                rest
            };
            match (&self.file).write(chunk) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::output(&error)),
            }
        }
        Ok(())
    }
}

/// Prints `text` and flushes.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut output = Output::open()?;
    output.buffer().extend_from_slice(text.as_bytes());
    output.flush()
}

/// Prints one JSON document on a line of its own.
pub(crate) fn print_json(document: &serde_json::Value) -> Result<(), Failure> {
    print(&format!("{document}\n"))
}
