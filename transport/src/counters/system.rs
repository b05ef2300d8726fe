//! The driver's own statistics: a fixed table, allocated first of all, so that counter id and system counter id are
//! the same number (shared-memory spec 5.7).
#![forbid(unsafe_code)]

use super::layout::Key;
use super::type_id;
use crate::id::CounterId;

/// Value of [`SystemCounter::ControlProtocolVersion`]: 1.0.0 as a semantic version word.
pub const CONTROL_PROTOCOL_VERSION: i64 = 0x0001_0000;

/// What is put into labels.
#[derive(Clone, Copy, Debug)]
pub struct LabelContext<'a> {
    /// Name of this driver for name resolution; empty if it has none.
    pub driver_name: &'a str,
    /// Threading mode in capitals, e.g. `DEDICATED`.
    pub threading_mode: &'a str,
    /// Threshold of the conductor's cycle time with its unit, e.g. `1000000000ns`.
    pub conductor_cycle_threshold: &'a str,
    /// Threshold of the sender's cycle time with its unit.
    pub sender_cycle_threshold: &'a str,
    /// Threshold of the receiver's cycle time with its unit.
    pub receiver_cycle_threshold: &'a str,
    /// Threshold of one name resolution with its unit.
    pub name_resolver_threshold: &'a str,
    /// Version of the driver.
    pub version: &'a str,
    /// Commit the driver was built from.
    pub commit: &'a str,
}

macro_rules! system_counters {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $label:literal;)*) => {
        /// A system counter. The discriminant is its id, and the id of its counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i32)]
        pub enum SystemCounter {
            $($(#[$doc])* $name = $id,)*
        }

        impl SystemCounter {
            /// All of them in the order of their ids, which is the order of allocation.
            pub const ALL: [SystemCounter; 46] = [$(SystemCounter::$name,)*];

            /// Label without what depends on the driver's settings.
            #[must_use]
            pub const fn base_label(self) -> &'static str {
                match self {
                    $(SystemCounter::$name => $label,)*
                }
            }
        }
    };
}

system_counters! {
    /// Bytes of datagrams sent.
    BytesSent = 0, "Bytes sent";
    /// Bytes of datagrams received.
    BytesReceived = 1, "Bytes received";
    /// Commands that the receiver's queue had no room for.
    ReceiverProxyFails = 2, "Failed offers to ReceiverProxy";
    /// Commands that the sender's queue had no room for.
    SenderProxyFails = 3, "Failed offers to SenderProxy";
    /// Commands that the conductor's queue had no room for.
    ConductorProxyFails = 4, "Failed offers to DriverConductorProxy";
    /// NAKs sent.
    NakMessagesSent = 5, "NAKs sent";
    /// NAKs received.
    NakMessagesReceived = 6, "NAKs received";
    /// Status messages sent.
    StatusMessagesSent = 7, "Status Messages sent";
    /// Status messages received.
    StatusMessagesReceived = 8, "Status Messages received";
    /// Heartbeats sent.
    HeartbeatsSent = 9, "Heartbeats sent";
    /// Heartbeats received.
    HeartbeatsReceived = 10, "Heartbeats received";
    /// Retransmits sent.
    RetransmitsSent = 11, "Retransmits sent";
    /// Data behind the flow-control window.
    FlowControlUnderRuns = 12, "Flow control under runs";
    /// Data in front of the flow-control window.
    FlowControlOverRuns = 13, "Flow control over runs";
    /// Datagrams that are no valid frames.
    InvalidPackets = 14, "Invalid packets";
    /// Observations in the error log.
    Errors = 15, "Errors";
    /// Sends that the socket took only in part or not at all.
    ShortSends = 16, "Short sends";
    /// Log files that could not be removed and are retried.
    FreeFails = 17, "Failed attempts to free log buffers";
    /// Times a sender was held back by flow control.
    SenderFlowControlLimits = 18, "Sender flow control limits, i.e. back-pressure events";
    /// Publications freed from a claim left open.
    UnblockedPublications = 19, "Unblocked Publications";
    /// Records of the to-driver ring freed from a claim left open.
    UnblockedCommands = 20, "Unblocked Control Commands";
    /// Datagrams that hint at different time-to-live settings.
    PossibleTtlAsymmetry = 21, "Possible TTL Asymmetry";
    /// State of a controllable idle strategy.
    ControllableIdleStrategy = 22, "ControllableIdleStrategy status";
    /// Gaps filled on unreliable streams.
    LossGapFills = 23, "Loss gap fills";
    /// Clients given up because they fell silent.
    ClientTimeouts = 24, "Client liveness timeouts";
    /// Names that resolved to another address than before.
    ResolutionChanges = 25, "Resolution changes";
    /// Longest conductor cycle, nanoseconds.
    ConductorMaxCycleTime = 26, "Conductor max cycle time doing its work in ns";
    /// Conductor cycles longer than the threshold.
    ConductorCycleTimeThresholdExceeded = 27, "Conductor work cycle exceeded threshold count";
    /// Longest sender cycle, nanoseconds.
    SenderMaxCycleTime = 28, "Sender max cycle time doing its work in ns";
    /// Sender cycles longer than the threshold.
    SenderCycleTimeThresholdExceeded = 29, "Sender work cycle exceeded threshold count";
    /// Longest receiver cycle, nanoseconds.
    ReceiverMaxCycleTime = 30, "Receiver max cycle time doing its work in ns";
    /// Receiver cycles longer than the threshold.
    ReceiverCycleTimeThresholdExceeded = 31, "Receiver work cycle exceeded threshold count";
    /// Longest name resolution, nanoseconds.
    NameResolverMaxTime = 32, "NameResolver max time in ns";
    /// Name resolutions longer than the threshold.
    NameResolverTimeThresholdExceeded = 33, "NameResolver exceeded threshold count";
    /// Semantic version word of the driver.
    SoftwareVersion = 34, "Aeron software";
    /// Bytes mapped now.
    BytesMapped = 35, "Bytes currently mapped";
    /// Bytes retransmitted.
    RetransmittedBytes = 36, "Retransmitted bytes";
    /// Retransmits dropped because too many were under way.
    RetransmitOverflow = 37, "Retransmit Pool Overflow count";
    /// Error frames received.
    ErrorFramesReceived = 38, "Error Frames received";
    /// Error frames sent.
    ErrorFramesSent = 39, "Error Frames sent";
    /// Publications revoked.
    PublicationsRevoked = 40, "Publications Revoked";
    /// Images of revoked publications.
    PublicationImagesRevoked = 41, "Publication Images Revoked";
    /// Images rejected by subscribers.
    ImagesRejected = 42, "Images rejected";
    /// Version of the control protocol, [`CONTROL_PROTOCOL_VERSION`].
    ControlProtocolVersion = 43, "Control protocol version";
    /// Status messages not accepted by flow control.
    StatusMessagesRejected = 44, "Status Messages rejected";
    /// Commands that the resource agent's queue had no room for.
    ResourceAgentProxyFails = 45, "Failed offers to NativeResourceAgentProxy";
}

impl SystemCounter {
    /// Index in the table and registration id of the counter.
    #[inline]
    #[must_use]
    pub const fn id(self) -> i32 {
        self as i32
    }

    /// Id of the counter.
    #[inline]
    #[must_use]
    pub const fn counter_id(self) -> CounterId {
        CounterId(self as i32)
    }

    /// Key of the counter.
    #[must_use]
    pub fn key(self) -> Key {
        type_id::system_key(self.id())
    }

    /// Label of the counter (spec 5.7).
    #[must_use]
    pub fn label(self, context: &LabelContext<'_>) -> String {
        use SystemCounter as C;
        let base = self.base_label();
        let mode = context.threading_mode;
        match self {
            C::Errors | C::SoftwareVersion => {
                format!("{base}: version={} commit={}", context.version, context.commit)
            }
            C::ResolutionChanges if !context.driver_name.is_empty() => {
                format!("{base}: driverName={}", context.driver_name)
            }
            C::ConductorMaxCycleTime | C::SenderMaxCycleTime | C::ReceiverMaxCycleTime => {
                format!("{base}: {mode}")
            }
            C::ConductorCycleTimeThresholdExceeded => {
                format!("{base}: threshold={} {mode}", context.conductor_cycle_threshold)
            }
            C::SenderCycleTimeThresholdExceeded => {
                format!("{base}: threshold={} {mode}", context.sender_cycle_threshold)
            }
            C::ReceiverCycleTimeThresholdExceeded => {
                format!("{base}: threshold={} {mode}", context.receiver_cycle_threshold)
            }
            C::NameResolverTimeThresholdExceeded => {
                format!("{base}: threshold={}", context.name_resolver_threshold)
            }
            _ => base.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: LabelContext<'static> = LabelContext {
        driver_name: "",
        threading_mode: "DEDICATED",
        conductor_cycle_threshold: "1s",
        sender_cycle_threshold: "2s",
        receiver_cycle_threshold: "3s",
        name_resolver_threshold: "5s",
        version: "1.2.3",
        commit: "abc",
    };

    #[test]
    fn the_table_is_in_the_order_of_its_ids() {
        for (index, counter) in SystemCounter::ALL.iter().enumerate() {
            assert_eq!(counter.id() as usize, index);
            assert_eq!(counter.counter_id(), CounterId(index as i32));
        }
        assert_eq!(SystemCounter::ALL.len(), 46);
        assert_eq!(CONTROL_PROTOCOL_VERSION, 65536);
    }

    #[test]
    fn settings_show_in_labels() {
        let label = |counter: SystemCounter| counter.label(&CONTEXT);
        assert_eq!(label(SystemCounter::BytesSent), "Bytes sent");
        assert_eq!(label(SystemCounter::Errors), "Errors: version=1.2.3 commit=abc");
        assert_eq!(
            label(SystemCounter::SoftwareVersion),
            "Aeron software: version=1.2.3 commit=abc"
        );
        assert_eq!(label(SystemCounter::ResolutionChanges), "Resolution changes");
        assert_eq!(
            SystemCounter::ResolutionChanges.label(&LabelContext {
                driver_name: "n1",
                ..CONTEXT
            }),
            "Resolution changes: driverName=n1"
        );
        assert_eq!(
            label(SystemCounter::ConductorMaxCycleTime),
            "Conductor max cycle time doing its work in ns: DEDICATED"
        );
        assert_eq!(
            label(SystemCounter::SenderCycleTimeThresholdExceeded),
            "Sender work cycle exceeded threshold count: threshold=2s DEDICATED"
        );
        assert_eq!(
            label(SystemCounter::NameResolverTimeThresholdExceeded),
            "NameResolver exceeded threshold count: threshold=5s"
        );
        assert_eq!(
            label(SystemCounter::ResourceAgentProxyFails),
            "Failed offers to NativeResourceAgentProxy"
        );
    }
}
