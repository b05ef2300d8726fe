//! A client of a driver: of the one in a directory, or of one started inside this process.

#![forbid(unsafe_code)]

use fulmar::client::{Client, ClientError, ClientEvent, ClientSettings, DriverLossReason, DriverState};
use fulmar::sync::Arc;
use fulmar::time::SystemClock;
use fulmar_media_driver::driver::MediaDriver;

use crate::args::AttachArgs;
use crate::failure::Failure;
use crate::inspect::{Life, directory_of, life_in, no_driver, unusable_driver};
use crate::signals::stop_requested;
use crate::waiter::Waiter;

/// A connected client and, if it is embedded, its driver. The client goes first, so that the driver sees it leave.
pub(crate) struct Attachment {
    client: Client,
    _embedded: Option<MediaDriver>,
}

impl Attachment {
    /// Connects a client of this name.
    pub(crate) fn new(args: &AttachArgs, name: &str) -> Result<Attachment, Failure> {
        let embedded = if args.embedded {
            let driver = MediaDriver::embedded()
                .map_err(|error| Failure::new(format!("cannot start a driver in this process: {error}")))?;
            Some(driver)
        } else {
            None
        };
        let dir = match &embedded {
            Some(driver) => driver.dir().to_string(),
            None => {
                let dir = directory_of(&args.at);
                await_driver(&dir, args)?;
                dir
            }
        };
        let settings = ClientSettings {
            name: name.into(),
            on_error: Some(Arc::new(on_error)),
            on_event: Some(on_event(dir.clone())),
            ..ClientSettings::with_dir(dir.as_str())
        };
        let client = Client::connect(settings).map_err(|error| match error {
            ClientError::DriverTimeout { reason, .. } => no_driver(&dir, &reason),
            other => unusable_driver(&dir, &other.to_string()),
        })?;
        Ok(Attachment {
            client,
            _embedded: embedded,
        })
    }

    /// `failure`, unless the driver is gone: then that is the cause, and what the user has to know.
    pub(crate) fn explain(&self, failure: Failure) -> Failure {
        let advice = || format!("start one with `fulmar driver --dir {}`", self.client.dir());
        match (self.client.driver_state(), failure) {
            (DriverState::Lost, Failure::Failed { what, .. }) => Failure::with_advice(
                format!("the media driver in {} is gone: {what}", self.client.dir()),
                advice(),
            ),
            (DriverState::Closed, Failure::Failed { what, .. }) => Failure::with_advice(
                format!(
                    "the media driver in {} gave this client up: {what}",
                    self.client.dir()
                ),
                "a client that is stopped for longer than the client liveness timeout has to start again",
            ),
            (_, failure) => failure,
        }
    }

    /// The client.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}

/// Waits until a driver lives in `dir`: a script may have started it a moment ago.
fn await_driver(dir: &str, args: &AttachArgs) -> Result<(), Failure> {
    let mut now = SystemClock.nanos();
    let deadline = now + args.driver_timeout;
    let mut waiter = Waiter::for_stream();
    loop {
        let failure = match life_in(dir) {
            Life::Alive => return Ok(()),
            Life::Gone(reason) => no_driver(dir, &reason),
            Life::Unusable(reason) => unusable_driver(dir, &reason),
        };
        if deadline.is_due(now) || stop_requested() {
            return Err(failure);
        }
        waiter.wait(now);
        now = SystemClock.nanos();
    }
}

fn on_error(error: &ClientError) {
    match error {
        // Told as events, with what happens next.
        ClientError::DriverDied
        | ClientError::DriverShutDown
        | ClientError::DriverSilent(_)
        | ClientError::ClientTimedOut(_) => {}
        other => eprintln!("fulmar: warning: {other}"),
    }
}

fn on_event(dir: String) -> Arc<dyn Fn(&ClientEvent) + Send + Sync> {
    Arc::new(move |event| match event {
        ClientEvent::DriverLost { reason } => {
            let how = match reason {
                DriverLossReason::Died => "died",
                DriverLossReason::ShutDown => "was shut down",
                DriverLossReason::Silent => "showed no sign of life",
                DriverLossReason::CncDamaged => "lost its CnC file",
                DriverLossReason::Replaced => "was replaced",
            };
            eprintln!(
                "fulmar: warning: the media driver in {dir} {how}; waiting for another, start one with \
                 `fulmar driver --dir {dir}`"
            );
        }
        ClientEvent::DriverStalled => eprintln!("fulmar: warning: the media driver in {dir} does not move"),
        ClientEvent::DriverResumed => eprintln!("fulmar: the media driver in {dir} moves again"),
        ClientEvent::Reattached { .. } => eprintln!("fulmar: attached to the new media driver in {dir}"),
        ClientEvent::ClientTimedOut { .. } => eprintln!(
            "fulmar: warning: the media driver in {dir} gave this client up, because it was stopped for too long"
        ),
        _ => {}
    })
}
