//! Strings inside messages: bytes another process chose, ASCII by convention but not by guarantee.

#![forbid(unsafe_code)]

use core::fmt;
use core::str::Utf8Error;

/// A string field of a message. It is kept as bytes because the sender may have written anything; printing replaces
/// what is no UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Text<'a>(pub &'a [u8]);

impl<'a> Text<'a> {
    /// The bytes as sent.
    #[inline]
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The text, if it is UTF-8.
    ///
    /// # Errors
    /// The position of the first byte that is not UTF-8.
    pub const fn to_str(self) -> Result<&'a str, Utf8Error> {
        core::str::from_utf8(self.0)
    }

    /// An owned copy in which whatever is no UTF-8 is replaced by U+FFFD.
    #[must_use]
    pub fn to_string_lossy(self) -> String {
        String::from_utf8_lossy(self.0).into_owned()
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

impl<'a> From<&'a [u8]> for Text<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_str("\u{FFFD}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_replaced_when_printed() {
        let text = Text(b"ab\xffcd");
        assert!(text.to_str().is_err());
        assert_eq!(text.to_string(), "ab\u{FFFD}cd");
        assert_eq!(text.to_string(), text.to_string_lossy());
        assert_eq!(format!("{text:?}"), "\"ab\\xffcd\"");
        assert_eq!(Text::from("aeron:ipc"), "aeron:ipc");
    }
}
