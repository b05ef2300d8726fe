//! What the figures were measured on.
#![forbid(unsafe_code)]

use std::fs;

/// Facts about the machine, printed above every table.
#[derive(Clone, Debug)]
pub struct Host {
    /// Processors this process may use.
    pub processors: usize,
    /// Processor model.
    pub model: String,
    /// Kernel release.
    pub kernel: String,
    /// Frequency governor, or `unknown`.
    pub governor: String,
    /// Load average over one minute when the run began.
    pub load: String,
}

impl Host {
    /// Reads the facts; what can not be read is `unknown`.
    #[must_use]
    pub fn read() -> Host {
        let model = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text
                .lines()
                .find(|line| line.starts_with("model name"))?
                .to_owned();
            Some(line.split_once(':')?.1.trim().to_owned())
        });
        let governor = first_word("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        Host {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            model: model.unwrap_or_else(unknown),
            kernel: first_word("/proc/sys/kernel/osrelease"),
            governor,
            load: first_word("/proc/loadavg"),
        }
    }

    /// One line.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "{} x {}, kernel {}, governor {}, load {}",
            self.processors, self.model, self.kernel, self.governor, self.load
        )
    }
}

fn first_word(path: &str) -> String {
    let text = fs::read_to_string(path).ok();
    text.and_then(|text| text.split_whitespace().next().map(str::to_owned))
        .unwrap_or_else(unknown)
}

fn unknown() -> String {
    "unknown".to_owned()
}
