//! The same window always (wire protocol 5.4, `static`).
#![forbid(unsafe_code)]

/// A constant window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticWindow {
    length: i32,
}

impl StaticWindow {
    /// A window of `window` bytes, at most half the term.
    #[must_use]
    pub fn new(window: i32, term_length: i32) -> Self {
        Self {
            length: window.clamp(0, (term_length / 2).max(0)),
        }
    }

    /// Bytes.
    #[must_use]
    pub const fn length(&self) -> i32 {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_at_most_half_the_term() {
        assert_eq!(StaticWindow::new(131_072, 65_536).length(), 32_768);
        assert_eq!(StaticWindow::new(131_072, 1 << 20).length(), 131_072);
        assert_eq!(StaticWindow::new(-1, 1 << 20).length(), 0);
    }
}
