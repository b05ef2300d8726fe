//! `fulmar driver`: runs a media driver until a signal or an allowed request stops it.

#![forbid(unsafe_code)]

use std::time::Duration;

use fulmar_media_driver::DriverSettings;
use fulmar_media_driver::driver::{EndReason, LaunchError, MediaDriver};

use super::config;
use crate::args::DriverArgs;
use crate::failure::Failure;
use crate::render::output::print;
use crate::settings;
use crate::signals::stop_requested;

/// How often the wait for the driver's own end looks at signals.
const SIGNAL_CHECK: Duration = Duration::from_millis(200);

/// Starts anew after its files were destroyed at most this often; whoever destroys them faster than that has won.
const RESTARTS_MAX: usize = 16;

pub(crate) fn run(args: &DriverArgs) -> Result<(), Failure> {
    let mut settings = settings::collect(&args.settings)?;
    settings::warn(&settings);
    for _ in 0..=RESTARTS_MAX {
        match serve(&settings)? {
            None | Some(EndReason::TerminationRequested) => return Ok(()),
            Some(EndReason::AgentFailed) => return Err(agent_failed()),
            Some(EndReason::FilesDestroyed) => {
                eprintln!("fulmar: another process destroyed the files of the driver; it starts anew");
                // What is left in the directory is this driver's own.
                settings.edit(|values| values.dir_delete_on_start = true);
            }
        }
    }
    Err(Failure::with_advice(
        "another process keeps destroying the files of the driver".to_owned(),
        "find out who truncates files in its directory, or use another one (--dir)",
    ))
}

fn agent_failed() -> Failure {
    Failure::with_advice(
        "a part of the driver failed, and the driver stopped".to_owned(),
        "see the message above, and start it anew; its clients have to connect again",
    )
}

/// Runs one driver until a signal (`None`) or its own end.
fn serve(settings: &DriverSettings) -> Result<Option<EndReason>, Failure> {
    let context = settings.conclude().map_err(|error| settings::refuse(&error))?;
    if context.print_configuration {
        eprint!("{}", config::table(&settings.explain()));
    }
    let driver = MediaDriver::launch(context).map_err(|error| not_started(&error))?;
    let ready = format!("driver ready dir={} pid={}\n", driver.dir(), std::process::id());
    tell(&ready)?;
    while !stop_requested() {
        if let Some(reason) = driver.wait(SIGNAL_CHECK) {
            return Ok(Some(reason));
        }
    }
    // Scripts wait for this line; the stop itself is the drop of the driver.
    tell("Shutting down driver...\n")?;
    Ok(None)
}

/// Prints for whoever started the driver. They may not care for its output; it serves all the same.
fn tell(text: &str) -> Result<(), Failure> {
    match print(text) {
        Ok(()) | Err(Failure::OutputClosed) => Ok(()),
        Err(failure) => Err(failure),
    }
}

fn not_started(error: &LaunchError) -> Failure {
    match error {
        LaunchError::Settings(error) => settings::refuse(error),
        LaunchError::Directory(_) => Failure::with_advice(
            format!("cannot start a driver: {error}"),
            "use another directory (--dir), or stop the driver that runs there",
        ),
        LaunchError::Names(_) => Failure::with_advice(
            format!("cannot start a driver: {error}"),
            "check the settings aeron.driver.resolver.* and that nobody else has the port",
        ),
        LaunchError::Interceptors(_) => Failure::with_advice(
            format!("cannot start a driver: {error}"),
            "see aeron.udp.channel.* in docs/configuration.md",
        ),
        LaunchError::Capture { .. } => Failure::with_advice(
            format!("cannot start a driver: {error}"),
            "fulmar.capture names a file in a directory that exists",
        ),
        LaunchError::Files { .. } | LaunchError::Thread(_) => {
            Failure::new(format!("cannot start a driver: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_whose_agent_failed_ends_with_status_1_and_one_sentence() {
        let failure = agent_failed();
        assert_eq!(failure.exit_status(), 1);
        let text = failure.to_string();
        assert!(text.starts_with("fulmar: a part of the driver failed"), "{text}");
    }
}
