//! Three fast untethered subscribers beside a stalled one, over shared memory and over the network.
#![forbid(unsafe_code)]

use core::time::Duration;

use super::one_way_settings;
use crate::on_side;
use crate::report::{Better, Goal};
use crate::side::{BenchError, Mode};
use crate::suite::{Bench, Metric, Sample};
use crate::workload::IsolationPlan;

/// The driver lets a stalled subscriber go soon, and for the whole run.
const TIMEOUTS: &str = "|tether=false|untethered-window-limit-timeout=100ms|untethered-linger-timeout=100ms|untethered-resting-timeout=60s";

pub(super) fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let options = bench.options.clone();
    let seconds =
        |seconds: f64| Duration::from_secs_f64(if options.smoke { seconds / 20.0 } else { seconds });
    let plan = IsolationPlan {
        length: 1024,
        fast: 3,
        // Drivers look for stalled subscribers once a second; it is let go in three steps.
        settle: seconds(4.0),
        measured: seconds(1.5),
    };
    let metric = Metric::new("", "of the rate without it", Better::Higher).bound(Goal::AtLeast(0.95));
    for media in ["ipc", "udp"] {
        let case = format!("isolation/{media}/3 beside 1 stalled");
        bench.run(&case, std::slice::from_ref(&metric), |side| {
            let settings = one_way_settings(media, Mode::Shared, options.term_length, TIMEOUTS)?;
            on_side!(side, isolation, &settings, &plan).map(Sample::of)
        });
    }
    Ok(())
}
