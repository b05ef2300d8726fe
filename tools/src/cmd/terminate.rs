//! `fulmar terminate`: asks a driver to stop, and waits until it has.

#![forbid(unsafe_code)]

use fulmar::time::SystemClock;

use crate::args::TerminateArgs;
use crate::failure::Failure;
use crate::inspect::Inspection;
use crate::render::output::print;
use crate::render::units::format_duration;
use crate::signals::stop_requested;
use crate::waiter::Waiter;

pub(crate) fn run(args: &TerminateArgs) -> Result<(), Failure> {
    let inspection = Inspection::of_live(&args.at)?;
    let dir = inspection.dir();
    fulmar::client::request_termination(dir, args.token.as_bytes())
        .map_err(|error| Failure::new(format!("cannot ask the driver in {dir} to stop: {error}")))?;
    let mut now = SystemClock.nanos();
    let deadline = now + args.timeout;
    let mut waiter = Waiter::for_stream();
    while inspection.is_alive() {
        if deadline.is_due(now) || stop_requested() {
            return Err(Failure::with_advice(
                format!(
                    "the driver in {dir} was asked to stop and still runs after {}",
                    format_duration(args.timeout)
                ),
                "a driver obeys only if it was started with -D aeron.driver.termination.validator=allow",
            ));
        }
        waiter.wait(now);
        now = SystemClock.nanos();
    }
    print(&format!("driver stopped dir={dir}\n"))
}
