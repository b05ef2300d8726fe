//! Error log and loss report: whatever stands in them, a copy ends, and is bounded by the length of the buffer.
#![no_main]

use fulmar::report::{error_log, loss_report};
use fulmar_fuzz::region;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if data.is_empty() || data.len() > 8192 {
        return;
    }
    let view = region(data.len(), data).as_view();
    let errors = error_log::read_all(&view);
    assert!(errors.len() <= data.len() / 24);
    assert!(errors.iter().map(|record| record.text.len()).sum::<usize>() <= 3 * data.len());
    let losses = loss_report::read_all(&view);
    assert!(losses.len() <= data.len() / 48);
    let texts = losses
        .iter()
        .map(|record| record.channel.len() + record.source.len());
    assert!(texts.sum::<usize>() <= 3 * data.len());
});
