//! The checked, immutable settings that the driver runs with, and the relations between settings that have to hold.

use core::ops::Deref;
use std::sync::Arc;

use super::limits::{CLIENT_KEEPALIVE_INTERVAL, CNC_HEADER_LENGTH, COUNTERS_METADATA_FACTOR, SECOND};
use super::settings::DriverValues;
use crate::media::resolver::TableResolver;

/// Why settings were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No setting has this name.
    #[error("{origin}: there is no setting {key}{hint}")]
    UnknownKey {
        /// Where it was given.
        origin: String,
        /// The name as given.
        key: String,
        /// A remark on what may have been meant; empty or starting with a space.
        hint: String,
    },
    /// The text is no value of this setting.
    #[error("{origin}: {key}={value} {reason}")]
    BadValue {
        /// Where it was given.
        origin: String,
        /// The setting.
        key: String,
        /// The text as given.
        value: String,
        /// What is wrong, without the key.
        reason: String,
    },
    /// A line or option is not of the form `key=value`.
    #[error("{origin}: expected key=value, found {text:?}")]
    NotAPair {
        /// Where it was given.
        origin: String,
        /// The text as given.
        text: String,
    },
    /// Two settings contradict each other.
    #[error("{0}")]
    Relation(String),
    /// A properties file can not be read.
    #[error("can not read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
}

/// The settings of a driver: checked, complete and immutable. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct DriverContext {
    concluded: Arc<Concluded>,
}

/// What a [`DriverContext`] gives read access to: every field of [`DriverValues`] and what follows from them.
#[derive(Debug)]
pub struct Concluded {
    values: DriverValues,
    /// Mode of the directories the driver makes.
    pub directory_mode: u32,
    /// Mode of the files the driver makes.
    pub file_mode: u32,
    /// Length of the counters' metadata, bytes.
    pub counters_metadata_length: usize,
    /// Length of `cnc.dat`, bytes.
    pub cnc_length: usize,
}

impl Deref for DriverContext {
    type Target = Concluded;

    fn deref(&self) -> &Concluded {
        &self.concluded
    }
}

impl Deref for Concluded {
    type Target = DriverValues;

    fn deref(&self) -> &DriverValues {
        &self.values
    }
}

impl DriverContext {
    /// The values, for comparing and showing.
    #[must_use]
    pub fn values(&self) -> &DriverValues {
        &self.concluded.values
    }

    /// Checks the relations between settings (each one is within its own bounds already) and derives what follows.
    pub(super) fn conclude(mut values: DriverValues) -> Result<Self, ConfigError> {
        check_timeouts(&values)?;
        check_windows(&values)?;
        check_resolver(&values)?;
        require(
            values.publication_reserved_session_id_low <= values.publication_reserved_session_id_high,
            "aeron.publication.reserved.session.id.low is above aeron.publication.reserved.session.id.high",
        )?;
        let page_size = i64::from(values.file_page_size);
        let counters_metadata_length = values.counters_buffer_length * COUNTERS_METADATA_FACTOR as usize;
        let cnc_length = cnc_length(&values, page_size)?;
        let page_size = page_size as usize;
        values.loss_report_buffer_length = values.loss_report_buffer_length.div_ceil(page_size) * page_size;
        let (directory_mode, file_mode) = if values.dir_group {
            (0o750, 0o660)
        } else {
            (0o700, 0o600)
        };
        let concluded = Concluded {
            values,
            directory_mode,
            file_mode,
            counters_metadata_length,
            cnc_length,
        };
        Ok(Self {
            concluded: Arc::new(concluded),
        })
    }
}

fn check_timeouts(values: &DriverValues) -> Result<(), ConfigError> {
    require(
        values.client_liveness_timeout_ns > CLIENT_KEEPALIVE_INTERVAL,
        "aeron.client.liveness.timeout has to be longer than 500ms, the interval at which clients send keepalives",
    )?;
    require(
        values.client_liveness_timeout_ns > values.timer_interval_ns,
        "aeron.client.liveness.timeout has to be longer than aeron.timer.interval",
    )?;
    require(
        values.publication_unblock_timeout_ns > values.client_liveness_timeout_ns,
        "aeron.publication.unblock.timeout has to be longer than aeron.client.liveness.timeout",
    )?;
    require(
        values.untethered_window_limit_timeout_ns > values.timer_interval_ns,
        "aeron.untethered.window.limit.timeout has to be longer than aeron.timer.interval",
    )?;
    require(
        values
            .untethered_linger_timeout_ns
            .is_none_or(|linger| linger > values.timer_interval_ns),
        "aeron.untethered.linger.timeout has to be longer than aeron.timer.interval",
    )?;
    require(
        values.untethered_resting_timeout_ns > values.timer_interval_ns,
        "aeron.untethered.resting.timeout has to be longer than aeron.timer.interval",
    )
}

fn check_windows(values: &DriverValues) -> Result<(), ConfigError> {
    let window_holds_a_frame = |window: i32, mtu: i32| window == 0 || window >= mtu;
    require(
        window_holds_a_frame(values.publication_term_window_length, values.mtu_length),
        "aeron.publication.term.window.length is neither 0 nor at least aeron.mtu.length",
    )?;
    require(
        window_holds_a_frame(values.ipc_publication_term_window_length, values.ipc_mtu_length),
        "aeron.ipc.publication.term.window.length is neither 0 nor at least aeron.ipc.mtu.length",
    )?;
    require(
        values.initial_window_length >= values.mtu_length,
        "aeron.rcv.initial.window.length is below aeron.mtu.length, so that no full frame could be received",
    )?;
    require(
        values.socket_so_rcvbuf == 0 || values.initial_window_length <= values.socket_so_rcvbuf,
        "aeron.rcv.initial.window.length is above aeron.socket.so_rcvbuf",
    )?;
    require(
        values.socket_so_sndbuf == 0 || values.mtu_length <= values.socket_so_sndbuf,
        "aeron.mtu.length is above aeron.socket.so_sndbuf",
    )
}

fn check_resolver(values: &DriverValues) -> Result<(), ConfigError> {
    require(
        matches!(
            values.name_resolver_supplier.as_str(),
            "default" | "driver" | "csv_table"
        ),
        "aeron.name.resolver.supplier is none of default, driver and csv_table",
    )?;
    if values.name_resolver_supplier == "csv_table" {
        TableResolver::parse(&values.name_resolver_init_args)
            .map_err(|error| ConfigError::Relation(format!("aeron.name.resolver.init.args: {error}")))?;
    }
    if values.name_resolver_supplier == "driver" {
        require(
            !values.driver_resolver_name.is_empty(),
            "aeron.name.resolver.supplier=driver needs aeron.driver.resolver.name",
        )?;
        require(
            !values.driver_resolver_interface.is_empty(),
            "aeron.name.resolver.supplier=driver needs aeron.driver.resolver.interface",
        )?;
    }
    let neighbours = values.driver_resolver_bootstrap_neighbor.split(',').count();
    require(
        neighbours <= BOOTSTRAP_NEIGHBOURS_MAX,
        "aeron.driver.resolver.bootstrap.neighbor names more than 20 neighbours",
    )
}

/// Most bootstrap neighbours (wire-protocol 6.8).
const BOOTSTRAP_NEIGHBOURS_MAX: usize = 20;

/// Length of the CnC file, which has to stay within an `i32` because foreign clients compute it in one.
fn cnc_length(values: &DriverValues, page_size: i64) -> Result<usize, ConfigError> {
    // Each section is bounded by its setting to well under 2^33, so that the sum can not overflow.
    let sections = values.conductor_buffer_length
        + values.clients_buffer_length
        + values.counters_buffer_length * (1 + COUNTERS_METADATA_FACTOR as usize)
        + values.error_buffer_length;
    let total = (sections as i64 + CNC_HEADER_LENGTH + page_size - 1) / page_size * page_size;
    require(
        total <= i64::from(i32::MAX),
        &format!(
            "the sections of cnc.dat take {total} bytes together, more than {}: make aeron.counters.buffer.length \
             (it counts five times), aeron.conductor.buffer.length, aeron.clients.buffer.length or \
             aeron.error.buffer.length smaller",
            i32::MAX
        ),
    )?;
    Ok(total as usize)
}

/// Worth a warning though allowed: combinations that surprise.
pub(super) fn remarks(values: &DriverValues) -> Vec<String> {
    let mut remarks = Vec::new();
    if !values.dir.starts_with('/') {
        remarks.push(format!(
            "aeron.dir={} is relative: only clients with the same working directory can use it",
            values.dir
        ));
    }
    if values.timer_interval_ns >= values.driver_timeout_ns {
        remarks.push(
            "aeron.timer.interval is not shorter than aeron.driver.timeout: clients will take the driver for dead"
                .to_owned(),
        );
    } else if values.timer_interval_ns >= HEARTBEAT_PERIOD_SAFE {
        remarks.push(
            "aeron.timer.interval is 5s or more: clients with a driver timeout of 5s will take the driver for dead"
                .to_owned(),
        );
    }
    remarks
}

/// Some clients give a driver only this long (spec 2.5), ns.
const HEARTBEAT_PERIOD_SAFE: i64 = 5 * SECOND;

fn require(holds: bool, otherwise: &str) -> Result<(), ConfigError> {
    if holds {
        Ok(())
    } else {
        Err(ConfigError::Relation(otherwise.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::{CLIENTS_BUFFER_MIN, CONDUCTOR_BUFFER_MIN, ERROR_BUFFER_MIN, MIB};
    use super::super::sources::DriverSettings;
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> DriverSettings {
        let mut settings = DriverSettings::defaults();
        for (key, value) in pairs {
            settings.set(key, value).unwrap();
        }
        settings
    }

    fn refusal(pairs: &[(&str, &str)]) -> String {
        match with(pairs).conclude() {
            Err(ConfigError::Relation(text)) => text,
            other => panic!("{pairs:?} gave {other:?}"),
        }
    }

    #[test]
    fn the_length_of_the_cnc_file_follows_from_its_sections() {
        let context = with(&[]).conclude().unwrap();
        let sections = 128 + CONDUCTOR_BUFFER_MIN + CLIENTS_BUFFER_MIN + 40 * MIB + ERROR_BUFFER_MIN;
        assert_eq!(context.cnc_length as i64, (sections + 4095) / 4096 * 4096);
        assert_eq!(context.counters_metadata_length as i64, 32 * MIB);
        let context = with(&[
            ("aeron.file.page.size", "2m"),
            ("aeron.loss.report.buffer.length", "5000"),
        ])
        .conclude()
        .unwrap();
        assert_eq!(context.cnc_length as i64 % (2 * MIB), 0);
        assert_eq!(context.loss_report_buffer_length as i64, 2 * MIB);
    }

    #[test]
    fn a_cnc_file_beyond_i32_is_refused() {
        let most = with(&[("aeron.counters.buffer.length", "400m")])
            .conclude()
            .unwrap();
        assert!(i32::try_from(most.cnc_length).is_ok());
        for pairs in [
            [("aeron.counters.buffer.length", "410m"), ("aeron.dir", "/x")],
            [
                ("aeron.conductor.buffer.length", "1073742592"),
                ("aeron.clients.buffer.length", "1073741952"),
            ],
            [
                ("aeron.error.buffer.length", "1g"),
                ("aeron.file.page.size", "1g"),
            ],
        ] {
            assert!(refusal(&pairs).contains("cnc.dat"), "{pairs:?}");
        }
    }

    #[test]
    fn modes_are_private_unless_the_group_is_let_in() {
        let private = with(&[]).conclude().unwrap();
        assert_eq!((private.directory_mode, private.file_mode), (0o700, 0o600));
        let group = with(&[("fulmar.dir.group", "on")]).conclude().unwrap();
        assert_eq!((group.directory_mode, group.file_mode), (0o750, 0o660));
    }

    #[test]
    fn timeouts_that_contradict_each_other_are_refused_and_equality_counts_as_contradiction() {
        let liveness = "aeron.client.liveness.timeout";
        let unblock = "aeron.publication.unblock.timeout";
        let timer = "aeron.timer.interval";
        for (pairs, named) in [
            (vec![(liveness, "500ms"), (timer, "100ms")], "500ms"),
            (vec![(liveness, "2s"), (timer, "2s")], timer),
            (vec![(liveness, "15s")], unblock),
            (vec![(unblock, "10s")], liveness),
            (
                vec![("aeron.untethered.window.limit.timeout", "1s")],
                "window.limit",
            ),
            (
                vec![("aeron.untethered.linger.timeout", "1s")],
                "untethered.linger",
            ),
            (
                vec![("aeron.untethered.resting.timeout", "1s")],
                "untethered.resting",
            ),
        ] {
            let text = refusal(&pairs);
            assert!(text.contains(named), "{pairs:?}: {text}");
        }
        for pairs in [
            vec![(liveness, "501ms"), (timer, "100ms")],
            vec![(liveness, "14999ms")],
            vec![(unblock, "10001ms")],
            vec![("aeron.untethered.window.limit.timeout", "1001ms")],
            vec![("aeron.untethered.linger.timeout", "1001ms")],
        ] {
            assert!(with(&pairs).conclude().is_ok(), "{pairs:?}");
        }
    }

    #[test]
    fn windows_that_hold_no_frame_are_refused() {
        for (pairs, named) in [
            (
                vec![("aeron.publication.term.window.length", "1376")],
                "aeron.publication.term.window.length",
            ),
            (
                vec![("aeron.ipc.publication.term.window.length", "1376")],
                "aeron.ipc.publication",
            ),
            (
                vec![("aeron.rcv.initial.window.length", "1376")],
                "aeron.rcv.initial.window.length",
            ),
            (
                vec![("aeron.rcv.initial.window.length", "256k")],
                "aeron.socket.so_rcvbuf",
            ),
            (
                vec![("aeron.socket.so_rcvbuf", "64k")],
                "aeron.rcv.initial.window.length",
            ),
            (vec![("aeron.socket.so_sndbuf", "1024")], "aeron.mtu.length"),
        ] {
            let text = refusal(&pairs);
            assert!(text.contains(named), "{pairs:?}: {text}");
        }
        for pairs in [
            vec![("aeron.publication.term.window.length", "1408")],
            vec![
                ("aeron.rcv.initial.window.length", "256k"),
                ("aeron.socket.so_rcvbuf", "0"),
            ],
            vec![
                ("aeron.rcv.initial.window.length", "256k"),
                ("aeron.socket.so_rcvbuf", "256k"),
            ],
            vec![("aeron.socket.so_sndbuf", "1408")],
        ] {
            assert!(with(&pairs).conclude().is_ok(), "{pairs:?}");
        }
    }

    #[test]
    fn reserved_sessions_and_the_resolver_are_checked() {
        let low = "aeron.publication.reserved.session.id.low";
        assert!(refusal(&[(low, "1001")]).contains(low));
        assert!(with(&[(low, "1000")]).conclude().is_ok());
        let driver = ("aeron.name.resolver.supplier", "driver");
        let name = ("aeron.driver.resolver.name", "one");
        let interface = ("aeron.driver.resolver.interface", "localhost:8050");
        assert!(refusal(&[driver, interface]).contains(name.0));
        assert!(refusal(&[driver, name]).contains(interface.0));
        assert!(refusal(&[("aeron.name.resolver.supplier", "dns")]).contains("csv_table"));
        let table = ("aeron.name.resolver.supplier", "csv_table");
        let rows = "aeron.name.resolver.init.args";
        assert!(refusal(&[table, (rows, "a,b")]).contains("a,b"));
        assert!(with(&[table, (rows, "a,endpoint,10.0.0.1")]).conclude().is_ok());
        assert!(with(&[driver, name, interface]).conclude().is_ok());
        let many = vec!["a:1"; 21].join(",");
        assert!(refusal(&[("aeron.driver.resolver.bootstrap.neighbor", &many)]).contains("20"));
        let enough = vec!["a:1"; 20].join(",");
        assert!(
            with(&[("aeron.driver.resolver.bootstrap.neighbor", &enough)])
                .conclude()
                .is_ok()
        );
    }

    #[test]
    fn surprising_combinations_are_remarked_on() {
        let remark = |pairs: &[(&str, &str)]| {
            let remarks: Vec<String> = with(pairs).warnings().iter().map(ToString::to_string).collect();
            remarks.join("; ")
        };
        assert_eq!(remark(&[]), "");
        assert!(remark(&[("aeron.dir", "here")]).contains("relative"));
        assert!(
            remark(&[("aeron.driver.timeout", "1000")]).contains("not shorter than aeron.driver.timeout")
        );
        assert!(remark(&[("aeron.timer.interval", "5s")]).contains("5s"));
    }

    #[test]
    fn a_directory_name_leaves_room_for_the_names_in_it() {
        let longest = format!("/{}", "d".repeat(super::super::limits::DIRECTORY_NAME_MAX - 1));
        assert!(with(&[("aeron.dir", &longest)]).conclude().is_ok());
        let mut settings = DriverSettings::defaults();
        assert!(settings.set("aeron.dir", &format!("{longest}d")).is_err());
        assert!(settings.set("aeron.dir", "").is_err());
        assert!(settings.set("aeron.dir", "/a\0b").is_err());
    }
}
