//! `fulmar subscribe`: prints, counts or verifies the messages of a stream.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Write};

use fulmar::client::{Header, Subscription};
use fulmar::log::Payload;
use fulmar::time::SystemClock;
use serde_json::{Value, json};

use super::publish::UNTERMINATED_LINE;
use crate::args::{Format, SubscribeArgs};
use crate::attach::Attachment;
use crate::failure::Failure;
use crate::outlet::{Target, refused};
use crate::render::output::Output;
use crate::render::progress::{Done, Progress};
use crate::render::table::printable;
use crate::signals::stop_requested;
use crate::verify::Verification;
use crate::waiter::Waiter;

/// Fragments per poll: enough to spread the cost of a poll, few enough to flush and look at signals in time.
const FRAGMENT_LIMIT: usize = 256;

pub(crate) fn run(args: &SubscribeArgs) -> Result<(), Failure> {
    let output = Output::open()?;
    let attachment = Attachment::new(&args.attach, "fulmar subscribe")?;
    let target = Target {
        channel: args.stream.channel.clone(),
        stream: args.stream.stream,
    };
    let mut subscription = attachment
        .client()
        .add_subscription(&target.channel, target.stream)
        .map_err(|error| refused("subscription", &target, &error))?;
    eprintln!(
        "subscribed channel={} stream={}{}",
        target.channel,
        target.stream,
        bound_to(&subscription.local_addresses())
    );
    let mut subscriber = Subscriber {
        args,
        output,
        verification: Verification::default(),
        done: Done::default(),
        message: Vec::new(),
    };
    subscriber
        .receive(&mut subscription)
        .map_err(|failure| attachment.explain(failure))?;
    subscriber.finish()
}

/// Where a network subscription listens: its channel may leave the port to the system.
fn bound_to(addresses: &[String]) -> String {
    let mut text = String::new();
    for address in addresses {
        text.push_str(" address=");
        text.push_str(&printable(address));
    }
    text
}

struct Subscriber<'a> {
    args: &'a SubscribeArgs,
    output: Output,
    verification: Verification,
    done: Done,
    /// Holds one message while it is checked or formatted.
    message: Vec<u8>,
}

impl Subscriber<'_> {
    fn receive(&mut self, subscription: &mut Subscription) -> Result<(), Failure> {
        let mut now = SystemClock.nanos();
        let mut waiter = Waiter::for_stream();
        let mut progress = Progress::start("received", now);
        if !self.args.verify && io::stdout().is_terminal() {
            progress.disable();
        }
        let mut seen_any_publication = false;
        loop {
            let fragments =
                subscription.poll(|payload, header| self.on_message(payload, header), FRAGMENT_LIMIT);
            now = SystemClock.nanos();
            if self.args.count.is_some_and(|count| self.done.messages >= count) {
                return Ok(());
            }
            if fragments > 0 {
                seen_any_publication = true;
                waiter.worked(now);
                self.output.flush_if_full()?;
            } else {
                self.output.flush()?;
                let has_publication = subscription.image_count() > 0;
                if self.args.until_end && seen_any_publication && !has_publication {
                    return Ok(());
                }
                if subscription.is_closed() {
                    return Err(Failure::new(format!(
                        "the subscription on {} stream {} was closed, after {} messages",
                        self.args.stream.channel, self.args.stream.stream, self.done.messages
                    )));
                }
                seen_any_publication |= has_publication;
                waiter.wait(now);
            }
            if stop_requested() {
                return Ok(());
            }
            progress.update(now, self.done);
        }
    }

    #[inline]
    fn on_message(&mut self, payload: Payload<'_>, header: &Header<'_>) {
        if self.args.count.is_some_and(|count| self.done.messages >= count) {
            return;
        }
        self.done.messages += 1;
        self.done.bytes += payload.len() as u64;
        if let Some(count) = self.args.count {
            #[expect(clippy::cast_precision_loss, reason = "a share for the progress bar")]
            {
                self.done.share = Some(self.done.messages as f64 / count as f64);
            }
        }
        if self.args.verify {
            self.message.clear();
            payload.append_to(&mut self.message);
            self.verification.check(header.session_id().get(), &self.message);
        } else if self.args.json {
            self.message.clear();
            payload.append_to(&mut self.message);
            let document = describe(&self.message, header, self.args.format);
            // Writing to memory does not fail, here and below.
            let _ = writeln!(self.output.buffer(), "{document}");
        } else {
            self.print(&payload, header);
        }
    }

    fn print(&mut self, payload: &Payload<'_>, header: &Header<'_>) {
        let buffer = self.output.buffer();
        match self.args.format {
            Format::Text => {
                payload.append_to(buffer);
                if header.reserved_value() == UNTERMINATED_LINE {
                    return;
                }
            }
            Format::Hex => {
                self.message.clear();
                payload.append_to(&mut self.message);
                append_hex(&self.message, buffer);
            }
            Format::Length => {
                let _ = write!(buffer, "{}", payload.len());
            }
        }
        buffer.push(b'\n');
    }

    fn finish(mut self) -> Result<(), Failure> {
        if self.args.verify {
            let outcome = self.verification.finish(self.args.until_end);
            let line = if self.args.json {
                outcome.to_json().to_string()
            } else {
                outcome.to_text()
            };
            let _ = writeln!(self.output.buffer(), "{line}");
            self.output.flush()?;
            return outcome.into_result();
        }
        self.output.flush()
    }
}

fn describe(message: &[u8], header: &Header<'_>, format: Format) -> Value {
    let mut document = json!({
        "session_id": header.session_id().get(),
        "stream_id": header.stream_id().get(),
        "position": header.position(),
        "length": message.len(),
    });
    match (format, std::str::from_utf8(message)) {
        (Format::Length, _) => {}
        (Format::Text, Ok(text)) => document["text"] = json!(text),
        (Format::Text | Format::Hex, _) => {
            let mut hex = Vec::new();
            append_hex(message, &mut hex);
            document["hex"] = json!(String::from_utf8_lossy(&hex));
        }
    }
    document
}

fn append_hex(bytes: &[u8], into: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    into.reserve(2 * bytes.len());
    for byte in bytes {
        into.push(DIGITS[usize::from(byte >> 4)]);
        into.push(DIGITS[usize::from(byte & 15)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_subscription_says_where_it_listens() {
        assert_eq!(bound_to(&[]), "");
        assert_eq!(bound_to(&["127.0.0.1:5".into()]), " address=127.0.0.1:5");
    }

    #[test]
    fn hex_is_two_lower_case_digits_per_byte() {
        let mut text = Vec::new();
        append_hex(&[0, 0x7f, 0xff], &mut text);
        assert_eq!(text, b"007fff");
    }
}
