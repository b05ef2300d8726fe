//! What a workload needs of a transport: an embedded driver, a client, publications and a subscription. The traits
//! are generic and inline, so that a workload costs each side exactly what its own calls cost.

use std::error::Error;

use crate::private_network::Namespace;

/// Any failure of set-up; a run that fails prints no figure.
pub type BenchError = Box<dyn Error + Send + Sync>;

/// What the directory of the far host's driver ends with.
pub const FAR_SUFFIX: &str = "-far";

/// Who runs the driver and the client conductor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A shared driver thread with the idle strategy `backoff`, and a client conductor thread.
    Shared,
    /// The measuring thread calls [`Side::duty_cycle`].
    Invoker,
    /// Whatever driver and client do if nobody says anything.
    Defaults,
}

/// The settings that both sides get.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Driver directory; each run has its own.
    pub dir: String,
    /// Who runs what.
    pub mode: Mode,
    /// Term length of publications in bytes.
    pub term_length: usize,
    /// The channel that messages take one way.
    pub channel: String,
    /// The channel of the way back; the same for IPC.
    pub return_channel: String,
    /// The network of the far one of two hosts, if it has one of its own.
    pub far_network: Option<Namespace>,
}

impl Settings {
    /// Both ways over shared memory.
    #[must_use]
    pub fn ipc(dir: String, mode: Mode, term_length: usize) -> Settings {
        Settings {
            dir,
            mode,
            term_length,
            channel: "aeron:ipc".to_owned(),
            return_channel: "aeron:ipc".to_owned(),
            far_network: None,
        }
    }

    /// Each way through a socket of its own, which listens at an address and port.
    #[must_use]
    pub fn udp(dir: String, mode: Mode, term_length: usize, endpoints: [String; 2]) -> Settings {
        let [channel, return_channel] =
            endpoints.map(|endpoint| format!("aeron:udp?endpoint={endpoint}|term-length={term_length}"));
        Settings {
            channel,
            return_channel,
            ..Settings::ipc(dir, mode, term_length)
        }
    }

    /// The same for the far one of two hosts: in its network, and with a driver directory of its own.
    ///
    /// # Errors
    /// The calling thread can not be moved to that network.
    pub fn enter_far_host(&self) -> Result<Settings, BenchError> {
        if let Some(network) = &self.far_network {
            network.enter()?;
        }
        Ok(Settings {
            dir: format!("{}{FAR_SUFFIX}", self.dir),
            ..self.clone()
        })
    }
}

/// What was received. Both sides do this same work per message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Messages so far.
    pub messages: u64,
    /// Wrapping sum of the first eight bytes of each message: proves that the payload was read.
    pub checksum: u64,
    /// The first eight bytes of the last message.
    pub last: u64,
}

impl Tally {
    /// Counts one message by its first word.
    #[inline(always)]
    pub fn on_message(&mut self, first_word: u64) {
        self.messages += 1;
        self.checksum = self.checksum.wrapping_add(first_word);
        self.last = first_word;
    }
}

/// One embedded driver with one client.
pub trait Side: Sized {
    /// Concurrent publication.
    type Concurrent: Publisher;
    /// Exclusive publication.
    type Exclusive: Publisher;
    /// Exclusive publication whose messages are claimed, written in place and committed.
    type Claims: Publisher;
    /// Subscription.
    type Subscriber: Subscriber;

    /// Starts driver and client.
    fn start(settings: &Settings) -> Result<Self, BenchError>;
    /// Adds a concurrent publication.
    fn concurrent(&self, channel: &str, stream: i32) -> Result<Self::Concurrent, BenchError>;
    /// Adds an exclusive publication.
    fn exclusive(&self, channel: &str, stream: i32) -> Result<Self::Exclusive, BenchError>;
    /// Adds an exclusive publication for claims.
    fn claims(&self, channel: &str, stream: i32) -> Result<Self::Claims, BenchError>;
    /// Adds a subscription.
    fn subscriber(&self, channel: &str, stream: i32) -> Result<Self::Subscriber, BenchError>;
    /// One cycle of driver and client in [`Mode::Invoker`]; nothing otherwise.
    fn duty_cycle(&self);
    /// One cycle of the driver alone in [`Mode::Invoker`]; nothing otherwise.
    fn drive(&self);
}

/// Sends messages.
pub trait Publisher: Send {
    /// Offers once; whether the message was accepted.
    fn offer(&mut self, message: &[u8]) -> bool;
    /// Offers messages of `length` bytes each that lie one behind the other; how many were accepted.
    #[inline]
    fn offer_run(&mut self, messages: &[u8], length: usize) -> usize {
        let mut accepted = 0;
        for message in messages.chunks(length) {
            if !self.offer(message) {
                break;
            }
            accepted += 1;
        }
        accepted
    }
    /// Whether a subscriber is there.
    fn is_connected(&self) -> bool;
}

/// Receives messages.
pub trait Subscriber: Send {
    /// Delivers up to `limit` fragments to `tally` and returns their number.
    fn poll(&mut self, tally: &mut Tally, limit: usize) -> usize;
    /// Delivers the whole messages of up to `limit` fragments to `tally` and returns the number of fragments.
    fn poll_assembled(&mut self, tally: &mut Tally, limit: usize) -> usize;
    /// Whether a publication is there.
    fn is_connected(&self) -> bool;
}
