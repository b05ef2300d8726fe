//! Little-endian fields at fixed places of a frame: taking them out of bytes, and putting them in one by one.
#![forbid(unsafe_code)]

use crate::wire::frame::{COMMON_HEADER_LENGTH, FrameType, WireError};

/// A datagram of which any field may be missing.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The fields of a control frame of this type: at least `min_length` bytes, and its frame length inside the
    /// datagram. Returns the frame length as well.
    pub(super) fn of_control(
        datagram: &'a [u8],
        frame_type: FrameType,
        min_length: usize,
    ) -> Result<(Fields<'a>, i32), WireError> {
        let fields = Fields(datagram);
        let frame_length = fields.i32(0)?;
        if fields.u16(6)? != frame_type.0 {
            return Err(WireError::Type);
        }
        if datagram.len() < min_length {
            return Err(WireError::TooShort);
        }
        if frame_length < 0 || frame_length as usize > datagram.len() {
            return Err(WireError::FrameLength);
        }
        Ok((fields, frame_length))
    }

    pub(super) const fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields(bytes)
    }

    fn array<const N: usize>(self, at: usize) -> Result<[u8; N], WireError> {
        self.0
            .get(at..)
            .and_then(|rest| rest.first_chunk::<N>())
            .copied()
            .ok_or(WireError::TooShort)
    }

    pub(super) fn u8(self, at: usize) -> Result<u8, WireError> {
        self.array::<1>(at).map(|[byte]| byte)
    }

    pub(super) fn u16(self, at: usize) -> Result<u16, WireError> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub(super) fn i16(self, at: usize) -> Result<i16, WireError> {
        self.array(at).map(i16::from_le_bytes)
    }

    pub(super) fn i32(self, at: usize) -> Result<i32, WireError> {
        self.array(at).map(i32::from_le_bytes)
    }

    pub(super) fn i64(self, at: usize) -> Result<i64, WireError> {
        self.array(at).map(i64::from_le_bytes)
    }

    pub(super) fn bytes(self, at: usize, length: usize) -> Result<&'a [u8], WireError> {
        self.0
            .get(at..)
            .and_then(|rest| rest.get(..length))
            .ok_or(WireError::TooShort)
    }

    /// Bytes of a fixed number, in the order they travel.
    pub(super) fn octets<const N: usize>(self, at: usize) -> Result<[u8; N], WireError> {
        self.array(at)
    }
}

/// Puts fields into a frame one behind the other. Fields behind the end are left out; `length` then passes it.
pub(super) struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    pub(super) const fn new(bytes: &'a mut [u8]) -> Writer<'a> {
        Writer { bytes, at: 0 }
    }

    /// A writer behind the common header.
    pub(super) fn frame(
        bytes: &'a mut [u8],
        frame_length: i32,
        flags: u8,
        frame_type: FrameType,
    ) -> Writer<'a> {
        let mut writer = Writer::new(bytes);
        writer
            .i32(frame_length)
            .bytes(&[0, flags])
            .bytes(&frame_type.0.to_le_bytes());
        debug_assert!(writer.at == COMMON_HEADER_LENGTH);
        writer
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let end = self.at.saturating_add(bytes.len());
        if let Some(target) = self.bytes.get_mut(self.at..end) {
            target.copy_from_slice(bytes);
        }
        self.at = end;
        self
    }

    pub(super) fn i32(&mut self, value: i32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn i64(&mut self, value: i64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Bytes put so far, or 0 if they did not fit.
    pub(super) fn length(&self) -> usize {
        if self.at <= self.bytes.len() { self.at } else { 0 }
    }
}
