//! Values as text and keys of counters: each is taken or refused; a number is the one that stands there, and texts from
//! a key are no longer than the key.
#![no_main]

use fulmar::counters::type_id::{
    read_channel_key, read_heartbeat_key, read_socket_address_key, read_stream_key,
};
use fulmar::uri::Address;
use fulmar::uri::value::{check_range, parse_bool, parse_duration_ns, parse_i32, parse_i64, parse_size};
use libfuzzer_sys::fuzz_target;

/// The number at the start of a text as more bits than any value has.
fn digits(text: &str) -> i128 {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let digits = text.trim_start_matches(['-', '+']).bytes();
    let digits = digits.take_while(u8::is_ascii_digit);
    sign * digits.fold(0_i128, |number, digit| {
        number.saturating_mul(10).saturating_add(i128::from(digit - b'0'))
    })
}

fuzz_target!(|data: &[u8]| {
    let mut key = [0; 112];
    let length = data.len().min(key.len());
    key[..length].copy_from_slice(&data[..length]);
    // A byte that is no text takes three.
    assert!(read_stream_key(&key).channel.len() <= 3 * key.len());
    assert!(read_channel_key(&key).len() <= 3 * key.len());
    assert!(read_socket_address_key(&key).address.len() <= 3 * key.len());
    assert_eq!(read_heartbeat_key(&key).0.to_le_bytes(), key[..8]);

    let Ok(text) = core::str::from_utf8(data) else {
        return;
    };
    assert_eq!(parse_bool(text).is_ok(), text == "true" || text == "false");
    for (value, most_scale) in [
        (parse_size(text), 1_i128 << 30),
        (parse_duration_ns(text), 60_000_000_000),
    ] {
        if let Ok(value) = value {
            let (value, number) = (i128::from(value), digits(text));
            assert!(value >= number && value <= number * most_scale);
            assert!(number == 0 || value % number == 0);
        }
    }
    if let Ok(value) = parse_i64(text) {
        assert_eq!(i128::from(value), digits(text));
        assert_eq!(parse_i32(text).ok(), i32::try_from(value).ok());
        assert_eq!(check_range(value, -5, 5).is_ok(), (-5..=5).contains(&value));
    } else {
        assert!(parse_i32(text).is_err());
    }
    if let Ok(address) = Address::parse(text) {
        assert!(!address.host.is_empty() && text.contains(address.host));
        assert!(text.ends_with(&address.port.to_string()) || text.contains(":0"));
        assert!(!address.is_bracketed || text.starts_with('['));
    }
});
