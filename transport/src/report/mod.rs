//! Error log and loss report.
