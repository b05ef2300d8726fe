//! `fulmar throughput`: one publisher and one subscriber, as fast as they go.

#![forbid(unsafe_code)]

use std::time::Duration;

use fulmar::agent::{Agent, AgentError, AgentRunner};
use fulmar::client::{Offer, Subscription};
use fulmar::sync::{Arc, AtomicBool, AtomicU64, Ordering};
use fulmar::time::{Clock, NanoTime, Now, SystemClock};
use serde_json::json;

use crate::args::ThroughputArgs;
use crate::attach::Attachment;
use crate::failure::Failure;
use crate::outlet::{Outlet, Target, Writers, await_connection, refused};
use crate::render::output::{print, print_json};
use crate::render::progress::{Done, Progress, elapsed};
use crate::render::units::{format_bytes, format_count, format_duration, per_second, whole};
use crate::signals::stop_requested;
use crate::waiter::Waiter;

const FRAGMENT_LIMIT: usize = 256;
/// Messages per duty cycle of the publisher.
const BURST: u64 = 256;
/// A run in which nothing arrives for this long has failed.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn run(args: &ThroughputArgs) -> Result<(), Failure> {
    let attachment = Attachment::new(&args.attach, "fulmar throughput")?;
    let client = attachment.client();
    let target = Target {
        channel: args.stream.channel.clone(),
        stream: args.stream.stream,
    };
    let mut subscription = client
        .add_subscription(&target.channel, target.stream)
        .map_err(|error| refused("subscription", &target, &error))?;
    let outlet = Outlet::add(client, &target, Writers::of_flag(args.exclusive))?;
    if args.length > outlet.max_message_length() {
        return Err(Failure::with_advice(
            format!(
                "a message of {} bytes is too long for {target}, which takes {} bytes",
                args.length,
                outlet.max_message_length()
            ),
            "use a longer term (channel parameter term-length)",
        ));
    }
    await_connection(
        args.connect_timeout,
        &format!("{target} to connect"),
        || {
            subscription.poll(|_, _| (), 1);
            outlet.is_connected() && subscription.is_connected()
        },
        || {
            Failure::new(format!(
                "{target} did not connect within {}",
                format_duration(args.connect_timeout)
            ))
        },
    )?;
    let tally = Arc::new(Tally::default());
    let source = Source {
        outlet,
        message: vec![0; args.length],
        left: args.messages,
        tally: Arc::clone(&tally),
    };
    let started = SystemClock.nanos();
    let publisher = AgentRunner::start(
        source,
        Box::new(Waiter::for_stream()),
        Arc::new(SystemClock) as Arc<dyn Clock>,
        "publisher",
        Arc::new(|text: &str| eprintln!("fulmar: publisher: {text}")),
    )
    .map_err(|error| Failure::new(format!("cannot start a thread for the publisher: {error}")))?;
    receive(args, &target, &mut subscription, &tally).map_err(|failure| attachment.explain(failure))?;
    let time = elapsed(started, SystemClock.nanos());
    drop(publisher);
    report(args, time, &tally)
}

/// What the publisher counts; read by the subscriber's thread at the end.
#[derive(Default)]
struct Tally {
    offers: AtomicU64,
    back_pressured: AtomicU64,
    failed: AtomicBool,
}

/// Publishes the same message again and again.
struct Source {
    outlet: Outlet,
    message: Vec<u8>,
    left: u64,
    tally: Arc<Tally>,
}

impl Agent for Source {
    fn role_name(&self) -> &str {
        "publisher"
    }

    fn do_work(&mut self, _now: Now) -> Result<usize, AgentError> {
        let mut offers = 0;
        let mut back_pressured = 0;
        let mut accepted = 0;
        while accepted < BURST.min(self.left) {
            offers += 1;
            match self.outlet.offer(&self.message) {
                Offer::Position(_) => accepted += 1,
                Offer::AdminAction => {}
                Offer::BackPressured => {
                    back_pressured += 1;
                    break;
                }
                Offer::NotConnected | Offer::Closed | Offer::MaxPositionExceeded | Offer::TooLong => {
                    self.tally.failed.store(true, Ordering::Release);
                    return Err(AgentError::Terminate);
                }
            }
        }
        self.left -= accepted;
        self.tally.offers.fetch_add(offers, Ordering::Relaxed);
        self.tally
            .back_pressured
            .fetch_add(back_pressured, Ordering::Relaxed);
        Ok(usize::try_from(accepted).unwrap_or(usize::MAX))
    }

    fn next_deadline(&self) -> NanoTime {
        NanoTime::never_after(SystemClock.nanos())
    }
}

fn receive(
    args: &ThroughputArgs,
    target: &Target,
    subscription: &mut Subscription,
    tally: &Tally,
) -> Result<(), Failure> {
    let mut now = SystemClock.nanos();
    let mut waiter = Waiter::for_stream();
    let mut progress = Progress::start("moved", now);
    let mut last_arrival = now;
    let mut done = Done::default();
    while done.messages < args.messages {
        let before = done.messages;
        subscription.poll(
            |payload, _header| {
                if payload.len() == args.length {
                    done.messages += 1;
                    done.bytes += payload.len() as u64;
                }
            },
            FRAGMENT_LIMIT,
        );
        now = SystemClock.nanos();
        if done.messages > before {
            last_arrival = now;
            waiter.worked(now);
        } else {
            if stop_requested() {
                return Err(Failure::new(format!(
                    "interrupted after {} messages",
                    done.messages
                )));
            }
            if tally.failed.load(Ordering::Acquire) || (last_arrival + STALL_TIMEOUT).is_due(now) {
                return Err(Failure::with_advice(
                    format!(
                        "{target} stopped after {} of {} messages",
                        done.messages, args.messages
                    ),
                    "check that the driver still runs",
                ));
            }
            waiter.wait(now);
        }
        #[expect(clippy::cast_precision_loss, reason = "a share for the progress bar")]
        {
            done.share = Some(done.messages as f64 / args.messages as f64);
        }
        progress.update(now, done);
    }
    Ok(())
}

fn report(args: &ThroughputArgs, time: Duration, tally: &Tally) -> Result<(), Failure> {
    let messages_per_second = per_second(args.messages, time);
    let bytes_per_second = per_second(args.messages.saturating_mul(args.length as u64), time);
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let share = tally.back_pressured.load(Ordering::Relaxed) as f64
        / tally.offers.load(Ordering::Relaxed).max(1) as f64;
    if args.json {
        return print_json(&json!({
            "messages": args.messages,
            "length": args.length,
            "seconds": time.as_secs_f64(),
            "messages_per_second": messages_per_second,
            "bytes_per_second": bytes_per_second,
            "back_pressure_share": share,
        }));
    }
    let rate = format_count(whole(messages_per_second));
    print(&format!(
        "{} messages of {} bytes in {}\n{rate} messages/s\n{}/s\n{:.1} % of offers back-pressured\n",
        format_count(args.messages),
        args.length,
        format_duration(time),
        format_bytes(whole(bytes_per_second)),
        share * 100.0,
    ))
}
