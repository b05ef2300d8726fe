//! The state of a channel, and the addresses it is bound to (shared-memory spec 5.6).
#![forbid(unsafe_code)]

use crate::counters::CountersReader;
use crate::id::CounterId;
use crate::memory::View;

/// Counter type of local socket addresses.
const LOCAL_ADDRESS_TYPE_ID: i32 = 14;
/// Offset of the channel status counter's id in the key of a local address.
const KEY_STATUS_OFFSET: usize = 0;
/// Offset of the address's length in that key.
const KEY_LENGTH_OFFSET: usize = 4;
/// Offset of the address in that key.
const KEY_ADDRESS_OFFSET: usize = 8;

/// The state of the channel behind a publication or subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelStatus {
    /// Something failed.
    Errored,
    /// Not ready yet.
    Initialising,
    /// In use. IPC channels always are.
    Active,
    /// Going away, or gone.
    Closing,
    /// A value this version does not know.
    Unknown(i64),
}

impl ChannelStatus {
    pub(super) fn from_value(value: i64) -> Self {
        match value {
            -1 => ChannelStatus::Errored,
            0 => ChannelStatus::Initialising,
            1 => ChannelStatus::Active,
            2 => ChannelStatus::Closing,
            other => ChannelStatus::Unknown(other),
        }
    }

    /// The status shown by a counter; without a counter the channel is active.
    pub(super) fn of(counters: &CountersReader<View>, id: CounterId) -> Self {
        if id == CounterId::NONE {
            return ChannelStatus::Active;
        }
        counters
            .record(id)
            .map_or(ChannelStatus::Closing, |record| Self::from_value(record.value))
    }
}

/// Addresses that belong to an active channel.
pub(super) fn local_addresses(counters: &CountersReader<View>, status: CounterId) -> Vec<String> {
    let mut addresses = Vec::new();
    if status == CounterId::NONE || ChannelStatus::of(counters, status) != ChannelStatus::Active {
        return addresses;
    }
    counters.for_each(|record| {
        let active = record.type_id == LOCAL_ADDRESS_TYPE_ID
            && ChannelStatus::from_value(record.value) == ChannelStatus::Active
            && key_i32(&record.key, KEY_STATUS_OFFSET) == Some(status.get());
        if active && let Some(address) = key_address(&record.key) {
            addresses.push(address);
        }
    });
    addresses
}

fn key_i32(key: &[u8], offset: usize) -> Option<i32> {
    key.get(offset..)?
        .first_chunk()
        .map(|bytes| i32::from_le_bytes(*bytes))
}

fn key_address(key: &[u8]) -> Option<String> {
    let length = usize::try_from(key_i32(key, KEY_LENGTH_OFFSET)?).ok()?;
    let bytes = key.get(KEY_ADDRESS_OFFSET..)?.get(..length)?;
    core::str::from_utf8(bytes).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_from_the_key_only_if_its_length_fits() {
        let mut key = vec![0u8; 112];
        key[4] = 9;
        key[8..17].copy_from_slice(b"1.2.3.4:5");
        assert_eq!(key_address(&key).as_deref(), Some("1.2.3.4:5"));
        key[4..8].copy_from_slice(&(-1i32).to_le_bytes());
        assert_eq!(key_address(&key), None);
        key[4..8].copy_from_slice(&105i32.to_le_bytes());
        assert_eq!(key_address(&key), None);
        assert_eq!(key_address(&[]), None);
    }

    #[test]
    fn status_values_have_names() {
        assert_eq!(ChannelStatus::from_value(1), ChannelStatus::Active);
        assert_eq!(ChannelStatus::from_value(-1), ChannelStatus::Errored);
        assert_eq!(ChannelStatus::from_value(9), ChannelStatus::Unknown(9));
    }
}
