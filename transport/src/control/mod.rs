//! Commands and responses.
