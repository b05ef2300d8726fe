//! `fulmar driver`: runs a media driver until a signal or an allowed request stops it.

#![forbid(unsafe_code)]

use std::time::Duration;

use fulmar_media_driver::driver::{EndReason, LaunchError, MediaDriver};

use crate::args::DriverArgs;
use crate::failure::Failure;
use crate::render::output::print;
use crate::settings;
use crate::signals::stop_requested;

/// How often the wait for the driver's own end looks at signals.
const SIGNAL_CHECK: Duration = Duration::from_millis(200);

pub(crate) fn run(args: &DriverArgs) -> Result<(), Failure> {
    let settings = settings::collect(&args.settings)?;
    settings::warn(&settings);
    let context = settings.conclude().map_err(|error| settings::refuse(&error))?;
    let driver = MediaDriver::launch(context).map_err(|error| not_started(&error))?;
    let ready = format!("driver ready dir={} pid={}\n", driver.dir(), std::process::id());
    match print(&ready) {
        // Whoever started the driver may not care for its output; it serves all the same.
        Ok(()) | Err(Failure::OutputClosed) => {}
        Err(failure) => return Err(failure),
    }
    while !stop_requested() {
        match driver.wait(SIGNAL_CHECK) {
            None => {}
            Some(EndReason::TerminationRequested) => return Ok(()),
            Some(EndReason::FilesDestroyed) => {
                return Err(Failure::with_advice(
                    format!(
                        "another process destroyed the files of the driver in {}",
                        driver.dir()
                    ),
                    "start the driver again",
                ));
            }
        }
    }
    Ok(())
}

fn not_started(error: &LaunchError) -> Failure {
    match error {
        LaunchError::Settings(error) => settings::refuse(error),
        LaunchError::Directory(_) => Failure::with_advice(
            format!("cannot start a driver: {error}"),
            "use another directory (--dir), or stop the driver that runs there",
        ),
        LaunchError::Files { .. } | LaunchError::Thread(_) => {
            Failure::new(format!("cannot start a driver: {error}"))
        }
    }
}
