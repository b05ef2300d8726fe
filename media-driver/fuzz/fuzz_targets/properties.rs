//! Settings: any text of a properties file and any variables are taken or refused with a reason; what was taken can be
//! explained, and what concludes holds together.
#![no_main]

use fulmar_media_driver::DriverSettings;
use fulmar_media_driver::config::TABLE;
use fulmar_media_driver_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut settings = DriverSettings::defaults();
    // Values for keys that exist, so that the fuzzer need not spell them.
    for _ in 0..input.u8() & 7 {
        let row = &TABLE[usize::from(input.u8()) % TABLE.len()];
        let how = input.u8();
        let length = usize::from(how >> 2);
        let value = String::from_utf8_lossy(input.bytes(length)).into_owned();
        let before = settings.values();
        let outcome = match how & 3 {
            0 => settings.set(row.key, &value),
            1 => settings.define(&format!("{}={value}", row.key)),
            2 => settings.option("--option", row.key, &value),
            _ => settings.apply_env([(row.env_name(), value)]),
        };
        if let Err(error) = outcome {
            assert!(error.to_string().contains(row.key));
            assert_eq!(settings.values(), before, "a refused value changes nothing");
        }
    }
    let text = String::from_utf8_lossy(input.rest()).into_owned();
    match settings.apply_properties("file", &text) {
        Ok(()) => assert!(settings.warnings().len() <= text.lines().count() + 7 + TABLE.len()),
        Err(error) => assert!(error.to_string().starts_with("file:")),
    }
    let rows = settings.explain();
    assert_eq!(rows.len(), TABLE.len());
    match settings.conclude() {
        Ok(context) => {
            assert!(i32::try_from(context.cnc_length).is_ok());
            assert_eq!(context.cnc_length % context.file_page_size as usize, 0);
            assert!(context.client_liveness_timeout_ns > context.timer_interval_ns);
            assert!(context.publication_unblock_timeout_ns > context.client_liveness_timeout_ns);
            // What is shown can be read again as the same value.
            for row in rows
                .iter()
                .filter(|row| !row.value.is_empty() && row.value != row.default)
            {
                let mut again = DriverSettings::defaults();
                if again.set(row.key, &row.value).is_ok() {
                    let shown = again.explain().into_iter().find(|shown| shown.key == row.key);
                    assert_eq!(shown.map(|shown| shown.value), Some(row.value.clone()));
                }
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
