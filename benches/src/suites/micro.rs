//! Single primitives: the time of a call and its instructions. Ours alone: the reference's library has no such calls.
#![forbid(unsafe_code)]

use super::counted::{collected, has_valgrind};
use crate::report::Better;
use crate::side::BenchError;
use crate::suite::{Bench, FULMAR, Metric, Options, Sample};
use crate::workload::{OPERATIONS, PRIMITIVES, Primitive, timed_operations};

pub(super) fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let options = bench.options.clone();
    let case = |primitive: &Primitive| format!("micro/{}", primitive.name);
    let is_counted = PRIMITIVES.iter().any(|primitive| bench.wants(&case(primitive))) && has_valgrind(bench);
    for (index, primitive) in PRIMITIVES.iter().enumerate() {
        let case = case(primitive);
        let time = [Metric::new("time", "ns/op", Better::Lower)];
        bench.run_on(&case, &time, &[FULMAR], |_| {
            let recorder = timed_operations(primitive, options.scaled(1_000))?;
            Ok(Sample::of(recorder.quantile(0.25) / 100.0))
        });
        // A start under valgrind takes longer than all else of a smoke run.
        if is_counted && (index == 0 || !options.smoke) {
            // Counts are the same in each round.
            let rounds = std::mem::replace(&mut bench.options.rounds, 1);
            let instructions = [Metric::new("instructions", "instr/op", Better::Lower)];
            bench.run_on(&case, &instructions, &[FULMAR], |_| {
                instructions_of(&options, primitive)
            });
            bench.options.rounds = rounds;
        }
    }
    Ok(())
}

/// By difference between a long and a short run, so that set-up cancels out.
fn instructions_of(options: &Options, primitive: &Primitive) -> Result<Sample, BenchError> {
    let count = |runs: u64| {
        let arguments = ["micro", primitive.name, &runs.to_string()];
        collected(options, "*measured_operations*", &arguments)
    };
    let (short, long) = (4, 8);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let operations = (long - short) as f64 * OPERATIONS as f64;
    Ok(Sample::of((count(long)? - count(short)?) / operations))
}
