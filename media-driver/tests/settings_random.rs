//! Settings and channels from arbitrary text: every outcome is a value or an error, and what was taken concludes or is
//! refused; nothing panics or runs over.

use fulmar::uri::ChannelUri;
use fulmar_media_driver::config::{DriverSettings, PublicationParams, SubscriptionParams, TABLE};
use proptest::prelude::*;

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        (any::<u64>(), "(k|m|g|ns|us|ms|s|K|%|)").prop_map(|(number, suffix)| format!("{number}{suffix}")),
        (0_u32..64, "(k|m|g|)").prop_map(|(shift, suffix)| format!("{}{suffix}", 1_u64 << shift)),
        "(true|false|on|off|spin|sleep:[0-9]{1,20}(ns|us|ms|s|h)|dedicated|unset|allow|-1|)",
        "\\PC{0,20}",
    ]
}

fn key() -> impl Strategy<Value = &'static str> {
    (0..TABLE.len()).prop_map(|index| TABLE[index].key)
}

proptest! {
    #[test]
    fn any_values_of_settings_are_taken_or_refused(pairs in proptest::collection::vec((key(), value()), 0..12)) {
        let mut settings = DriverSettings::defaults();
        for (key, value) in &pairs {
            let before = settings.values();
            if let Err(error) = settings.set(key, value) {
                prop_assert!(error.to_string().contains(key));
                prop_assert_eq!(settings.values(), before);
            }
        }
        match settings.conclude() {
            Ok(context) => {
                prop_assert!(i32::try_from(context.cnc_length).is_ok());
                prop_assert_eq!(context.cnc_length % context.file_page_size as usize, 0);
                prop_assert!(context.client_liveness_timeout_ns > context.timer_interval_ns);
                prop_assert!(context.publication_unblock_timeout_ns > context.client_liveness_timeout_ns);
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
        prop_assert_eq!(settings.explain().len(), TABLE.len());
    }

    #[test]
    fn any_properties_text_is_taken_or_refused(text in "(?s).{0,200}") {
        let mut settings = DriverSettings::defaults();
        if let Err(error) = settings.apply_properties("p", &text) {
            prop_assert!(error.to_string().starts_with("p:"));
        }
    }

    #[test]
    fn parameters_of_any_channel_stay_within_their_limits(
        media in "(ipc|udp)",
        pairs in proptest::collection::vec(
            ("(term-length|mtu|pub-wnd|rcv-wnd|linger|session-id|init-term-id|term-id|term-offset|max-resend|tags|\
              untethered-linger-timeout|control-mode|endpoint|control|so-sndbuf|response-correlation-id)", value()),
            0..6,
        ),
    ) {
        let query: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let channel = format!("aeron:{media}?{}", query.join("|"));
        let Ok(uri) = ChannelUri::parse(&channel) else { return Ok(()) };
        let Ok(context) = DriverSettings::defaults().conclude() else {
            return Err(TestCaseError::fail("the defaults are valid"));
        };
        if let Ok(params) = PublicationParams::from_uri(&uri, &context) {
            prop_assert!(params.term_length >= 65536 && params.term_length.count_ones() == 1);
            prop_assert!(params.mtu_length > 32 && params.mtu_length <= 65504 && params.mtu_length % 32 == 0);
            prop_assert!(params.publication_window_length > 0);
            prop_assert!(params.publication_window_length <= params.term_length / 2);
            prop_assert!((0..=256).contains(&params.max_resend));
            prop_assert!((0..=i64::MAX / 2).contains(&params.linger_timeout_ns));
            if let Some(start) = params.position {
                prop_assert!(start.position(params.term_length) >= 0);
                prop_assert!(start.term_offset <= params.term_length && start.term_offset % 32 == 0);
            }
        }
        if let Ok(params) = SubscriptionParams::from_uri(&uri, &context) {
            prop_assert!(params.receiver_window_length >= 0);
            prop_assert!((0..=i64::MAX / 2).contains(&params.untethered.linger_ns));
        }
    }
}
