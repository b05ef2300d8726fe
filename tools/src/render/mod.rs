//! How results look: units, tables, JSON, dates, progress.

pub(crate) use fulmar_benches::output::date;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod units;
