//! Commands: any bytes decode to something that encodes to the same, or to an error that keeps the header.
#![no_main]

use fulmar::control::{Command, CommandError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&type_id, payload)) = data.split_first() else {
        return;
    };
    let type_id = i32::from(type_id);
    match Command::decode(type_id, payload) {
        Ok((header, command)) => {
            let mut encoded = Vec::new();
            assert_eq!(command.encode(header, &mut encoded), type_id);
            assert_eq!(Command::decode(type_id, &encoded), Ok((header, command)));
            assert!(encoded.len() <= payload.len() + 8, "nothing was made up");
            let _ = format!("{command:?}");
        }
        Err(error @ (CommandError::Malformed { header, .. } | CommandError::Unknown { header, .. })) => {
            assert_eq!(header.is_some(), payload.len() >= 16);
            let _ = error.to_string();
        }
    }
});
