//! The table of settings. A row gives the field of [`DriverValues`], its type, the key, the default, the kind (which
//! holds unit and bounds) and one line of documentation; everything else about a setting is derived from its row.

use fulmar::agent::IdleMode;
use fulmar::directory::default_directory;

use super::choice::{IoBackend, ReceiverGroup, TerminationValidator, ThreadingMode};
use super::kind::{Bool, Duration, Idle, Kind, Length, Name, Number, PortRange, Shape, Text, Unset};
use super::limits::{
    BROADCAST_TRAILER, CLIENTS_BUFFER_MIN, CONDUCTOR_BUFFER_MIN, COUNTERS_BUFFER_MAX, COUNTERS_BUFFER_MIN,
    DIRECTORY_NAME_MAX, DURATION_MAX, ERROR_BUFFER_MIN, FRAME_ALIGNMENT, GIB, I32_MAX, I32_MIN, KIB,
    MAX_RESEND_MAX, MIB, MICROSECOND, MILLISECOND, MTU_MAX, MTU_MIN, PAGE_SIZE_MAX, PAGE_SIZE_MIN,
    RING_TRAILER, SECOND, SECTION_ALIGNMENT, TERM_LENGTH_MAX, TERM_LENGTH_MIN,
};

/// One row of the table of settings.
pub struct Setting {
    /// The property's name, for instance `aeron.term.buffer.length`.
    pub key: &'static str,
    /// Other property names that mean the same.
    pub aliases: &'static [&'static str],
    /// As written above the field, with the space after the slashes.
    raw_doc: &'static str,
    /// The unit of a bare number, or the sort of text.
    pub unit: fn() -> &'static str,
    /// The allowed values, for people.
    pub bounds: fn() -> String,
    pub(super) set: fn(&mut DriverValues, &str) -> Result<Option<String>, String>,
    pub(super) check: fn(&DriverValues) -> Result<(), String>,
    pub(super) show: fn(&DriverValues) -> String,
}

impl Setting {
    /// The environment variable that sets this: the key in upper case with `.` as `_`.
    #[must_use]
    pub fn env_name(&self) -> String {
        self.key.to_ascii_uppercase().replace('.', "_")
    }

    /// What the setting does, in one sentence.
    #[must_use]
    pub fn doc(&self) -> &'static str {
        self.raw_doc.trim()
    }

    /// The row with this key or alias. Letter case does not matter and `_` counts as `.`, so that names of properties
    /// and of the environment can both be looked up.
    #[must_use]
    pub fn index_of(name: &str) -> Option<usize> {
        let name = canonical(name);
        TABLE.iter().position(|row| {
            canonical(row.key) == name || row.aliases.iter().any(|alias| canonical(alias) == name)
        })
    }
}

fn canonical(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace('_', ".")
}

macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $field:ident: $type:ty = $default:expr, $key:literal $(also $alias:literal)*, $kind:expr;
    )*) => {
        /// The value of every setting. Lengths are in bytes, `*_ns` in nanoseconds.
        #[derive(Clone, Debug, PartialEq)]
        pub struct DriverValues {
            $( $(#[doc = $doc])+ pub $field: $type, )*
        }

        impl DriverValues {
            /// Every setting at its built-in default. Only the default directory depends on the environment (the
            /// user's name).
            #[must_use]
            pub fn defaults() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        /// Every setting there is.
        pub static TABLE: &[Setting] = &[ $( Setting {
            key: $key,
            aliases: &[$($alias),*],
            raw_doc: concat!($($doc),+),
            unit: || Kind::<$type>::unit(&$kind),
            bounds: || Kind::<$type>::bounds(&$kind),
            set: |values, text| {
                let parsed = Kind::<$type>::parse(&$kind, text)?;
                values.$field = parsed.value;
                Ok(parsed.note)
            },
            check: |values| Kind::<$type>::check(&$kind, &values.$field),
            show: |values| Kind::<$type>::show(&$kind, &values.$field),
        }, )* ];
    };
}

const TERM_LENGTH: Length = Length {
    min: TERM_LENGTH_MIN,
    max: TERM_LENGTH_MAX,
    shape: Shape::PowerOfTwo,
};
const MTU: Length = Length {
    min: MTU_MIN,
    max: MTU_MAX,
    shape: Shape::MultipleOf(FRAME_ALIGNMENT),
};
const TERM_WINDOW: Length = Length {
    min: MTU_MIN,
    max: TERM_LENGTH_MAX / 2,
    shape: Shape::ZeroOr,
};
const SOCKET_BUFFER: Length = Length {
    min: 0,
    max: GIB,
    shape: Shape::Any,
};
const TIMEOUT: Duration = Duration::at_least(MILLISECOND);
const DELAY: Duration = Duration::at_least(0);
const CPU: Unset<Number> = Unset {
    kind: Number {
        min: 0,
        max: 4095,
        unit: "processor number",
    },
    null: "-1",
};
const ANY_I32: Number = Number {
    min: I32_MIN,
    max: I32_MAX,
    unit: "number",
};

settings! {
    // Directory.
    /// Directory of the driver's files; clients have to be given the same text.
    dir: String = default_directory(), "aeron.dir",
        Text { max: DIRECTORY_NAME_MAX, may_be_empty: false, unit: "path" };
    /// Removes the directory at start without asking whether a driver is active in it.
    dir_delete_on_start: bool = false, "aeron.dir.delete.on.start", Bool;
    /// Removes the directory after a clean stop.
    dir_delete_on_shutdown: bool = false, "aeron.dir.delete.on.shutdown", Bool;
    /// Prints a warning when the directory exists at start.
    dir_warn_if_exists: bool = false, "aeron.dir.warn.if.exists", Bool;
    /// Lets the group of the directory's owner use the driver: mode 0750 and 0660 instead of 0700 and 0600.
    dir_group: bool = false, "fulmar.dir.group", Bool;
    /// Prints every setting with its source at start.
    print_configuration: bool = false, "aeron.print.configuration", Bool;

    // Threads.
    /// How the agents are spread over threads.
    threading_mode: ThreadingMode = ThreadingMode::Dedicated, "aeron.threading.mode", Name;
    /// How every thread waits for work, unless its own idle strategy is set by the same or a stronger source.
    idle: Option<IdleMode> = None, "fulmar.idle", Unset { kind: Idle, null: "" };
    /// How the conductor's thread waits for work.
    conductor_idle: IdleMode = IdleMode::Adaptive, "aeron.conductor.idle.strategy", Idle;
    /// How the sender's thread waits for work.
    sender_idle: IdleMode = IdleMode::Adaptive, "aeron.sender.idle.strategy", Idle;
    /// How the receiver's thread waits for work.
    receiver_idle: IdleMode = IdleMode::Adaptive, "aeron.receiver.idle.strategy", Idle;
    /// How the one thread of shared mode waits for work.
    shared_idle: IdleMode = IdleMode::Adaptive, "aeron.shared.idle.strategy", Idle;
    /// How the network thread of shared-network mode waits for work.
    sharednetwork_idle: IdleMode = IdleMode::Adaptive, "aeron.sharednetwork.idle.strategy", Idle;
    /// Longest time an adaptive conductor or sender blocks in the kernel while a client is attached that can not wake
    /// it, and in shared mode always.
    idle_cap_ns: i64 = 10 * MILLISECOND, "fulmar.idle.cap",
        Duration { min: 10 * MICROSECOND, max: SECOND, bare: 1 };
    /// Processor of the conductor's thread, and of the one thread of shared mode.
    conductor_cpu_affinity: Option<u32> = None, "aeron.conductor.cpu.affinity", CPU;
    /// Processor of the sender's thread, and of the network thread of shared-network mode.
    sender_cpu_affinity: Option<u32> = None, "aeron.sender.cpu.affinity", CPU;
    /// Processor of the receiver's thread.
    receiver_cpu_affinity: Option<u32> = None, "aeron.receiver.cpu.affinity", CPU;
    /// Processor of the thread that does slow system calls.
    driver_async_executor_cpu_affinity: Option<u32> = None, "aeron.driver.async.executor.cpu.affinity", CPU;

    // Buffers of the CnC file and the loss report.
    /// Length of the command ring from clients to the driver, trailer included.
    conductor_buffer_length: usize = CONDUCTOR_BUFFER_MIN as usize, "aeron.conductor.buffer.length",
        Length { min: CONDUCTOR_BUFFER_MIN, max: GIB + RING_TRAILER, shape: Shape::PowerOfTwoPlus(RING_TRAILER) };
    /// Length of the broadcast buffer from the driver to clients, trailer included.
    clients_buffer_length: usize = CLIENTS_BUFFER_MIN as usize, "aeron.clients.buffer.length",
        Length {
            min: CLIENTS_BUFFER_MIN,
            max: GIB + BROADCAST_TRAILER,
            shape: Shape::PowerOfTwoPlus(BROADCAST_TRAILER),
        };
    /// Length of the counter values, 128 bytes each; their metadata take four times as much.
    counters_buffer_length: usize = 8 * MIB as usize, "aeron.counters.buffer.length",
        Length { min: COUNTERS_BUFFER_MIN, max: COUNTERS_BUFFER_MAX, shape: Shape::AlignedTo(SECTION_ALIGNMENT) };
    /// Length of the distinct error log.
    error_buffer_length: usize = ERROR_BUFFER_MIN as usize, "aeron.error.buffer.length",
        Length { min: ERROR_BUFFER_MIN, max: GIB, shape: Shape::AlignedTo(SECTION_ALIGNMENT) };
    /// Length of the loss report, rounded up to a page.
    loss_report_buffer_length: usize = MIB as usize, "aeron.loss.report.buffer.length",
        Length { min: PAGE_SIZE_MIN, max: GIB, shape: Shape::Any };
    /// Page size that file lengths are rounded up to.
    file_page_size: i32 = 4 * KIB as i32, "aeron.file.page.size",
        Length { min: PAGE_SIZE_MIN, max: PAGE_SIZE_MAX, shape: Shape::PowerOfTwo };

    // Logs.
    /// Length of a term of a network publication.
    term_buffer_length: i32 = 16 * MIB as i32, "aeron.term.buffer.length", TERM_LENGTH;
    /// Length of a term of an IPC publication.
    ipc_term_buffer_length: i32 = 64 * MIB as i32, "aeron.ipc.term.buffer.length", TERM_LENGTH;
    /// Creates logs sparse; off means that every block is allocated and touched at creation.
    term_buffer_sparse_file: bool = true, "aeron.term.buffer.sparse.file", Bool;
    /// Longest frame of a network publication, header included.
    mtu_length: i32 = 1408, "aeron.mtu.length", MTU;
    /// Longest frame of an IPC publication, header included.
    ipc_mtu_length: i32 = 1408, "aeron.ipc.mtu.length", MTU;
    /// How far a network publisher may be ahead of what has been sent and of its spies; 0 means half a term.
    publication_term_window_length: i32 = 0, "aeron.publication.term.window.length", TERM_WINDOW;
    /// How far an IPC publisher may be ahead of its subscribers; 0 means half a term.
    ipc_publication_term_window_length: i32 = 0, "aeron.ipc.publication.term.window.length", TERM_WINDOW;
    /// Compares the space left in the directory with each new log before creating it.
    perform_storage_checks: bool = true, "aeron.perform.storage.checks", Bool;
    /// Space left in the directory at which a warning is logged.
    low_file_store_warning_threshold: u64 = 160 * MIB as u64, "aeron.low.file.store.warning.threshold",
        Length { min: 0, max: i64::MAX, shape: Shape::Any };
    /// Most bytes that all logs together may take; a log beyond it is refused. 0 means no limit.
    log_budget: u64 = 0, "fulmar.log.budget", Length { min: 0, max: i64::MAX, shape: Shape::Any };

    // Timeouts.
    /// How old a driver's heartbeat may be before the driver counts as gone.
    driver_timeout_ns: i64 = 10 * SECOND, "aeron.driver.timeout",
        Duration { min: MILLISECOND, max: DURATION_MAX, bare: MILLISECOND };
    /// How often the conductor checks clients and streams and stores its heartbeat.
    timer_interval_ns: i64 = SECOND, "aeron.timer.interval", TIMEOUT;
    /// How long a client may be silent before its resources are taken away.
    client_liveness_timeout_ns: i64 = 10 * SECOND, "aeron.client.liveness.timeout", TIMEOUT;
    /// How long a publisher may block a stream before the driver unblocks it.
    publication_unblock_timeout_ns: i64 = 15 * SECOND, "aeron.publication.unblock.timeout", TIMEOUT;
    /// Unblocks at once when the operating system says that the blocking client is dead.
    early_unblock: bool = true, "fulmar.unblock.early", Bool;
    /// How long a drained publication is kept.
    publication_linger_timeout_ns: i64 = 5 * SECOND, "aeron.publication.linger.timeout", DELAY;
    /// How long a publication stays connected without a status message.
    publication_connection_timeout_ns: i64 = 5 * SECOND, "aeron.publication.connection.timeout", TIMEOUT;
    /// How long an image lives without a packet, and the cool-down of a rejected IPC image.
    image_liveness_timeout_ns: i64 = 10 * SECOND, "aeron.image.liveness.timeout", TIMEOUT;
    /// How long the id of a freed counter is not used again.
    counters_free_to_reuse_timeout_ns: i64 = SECOND, "aeron.counters.free.to.reuse.timeout", DELAY;
    /// How long an untethered subscriber may be behind the window.
    untethered_window_limit_timeout_ns: i64 = 5 * SECOND, "aeron.untethered.window.limit.timeout", TIMEOUT;
    /// How long an untethered subscriber lingers after it was told; unset means the window limit timeout.
    untethered_linger_timeout_ns: Option<i64> = None, "aeron.untethered.linger.timeout", Unset { kind: TIMEOUT, null: "-1" };
    /// How long an untethered subscriber rests before it may join again.
    untethered_resting_timeout_ns: i64 = 10 * SECOND, "aeron.untethered.resting.timeout", TIMEOUT;

    /// Duty cycles of the conductor that take longer are counted.
    conductor_cycle_threshold_ns: i64 = SECOND, "aeron.driver.conductor.cycle.threshold", TIMEOUT;
    /// Duty cycles of the sender that take longer are counted.
    sender_cycle_threshold_ns: i64 = SECOND, "aeron.driver.sender.cycle.threshold", TIMEOUT;
    /// Duty cycles of the receiver that take longer are counted.
    receiver_cycle_threshold_ns: i64 = SECOND, "aeron.driver.receiver.cycle.threshold", TIMEOUT;
    /// Name look-ups that take longer are counted.
    name_resolver_threshold_ns: i64 = 5 * SECOND, "aeron.name.resolver.threshold", TIMEOUT;

    // Behaviour.
    /// Whether a subscriber holds publishers back when it is slow.
    tether_subscriptions: bool = true, "aeron.tether.subscriptions", Bool;
    /// Whether a stream is joined again after its image ended.
    rejoin_stream: bool = true, "aeron.rejoin.stream", Bool;
    /// Whether lost frames are asked for again; off means gaps are filled with padding.
    reliable_stream: bool = true, "aeron.reliable.stream", Bool;
    /// Whether a spy alone makes a publication connected.
    spies_simulate_connection: bool = false, "aeron.spies.simulate.connection", Bool;
    /// First of the session ids that are never chosen automatically.
    publication_reserved_session_id_low: i32 = -1, "aeron.publication.reserved.session.id.low", ANY_I32;
    /// Last of the session ids that are never chosen automatically.
    publication_reserved_session_id_high: i32 = 1000, "aeron.publication.reserved.session.id.high", ANY_I32;
    /// Whether a client may ask the driver to stop.
    driver_termination_validator: TerminationValidator = TerminationValidator::Deny,
        "aeron.driver.termination.validator", Name;
    /// Accepted so that existing environments work; no feature depends on it.
    enable_experimental_features: bool = false, "aeron.enable.experimental.features", Bool;

    // Network: windows, timers, retransmission.
    /// Receiver window before congestion control changes it.
    initial_window_length: i32 = 128 * KIB as i32, "aeron.rcv.initial.window.length",
        Length { min: MTU_MIN, max: TERM_LENGTH_MAX / 2, shape: Shape::Any };
    /// How often a receiver sends a status message without another reason.
    rcv_status_message_timeout_ns: i64 = 200 * MILLISECOND, "aeron.rcv.status.message.timeout", TIMEOUT;
    /// Duty cycles of the sender per poll of its control socket.
    send_to_status_poll_ratio: i32 = 6, "aeron.send.to.status.poll.ratio",
        Number { min: 1, max: I32_MAX, unit: "duty cycles" };
    /// Receive buffer of sockets; 0 leaves the system's default.
    socket_so_rcvbuf: i32 = 128 * KIB as i32, "aeron.socket.so_rcvbuf", SOCKET_BUFFER;
    /// Send buffer of sockets; 0 leaves the system's default.
    socket_so_sndbuf: i32 = 0, "aeron.socket.so_sndbuf", SOCKET_BUFFER;
    /// How long a look at an empty socket lets the system poll its network device, instead of waiting for the device's
    /// interrupt; 0 leaves that to the system. Needs the right to administer the network.
    socket_busy_poll: i32 = 0, "fulmar.socket.busy.poll", Number { min: 0, max: 1_000_000, unit: "us" };
    /// Time to live of multicast datagrams; 0 leaves the system's default.
    socket_multicast_ttl: i32 = 0, "aeron.socket.multicast.ttl", Number { min: 0, max: 255, unit: "hops" };
    /// How long a unicast receiver waits before it asks for lost frames.
    nak_unicast_delay_ns: i64 = MICROSECOND, "aeron.nak.unicast.delay", Duration::at_least(MICROSECOND);
    /// A unicast receiver asks again after this many times the delay.
    nak_unicast_retry_delay_ratio: i32 = 100, "aeron.nak.unicast.retry.delay.ratio",
        Number { min: 1, max: 1_000_000, unit: "times the delay" };
    /// Estimated number of receivers of a multicast group, for spreading their requests.
    nak_multicast_group_size: i32 = 10, "aeron.nak.multicast.group.size",
        Number { min: 1, max: 1_000_000, unit: "receivers" };
    /// Longest random wait of a multicast receiver before it asks for lost frames.
    nak_multicast_max_backoff_ns: i64 = 10 * MILLISECOND, "aeron.nak.multicast.max.backoff",
        Duration::at_least(MICROSECOND);
    /// Whether a receiver asks for every gap it knows at once; off means one gap after the other.
    nak_every_gap: bool = true, "fulmar.nak.every.gap", Bool;
    /// How long the sender waits before it sends lost frames again.
    retransmit_unicast_delay_ns: i64 = 0, "aeron.retransmit.unicast.delay", DELAY;
    /// How long the sender ignores repeated requests for frames it sent again.
    retransmit_unicast_linger_ns: i64 = 10 * MILLISECOND, "aeron.retransmit.unicast.linger", DELAY;
    /// Whether a unicast receiver learns how long repairs take, and asks again when one takes longer; off means fixed times.
    nak_adaptive: bool = true, "fulmar.nak.adaptive", Bool;
    /// Whether a unicast sender measures the round trip after loss, and then ignores repeated requests only for so long.
    retransmit_adaptive: bool = true, "fulmar.retransmit.adaptive", Bool;
    /// How long after its last data a stream sends the first of three early heartbeats, which show that data was lost; 0 means none.
    heartbeat_tail_ns: i64 = MILLISECOND, "fulmar.heartbeat.tail", DELAY;
    /// How long a receiver that has opened the window again waits for data before it says so once more, up to three times; 0 means not at all.
    status_message_repeat_ns: i64 = MILLISECOND, "fulmar.status.message.repeat", DELAY;
    /// Bytes that may be sent again per bytes sent and receiver; some more after a pause.
    retransmit_budget: i32 = 50, "fulmar.retransmit.budget", Number { min: 1, max: 10_000, unit: "percent" };
    /// Retransmissions of one group publication at a time.
    max_resend: i32 = 16, "aeron.max.resend", Number { min: 1, max: MAX_RESEND_MAX, unit: "retransmissions" };
    /// Retransmit window of unicast flow control, in receiver windows.
    unicast_flow_control_rrwm: i32 = 16, "aeron.unicast.flow.control.rrwm",
        Number { min: 1, max: 1_000_000, unit: "receiver windows" };
    /// Retransmit window of multicast flow control, in receiver windows.
    multicast_flow_control_rrwm: i32 = 4, "aeron.multicast.flow.control.rrwm",
        Number { min: 1, max: 1_000_000, unit: "receiver windows" };
    /// Datagrams per publication and send pass; as many as the system takes in one piece unless told otherwise.
    network_publication_max_messages_per_send: i32 = 64, "aeron.network.publication.max.messages.per.send",
        Number { min: 1, max: 64, unit: "datagrams" };
    /// Datagrams per receive call.
    receiver_io_vector_capacity: i32 = 4, "aeron.receiver.io.vector.capacity",
        Number { min: 1, max: 16, unit: "datagrams" };
    /// How datagrams are moved: `mmsg` by sendmmsg and recvmmsg, `uring` receives by io_uring where the system has it,
    /// `auto` is the one that measured better, `mmsg`.
    io: IoBackend = IoBackend::Auto, "fulmar.io", Name;

    // Network: flow and congestion control, groups.
    /// Flow control of multicast and multi-destination channels that name none.
    multicast_flow_control_strategy: String = "max".to_owned(), "aeron.multicast.flow.control.strategy"
        also "aeron.multicast.flowcontrol.supplier", Text::of("name");
    /// Accepted so that existing environments work; unicast channels always follow their one receiver.
    unicast_flow_control_strategy: String = "unicast".to_owned(), "aeron.unicast.flow.control.strategy"
        also "aeron.unicast.flowcontrol.supplier", Text::of("name");
    /// Congestion control; `default` follows the channel's `cc`.
    congestion_control_supplier: String = "default".to_owned(), "aeron.congestioncontrol.supplier",
        Text::of("name");
    /// Whether cubic congestion control measures round-trip times.
    cubic_measure_rtt: bool = false, "aeron.cubiccongestioncontrol.measurertt", Bool;
    /// Round-trip time that cubic congestion control assumes until it has measured one.
    cubic_initial_rtt_ns: i64 = 100 * MICROSECOND, "aeron.cubiccongestioncontrol.initialrtt",
        Duration::at_least(MICROSECOND);
    /// Whether the window of cubic congestion control grows at least as fast as that of TCP.
    cubic_tcp_mode: bool = false, "aeron.cubiccongestioncontrol.tcpmode", Bool;
    /// How long a silent receiver counts for flow control.
    flow_control_receiver_timeout_ns: i64 = 5 * SECOND, "aeron.flow.control.receiver.timeout", TIMEOUT;
    /// Group tag that tagged flow control follows.
    flow_control_group_tag: i64 = -1, "aeron.flow.control.group.tag",
        Number { min: i64::MIN, max: i64::MAX, unit: "number" };
    /// Receivers that have to be there before a group publication is connected.
    flow_control_group_min_size: i32 = 0, "aeron.flow.control.group.min.size"
        also "aeron.flow.control.group.receiver.min.size",
        Number { min: 0, max: I32_MAX, unit: "receivers" };
    /// Group tag that this driver's receivers send.
    receiver_group_tag: Option<i64> = None, "aeron.receiver.group.tag",
        Unset { kind: Number { min: i64::MIN, max: i64::MAX, unit: "number" }, null: "" };
    /// Whether receivers treat a stream as a group.
    receiver_group_consideration: ReceiverGroup = ReceiverGroup::Infer, "aeron.receiver.group.consideration", Name;
    /// Most sessions of one stream that a receiver takes.
    driver_stream_session_limit: i32 = i32::MAX, "aeron.driver.stream.session.limit",
        Number { min: 1, max: I32_MAX, unit: "sessions" };

    /// Most images that the receiver has at a time; SETUPs beyond are ignored.
    receiver_images_max: i32 = 1024, "fulmar.receiver.images.max", Number { min: 1, max: 1_000_000, unit: "images" };
    /// Longest term of an image that is taken without a second thought. A longer one is taken while the logs of all
    /// images together stay within what `fulmar.receiver.images.max` images of this term length take.
    receiver_term_length_max: i32 = 64 * MIB as i32, "fulmar.receiver.term.length.max", TERM_LENGTH;
    /// Listens to the data of a unicast image only if it comes from the address that announced it, while that address
    /// is heard, bounds what is sent to addresses that did not answer, and lets further sources of an endpoint prove
    /// that they are there when 64 images have sources that did not.
    receiver_source_check: bool = true, "fulmar.receiver.source.check", Bool;

    // Network: sockets and names.
    /// Ports the sender takes when a channel's port is 0; used with an explicit control address only.
    sender_wildcard_port_range: Option<(u16, u16)> = None, "aeron.sender.wildcard.port.range", PortRange;
    /// Ports the receiver takes when a channel's port is 0.
    receiver_wildcard_port_range: Option<(u16, u16)> = None, "aeron.receiver.wildcard.port.range", PortRange;
    /// Connects unicast send sockets, so that the system reports unreachable receivers.
    driver_connect: bool = true, "aeron.driver.connect", Bool;
    /// How often names of silent endpoints are looked up again; 0 means never.
    driver_reresolution_check_interval_ns: i64 = SECOND, "aeron.driver.reresolution.check.interval", DELAY;
    /// Where names are looked up: `default`, `driver` (gossip between drivers) or `csv_table`.
    name_resolver_supplier: String = "default".to_owned(), "aeron.name.resolver.supplier", Text::of("name");
    /// The table of `csv_table`: rows of name, parameter, address and address of later look-ups.
    name_resolver_init_args: String = String::new(), "aeron.name.resolver.init.args", Text::of("table");
    /// Name of this driver among drivers that resolve names for each other.
    driver_resolver_name: String = String::new(), "aeron.driver.resolver.name", Text::of("name");
    /// Address and port where this driver gossips names.
    driver_resolver_interface: String = String::new(), "aeron.driver.resolver.interface", Text::of("host:port");
    /// Neighbours to start gossiping with, separated by commas.
    driver_resolver_bootstrap_neighbor: String = String::new(), "aeron.driver.resolver.bootstrap.neighbor",
        Text::of("list of host:port");
    /// How often this driver announces its own name.
    driver_resolver_self_resolution_interval_ns: i64 = SECOND, "aeron.driver.resolver.self.resolution.interval",
        TIMEOUT;
    /// How often this driver passes on the names it knows.
    driver_resolver_neighbor_resolution_interval_ns: i64 = 2 * SECOND,
        "aeron.driver.resolver.neighbor.resolution.interval", TIMEOUT;
    /// How long a silent neighbour and the names it gave are remembered.
    driver_resolver_neighbor_timeout_ns: i64 = 10 * SECOND, "aeron.driver.resolver.neighbor.timeout", TIMEOUT;
    /// How often the bootstrap neighbours are looked up again.
    driver_resolver_bootstrap_neighbor_resolution_interval_ns: i64 = 10 * SECOND,
        "aeron.driver.resolver.bootstrap.neighbor.resolution.interval", TIMEOUT;

    // Network: loss for tests.
    /// Interceptors of incoming datagrams, separated by commas; `loss` drops some, for tests.
    udp_channel_incoming_interceptors: String = String::new(), "aeron.udp.channel.incoming.interceptors",
        Text::of("list of names");
    /// Interceptors of outgoing datagrams, separated by commas.
    udp_channel_outgoing_interceptors: String = String::new(), "aeron.udp.channel.outgoing.interceptors",
        Text::of("list of names");
    /// What the `loss` interceptor drops, as `rate=0.1|seed=1234|recv-msg-mask=0xF`.
    udp_channel_transport_bindings_loss_args: String = String::new(),
        "aeron.udp.channel.transport.bindings.loss.args", Text::of("parameters");
    /// What the `fixed-loss` interceptor drops.
    udp_channel_transport_bindings_fixed_loss_args: String = String::new(),
        "aeron.udp.channel.transport.bindings.fixed.loss.args", Text::of("parameters");
    /// What the `multi-gap-loss` interceptor drops.
    udp_channel_transport_bindings_multi_gap_loss_args: String = String::new(),
        "aeron.udp.channel.transport.bindings.multi.gap.loss.args", Text::of("parameters");
    /// File that every datagram is written to, for packet analysers; empty for none. Slow, and the file grows without a
    /// bound.
    capture: String = String::new(), "fulmar.capture", Text::of("path");
}
