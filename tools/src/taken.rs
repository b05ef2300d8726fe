//! Waiting, at the end of publishing, until the connected subscribers took everything. The driver shows how far each
//! local subscriber has read as a counter; a subscriber that leaves meanwhile is not waited for. On a network channel
//! the sender's position is waited for as well: what it passed is on its way, and the driver repeats what gets lost.

#![forbid(unsafe_code)]

use std::time::Duration;

use fulmar::client::Client;
use fulmar::counters::type_id::{SENDER_POSITION, SUBSCRIBER_POSITION, read_stream_key};
use fulmar::id::CounterId;
use fulmar::time::SystemClock;

use crate::failure::Failure;
use crate::outlet::{Outlet, Target};
use crate::render::units::{format_bytes, format_duration};
use crate::signals::stop_requested;
use crate::waiter::Waiter;

/// Waits for at most `linger`; zero does not wait at all.
pub(crate) fn await_taken(
    client: &Client,
    outlet: &Outlet,
    target: &Target,
    linger: Duration,
) -> Result<(), Failure> {
    let Some(position) = outlet.position() else {
        return Err(Failure::new(format!(
            "the publication on {target} was closed before its subscribers took everything"
        )));
    };
    let mut now = SystemClock.nanos();
    let deadline = now + linger;
    let mut waiter = Waiter::for_stream();
    while !linger.is_zero() {
        let Some(untaken) = most_untaken(client, outlet.session_id(), target.stream, position) else {
            return Err(Failure::new(format!(
                "it is not known whether the subscribers on {target} took everything"
            )));
        };
        if untaken == 0 {
            break;
        }
        if stop_requested() {
            return Err(Failure::new("interrupted while subscribers were still reading"));
        }
        if deadline.is_due(now) {
            return Err(Failure::with_advice(
                format!(
                    "a subscriber on {target} has not taken the last {} within {}",
                    format_bytes(untaken),
                    format_duration(linger)
                ),
                "it may be stopped or slow; wait longer with --linger",
            ));
        }
        waiter.wait(now);
        now = SystemClock.nanos();
    }
    Ok(())
}

/// Closes a network publication and waits for at most `linger` until its driver has let it go. A driver keeps a closed
/// publication until the receiver has said that it has everything, or for the linger of publications.
pub(crate) fn release(client: &Client, outlet: Outlet, linger: Duration) {
    let id = outlet.registration_id();
    drop(outlet);
    let mut now = SystemClock.nanos();
    let deadline = now + linger;
    let mut waiter = Waiter::for_stream();
    let is_there = || {
        client
            .counters()
            .is_some_and(|counters| counters.find_by(SENDER_POSITION, id.get()).is_some())
    };
    while is_there() && !deadline.is_due(now) && !stop_requested() {
        waiter.wait(now);
        now = SystemClock.nanos();
    }
}

/// Bytes that the slowest reader of this session has before it; `None` without a driver.
fn most_untaken(client: &Client, session_id: i32, stream_id: i32, position: i64) -> Option<u64> {
    let counters = client.counters()?;
    let mut most = 0;
    counters.for_each_value(|id: CounterId, type_id, value| {
        if (type_id != SUBSCRIBER_POSITION && type_id != SENDER_POSITION) || value >= position {
            return;
        }
        let Some(key) = counters.key(id).map(|key| read_stream_key(&key)) else {
            return;
        };
        if key.session_id.get() == session_id && key.stream_id.get() == stream_id {
            most = most.max(position.abs_diff(value));
        }
    });
    Some(most)
}
