//! The command-and-control file.
