//! `fulmar pong`: echoes until interrupted.

#![forbid(unsafe_code)]

use fulmar::time::SystemClock;

use crate::args::PongArgs;
use crate::attach::Attachment;
use crate::echo::{Echo, ping_target, pong_target};
use crate::failure::Failure;
use crate::signals::stop_requested;
use crate::waiter::Waiter;

pub(crate) fn run(args: &PongArgs) -> Result<(), Failure> {
    let attachment = Attachment::new(&args.attach, "fulmar pong")?;
    let mut echo = Echo::add(attachment.client(), &args.echo)?;
    eprintln!(
        "echoing {} to {}",
        ping_target(&args.echo),
        pong_target(&args.echo)
    );
    let mut waiter = Waiter::for_echo();
    while !stop_requested() {
        let fragments = echo.poll();
        let now = SystemClock.nanos();
        if fragments > 0 {
            waiter.worked(now);
        } else {
            if echo.is_closed() {
                let what = format!("the pong on {} was closed", ping_target(&args.echo));
                return Err(attachment.explain(Failure::new(what)));
            }
            waiter.wait(now);
        }
    }
    Ok(())
}
