//! The agent for slow system calls: creating, mapping and deleting files, watching processes, and
//! looking names up. The conductor never blocks because this agent does.

mod agent;
mod lookups;
mod storage;
#[cfg(test)]
mod tests;

pub use agent::ResourceAgent;
