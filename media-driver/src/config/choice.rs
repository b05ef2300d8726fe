//! Settings that choose one of a few names.

/// A setting whose value is one of a fixed list of names. Names compare without regard to letter case, and `-` is
/// read as `_`.
pub trait Choice: Copy + PartialEq + 'static {
    /// Every value with its names; the first name of a value is the one shown.
    const NAMES: &'static [(&'static str, Self)];

    /// The value that `text` names.
    #[must_use]
    fn from_name(text: &str) -> Option<Self> {
        let folded = text.trim().to_ascii_lowercase().replace('-', "_");
        Self::NAMES
            .iter()
            .find(|(name, _)| *name == folded)
            .map(|(_, value)| *value)
    }

    /// The name shown for this value.
    #[must_use]
    fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, value)| *value == self)
            .map_or("", |(name, _)| name)
    }
}

/// How the agents of the driver are spread over threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadingMode {
    /// Conductor, sender and receiver each have a thread.
    Dedicated,
    /// Sender and receiver share a thread; the conductor has its own.
    SharedNetwork,
    /// One thread runs all.
    Shared,
    /// The embedding program calls the duty cycle; no thread is started.
    Invoker,
}

impl Choice for ThreadingMode {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("dedicated", Self::Dedicated),
        ("shared_network", Self::SharedNetwork),
        ("shared", Self::Shared),
        ("invoker", Self::Invoker),
    ];
}

/// What a termination request through the to-driver ring meets (spec 13.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminationValidator {
    /// The request is ignored.
    Deny,
    /// The driver stops.
    Allow,
}

impl Choice for TerminationValidator {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("deny", Self::Deny),
        ("allow", Self::Allow),
        // The names under which Aeron's own validators are known.
        ("default_deny", Self::Deny),
        ("default_allow", Self::Allow),
    ];
}

/// Whether receivers treat a stream as a group (multicast semantics).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverGroup {
    /// As the transport says: group for multicast, single otherwise.
    Infer,
    /// Always a group.
    ForceTrue,
    /// Never a group.
    ForceFalse,
}

impl Choice for ReceiverGroup {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("infer", Self::Infer),
        ("true", Self::ForceTrue),
        ("false", Self::ForceFalse),
        ("force_true", Self::ForceTrue),
        ("force_false", Self::ForceFalse),
    ];
}

/// Which system calls move datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoBackend {
    /// The one that measured better: `sendmmsg` and `recvmmsg`.
    Auto,
    /// `sendmmsg` and `recvmmsg`.
    Mmsg,
    /// `io_uring` for receiving, where the system lets us; `sendmmsg` for sending.
    Uring,
}

impl Choice for IoBackend {
    const NAMES: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("mmsg", Self::Mmsg), ("uring", Self::Uring)];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_name_is_read_back<C: Choice + core::fmt::Debug>() {
        for (name, value) in C::NAMES {
            assert_eq!(C::from_name(name), Some(*value));
            assert_eq!(C::from_name(&name.to_uppercase().replace('_', "-")), Some(*value));
            assert_eq!(C::from_name(value.name()), Some(*value));
        }
        assert_eq!(C::from_name("nonsense"), None);
        assert_eq!(C::from_name(""), None);
    }

    #[test]
    fn choices_read_their_names_in_any_case() {
        every_name_is_read_back::<ThreadingMode>();
        every_name_is_read_back::<TerminationValidator>();
        every_name_is_read_back::<ReceiverGroup>();
        every_name_is_read_back::<IoBackend>();
    }
}
