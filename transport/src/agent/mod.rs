//! Agents, idle strategies, runner and invoker.
