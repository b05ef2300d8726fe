//! `fulmar publish`: one message per line of standard input, or generated messages.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use fulmar::client::Offer;
use fulmar::time::SystemClock;
use serde_json::json;

use crate::args::PublishArgs;
use crate::attach::Attachment;
use crate::failure::Failure;
use crate::generated::{self, Place};
use crate::lines::{LineError, Lines};
use crate::outlet::{Outlet, Patience, Target, Writers, await_connection};
use crate::render::output::print_json;
use crate::render::progress::{Done, Progress, elapsed};
use crate::render::units::{format_bytes, format_count, format_duration, per_second, whole};
use crate::schedule::{Schedule, wait_until};
use crate::signals::{stop_requested, wait_for_input};
use crate::taken::{await_taken, release};

/// Reserved value of the frames of a last line that no newline ended; tells `subscribe` not to add one, so that a
/// stream of lines comes out byte for byte as it went in.
pub(crate) const UNTERMINATED_LINE: i64 = i64::from_le_bytes(*b"unendedl");

/// Messages between two looks at the clock and at signals.
const BATCH: u64 = 1024;
/// How often a wait for input looks at signals.
const INPUT_WAIT: Duration = Duration::from_millis(250);

pub(crate) fn run(args: &PublishArgs) -> Result<(), Failure> {
    let attachment = Attachment::new(&args.attach, "fulmar publish")?;
    let target = Target {
        channel: args.stream.channel.clone(),
        stream: args.stream.stream,
    };
    let outlet = Outlet::add(attachment.client(), &target, Writers::of_flag(args.exclusive))?;
    let patience = Patience::new(target.clone(), args.connect_timeout);
    await_connection(
        args.connect_timeout,
        &format!("a subscriber on {target}"),
        || outlet.is_connected(),
        || patience.no_subscriber(),
    )
    .map_err(|failure| attachment.explain(failure))?;
    let started = SystemClock.nanos();
    let mut publisher = Publisher {
        outlet,
        patience,
        schedule: args.rate.map(|rate| Schedule::new(started, rate)),
        progress: Progress::start("published", started),
        done: Done::default(),
    };
    let outcome = match args.generate {
        Some(count) => publisher.generate(count, args.length),
        None => publisher.publish_lines(),
    };
    let time = elapsed(started, SystemClock.nanos());
    let done = publisher.done;
    outcome.map_err(|failure| attachment.explain(after(failure, done.messages)))?;
    if done.messages > 0 {
        await_taken(attachment.client(), &publisher.outlet, &target, args.linger)
            .map_err(|failure| attachment.explain(failure))?;
    }
    let back_pressured = publisher.patience.back_pressured;
    if target.is_network() && args.attach.embedded {
        // The driver goes with this process, so what it still has to repeat must be repeated before.
        release(attachment.client(), publisher.outlet, args.linger);
    }
    report(args, done, time, back_pressured)
}

struct Publisher {
    outlet: Outlet,
    patience: Patience,
    schedule: Option<Schedule>,
    progress: Progress,
    done: Done,
}

impl Publisher {
    fn generate(&mut self, count: u64, length: usize) -> Result<(), Failure> {
        let mut message = vec![0; length];
        for number in 0..count {
            let place = if number + 1 == count {
                Place::Last
            } else {
                Place::Within
            };
            generated::write_message(&mut message, number, place);
            self.send(&message, None)?;
            if self.done.messages.is_multiple_of(BATCH) {
                #[expect(clippy::cast_precision_loss, reason = "a share for the progress bar")]
                {
                    self.done.share = Some(self.done.messages as f64 / count as f64);
                }
                self.look_around()?;
            }
        }
        Ok(())
    }

    fn publish_lines(&mut self) -> Result<(), Failure> {
        let input = io::stdin().as_fd().try_clone_to_owned().map(File::from);
        let input = input.map_err(|error| read_failure(&error))?;
        let length = input
            .metadata()
            .ok()
            .filter(|metadata| metadata.is_file() && metadata.len() > 0)
            .map(|metadata| metadata.len());
        let mut lines = Lines::new(input, self.outlet.max_message_length());
        loop {
            while !wait_for_input(INPUT_WAIT).map_err(|error| read_failure(&error))? {
                self.look_around()?;
            }
            if !lines.read_more().map_err(|error| self.line_failure(error))? {
                return Ok(());
            }
            while let Some(line) = lines.next_in_memory().map_err(|error| self.line_failure(error))? {
                let mark = if line.terminated {
                    None
                } else {
                    Some(UNTERMINATED_LINE)
                };
                self.send(lines.bytes(&line), mark)?;
            }
            #[expect(clippy::cast_precision_loss, reason = "a share for the progress bar")]
            {
                self.done.share =
                    length.map(|length| (self.done.bytes + self.done.messages) as f64 / length as f64);
            }
            self.look_around()?;
        }
    }

    #[inline]
    fn send(&mut self, message: &[u8], mark: Option<i64>) -> Result<(), Failure> {
        if let Some(schedule) = self.schedule {
            wait_until(schedule.due(self.done.messages));
            self.look_around()?;
        }
        loop {
            let outcome = match mark {
                None => self.outlet.offer(message),
                Some(reserved) => self.outlet.offer_marked(message, reserved),
            };
            if outcome.position().is_some() {
                self.patience.taken();
                self.done.messages += 1;
                self.done.bytes += message.len() as u64;
                return Ok(());
            }
            self.patience.refused(outcome, message.len())?;
            if outcome == Offer::BackPressured {
                self.progress.update(SystemClock.nanos(), self.done);
            }
        }
    }

    fn look_around(&mut self) -> Result<(), Failure> {
        if stop_requested() {
            return Err(Failure::new("interrupted"));
        }
        self.progress.update(SystemClock.nanos(), self.done);
        Ok(())
    }

    fn line_failure(&self, error: LineError) -> Failure {
        match error {
            LineError::Read(error) => read_failure(&error),
            LineError::TooLong { limit } => Failure::with_advice(
                format!(
                    "line {} is longer than the longest message, {limit} bytes",
                    self.done.messages + 1
                ),
                "use a longer term: a message may take an eighth of a term (channel parameter term-length), 16m at most",
            ),
        }
    }
}

fn read_failure(error: &io::Error) -> Failure {
    Failure::new(format!("cannot read standard input: {error}"))
}

/// Adds how far the publisher came.
fn after(failure: Failure, messages: u64) -> Failure {
    match failure {
        Failure::Failed { what, advice } if messages > 0 => Failure::Failed {
            what: format!("{what}, after {messages} messages"),
            advice,
        },
        other => other,
    }
}

fn report(args: &PublishArgs, done: Done, time: Duration, back_pressured: u64) -> Result<(), Failure> {
    let rate = per_second(done.messages, time);
    if args.json {
        return print_json(&json!({
            "messages": done.messages,
            "bytes": done.bytes,
            "seconds": time.as_secs_f64(),
            "messages_per_second": rate,
            "bytes_per_second": per_second(done.bytes, time),
            "back_pressured": back_pressured,
        }));
    }
    if args.generate.is_some() {
        eprintln!(
            "published {} messages, {} in {}: {} messages/s, {}/s",
            format_count(done.messages),
            format_bytes(done.bytes),
            format_duration(time),
            format_count(whole(rate)),
            format_bytes(whole(per_second(done.bytes, time))),
        );
    }
    Ok(())
}
