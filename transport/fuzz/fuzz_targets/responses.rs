//! Responses: any bytes decode to something that encodes to the same, or to an error.
#![no_main]

use fulmar::control::Response;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&type_id, payload)) = data.split_first() else {
        return;
    };
    let type_id = 0x0F00 + i32::from(type_id);
    match Response::decode(type_id, payload) {
        Ok(response) => {
            let mut encoded = Vec::new();
            assert_eq!(response.encode(&mut encoded), type_id);
            assert_eq!(Response::decode(type_id, &encoded), Ok(response));
            assert!(encoded.len() <= payload.len() + 4, "nothing was made up");
            let _ = format!("{response:?}");
        }
        Err(error) => drop(error.to_string()),
    }
});
