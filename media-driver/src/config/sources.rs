//! Where settings come from, and which source wins: a value set by the program, then command-line options, then `-D`,
//! then properties files, then the environment, then the defaults. Between equals the later one wins.

use core::fmt;
use std::path::Path;

use super::context::{self, ConfigError, DriverContext};
use super::settings::{DriverValues, Setting, TABLE};

/// Where a value came from; weaker sources are smaller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The built-in default.
    Default,
    /// This environment variable.
    Environment(String),
    /// This line (from 1) of this properties file.
    File {
        /// The file as named.
        path: String,
        /// The line, from 1.
        line: usize,
    },
    /// A `-D` option.
    Define,
    /// This command-line option, as written (`--dir`).
    Option(String),
    /// The program that embeds the driver.
    Program,
}

impl Source {
    fn strength(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::Environment(_) => 1,
            Self::File { .. } => 2,
            Self::Define => 3,
            Self::Option(_) => 4,
            Self::Program => 5,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Define => f.write_str("-D"),
            Self::Option(name) => f.write_str(name),
            Self::Program => f.write_str("program"),
        }
    }
}

/// Something the user should know that does not stop the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning(pub String);

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One line of the explanation of the effective settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The property's name.
    pub key: &'static str,
    /// The environment variable's name.
    pub env_name: String,
    /// The effective value.
    pub value: String,
    /// Where it came from.
    pub source: Source,
    /// The built-in default.
    pub default: String,
    /// The unit of a bare number.
    pub unit: &'static str,
    /// The allowed values.
    pub bounds: String,
    /// What the setting does.
    pub doc: &'static str,
}

/// Settings while they are being collected. Every change is checked at once and remembers its source.
#[derive(Clone, Debug)]
pub struct DriverSettings {
    values: DriverValues,
    /// One per row of [`TABLE`].
    sources: Vec<Source>,
    warnings: Vec<ConfigWarning>,
}

impl DriverSettings {
    /// Every setting at its default.
    #[must_use]
    pub fn defaults() -> Self {
        Self {
            values: DriverValues::defaults(),
            sources: vec![Source::Default; TABLE.len()],
            warnings: Vec::new(),
        }
    }

    /// The defaults with the process's environment applied: what a driver runs with when nothing else is given.
    ///
    /// # Errors
    /// An `AERON_*` or `FULMAR_*` variable of a known name whose text is no value.
    pub fn from_env() -> Result<Self, ConfigError> {
        let mut settings = Self::defaults();
        let text = |part: std::ffi::OsString| part.to_string_lossy().into_owned();
        settings.apply_env(std::env::vars_os().map(|(name, value)| (text(name), text(value))))?;
        Ok(settings)
    }

    /// Applies environment variables: `AERON_*` and `FULMAR_*` names of the table. Empty variables count as unset.
    /// Unknown names with these prefixes become warnings, except those that belong to clients.
    ///
    /// # Errors
    /// A variable of a known name whose text is no value.
    pub fn apply_env<I: IntoIterator<Item = (String, String)>>(
        &mut self,
        variables: I,
    ) -> Result<(), ConfigError> {
        for (name, value) in variables {
            if !(name.starts_with("AERON_") || name.starts_with("FULMAR_")) {
                continue;
            }
            match Setting::index_of(&name) {
                Some(_) if value.is_empty() => {}
                Some(row) => self.put(row, &value, Source::Environment(name))?,
                None if is_for_clients(&name) => {}
                None => self.warn(format!("environment: there is no setting {name}; it is ignored")),
            }
        }
        Ok(())
    }

    /// Applies a properties file: lines `key=value` (or `key: value`), comments with `#` or `!`, a `\` at the end of a
    /// line joins the next.
    ///
    /// # Errors
    /// The file can not be read, or as [`DriverSettings::apply_properties`].
    pub fn apply_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
            path: name.clone(),
            reason: error.to_string(),
        })?;
        self.apply_properties(&name, &text)
    }

    /// Applies the text of a properties file; `name` is used in messages. Unknown `aeron.*` keys (a file may be
    /// shared with other Aeron programs) and keys without our prefixes become warnings.
    ///
    /// # Errors
    /// A line that is no pair, a bad value, or an unknown `fulmar.*` key.
    pub fn apply_properties(&mut self, name: &str, text: &str) -> Result<(), ConfigError> {
        for (line, pair) in logical_lines(text) {
            let source = Source::File {
                path: name.to_owned(),
                line,
            };
            let Some((key, value)) = split_property(&pair) else {
                return Err(ConfigError::NotAPair {
                    origin: source.to_string(),
                    text: pair,
                });
            };
            match Setting::index_of(key) {
                Some(row) => self.put(row, value, source)?,
                None if key.starts_with("fulmar.") => return Err(unknown(&source, key)),
                None => self.warn(format!("{source}: there is no setting {key}; it is ignored")),
            }
        }
        Ok(())
    }

    /// Applies the argument of one `-D` option, `key=value`.
    ///
    /// # Errors
    /// No pair, an unknown key, or a bad value.
    pub fn define(&mut self, pair: &str) -> Result<(), ConfigError> {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(ConfigError::NotAPair {
                origin: "-D".to_owned(),
                text: pair.to_owned(),
            });
        };
        self.apply(key, value, Source::Define)
    }

    /// Applies a command-line option such as `--dir` to a setting.
    ///
    /// # Errors
    /// An unknown key or a bad value.
    pub fn option(&mut self, option: &str, key: &str, value: &str) -> Result<(), ConfigError> {
        self.apply(key, value, Source::Option(option.to_owned()))
    }

    /// Sets a value from a program, by key and text. Wins over every other source.
    ///
    /// # Errors
    /// An unknown key or a bad value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        self.apply(key, value, Source::Program)
    }

    /// Changes values from a program, as fields. Wins over every other source. Bounds are checked by
    /// [`DriverSettings::conclude`].
    pub fn edit(&mut self, change: impl FnOnce(&mut DriverValues)) {
        let before = self.values.clone();
        change(&mut self.values);
        for (row, source) in TABLE.iter().zip(&mut self.sources) {
            if (row.show)(&before) != (row.show)(&self.values) {
                *source = Source::Program;
            }
        }
    }

    /// Applies `value` to the setting `key` unless a stronger source has set it. The text is checked either way.
    ///
    /// # Errors
    /// An unknown key or a bad value.
    pub fn apply(&mut self, key: &str, value: &str, source: Source) -> Result<(), ConfigError> {
        let row = Setting::index_of(key).ok_or_else(|| unknown(&source, key))?;
        self.put(row, value, source)
    }

    /// What was noticed so far and by the combination of settings.
    #[must_use]
    pub fn warnings(&self) -> Vec<ConfigWarning> {
        let remarks = context::remarks(&self.values).into_iter().map(ConfigWarning);
        self.warnings.iter().cloned().chain(remarks).collect()
    }

    /// The values as they stand, not yet checked against each other.
    #[must_use]
    pub fn values(&self) -> DriverValues {
        self.effective().0
    }

    /// Every setting with its effective value and where that came from, in the order of the table.
    #[must_use]
    pub fn explain(&self) -> Vec<Row> {
        let (values, sources) = self.effective();
        let defaults = DriverValues::defaults();
        let rows = TABLE.iter().zip(sources);
        rows.map(|(row, source)| Row {
            key: row.key,
            env_name: row.env_name(),
            value: (row.show)(&values),
            source,
            default: (row.show)(&defaults),
            unit: (row.unit)(),
            bounds: (row.bounds)(),
            doc: row.doc(),
        })
        .collect()
    }

    /// Checks everything and closes the settings.
    ///
    /// # Errors
    /// A value outside its bounds, or two settings that contradict each other.
    pub fn conclude(&self) -> Result<DriverContext, ConfigError> {
        let (values, sources) = self.effective();
        for (row, source) in TABLE.iter().zip(sources) {
            (row.check)(&values).map_err(|reason| ConfigError::BadValue {
                origin: source.to_string(),
                key: row.key.to_owned(),
                value: (row.show)(&values),
                reason,
            })?;
        }
        DriverContext::conclude(values)
    }

    fn put(&mut self, row: usize, value: &str, source: Source) -> Result<(), ConfigError> {
        let setting = &TABLE[row];
        let mut values = self.values.clone();
        let note = (setting.set)(&mut values, value.trim()).map_err(|reason| ConfigError::BadValue {
            origin: source.to_string(),
            key: setting.key.to_owned(),
            value: value.to_owned(),
            reason,
        })?;
        if source.strength() < self.sources[row].strength() {
            return Ok(());
        }
        if let Some(note) = note {
            self.warn(format!("{source}: {}={}: {note}", setting.key, value.trim()));
        }
        self.values = values;
        self.sources[row] = source;
        Ok(())
    }

    fn warn(&mut self, text: String) {
        self.warnings.push(ConfigWarning(text));
    }

    /// Values and sources with `fulmar.idle` spread to the threads whose own strategy comes from a weaker source.
    fn effective(&self) -> (DriverValues, Vec<Source>) {
        let (mut values, mut sources) = (self.values.clone(), self.sources.clone());
        let Some(idle) = values.idle else {
            return (values, sources);
        };
        let general =
            Setting::index_of("fulmar.idle").map_or(Source::Default, |row| self.sources[row].clone());
        let threads = [
            ("aeron.conductor.idle.strategy", &mut values.conductor_idle),
            ("aeron.sender.idle.strategy", &mut values.sender_idle),
            ("aeron.receiver.idle.strategy", &mut values.receiver_idle),
            ("aeron.shared.idle.strategy", &mut values.shared_idle),
            (
                "aeron.sharednetwork.idle.strategy",
                &mut values.sharednetwork_idle,
            ),
        ];
        for (key, own) in threads {
            if let Some(row) = Setting::index_of(key)
                && sources[row].strength() < general.strength()
            {
                *own = idle;
                sources[row] = general.clone();
            }
        }
        (values, sources)
    }
}

fn unknown(source: &Source, key: &str) -> ConfigError {
    let hint = if is_for_clients(key) {
        "; it is a setting of clients".to_owned()
    } else {
        nearest_key(key).map_or_else(String::new, |near| format!("; did you mean {near}?"))
    };
    ConfigError::UnknownKey {
        origin: source.to_string(),
        key: key.to_owned(),
        hint,
    }
}

/// Whether a name belongs to clients, archives or clusters rather than the driver (spec 1.2).
fn is_for_clients(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', ".");
    ["aeron.client.", "aeron.archive.", "aeron.cluster."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || name == "aeron.pre.touch.mapped.memory"
}

/// The key that differs from `key` by the fewest edits, if they are few.
fn nearest_key(key: &str) -> Option<&'static str> {
    let key = key.to_ascii_lowercase().replace('_', ".");
    let best = TABLE
        .iter()
        .map(|row| (edit_distance(&key, row.key), row.key))
        .min()?;
    (best.0 <= 2).then_some(best.1)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > 2 {
        return usize::MAX;
    }
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (row, x) in a.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, y) in b.iter().enumerate() {
            let substituted = previous[column] + usize::from(x != y);
            current.push(substituted.min(previous[column + 1] + 1).min(current[column] + 1));
        }
        previous = current;
    }
    previous.last().copied().unwrap_or(usize::MAX)
}

/// Lines of a properties text with their numbers (from 1): without comments and blank lines, continuations joined.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, raw) in text.lines().enumerate() {
        let part = raw.trim_start();
        if open.is_none() && (part.is_empty() || part.starts_with(['#', '!'])) {
            continue;
        }
        let (number, mut joined) = open.take().unwrap_or((index + 1, String::new()));
        let backslashes = part.len() - part.trim_end_matches('\\').len();
        if backslashes % 2 == 1 {
            joined.push_str(&part[..part.len() - 1]);
            open = Some((number, joined));
        } else {
            joined.push_str(part);
            lines.push((number, joined));
        }
    }
    lines.extend(open);
    lines
}

/// Key and value of a property line, split at the first `=` or `:`.
fn split_property(pair: &str) -> Option<(&str, &str)> {
    let (key, value) = pair.split_once(['=', ':'])?;
    let key = key.trim();
    (!key.is_empty()).then_some((key, value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn source_of(settings: &DriverSettings, key: &str) -> Source {
        let row = settings.explain().into_iter().find(|row| row.key == key);
        row.expect("the key is in the table").source
    }

    fn value_of(settings: &DriverSettings, key: &str) -> String {
        let row = settings.explain().into_iter().find(|row| row.key == key);
        row.expect("the key is in the table").value
    }

    #[test]
    fn the_defaults_conclude_without_a_warning() {
        let settings = DriverSettings::defaults();
        assert_eq!(settings.warnings(), []);
        let context = settings.conclude().expect("defaults are valid");
        assert_eq!(context.values(), &DriverValues::defaults());
        assert_eq!(context.directory_mode, 0o700);
    }

    #[test]
    fn a_stronger_source_wins_in_whatever_order_they_are_applied() {
        let mut settings = DriverSettings::defaults();
        settings.option("--dir", "aeron.dir", "/option").expect("valid");
        settings.define("aeron.dir=/define").expect("valid");
        settings
            .apply_properties("a.properties", "aeron.dir=/file\naeron.mtu.length=4k\n")
            .expect("valid");
        settings
            .apply_env(env(&[("AERON_DIR", "/env"), ("AERON_MTU_LENGTH", "8k")]))
            .expect("valid");
        assert_eq!(settings.values().dir, "/option");
        assert_eq!(settings.values().mtu_length, 4096);
        assert_eq!(
            source_of(&settings, "aeron.dir"),
            Source::Option("--dir".to_owned())
        );
        let file = Source::File {
            path: "a.properties".to_owned(),
            line: 2,
        };
        assert_eq!(source_of(&settings, "aeron.mtu.length"), file);
        assert_eq!(source_of(&settings, "aeron.timer.interval"), Source::Default);
    }

    #[test]
    fn of_equal_sources_the_later_wins() {
        let mut settings = DriverSettings::defaults();
        settings.define("aeron.dir=/first").unwrap();
        settings.define("aeron.dir=/second").unwrap();
        assert_eq!(settings.values().dir, "/second");
        settings
            .apply_properties("a", "aeron.mtu.length=4k\naeron.mtu.length=8k")
            .unwrap();
        settings.apply_properties("b", "aeron.ipc.mtu.length=4k").unwrap();
        settings.apply_properties("c", "aeron.ipc.mtu.length=8k").unwrap();
        assert_eq!(
            (settings.values().mtu_length, settings.values().ipc_mtu_length),
            (8192, 8192)
        );
        assert_eq!(source_of(&settings, "aeron.ipc.mtu.length").to_string(), "c:1");
    }

    #[test]
    fn each_source_beats_exactly_those_below_it() {
        let ladder = [
            Source::Default,
            Source::Environment("AERON_DIR".to_owned()),
            Source::File {
                path: "x".to_owned(),
                line: 1,
            },
            Source::Define,
            Source::Option("--dir".to_owned()),
            Source::Program,
        ];
        for (low, weak) in ladder.iter().enumerate() {
            for strong in &ladder[low..] {
                let mut settings = DriverSettings::defaults();
                settings.apply("aeron.dir", "/strong", strong.clone()).unwrap();
                settings.apply("aeron.dir", "/weak", weak.clone()).unwrap();
                let expected = if weak == strong { "/weak" } else { "/strong" };
                assert_eq!(settings.values().dir, expected, "{weak} after {strong}");
            }
        }
    }

    #[test]
    fn a_weaker_source_gives_no_warning_but_its_bad_values_are_refused() {
        let mut settings = DriverSettings::defaults();
        settings.define("aeron.mtu.length=4k").unwrap();
        settings.apply_env(env(&[("AERON_MTU_LENGTH", "1m")])).unwrap();
        assert_eq!(settings.warnings(), []);
        assert!(settings.apply_env(env(&[("AERON_MTU_LENGTH", "many")])).is_err());
    }

    #[test]
    fn unknown_environment_variables_are_warned_about_unless_they_are_for_clients() {
        let mut settings = DriverSettings::defaults();
        settings
            .apply_env(env(&[
                ("AERON_TREM_BUFFER_LENGTH", "64k"),
                ("FULMAR_NO_SUCH", "1"),
                ("AERON_CLIENT_NAME", "ann"),
                ("AERON_CLIENT_IDLE_SLEEP_DURATION", "1ms"),
                ("AERON_ARCHIVE_DIR", "/x"),
                ("aeron_dir", "/lower"),
                ("PATH", "/bin"),
                ("AERON_DIR", ""),
            ]))
            .unwrap();
        let warnings: Vec<String> = settings.warnings().iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "environment: there is no setting AERON_TREM_BUFFER_LENGTH; it is ignored",
                "environment: there is no setting FULMAR_NO_SUCH; it is ignored"
            ]
        );
        assert_eq!(settings.values(), DriverValues::defaults());
    }

    #[test]
    fn unknown_keys_of_defines_and_options_are_refused_with_a_hint() {
        let mut settings = DriverSettings::defaults();
        let text = |outcome: Result<(), ConfigError>| outcome.unwrap_err().to_string();
        assert_eq!(
            text(settings.define("aeron.term.bufer.length=64k")),
            "-D: there is no setting aeron.term.bufer.length; did you mean aeron.term.buffer.length?"
        );
        assert_eq!(
            text(settings.define("aeron.client.name=x")),
            "-D: there is no setting aeron.client.name; it is a setting of clients"
        );
        assert_eq!(
            text(settings.define("java.io.tmpdir=/tmp")),
            "-D: there is no setting java.io.tmpdir"
        );
        assert_eq!(
            text(settings.set("nonsense", "1")),
            "program: there is no setting nonsense"
        );
        assert_eq!(
            text(settings.define("aeron.dir")),
            "-D: expected key=value, found \"aeron.dir\""
        );
        assert_eq!(settings.values(), DriverValues::defaults());
    }

    #[test]
    fn a_properties_text_has_comments_continuations_and_both_separators() {
        let text = "# comment\n\n! another\n  aeron.dir = /dev/shm/a=b  \naeron.mtu.length: 8k\r\n\
                    aeron.driver.resolver.\\\n   name = one\\\n two\n\
                    aeron.archive.dir=x\njava.home=/j\naeron.no.such=1\n";
        let mut settings = DriverSettings::defaults();
        settings.apply_properties("p", text).unwrap();
        let values = settings.values();
        assert_eq!(values.dir, "/dev/shm/a=b");
        assert_eq!(values.mtu_length, 8192);
        assert_eq!(values.driver_resolver_name, "onetwo");
        assert_eq!(
            source_of(&settings, "aeron.driver.resolver.name").to_string(),
            "p:6"
        );
        let warnings: Vec<String> = settings.warnings().iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "p:9: there is no setting aeron.archive.dir; it is ignored",
                "p:10: there is no setting java.home; it is ignored",
                "p:11: there is no setting aeron.no.such; it is ignored",
            ]
        );
    }

    #[test]
    fn a_bad_properties_text_names_the_line() {
        let bad = |text: &str| {
            let outcome = DriverSettings::defaults().apply_properties("p", text);
            outcome.unwrap_err().to_string()
        };
        assert_eq!(
            bad("#\naeron.dir"),
            "p:2: expected key=value, found \"aeron.dir\""
        );
        assert_eq!(bad("=x"), "p:1: expected key=value, found \"=x\"");
        assert_eq!(bad("fulmar.nope=1"), "p:1: there is no setting fulmar.nope");
        assert!(
            bad("aeron.mtu.length=1500").starts_with("p:1: aeron.mtu.length=1500 is not a multiple of 32")
        );
    }

    #[test]
    fn a_properties_file_is_read_and_a_missing_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("driver.properties");
        std::fs::write(&path, "aeron.threading.mode=SHARED\n").unwrap();
        let mut settings = DriverSettings::defaults();
        settings.apply_file(&path).unwrap();
        assert_eq!(value_of(&settings, "aeron.threading.mode"), "shared");
        let missing = directory.path().join("missing.properties");
        let error = settings.apply_file(&missing).unwrap_err();
        assert!(matches!(error, ConfigError::Unreadable { .. }));
        assert!(error.to_string().contains("missing.properties"), "{error}");
    }

    #[test]
    fn the_general_idle_mode_reaches_threads_without_an_equally_strong_own_one() {
        let mut settings = DriverSettings::defaults();
        settings
            .apply_env(env(&[
                ("AERON_SENDER_IDLE_STRATEGY", "noop"),
                ("FULMAR_IDLE", "yield"),
            ]))
            .unwrap();
        let values = settings.values();
        assert_eq!(values.sender_idle.to_string(), "noop");
        assert_eq!(values.conductor_idle.to_string(), "yield");
        assert_eq!(values.shared_idle.to_string(), "yield");
        settings.option("--idle", "fulmar.idle", "spin").unwrap();
        settings.set("aeron.receiver.idle.strategy", "backoff").unwrap();
        for (key, value, source) in [
            ("aeron.sender.idle.strategy", "spin", "--idle"),
            ("aeron.conductor.idle.strategy", "spin", "--idle"),
            ("aeron.sharednetwork.idle.strategy", "spin", "--idle"),
            ("aeron.receiver.idle.strategy", "backoff", "program"),
        ] {
            assert_eq!(value_of(&settings, key), value, "{key}");
            assert_eq!(source_of(&settings, key).to_string(), source, "{key}");
        }
        let context = settings.conclude().unwrap();
        assert_eq!(context.sender_idle.to_string(), "spin");
        assert_eq!(context.receiver_idle.to_string(), "backoff");
    }

    #[test]
    fn an_edit_by_the_program_is_traced_and_checked_at_the_end() {
        let mut settings = DriverSettings::defaults();
        settings.edit(|values| values.term_buffer_length = 128 * 1024);
        settings.define("aeron.term.buffer.length=64k").unwrap();
        assert_eq!(settings.values().term_buffer_length, 128 * 1024);
        assert_eq!(source_of(&settings, "aeron.term.buffer.length"), Source::Program);
        assert_eq!(source_of(&settings, "aeron.mtu.length"), Source::Default);
        settings.edit(|values| values.term_buffer_length = 100_000);
        let error = settings.conclude().unwrap_err().to_string();
        assert_eq!(
            error,
            "program: aeron.term.buffer.length=100000 is not a power of two; the next that is: 131072"
        );
        settings.edit(|values| values.term_buffer_length = 4096);
        assert!(settings.conclude().is_err());
    }
}
