//! How results look: units, tables, JSON, dates, progress.

pub(crate) mod date;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod units;
