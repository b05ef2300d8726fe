//! Bounds-checked reading and buffer-reusing writing of little-endian fields (spec 0.1).

#![forbid(unsafe_code)]

use super::text::Text;

/// A message of another process: every access is checked, every length is only a claim.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..)?.first_chunk::<N>().copied()
    }

    pub(super) fn i16(self, offset: usize) -> Option<i16> {
        self.array(offset).map(i16::from_le_bytes)
    }

    pub(super) fn u16(self, offset: usize) -> Option<u16> {
        self.array(offset).map(u16::from_le_bytes)
    }

    pub(super) fn i32(self, offset: usize) -> Option<i32> {
        self.array(offset).map(i32::from_le_bytes)
    }

    pub(super) fn i64(self, offset: usize) -> Option<i64> {
        self.array(offset).map(i64::from_le_bytes)
    }

    pub(super) fn bytes16(self, offset: usize) -> Option<[u8; 16]> {
        self.array(offset)
    }

    /// A length field: none if it is negative or does not fit the message.
    pub(super) fn length(self, offset: usize) -> Option<usize> {
        usize::try_from(self.i32(offset)?).ok()
    }

    pub(super) fn bytes(self, offset: usize, length: usize) -> Option<&'a [u8]> {
        self.0.get(offset..)?.get(..length)
    }

    /// Bytes preceded by their length at `offset`.
    pub(super) fn counted(self, offset: usize) -> Option<&'a [u8]> {
        let length = self.length(offset)?;
        self.bytes(offset.checked_add(4)?, length)
    }

    pub(super) fn text(self, offset: usize) -> Option<Text<'a>> {
        self.counted(offset).map(Text)
    }
}

/// Appends fields to a cleared buffer.
pub(super) struct Writer<'a>(&'a mut Vec<u8>);

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        out.clear();
        Self(out)
    }

    pub(super) fn u8s(self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn i16(self, value: i16) -> Self {
        self.u8s(&value.to_le_bytes())
    }

    pub(super) fn u16(self, value: u16) -> Self {
        self.u8s(&value.to_le_bytes())
    }

    pub(super) fn i32(self, value: i32) -> Self {
        self.u8s(&value.to_le_bytes())
    }

    pub(super) fn i64(self, value: i64) -> Self {
        self.u8s(&value.to_le_bytes())
    }

    /// Length and bytes. What is beyond the range of the length field is cut off; neither ring nor broadcast could
    /// carry so long a message anyway.
    pub(super) fn counted(self, bytes: &[u8]) -> Self {
        let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
        let bytes = bytes.get(..length as usize).unwrap_or(bytes);
        self.i32(length).u8s(bytes)
    }

    pub(super) fn text(self, text: Text<'_>) -> Self {
        self.counted(text.as_bytes())
    }

    /// Zeros up to a multiple of 4 from the start of the message.
    pub(super) fn align4(self) -> Self {
        let length = crate::bits::align(self.0.len(), 4);
        self.0.resize(length, 0);
        self
    }

    /// Zeros up to `length` if the message is shorter.
    pub(super) fn at_least(self, length: usize) -> Self {
        if self.0.len() < length {
            self.0.resize(length, 0);
        }
        self
    }
}
