//! A progress line on standard error, shown after two seconds of work and only to a terminal.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use fulmar::time::NanoTime;

use super::units::{format_bytes, format_count, format_duration, per_second, whole};

const SHOW_AFTER: Duration = Duration::from_secs(2);
const REDRAW_EVERY: Duration = Duration::from_millis(200);
const BAR_WIDTH: usize = 24;

/// How far the work is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    /// Messages so far.
    pub(crate) messages: u64,
    /// Bytes so far.
    pub(crate) bytes: u64,
    /// Share of the whole, 0 to 1, if the whole is known.
    pub(crate) share: Option<f64>,
}

/// The progress line.
pub(crate) struct Progress {
    verb: &'static str,
    started: NanoTime,
    next_draw: NanoTime,
    enabled: bool,
    drawn: bool,
}

impl Progress {
    /// A line that says `verb`, for work that starts at `now`.
    pub(crate) fn start(verb: &'static str, now: NanoTime) -> Progress {
        Progress {
            verb,
            started: now,
            next_draw: now + SHOW_AFTER,
            enabled: io::stderr().is_terminal(),
            drawn: false,
        }
    }

    /// Never draws: for output that would be torn by a line in between.
    pub(crate) fn disable(&mut self) {
        self.enabled = false;
    }

    /// Draws if it is time to.
    #[inline]
    pub(crate) fn update(&mut self, now: NanoTime, done: Done) {
        if self.enabled && self.next_draw.is_due(now) {
            self.draw(now, done);
        }
    }

    #[cold]
    fn draw(&mut self, now: NanoTime, done: Done) {
        self.next_draw = now + REDRAW_EVERY;
        self.drawn = true;
        let elapsed = elapsed(self.started, now);
        // Nothing depends on whether the line could be drawn.
        let _ = write!(io::stderr(), "\r\x1b[K{}", line(self.verb, elapsed, done));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Time from `started` to `now`, never negative.
pub(crate) fn elapsed(started: NanoTime, now: NanoTime) -> Duration {
    Duration::from_nanos(u64::try_from(now.since(started)).unwrap_or(0))
}

fn line(verb: &str, elapsed: Duration, done: Done) -> String {
    let rate = format_count(whole(per_second(done.messages, elapsed)));
    let mut text = String::new();
    if let Some(share) = done.share {
        text.push_str(&bar(share));
    }
    text.push_str(&format!(
        "{verb} {} messages, {rate}/s, {}/s",
        format_count(done.messages),
        format_bytes(whole(per_second(done.bytes, elapsed))),
    ));
    if let Some(share) = done.share
        && share > 0.0
        && share < 1.0
    {
        let left = elapsed.mul_f64(((1.0 - share) / share).min(1e6));
        text.push_str(&format!(", {} left", format_duration(left)));
    }
    text
}

fn bar(share: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "clamped to the width of the bar"
    )]
    let filled = (share.clamp(0.0, 1.0) * BAR_WIDTH as f64) as usize;
    format!(
        "[{}{}] {:3.0}% ",
        "#".repeat(filled),
        "-".repeat(BAR_WIDTH - filled),
        share.clamp(0.0, 1.0) * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_end_gives_a_bar_and_the_time_left() {
        let done = Done {
            messages: 1_000,
            bytes: 2_048_000,
            share: Some(0.25),
        };
        let text = line("published", Duration::from_secs(10), done);
        assert!(text.starts_with("[######------------------]  25% "), "{text}");
        assert!(
            text.contains("published 1 000 messages, 100/s, 200.00 KiB/s"),
            "{text}"
        );
        assert!(text.ends_with(", 30.0s left"), "{text}");
    }

    #[test]
    fn an_unknown_end_gives_the_rate_alone() {
        let text = line("received", Duration::from_secs(1), Done::default());
        assert_eq!(text, "received 0 messages, 0/s, 0 B/s");
    }
}
