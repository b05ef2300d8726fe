//! What a user may set on a client, with the defaults and the environment names of the field (shared-memory spec 1.2).
#![forbid(unsafe_code)]

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use super::error::ClientError;
use super::event::ClientEvent;
use crate::directory::default_directory;

/// Most characters of a client name; longer ones are cut in the label of the heartbeat counter.
pub const CLIENT_NAME_LENGTH_MAX: usize = 100;

/// Called with every error that no call can return. Runs on the client's conductor or in a call into the client,
/// never under its lock. A handler that holds the client keeps it open for ever.
pub type ErrorHandler = Arc<dyn Fn(&ClientError) + Send + Sync>;

/// Called with every event of the client's life. Runs on the client's conductor or in a call into the client, never
/// under its lock. A handler that holds the client keeps it open for ever.
pub type EventHandler = Arc<dyn Fn(&ClientEvent) + Send + Sync>;

/// Settings of one client. [`ClientSettings::default`] reads the environment once.
#[derive(Clone)]
pub struct ClientSettings {
    /// The directory of the media driver. Default: `AERON_DIR`, else `/dev/shm/aeron-<user>`.
    pub dir: String,
    /// How long a call waits for the driver, and how long a foreign driver may be silent before it counts as lost.
    /// Default: `AERON_DRIVER_TIMEOUT` in milliseconds, else 10 s.
    pub driver_timeout: Duration,
    /// How often the client shows the driver that it lives. Default 500 ms.
    pub keepalive_interval: Duration,
    /// How long the conductor thread sleeps when there is nothing to do; at most 16 ms are used, so that the death
    /// of the driver is noticed in time. Default: `AERON_CLIENT_IDLE_SLEEP_DURATION`, else 16 ms.
    pub idle_sleep: Duration,
    /// How long a log that nobody uses any more stays mapped. Default:
    /// `AERON_CLIENT_RESOURCE_LINGER_DURATION`, else 3 s.
    pub resource_linger: Duration,
    /// Shown in the label of the client's heartbeat counter; at most 100 characters are used. Default:
    /// `AERON_CLIENT_NAME`, else empty.
    pub name: String,
    /// No conductor thread: the application calls [`super::Client::invoke`] often. Default: false.
    pub invoker: bool,
    /// Touches every page of a log when it is mapped. Default: `AERON_CLIENT_PRE_TOUCH_MAPPED_MEMORY`, else false.
    pub pre_touch: bool,
    /// When the driver is lost: wait for its successor and add everything again under the same handles. Default:
    /// true. When false, the loss of the driver closes the client.
    pub reattach: bool,
    /// Told about errors that belong to no call.
    pub on_error: Option<ErrorHandler>,
    /// Told about events.
    pub on_event: Option<EventHandler>,
}

impl Default for ClientSettings {
    fn default() -> Self {
        ClientSettings {
            dir: environment("AERON_DIR").unwrap_or_else(default_directory),
            driver_timeout: environment("AERON_DRIVER_TIMEOUT")
                .and_then(|text| text.trim().parse().ok())
                .map_or(Duration::from_secs(10), Duration::from_millis),
            keepalive_interval: Duration::from_millis(500),
            idle_sleep: duration_setting("AERON_CLIENT_IDLE_SLEEP_DURATION", Duration::from_millis(16)),
            resource_linger: duration_setting(
                "AERON_CLIENT_RESOURCE_LINGER_DURATION",
                Duration::from_secs(3),
            ),
            name: environment("AERON_CLIENT_NAME").unwrap_or_default(),
            invoker: false,
            pre_touch: environment("AERON_CLIENT_PRE_TOUCH_MAPPED_MEMORY")
                .is_some_and(|text| matches!(text.trim(), "1" | "on" | "true")),
            reattach: true,
            on_error: None,
            on_event: None,
        }
    }
}

impl ClientSettings {
    /// The defaults with another directory.
    #[must_use]
    pub fn with_dir(dir: impl Into<String>) -> Self {
        ClientSettings {
            dir: dir.into(),
            ..ClientSettings::default()
        }
    }

    /// The name as it goes into the label: printable ASCII, cut at the limit.
    pub(super) fn label_name(&self) -> String {
        self.name
            .chars()
            .filter(|c| c.is_ascii_graphic() || *c == ' ')
            .take(CLIENT_NAME_LENGTH_MAX)
            .collect()
    }
}

impl fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSettings")
            .field("dir", &self.dir)
            .field("driver_timeout", &self.driver_timeout)
            .field("keepalive_interval", &self.keepalive_interval)
            .field("idle_sleep", &self.idle_sleep)
            .field("resource_linger", &self.resource_linger)
            .field("name", &self.name)
            .field("invoker", &self.invoker)
            .field("pre_touch", &self.pre_touch)
            .field("reattach", &self.reattach)
            .finish_non_exhaustive()
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn duration_setting(name: &str, default: Duration) -> Duration {
    environment(name)
        .and_then(|text| parse_duration(&text))
        .unwrap_or(default)
}

/// A duration with one of the suffixes ns, us, ms, s; without a suffix nanoseconds.
fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(digits_end);
    let count: u64 = digits.parse().ok()?;
    let unit: u64 = match suffix {
        "" | "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => return None,
    };
    count.checked_mul(unit).map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_the_suffixes_of_the_field() {
        assert_eq!(parse_duration("16ms"), Some(Duration::from_millis(16)));
        assert_eq!(parse_duration("3s"), Some(Duration::from_secs(3)));
        assert_eq!(parse_duration("1000"), Some(Duration::from_micros(1)));
        assert_eq!(parse_duration("7us"), Some(Duration::from_micros(7)));
        assert_eq!(parse_duration("7h"), None);
        assert_eq!(parse_duration(""), None);
        assert_eq!(parse_duration("99999999999999999s"), None);
    }

    #[test]
    fn the_name_is_cut_and_stripped_for_the_label() {
        let settings = ClientSettings {
            name: format!("a\nb{}", "x".repeat(200)),
            ..ClientSettings::with_dir("/nowhere")
        };
        let label = settings.label_name();
        assert!(label.starts_with("abx"));
        assert_eq!(label.len(), CLIENT_NAME_LENGTH_MAX);
    }
}
