//! The driver's settings from all their sources, for the commands that run or explain a driver.

#![forbid(unsafe_code)]

use fulmar_media_driver::config::{ConfigError, DriverSettings};

use crate::args::SettingsArgs;
use crate::failure::Failure;

/// Collects environment, files, `-D` and options, in that order of strength.
pub(crate) fn collect(args: &SettingsArgs) -> Result<DriverSettings, Failure> {
    gather(args).map_err(|error| refuse(&error))
}

fn gather(args: &SettingsArgs) -> Result<DriverSettings, ConfigError> {
    let mut settings = DriverSettings::from_env()?;
    for file in &args.files {
        settings.apply_file(file)?;
    }
    for pair in &args.define {
        settings.define(pair)?;
    }
    let options = [
        ("--dir", "aeron.dir", &args.at.dir),
        ("--threading", "aeron.threading.mode", &args.threading),
        ("--idle", "fulmar.idle", &args.idle),
        ("--io", "fulmar.io", &args.io),
    ];
    for (option, key, value) in options {
        if let Some(value) = value {
            settings.option(option, key, value)?;
        }
    }
    Ok(settings)
}

/// A refused setting is wrong usage; a file that can not be read is not.
pub(crate) fn refuse(error: &ConfigError) -> Failure {
    match error {
        ConfigError::Unreadable { .. } => Failure::new(error.to_string()),
        _ => Failure::Usage(error.to_string()),
    }
}

/// Prints what was noticed while collecting.
pub(crate) fn warn(settings: &DriverSettings) {
    for warning in settings.warnings() {
        eprintln!("fulmar: warning: {warning}");
    }
}
