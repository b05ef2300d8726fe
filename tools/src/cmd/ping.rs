//! `fulmar ping`: round trips to a pong and back, measured.
//!
//! Each message begins with a number of this run (4 bytes) and its sequence number (4 bytes). When a message was meant
//! to leave is known here, not in the message: from the schedule, or, without a rate, from just before the first try to
//! send it. Time lost because a message could not leave in time counts.

#![forbid(unsafe_code)]

use std::path::Path;
use std::time::Duration;

use fulmar::agent::AgentRunner;
use fulmar::client::{Client, ExclusivePublication, Subscription};
use fulmar::sync::Arc;
use fulmar::time::{Clock, NanoTime, SystemClock};
use fulmar_benches::output::hgrm;
use serde_json::json;

use crate::args::PingArgs;
use crate::attach::Attachment;
use crate::echo::{Echo, ping_target, pong_target};
use crate::failure::Failure;
use crate::latency::{Latencies, plot};
use crate::outlet::{Target, await_connection, refused};
use crate::render::output::{print, print_json};
use crate::render::progress::{Done, Progress, elapsed};
use crate::render::units::{format_count, format_duration, per_second};
use crate::schedule::{Schedule, doze_until};
use crate::signals::stop_requested;
use crate::waiter::Waiter;

const FRAGMENT_LIMIT: usize = 16;
/// A run is on schedule if it took no longer than this share more than it should have,
const LATE_SHARE: f64 = 0.01;
/// or this much.
const LATE_TIME: Duration = Duration::from_millis(50);

pub(crate) fn run(args: &PingArgs) -> Result<(), Failure> {
    let mut latencies = Latencies::new()?;
    let attachment = Attachment::new(&args.attach, "fulmar ping")?;
    let client = attachment.client();
    let mut pinger = Pinger::add(client, args)?;
    // Dropped before the client and the driver, which were made first.
    let _pong = args
        .attach
        .embedded
        .then(|| start_pong(client, args))
        .transpose()?;
    pinger
        .connect(args)
        .map_err(|failure| attachment.explain(failure))?;
    let outcome = pinger
        .run(args, &mut latencies)
        .map_err(|failure| attachment.explain(failure));
    if latencies.count() == 0 {
        return outcome.map(|_| ());
    }
    report(args, &latencies, outcome.as_ref().ok().copied())?;
    let taken = outcome?;
    check_schedule(args, taken)
}

fn start_pong(client: &Client, args: &PingArgs) -> Result<AgentRunner, Failure> {
    let echo = Echo::add(client, &args.echo)?;
    AgentRunner::start(
        echo,
        Box::new(Waiter::for_echo()),
        Arc::new(SystemClock) as Arc<dyn Clock>,
        "pong",
        Arc::new(|text: &str| eprintln!("fulmar: pong: {text}")),
    )
    .map_err(|error| Failure::new(format!("cannot start a thread for the pong: {error}")))
}

struct Pinger {
    publication: ExclusivePublication,
    subscription: Subscription,
    ping: Target,
    pong: Target,
    run_number: u32,
    total: u64,
    sent: u64,
    received: u64,
}

impl Pinger {
    fn add(client: &Client, args: &PingArgs) -> Result<Pinger, Failure> {
        let (ping, pong) = (ping_target(&args.echo), pong_target(&args.echo));
        let subscription = client
            .add_subscription(&pong.channel, pong.stream)
            .map_err(|error| refused("subscription", &pong, &error))?;
        let publication = client
            .add_exclusive_publication(&ping.channel, ping.stream)
            .map_err(|error| refused("publication", &ping, &error))?;
        if args.length > publication.max_message_length() {
            return Err(Failure::with_advice(
                format!(
                    "a message of {} bytes is too long for {ping}, which takes {} bytes",
                    args.length,
                    publication.max_message_length()
                ),
                "use a longer term (channel parameter term-length)",
            ));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "any 32 bits that differ between runs will do"
        )]
        let run_number = SystemClock.nanos().0 as u32 ^ std::process::id().rotate_left(16);
        Ok(Pinger {
            publication,
            subscription,
            ping,
            pong,
            run_number,
            total: args.warmup.saturating_add(args.messages),
            sent: 0,
            received: 0,
        })
    }

    fn connect(&mut self, args: &PingArgs) -> Result<(), Failure> {
        let (publication, subscription) = (&self.publication, &mut self.subscription);
        await_connection(
            args.connect_timeout,
            &format!("a pong on {}", self.ping),
            || publication.is_connected() && has_image(subscription),
            || {
                Failure::with_advice(
                    format!(
                        "no pong from {} to {} within {}",
                        self.ping,
                        self.pong,
                        format_duration(args.connect_timeout)
                    ),
                    advice(&self.ping, &self.pong),
                )
            },
        )
    }

    /// Sends and receives everything; returns how long the sending of the measured messages took.
    fn run(&mut self, args: &PingArgs, latencies: &mut Latencies) -> Result<Duration, Failure> {
        let mut message = vec![0; args.length];
        message[..4].copy_from_slice(&self.run_number.to_le_bytes());
        let mut now = SystemClock.nanos();
        let schedule = args.rate.map(|rate| Schedule::new(now, rate));
        let mut progress = Progress::start("measured", now);
        let mut waiter = Waiter::for_echo();
        let mut last_answer = now;
        // Without a schedule: when the message that is out was first tried, and how many have been tried.
        let mut intended = now;
        let mut tried = 0;
        let mut measured_from = now;
        let mut measured_to = now;
        while self.received < self.total {
            now = SystemClock.nanos();
            if self.sent < self.total && self.is_due(schedule, now) {
                if self.sent == args.warmup {
                    measured_from = schedule.map_or(now, |schedule| schedule.due(self.sent));
                }
                if tried == self.sent {
                    tried += 1;
                    intended = now;
                }
                message[4..8].copy_from_slice(&low_half(self.sent).to_le_bytes());
                if self.publication.offer(&message).is_accepted() {
                    self.sent += 1;
                    measured_to = now;
                    waiter.worked(now);
                }
            }
            let answers = self.poll(schedule, args.warmup, intended, latencies);
            if answers > 0 {
                last_answer = SystemClock.nanos();
                waiter.worked(last_answer);
                continue;
            }
            if stop_requested() {
                return Err(Failure::new(format!(
                    "interrupted after {} of {} round trips",
                    self.received, self.total
                )));
            }
            self.idle(schedule, now, last_answer, args.timeout, &mut waiter)?;
            self.show(&mut progress, now, args.length);
        }
        Ok(elapsed(measured_from, measured_to))
    }

    fn is_due(&self, schedule: Option<Schedule>, now: NanoTime) -> bool {
        match schedule {
            Some(schedule) => schedule.due(self.sent).is_due(now),
            None => self.sent == self.received,
        }
    }

    #[inline]
    fn poll(
        &mut self,
        schedule: Option<Schedule>,
        warmup: u64,
        intended: NanoTime,
        latencies: &mut Latencies,
    ) -> usize {
        let Pinger {
            subscription,
            run_number,
            sent,
            received,
            ..
        } = self;
        let mut answers = 0;
        subscription.poll(
            |payload, _header| {
                let number = payload.read_i32(4).map(i32::cast_unsigned);
                let ours = payload.read_i32(0).map(i32::cast_unsigned) == Some(*run_number);
                if !ours || *received == *sent || number != Some(low_half(*received)) {
                    return;
                }
                let now = SystemClock.nanos();
                let from = schedule.map_or(intended, |schedule| schedule.due(*received));
                if *received >= warmup {
                    latencies.record(now.since(from));
                }
                *received += 1;
                answers += 1;
            },
            FRAGMENT_LIMIT,
        );
        answers
    }

    fn idle(
        &self,
        schedule: Option<Schedule>,
        now: NanoTime,
        last_answer: NanoTime,
        timeout: Duration,
        waiter: &mut Waiter,
    ) -> Result<(), Failure> {
        if self.sent == self.received
            && let Some(schedule) = schedule
        {
            // Nothing is out: there is nothing to be late for before the next message.
            doze_until(schedule.due(self.sent), now);
            return Ok(());
        }
        let waiting_since = match schedule {
            Some(schedule) if schedule.due(self.received).since(last_answer) > 0 => {
                schedule.due(self.received)
            }
            _ => last_answer,
        };
        if (waiting_since + timeout).is_due(now) {
            return Err(Failure::with_advice(
                format!(
                    "nothing came back on {} for {}: {} messages sent, {} answered",
                    self.pong,
                    format_duration(timeout),
                    self.sent,
                    self.received
                ),
                "check that the pong still runs",
            ));
        }
        waiter.wait(now);
        Ok(())
    }

    fn show(&self, progress: &mut Progress, now: NanoTime, length: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a share for the progress bar")]
        let share = self.received as f64 / self.total as f64;
        progress.update(
            now,
            Done {
                messages: self.received,
                bytes: self.received.saturating_mul(length as u64),
                share: Some(share),
            },
        );
    }
}

/// What to try when nobody answers.
fn advice(ping: &Target, pong: &Target) -> String {
    if !ping.is_network() && !pong.is_network() {
        return "start one with `fulmar pong` on the same driver, or run `fulmar ping --embedded`".into();
    }
    format!(
        "start one with `fulmar pong --ping-channel '{}' --ping-stream {} --pong-channel '{}' --pong-stream {}` {}, or \
         run `fulmar ping --embedded`",
        ping.channel,
        ping.stream,
        pong.channel,
        pong.stream,
        ping.whereabouts()
    )
}

/// A poll lets the subscription notice new images.
fn has_image(subscription: &mut Subscription) -> bool {
    subscription.poll(|_, _| (), 1);
    subscription.is_connected()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "answers come in order, so the low half tells them apart"
)]
fn low_half(number: u64) -> u32 {
    number as u32
}

/// Prints and writes the results.
fn report(args: &PingArgs, latencies: &Latencies, sending: Option<Duration>) -> Result<(), Failure> {
    if let Some(path) = &args.hgrm {
        write_file(path, &hgrm::render(latencies.histogram()))?;
    }
    if let Some(path) = &args.plot {
        write_file(path, &plot::render(latencies, "Round-trip time", &describe(args)))?;
    }
    if args.json {
        let mut document = latencies.to_json();
        document["length"] = json!(args.length);
        document["rate"] = json!(args.rate);
        document["messages_per_second"] = json!(sending.map(|time| per_second(args.messages, time)));
        print_json(&document)
    } else {
        print(&format!("{}\n{}", describe(args), latencies.to_text()))
    }
}

fn describe(args: &PingArgs) -> String {
    let pace = args.rate.map_or("one at a time".to_string(), |rate| {
        format!("{}/s on a fixed schedule", format_count(rate))
    });
    let place = if args.attach.embedded {
        ", everything in one process"
    } else {
        ""
    };
    format!(
        "round trips of {} bytes, {pace}, {} to {}{place}",
        args.length,
        ping_target(&args.echo),
        pong_target(&args.echo)
    )
}

fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}

/// A run that could not keep its rate measured something else than what was asked for.
fn check_schedule(args: &PingArgs, sending: Duration) -> Result<(), Failure> {
    let Some(rate) = args.rate else {
        return Ok(());
    };
    #[expect(clippy::cast_precision_loss, reason = "compared within a hundredth")]
    let planned = Duration::from_secs_f64(args.messages as f64 / rate as f64);
    let allowed = planned + LATE_TIME.max(planned.mul_f64(LATE_SHARE));
    if sending <= allowed {
        return Ok(());
    }
    Err(Failure::with_advice(
        format!(
            "the run missed its rate: {} of {rate} messages per second were sent",
            per_second(args.messages, sending).round()
        ),
        "its times include the waiting; use a lower --rate or a quieter machine",
    ))
}
