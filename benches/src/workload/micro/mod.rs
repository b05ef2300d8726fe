//! Single primitives of the transport, each in one thread on memory of its own that stays in the caches: what a call
//! costs by itself, in time and in instructions.
//!
//! An operation that does not have the right result fails the run. What goes in and what comes out passes
//! [`black_box`], so that the compiler neither knows nor drops it; what the loop itself costs is a case of its own.
#![forbid(unsafe_code)]

mod codecs;
mod log;
mod shared;

use std::hint::black_box;

use fulmar::time::SystemClock;

use super::{Message, write_number};
use crate::recorder::Recorder;
use crate::side::BenchError;

/// Operations of one call of `measured_operations`.
pub const OPERATIONS: usize = 512;

/// A primitive that is measured alone.
pub struct Primitive {
    /// Name in tables and on command lines.
    pub name: &'static str,
    make: fn() -> Result<Box<dyn Work>, BenchError>,
}

/// All primitives, in the order of the tables.
pub const PRIMITIVES: &[Primitive] = &[
    primitive("empty loop", || each(|number| number < u64::MAX)),
    primitive("append/concurrent/32B", || log::concurrent(32)),
    primitive("append/concurrent/1024B", || log::concurrent(1024)),
    primitive("append/exclusive/32B", || log::exclusive(32)),
    primitive("append/exclusive/1024B", || log::exclusive(1024)),
    primitive("append/batch of 16/32B", || log::batch(32)),
    primitive("append/batch of 16/1024B", || log::batch(1024)),
    primitive("poll/32B", || log::poll(32)),
    primitive("poll/1024B", || log::poll(1024)),
    primitive("gap scan/0 of 120 lost", || log::gap_scan(0)),
    primitive("gap scan/1 of 120 lost", || log::gap_scan(1)),
    primitive("gap scan/16 of 120 lost", || log::gap_scan(16)),
    primitive("to-driver ring/write/64B", shared::ring_write),
    primitive("to-driver ring/read/64B", shared::ring_read),
    primitive("counters/allocate and free", shared::counter_allocate),
    primitive("counters/store", shared::counter_store),
    primitive("codec/data header/parse", codecs::data_parse),
    primitive("codec/data header/encode", codecs::data_encode),
    primitive("codec/setup/parse", codecs::setup_parse),
    primitive("codec/setup/encode", codecs::setup_encode),
    primitive("codec/status message/parse", codecs::status_message_parse),
    primitive("codec/status message/encode", codecs::status_message_encode),
    primitive("codec/nak/parse", codecs::nak_parse),
    primitive("codec/nak/encode", codecs::nak_encode),
];

const fn primitive(name: &'static str, make: fn() -> Result<Box<dyn Work>, BenchError>) -> Primitive {
    Primitive { name, make }
}

/// A primitive that is ready to be called.
trait Work {
    /// Makes room for another [`OPERATIONS`]; not measured.
    fn prepare(&mut self) -> Result<(), BenchError> {
        Ok(())
    }

    /// Calls the primitive [`OPERATIONS`] times and returns how often it did what it should.
    fn operations(&mut self) -> u64;

    /// Looks at what the operations have left behind; not measured.
    fn check(&mut self) -> Result<(), BenchError> {
        Ok(())
    }
}

/// Never inlined: counting tools find it by name.
#[inline(never)]
fn measured_operations(work: &mut dyn Work) -> u64 {
    work.operations()
}

/// [`OPERATIONS`] with their set-up and their checks.
fn run_once(work: &mut dyn Work) -> Result<i64, BenchError> {
    work.prepare()?;
    let start = SystemClock.nanos();
    let right = measured_operations(work);
    let nanos = SystemClock.nanos().since(start);
    if right != OPERATIONS as u64 {
        return Err(format!("{right} of {OPERATIONS} operations did what they should").into());
    }
    work.check()?;
    Ok(nanos)
}

/// Times of one operation in hundredths of a nanosecond, each the mean of [`OPERATIONS`]; as many again come before,
/// unrecorded. Neighbours on the machine show in the high samples, not in the low.
///
/// # Errors
/// Operations that did not do what they should.
pub fn timed_operations(primitive: &Primitive, samples: u64) -> Result<Recorder, BenchError> {
    let mut work = (primitive.make)()?;
    let mut recorder = Recorder::new();
    for sample in 0..2 * samples {
        let nanos = run_once(&mut *work)?;
        if sample >= samples {
            recorder.record(nanos * 100 / OPERATIONS as i64);
        }
    }
    Ok(recorder)
}

/// Calls the primitive of this name `runs` times [`OPERATIONS`] times; the instructions of `measured_operations` are
/// counted from outside.
///
/// # Errors
/// No primitive has this name; operations that did not do what they should.
pub fn counted_operations(name: &str, runs: u64) -> Result<u64, BenchError> {
    let primitive = PRIMITIVES.iter().find(|primitive| primitive.name == name);
    let mut work = (primitive.ok_or("unknown primitive")?.make)()?;
    for _ in 0..runs {
        run_once(&mut *work)?;
    }
    Ok(runs * OPERATIONS as u64)
}

/// A primitive that leaves nothing behind.
struct Each<F>(F);

impl<F: FnMut(u64) -> bool> Work for Each<F> {
    fn operations(&mut self) -> u64 {
        let mut right = 0;
        for number in 0..OPERATIONS as u64 {
            right += u64::from(self.0(black_box(number)));
        }
        right
    }
}

/// The work that calls `once` with a number that the compiler does not know; it says whether the result was right.
fn each(once: impl FnMut(u64) -> bool + 'static) -> Result<Box<dyn Work>, BenchError> {
    Ok(Box::new(Each(once)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_primitive_does_what_it_should_again_and_again() {
        for primitive in PRIMITIVES {
            let recorder = timed_operations(primitive, 5);
            let count = recorder.map(|recorder| recorder.histogram().len());
            assert_eq!(
                count.map_err(|error| error.to_string()),
                Ok(5),
                "{}",
                primitive.name
            );
        }
    }

    #[test]
    fn names_are_unique_and_one_that_is_not_known_is_refused() {
        for (index, primitive) in PRIMITIVES.iter().enumerate() {
            let first = PRIMITIVES.iter().position(|other| other.name == primitive.name);
            assert_eq!(first, Some(index));
        }
        assert!(counted_operations("no such thing", 1).is_err());
    }

    #[test]
    fn an_operation_that_did_nothing_fails_the_run() {
        let lazy = primitive("lazy", || each(|number| number != 7));
        let error = timed_operations(&lazy, 1).err().map(|error| error.to_string());
        assert_eq!(
            error.as_deref(),
            Some("511 of 512 operations did what they should")
        );
    }
}
