//! What every part of the conductor needs: counters, the way to the clients, and the error log.
#![forbid(unsafe_code)]

use fulmar::agent::AgentError;
use fulmar::cnc::CncFile;
use fulmar::control::{ErrorCode, Response, Text};
use fulmar::counters::system::{CONTROL_PROTOCOL_VERSION, LabelContext};
use fulmar::counters::{Counter, CountersManager, SystemCounter, type_id};
use fulmar::id::{ClientId, CorrelationId, CounterId, RegistrationId};
use fulmar::memory::View;
use fulmar::report::ErrorLog;
use fulmar::ring::BroadcastTransmitter;
use fulmar::time::{EpochMs, NanoTime, Now};
use fulmar::uri::value::print_duration_ns;

use crate::config::{DriverContext, ThreadingMode};
use crate::identity;

/// Error texts are cut to this, so that every response stays below what the smallest foreign client can take
/// (shared-memory spec 4.3: 4096 bytes).
const ERROR_TEXT_MAX: usize = 3072;

/// An error as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommandFailure {
    pub(super) code: ErrorCode,
    pub(super) text: String,
    /// What the error log counts it under when the text names numbers that change; the text itself otherwise.
    pub(super) key: Option<&'static str>,
}

impl CommandFailure {
    pub(super) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
            key: None,
        }
    }

    /// Counts every failure of this kind as one.
    pub(super) fn counted_as(mut self, key: &'static str) -> Self {
        self.key = Some(key);
        self
    }
}

/// A counter to be allocated.
pub(super) struct CounterSpec<'a> {
    pub(super) type_id: i32,
    pub(super) key: &'a [u8],
    pub(super) label: &'a [u8],
    pub(super) registration_id: i64,
    pub(super) owner_id: i64,
    pub(super) reference_id: i64,
}

/// Counters, responses, errors, and the times of this duty cycle.
pub(super) struct Services {
    pub(super) counters: CountersManager<View>,
    values: View,
    transmitter: BroadcastTransmitter<View>,
    error_log: ErrorLog<View>,
    system: Vec<Counter>,
    encoded: Vec<u8>,
    /// The real time of this cycle.
    pub(super) now: Now,
    /// The time that timers see: pauses of the driver itself are not in it.
    pub(super) timer: NanoTime,
}

impl Services {
    /// Takes the sections of a fresh CnC file over and allocates the system counters, so that each one's id is its
    /// system counter id (spec 1.6).
    pub(super) fn start(context: &DriverContext, cnc: &CncFile, now: Now) -> Result<Self, AgentError> {
        let values = cnc.counter_values();
        let counters = CountersManager::new(
            cnc.counter_metadata(),
            values.clone(),
            context.counters_free_to_reuse_timeout_ns,
        )
        .map_err(AgentError::failed)?;
        let transmitter = BroadcastTransmitter::new(cnc.to_clients()).map_err(AgentError::failed)?;
        let error_log = ErrorLog::new(cnc.error_log());
        let mut services = Self {
            counters,
            values,
            transmitter,
            error_log,
            system: Vec::with_capacity(SystemCounter::ALL.len()),
            encoded: Vec::with_capacity(8192),
            now,
            timer: now.nanos,
        };
        services
            .allocate_system_counters(context)
            .map_err(|failure| AgentError::failed(failure.text))?;
        Ok(services)
    }

    fn allocate_system_counters(&mut self, context: &DriverContext) -> Result<(), CommandFailure> {
        let facts = LabelContext {
            driver_name: &context.driver_resolver_name,
            threading_mode: threading_mode_label(context.threading_mode),
            conductor_cycle_threshold: &print_duration_ns(context.conductor_cycle_threshold_ns),
            sender_cycle_threshold: &print_duration_ns(context.sender_cycle_threshold_ns),
            receiver_cycle_threshold: &print_duration_ns(context.receiver_cycle_threshold_ns),
            name_resolver_threshold: &print_duration_ns(context.name_resolver_threshold_ns),
            version: identity::VERSION,
            commit: identity::COMMIT,
        };
        for counter in SystemCounter::ALL {
            let label = counter.label(&facts);
            let id = self.allocate(&CounterSpec {
                type_id: type_id::SYSTEM,
                key: &counter.key(),
                label: label.as_bytes(),
                registration_id: i64::from(counter as i32),
                owner_id: -1,
                reference_id: 0,
            })?;
            debug_assert_eq!(
                id.0, counter as i32,
                "the first counters of a fresh file are the system counters"
            );
            let value = self.counter(id);
            self.system.push(value);
        }
        self.system(SystemCounter::SoftwareVersion)
            .set_release(i64::from(identity::AERON_VERSION));
        self.system(SystemCounter::ControlProtocolVersion)
            .set_release(CONTROL_PROTOCOL_VERSION);
        let mapped = context.cnc_length as i64 + context.loss_report_buffer_length as i64;
        self.system(SystemCounter::BytesMapped).set_release(mapped);
        Ok(())
    }

    /// At the end of a run every counter is given back, the system counters too (spec 1.8).
    pub(super) fn free_all_counters(&mut self) {
        for index in 0..self.counters.capacity() {
            let id = CounterId(index as i32);
            if self.counters.is_allocated(id) {
                self.counters.free(self.now, id);
            }
        }
    }

    pub(super) fn epoch(&self) -> EpochMs {
        self.now.epoch
    }

    /// Broadcasts a response.
    pub(super) fn respond(&mut self, response: &Response<'_>) {
        self.encoded.clear();
        let type_id = response.encode(&mut self.encoded);
        if let Err(error) = self.transmitter.transmit(type_id, &self.encoded) {
            // Texts and paths are cut or bounded well below the limit; if one slipped through, it must not be silent.
            let text = format!("a response of type {type_id:#06x} was not sent: {error}");
            self.error_log
                .record(self.now.epoch, ErrorCode::GenericError.get(), &text);
            self.increment(SystemCounter::Errors);
        }
    }

    pub(super) fn succeed(&mut self, correlation_id: CorrelationId) {
        self.respond(&Response::OperationSuccess { correlation_id });
    }

    /// Answers a command with an error, and puts it on record unless it is a "try again".
    pub(super) fn fail(&mut self, correlation_id: CorrelationId, failure: &CommandFailure) {
        let text = cut(&failure.text);
        self.respond(&Response::Error {
            correlation_id,
            error_code: failure.code,
            message: Text::from(text),
        });
        if failure.code != ErrorCode::ResourceTemporarilyUnavailable {
            self.record_keyed(failure.code, failure.key.unwrap_or(text), text);
        }
    }

    /// Puts an error on record.
    pub(super) fn record_error(&mut self, code: ErrorCode, text: &str) {
        self.record_keyed(code, text, text);
    }

    /// Puts an error on record that is counted under `key`, however its text reads this time.
    pub(super) fn record_keyed(&mut self, code: ErrorCode, key: &str, text: &str) {
        self.error_log
            .record_keyed(self.now.epoch, code.get(), cut(key), cut(text));
        self.increment(SystemCounter::Errors);
    }

    pub(super) fn increment(&self, counter: SystemCounter) {
        self.add(counter, 1);
    }

    pub(super) fn add(&self, counter: SystemCounter, delta: i64) {
        if let Some(counter) = self.system.get(counter as usize) {
            counter.add_relaxed(delta);
        }
    }

    pub(super) fn system(&self, counter: SystemCounter) -> &Counter {
        &self.system[counter as usize]
    }

    /// Allocates a counter.
    pub(super) fn allocate(&mut self, spec: &CounterSpec<'_>) -> Result<CounterId, CommandFailure> {
        self.counters
            .allocate(
                self.now,
                spec.type_id,
                spec.key,
                spec.label,
                spec.registration_id,
                spec.owner_id,
                spec.reference_id,
            )
            .map_err(|error| {
                CommandFailure::new(
                    ErrorCode::GenericError,
                    format!("{error}: raise aeron.counters.buffer.length or close unused resources"),
                )
            })
    }

    pub(super) fn counter(&self, id: CounterId) -> Counter {
        Counter::new(&self.values, id).expect("an allocated counter id lies inside the values section")
    }

    pub(super) fn free_counter(&mut self, id: CounterId) {
        self.counters.free(self.now, id);
    }

    pub(super) fn counter_unavailable(&mut self, registration_id: RegistrationId, counter_id: CounterId) {
        self.respond(&Response::UnavailableCounter {
            registration_id,
            counter_id,
        });
    }

    pub(super) fn client_timed_out(&mut self, client_id: ClientId) {
        self.respond(&Response::ClientTimeout { client_id });
    }
}

/// The mode as the labels of cycle counters name it (spec 5.7).
fn threading_mode_label(mode: ThreadingMode) -> &'static str {
    match mode {
        ThreadingMode::Dedicated => "DEDICATED",
        ThreadingMode::SharedNetwork => "SHARED_NETWORK",
        ThreadingMode::Shared => "SHARED",
        ThreadingMode::Invoker => "INVOKER",
    }
}

fn cut(text: &str) -> &str {
    if text.len() <= ERROR_TEXT_MAX {
        return text;
    }
    let mut end = ERROR_TEXT_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_character_boundary() {
        let text = "ä".repeat(3000);
        let cut = cut(&text);
        assert!(cut.len() <= ERROR_TEXT_MAX && cut.len() > ERROR_TEXT_MAX - 4);
        assert!(text.starts_with(cut));
    }
}
