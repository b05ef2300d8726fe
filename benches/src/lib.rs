//! Benchmarks of Fulmar: a workload is written once over the traits of [`side`] and runs on every implementation of
//! them, interleaved, in one process and with the same settings, so that a ratio of two figures means something even
//! on a machine with neighbours.
//!
//! [`command::run`] is the way in; a suite is a file of [`suites`], a workload a file of [`workload`].

pub mod command;
pub mod host;
pub mod ours;
pub mod output;
pub mod private_network;
pub mod recorder;
#[cfg(feature = "peer")]
pub mod reference;
pub mod report;
pub mod schedule;
pub mod side;
pub mod suite;
pub mod suites;
pub mod table;
pub mod workload;

#[cfg(feature = "peer")]
#[path = "../../tools/peer/c_aeron.rs"]
pub mod c_aeron;
#[cfg(feature = "peer")]
#[path = "../../tools/peer/facts.rs"]
pub mod facts;

/// Calls `$function::<Side>($argument...)` of [`workload`] for the side named `$name`.
macro_rules! on_side {
    ($name:expr, $function:ident $(, $argument:expr)*) => {
        match $name {
            crate::suite::FULMAR => crate::workload::$function::<crate::ours::Ours>($($argument),*),
            #[cfg(feature = "peer")]
            crate::suite::REFERENCE => crate::workload::$function::<crate::reference::Reference>($($argument),*),
            other => Err(crate::side::BenchError::from(format!("no side {other} in this build"))),
        }
    };
}
pub(crate) use on_side;
