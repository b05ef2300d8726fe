//! Where rows are shown as they are measured, and how far the run is.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Write};

/// Lines for the user, and a line of progress on a terminal's standard error.
pub struct Table {
    lines: Box<dyn Write>,
    /// Why lines can not be shown any more.
    error: Option<io::Error>,
    /// Whether the lines are all that the user gets.
    is_only_output: bool,
    shows_progress: bool,
    has_progress: bool,
}

impl Table {
    /// Rows go to standard output. If they are all that the user gets, nothing is measured any more when its reader
    /// is gone.
    #[must_use]
    pub fn on_stdout(is_only_output: bool) -> Table {
        Table::to(Box::new(io::stdout()), is_only_output)
    }

    /// Rows go to standard error, since something else goes to standard output.
    #[must_use]
    pub fn on_stderr() -> Table {
        Table::to(Box::new(io::stderr()), false)
    }

    fn to(lines: Box<dyn Write>, is_only_output: bool) -> Table {
        Table {
            lines,
            error: None,
            is_only_output,
            shows_progress: io::stderr().is_terminal(),
            has_progress: false,
        }
    }

    /// Shows a line.
    pub fn line(&mut self, text: &str) {
        self.clear_progress();
        if self.error.is_none() {
            let written = writeln!(self.lines, "{text}").and_then(|()| self.lines.flush());
            self.error = written.err();
        }
    }

    /// Shows how far the run is, until the next line.
    pub fn progress(&mut self, text: &str) {
        if self.shows_progress {
            // Progress is a courtesy; nobody misses it.
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
            self.has_progress = true;
        }
    }

    fn clear_progress(&mut self) {
        if std::mem::take(&mut self.has_progress) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    /// Whether nobody gets anything of what is still measured.
    #[must_use]
    pub fn is_unwanted(&self) -> bool {
        self.is_only_output && self.error.is_some()
    }

    /// Why lines could not be shown.
    #[must_use]
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.clear_progress();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe whose reader is gone.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_is_gone_ends_the_run_unless_there_are_files_to_write() {
        for is_only_output in [true, false] {
            let mut table = Table::to(Box::new(Closed), is_only_output);
            assert!(!table.is_unwanted());
            table.line("row");
            assert_eq!(table.is_unwanted(), is_only_output);
            let kind = table.error().map(io::Error::kind);
            assert_eq!(kind, Some(io::ErrorKind::BrokenPipe));
        }
    }
}
