//! One world from its plan to its report. A panic in it, in the product or in the world itself, is a broken rule like
//! any other: it has a seed, and a line that shows it again.
#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

use super::checkers::Violation;
use super::plan::Plan;
use super::report::Report;
use super::world::World;

const RULE: &str = "no panics";

thread_local! {
    /// The last panic of this thread, whether or not somebody caught it: text and place.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs a world; `prepare` may do something to it before.
pub(super) fn run(
    seed: u64,
    plan: Plan,
    prepare: impl FnOnce(&mut World) -> Result<(), Violation>,
) -> Report {
    let scenario = plan.scenario.clone();
    let mut world = match caught(|| World::new(seed, plan)) {
        Ok(world) => world,
        Err(violation) => {
            return Report {
                seed,
                scenario,
                violation: Some(violation),
                ..Report::default()
            };
        }
    };
    let outcome = caught(|| {
        prepare(&mut world)?;
        world.run_to_end()
    });
    let report = world.report(outcome.err());
    if report
        .violation
        .as_ref()
        .is_some_and(|violation| violation.rule == RULE)
    {
        // Something may have been left half done. What would panic anew when it is dropped would end the process, and
        // with it the line that replays the world.
        core::mem::forget(world);
        return report;
    }
    let violation = caught(|| {
        drop(world);
        Ok(())
    });
    Report {
        violation: report.violation.or(violation.err()),
        ..report
    }
}

/// Runs a part of a world; a panic is the violation of a rule, also one that somebody within has caught. What the panic
/// hook says is said as ever.
///
/// Sound to go on after: what `part` was at work on is a world, which nobody shares; of it only numbers are read
/// afterwards, and locks that a panic has poisoned are taken nevertheless.
fn caught<T>(part: impl FnOnce() -> Result<T, Violation>) -> Result<T, Violation> {
    listen_to_panics();
    PANIC.take();
    let outcome = catch_unwind(AssertUnwindSafe(part));
    let noted = PANIC.take();
    match (outcome, noted) {
        (Ok(result), None) => result,
        (_, Some(text)) => Err(Violation::new(RULE, text)),
        // Somebody has replaced the hook.
        (Err(panic), None) => Err(Violation::new(RULE, text_of(&*panic).to_owned())),
    }
}

/// Notes the panics of every thread, besides what is done about them already: the place of a panic is told to nobody
/// but the hook.
fn listen_to_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            note(panic);
            before(panic);
        }));
    });
}

fn note(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(|place| format!(", at {place}"));
    let text = format!("{}{}", text_of(panic.payload()), place.unwrap_or_default());
    // A thread that ends has no place for it any more, and a world does not end there.
    let _ = PANIC.try_with(|last| last.replace(Some(text)));
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_violation_that_names_text_and_place() {
        let number = 7;
        let caught_text = caught::<()>(|| panic!("number {number}"))
            .unwrap_err()
            .to_string();
        assert!(
            caught_text.starts_with("no panics: number 7, at ") && caught_text.contains("sim/run.rs:"),
            "{caught_text}"
        );
        let broken = Violation::new("a rule", "broken".to_owned());
        assert_eq!(caught::<()>(|| Err(broken.clone())).unwrap_err(), broken);
        assert_eq!(caught(|| Ok(5)), Ok(5), "what was seen once is not seen again");
    }

    #[test]
    fn a_panic_that_the_product_swallows_is_seen_too() {
        let result = caught(|| {
            let _ = catch_unwind(|| panic!("swallowed"));
            Ok(())
        });
        let text = result.unwrap_err().to_string();
        assert!(text.starts_with("no panics: swallowed, at "), "{text}");
    }
}
