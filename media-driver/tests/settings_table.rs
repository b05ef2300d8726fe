//! Every setting against the facts of the specification: its key, environment name, default, suffixes, bounds, what is
//! clamped and what is refused. The list below is written from the specification, not from the table under test.

use fulmar_media_driver::config::{ConfigError, DriverSettings, Row, Setting, Source, TABLE};

struct Expected {
    key: &'static str,
    env: &'static str,
    default: &'static str,
    /// Text, and the value it becomes.
    accepts: &'static [(&'static str, &'static str)],
    /// Text out of bounds, and the bound it becomes.
    clamps: &'static [(&'static str, &'static str)],
    /// Text that is no value.
    refuses: &'static [&'static str],
}

const BOOL_WORDS: &[(&str, &str)] = &[
    ("1", "true"),
    ("on", "true"),
    ("true", "true"),
    ("TRUE", "true"),
    ("truely", "true"),
    ("0", "false"),
    ("off", "false"),
    ("false", "false"),
    ("offline", "false"),
];
const NOT_BOOL: &[&str] = &["yes", "no", "2", "t", "-1", "enabled"];
const NOT_SIZE: &[&str] = &[
    "abc",
    "k",
    "1kb",
    "64 k",
    "1.5m",
    "0x10",
    "-1",
    "99999999999999999999",
    "9223372036854775807g",
];
const NOT_DURATION: &[&str] = &[
    "abc",
    "s",
    "5sec",
    "1 s",
    "1.5s",
    "1h",
    "-1s",
    "99999999999999999999",
    "9223372036854775807s",
];
const NOT_NUMBER: &[&str] = &["abc", "1k", "1.5", "0x1", "99999999999999999999", "--1"];
const IDLE_WORDS: &[(&str, &str)] = &[
    ("adaptive", "adaptive"),
    ("spin", "spin"),
    ("busy_spin", "spin"),
    ("yield", "yield"),
    ("yielding", "yield"),
    ("backoff", "backoff"),
    ("BACKOFF", "backoff"),
    ("org.agrona.concurrent.BusySpinIdleStrategy", "spin"),
    ("sleep", "sleep"),
    ("sleep-ns", "sleep"),
    ("sleep:2ms", "sleep:2000000ns"),
    ("noop", "noop"),
];
const NOT_IDLE: &[&str] = &["lazy", "sleep:", "sleep:0", "sleep:2s", "sleep:x", "sleep:-1"];
const SECONDS: &[(&str, &str)] = &[
    ("2s", "2s"),
    ("3000ms", "3s"),
    ("4000000us", "4s"),
    ("1500000000", "1500ms"),
    ("1500000000ns", "1500ms"),
    ("1m", "60s"),
    ("1M", "60s"),
    ("7S", "7s"),
];
const TERMS: &[(&str, &str)] = &[
    ("64k", "64k"),
    ("65536", "64k"),
    ("128K", "128k"),
    ("1m", "1m"),
    ("32M", "32m"),
    ("1g", "1g"),
    ("1G", "1g"),
];
const TERM_CLAMPS: &[(&str, &str)] = &[("0", "64k"), ("4096", "64k"), ("2g", "1g"), ("3g", "1g")];
const NOT_TERM: &[&str] = &["100000", "96k", "3m", "abc", "64kb", "-64k", ""];
const MTUS: &[(&str, &str)] = &[("64", "64"), ("1408", "1408"), ("8k", "8k"), ("65504", "65504")];
const MTU_CLAMPS: &[(&str, &str)] = &[("0", "64"), ("32", "64"), ("65536", "65504"), ("1m", "65504")];
const NOT_MTU: &[&str] = &["1500", "65", "65500", "x", "-32"];
const CENTURY: &str = "3153600000s";

const fn flag(key: &'static str, env: &'static str, default: &'static str) -> Expected {
    Expected {
        key,
        env,
        default,
        accepts: BOOL_WORDS,
        clamps: &[],
        refuses: NOT_BOOL,
    }
}

const fn idle(key: &'static str, env: &'static str) -> Expected {
    Expected {
        key,
        env,
        default: "adaptive",
        accepts: IDLE_WORDS,
        clamps: &[],
        refuses: NOT_IDLE,
    }
}

const fn cpu(key: &'static str, env: &'static str) -> Expected {
    Expected {
        key,
        env,
        default: "unset",
        accepts: &[("0", "0"), ("3", "3"), ("-1", "unset"), ("unset", "unset")],
        clamps: &[("4096", "4095"), ("-2", "0")],
        refuses: NOT_NUMBER,
    }
}

/// A timeout of at least a millisecond.
const fn timeout(key: &'static str, env: &'static str, default: &'static str) -> Expected {
    Expected {
        key,
        env,
        default,
        accepts: SECONDS,
        clamps: &[("0", "1ms"), ("1us", "1ms"), ("9223372036854775807", CENTURY)],
        refuses: NOT_DURATION,
    }
}

/// A duration that may be zero.
const fn delay(key: &'static str, env: &'static str, default: &'static str) -> Expected {
    Expected {
        key,
        env,
        default,
        accepts: &[("0", "0ns"), ("5us", "5us"), ("2s", "2s"), ("17", "17ns")],
        clamps: &[("9223372036854775807", CENTURY)],
        refuses: NOT_DURATION,
    }
}

const fn words(key: &'static str, env: &'static str, default: &'static str) -> Expected {
    Expected {
        key,
        env,
        default,
        accepts: &[("anything goes", "anything goes"), ("a=1|b=2", "a=1|b=2")],
        clamps: &[],
        refuses: &["line\u{1}break"],
    }
}

const fn socket_buffer(key: &'static str, env: &'static str, default: &'static str) -> Expected {
    Expected {
        key,
        env,
        default,
        accepts: &[("0", "0"), ("1m", "1m"), ("212992", "208k")],
        clamps: &[("2g", "1g")],
        refuses: NOT_SIZE,
    }
}

const fn number(
    key: &'static str,
    env: &'static str,
    default: &'static str,
    clamps: &'static [(&'static str, &'static str)],
) -> Expected {
    Expected {
        key,
        env,
        default,
        accepts: &[("1", "1"), ("7", "7"), ("16", "16")],
        clamps,
        refuses: NOT_NUMBER,
    }
}

const EXPECTED: &[Expected] = &[
    flag("aeron.dir.delete.on.start", "AERON_DIR_DELETE_ON_START", "false"),
    flag(
        "aeron.dir.delete.on.shutdown",
        "AERON_DIR_DELETE_ON_SHUTDOWN",
        "false",
    ),
    flag("aeron.dir.warn.if.exists", "AERON_DIR_WARN_IF_EXISTS", "false"),
    flag("fulmar.dir.group", "FULMAR_DIR_GROUP", "false"),
    flag("aeron.print.configuration", "AERON_PRINT_CONFIGURATION", "false"),
    Expected {
        key: "aeron.threading.mode",
        env: "AERON_THREADING_MODE",
        default: "dedicated",
        accepts: &[
            ("DEDICATED", "dedicated"),
            ("SHARED_NETWORK", "shared_network"),
            ("shared-network", "shared_network"),
            ("SHARED", "shared"),
            ("Invoker", "invoker"),
        ],
        clamps: &[],
        refuses: &["sharednetwork", "all", "1"],
    },
    Expected {
        key: "fulmar.idle",
        env: "FULMAR_IDLE",
        default: "unset",
        accepts: &[("spin", "spin"), ("unset", "unset"), ("adaptive", "adaptive")],
        clamps: &[],
        refuses: NOT_IDLE,
    },
    idle("aeron.conductor.idle.strategy", "AERON_CONDUCTOR_IDLE_STRATEGY"),
    idle("aeron.sender.idle.strategy", "AERON_SENDER_IDLE_STRATEGY"),
    idle("aeron.receiver.idle.strategy", "AERON_RECEIVER_IDLE_STRATEGY"),
    idle("aeron.shared.idle.strategy", "AERON_SHARED_IDLE_STRATEGY"),
    idle(
        "aeron.sharednetwork.idle.strategy",
        "AERON_SHAREDNETWORK_IDLE_STRATEGY",
    ),
    Expected {
        key: "fulmar.idle.cap",
        env: "FULMAR_IDLE_CAP",
        default: "10ms",
        accepts: &[("10us", "10us"), ("16ms", "16ms"), ("1s", "1s")],
        clamps: &[("1us", "10us"), ("2s", "1s")],
        refuses: NOT_DURATION,
    },
    cpu("aeron.conductor.cpu.affinity", "AERON_CONDUCTOR_CPU_AFFINITY"),
    cpu("aeron.sender.cpu.affinity", "AERON_SENDER_CPU_AFFINITY"),
    cpu("aeron.receiver.cpu.affinity", "AERON_RECEIVER_CPU_AFFINITY"),
    cpu(
        "aeron.driver.async.executor.cpu.affinity",
        "AERON_DRIVER_ASYNC_EXECUTOR_CPU_AFFINITY",
    ),
    Expected {
        key: "aeron.conductor.buffer.length",
        env: "AERON_CONDUCTOR_BUFFER_LENGTH",
        default: "1049344",
        accepts: &[
            ("1049344", "1049344"),
            ("2097920", "2097920"),
            ("1073742592", "1073742592"),
        ],
        clamps: &[("0", "1049344"), ("64k", "1049344"), ("2g", "1073742592")],
        refuses: &["2m", "2097152", "2097921", "x", "-1"],
    },
    Expected {
        key: "aeron.clients.buffer.length",
        env: "AERON_CLIENTS_BUFFER_LENGTH",
        default: "1048704",
        accepts: &[("1048704", "1048704"), ("4194432", "4194432")],
        clamps: &[("1m", "1048704"), ("0", "1048704"), ("2g", "1073741952")],
        refuses: &["4m", "4194433", "x", "-1"],
    },
    Expected {
        key: "aeron.counters.buffer.length",
        env: "AERON_COUNTERS_BUFFER_LENGTH",
        default: "8m",
        accepts: &[("1m", "1m"), ("16m", "16m"), ("500m", "500m")],
        clamps: &[
            ("64k", "1m"),
            ("501m", "500m"),
            ("1g", "500m"),
            ("1048577", "1048704"),
        ],
        refuses: NOT_SIZE,
    },
    Expected {
        key: "aeron.error.buffer.length",
        env: "AERON_ERROR_BUFFER_LENGTH",
        default: "4m",
        accepts: &[("4m", "4m"), ("5m", "5m")],
        clamps: &[("1m", "4m"), ("0", "4m"), ("2g", "1g"), ("4194305", "4194432")],
        refuses: NOT_SIZE,
    },
    Expected {
        key: "aeron.loss.report.buffer.length",
        env: "AERON_LOSS_REPORT_BUFFER_LENGTH",
        default: "1m",
        accepts: &[("1m", "1m"), ("5000", "5000"), ("4k", "4k")],
        clamps: &[("0", "4k"), ("2g", "1g")],
        refuses: NOT_SIZE,
    },
    Expected {
        key: "aeron.file.page.size",
        env: "AERON_FILE_PAGE_SIZE",
        default: "4k",
        accepts: &[
            ("4k", "4k"),
            ("4096", "4k"),
            ("64k", "64k"),
            ("2m", "2m"),
            ("1g", "1g"),
        ],
        clamps: &[("1k", "4k"), ("2g", "1g")],
        refuses: &["5000", "6k", "x", "-4k"],
    },
    Expected {
        key: "aeron.term.buffer.length",
        env: "AERON_TERM_BUFFER_LENGTH",
        default: "16m",
        accepts: TERMS,
        clamps: TERM_CLAMPS,
        refuses: NOT_TERM,
    },
    Expected {
        key: "aeron.ipc.term.buffer.length",
        env: "AERON_IPC_TERM_BUFFER_LENGTH",
        default: "64m",
        accepts: TERMS,
        clamps: TERM_CLAMPS,
        refuses: NOT_TERM,
    },
    flag(
        "aeron.term.buffer.sparse.file",
        "AERON_TERM_BUFFER_SPARSE_FILE",
        "true",
    ),
    Expected {
        key: "aeron.mtu.length",
        env: "AERON_MTU_LENGTH",
        default: "1408",
        accepts: MTUS,
        clamps: MTU_CLAMPS,
        refuses: NOT_MTU,
    },
    Expected {
        key: "aeron.ipc.mtu.length",
        env: "AERON_IPC_MTU_LENGTH",
        default: "1408",
        accepts: MTUS,
        clamps: MTU_CLAMPS,
        refuses: NOT_MTU,
    },
    Expected {
        key: "aeron.publication.term.window.length",
        env: "AERON_PUBLICATION_TERM_WINDOW_LENGTH",
        default: "0",
        accepts: &[("0", "0"), ("64k", "64k"), ("1408", "1408"), ("512m", "512m")],
        clamps: &[("1", "64"), ("1g", "512m")],
        refuses: NOT_SIZE,
    },
    Expected {
        key: "aeron.ipc.publication.term.window.length",
        env: "AERON_IPC_PUBLICATION_TERM_WINDOW_LENGTH",
        default: "0",
        accepts: &[("0", "0"), ("64k", "64k"), ("1408", "1408"), ("512m", "512m")],
        clamps: &[("1", "64"), ("1g", "512m")],
        refuses: NOT_SIZE,
    },
    flag(
        "aeron.perform.storage.checks",
        "AERON_PERFORM_STORAGE_CHECKS",
        "true",
    ),
    Expected {
        key: "aeron.low.file.store.warning.threshold",
        env: "AERON_LOW_FILE_STORE_WARNING_THRESHOLD",
        default: "160m",
        accepts: &[("0", "0"), ("1g", "1g"), ("100g", "100g")],
        clamps: &[],
        refuses: NOT_SIZE,
    },
    Expected {
        key: "fulmar.log.budget",
        env: "FULMAR_LOG_BUDGET",
        default: "0",
        accepts: &[("0", "0"), ("8g", "8g")],
        clamps: &[],
        refuses: NOT_SIZE,
    },
    Expected {
        key: "aeron.driver.timeout",
        env: "AERON_DRIVER_TIMEOUT",
        default: "10s",
        // A bare number counts milliseconds here, and only here.
        accepts: &[
            ("10000", "10s"),
            ("1", "1ms"),
            ("500ms", "500ms"),
            ("5s", "5s"),
            ("1000000ns", "1ms"),
        ],
        clamps: &[("0", "1ms"), ("1us", "1ms"), ("9223372036854", CENTURY)],
        refuses: NOT_DURATION,
    },
    timeout(
        "aeron.driver.conductor.cycle.threshold",
        "AERON_DRIVER_CONDUCTOR_CYCLE_THRESHOLD",
        "1s",
    ),
    timeout(
        "aeron.driver.sender.cycle.threshold",
        "AERON_DRIVER_SENDER_CYCLE_THRESHOLD",
        "1s",
    ),
    timeout(
        "aeron.driver.receiver.cycle.threshold",
        "AERON_DRIVER_RECEIVER_CYCLE_THRESHOLD",
        "1s",
    ),
    timeout(
        "aeron.name.resolver.threshold",
        "AERON_NAME_RESOLVER_THRESHOLD",
        "5s",
    ),
    timeout("aeron.timer.interval", "AERON_TIMER_INTERVAL", "1s"),
    timeout(
        "aeron.client.liveness.timeout",
        "AERON_CLIENT_LIVENESS_TIMEOUT",
        "10s",
    ),
    timeout(
        "aeron.publication.unblock.timeout",
        "AERON_PUBLICATION_UNBLOCK_TIMEOUT",
        "15s",
    ),
    flag("fulmar.unblock.early", "FULMAR_UNBLOCK_EARLY", "true"),
    delay(
        "aeron.publication.linger.timeout",
        "AERON_PUBLICATION_LINGER_TIMEOUT",
        "5s",
    ),
    timeout(
        "aeron.publication.connection.timeout",
        "AERON_PUBLICATION_CONNECTION_TIMEOUT",
        "5s",
    ),
    timeout(
        "aeron.image.liveness.timeout",
        "AERON_IMAGE_LIVENESS_TIMEOUT",
        "10s",
    ),
    delay(
        "aeron.counters.free.to.reuse.timeout",
        "AERON_COUNTERS_FREE_TO_REUSE_TIMEOUT",
        "1s",
    ),
    timeout(
        "aeron.untethered.window.limit.timeout",
        "AERON_UNTETHERED_WINDOW_LIMIT_TIMEOUT",
        "5s",
    ),
    Expected {
        key: "aeron.untethered.linger.timeout",
        env: "AERON_UNTETHERED_LINGER_TIMEOUT",
        default: "unset",
        accepts: &[("2s", "2s"), ("unset", "unset"), ("-1", "unset")],
        clamps: &[("0", "1ms")],
        refuses: NOT_DURATION,
    },
    timeout(
        "aeron.untethered.resting.timeout",
        "AERON_UNTETHERED_RESTING_TIMEOUT",
        "10s",
    ),
    flag("aeron.tether.subscriptions", "AERON_TETHER_SUBSCRIPTIONS", "true"),
    flag("aeron.rejoin.stream", "AERON_REJOIN_STREAM", "true"),
    flag("aeron.reliable.stream", "AERON_RELIABLE_STREAM", "true"),
    flag(
        "aeron.spies.simulate.connection",
        "AERON_SPIES_SIMULATE_CONNECTION",
        "false",
    ),
    Expected {
        key: "aeron.publication.reserved.session.id.low",
        env: "AERON_PUBLICATION_RESERVED_SESSION_ID_LOW",
        default: "-1",
        accepts: &[("-2147483648", "-2147483648"), ("0", "0"), ("1000", "1000")],
        clamps: &[("2147483648", "2147483647"), ("-2147483649", "-2147483648")],
        refuses: NOT_NUMBER,
    },
    Expected {
        key: "aeron.publication.reserved.session.id.high",
        env: "AERON_PUBLICATION_RESERVED_SESSION_ID_HIGH",
        default: "1000",
        accepts: &[("-1", "-1"), ("2147483647", "2147483647")],
        clamps: &[("2147483648", "2147483647"), ("-2147483649", "-2147483648")],
        refuses: NOT_NUMBER,
    },
    Expected {
        key: "aeron.driver.termination.validator",
        env: "AERON_DRIVER_TERMINATION_VALIDATOR",
        default: "deny",
        accepts: &[("allow", "allow"), ("deny", "deny"), ("ALLOW", "allow")],
        clamps: &[],
        refuses: &["maybe", "true", "1"],
    },
    flag(
        "aeron.enable.experimental.features",
        "AERON_ENABLE_EXPERIMENTAL_FEATURES",
        "false",
    ),
    Expected {
        key: "aeron.rcv.initial.window.length",
        env: "AERON_RCV_INITIAL_WINDOW_LENGTH",
        default: "128k",
        accepts: &[("64k", "64k"), ("1m", "1m")],
        clamps: &[("0", "64"), ("1g", "512m")],
        refuses: NOT_SIZE,
    },
    timeout(
        "aeron.rcv.status.message.timeout",
        "AERON_RCV_STATUS_MESSAGE_TIMEOUT",
        "200ms",
    ),
    number(
        "aeron.send.to.status.poll.ratio",
        "AERON_SEND_TO_STATUS_POLL_RATIO",
        "6",
        &[("0", "1"), ("-1", "1")],
    ),
    socket_buffer("aeron.socket.so_rcvbuf", "AERON_SOCKET_SO_RCVBUF", "128k"),
    socket_buffer("aeron.socket.so_sndbuf", "AERON_SOCKET_SO_SNDBUF", "0"),
    number(
        "fulmar.socket.busy.poll",
        "FULMAR_SOCKET_BUSY_POLL",
        "0",
        &[("-1", "0"), ("1000001", "1000000")],
    ),
    number(
        "aeron.socket.multicast.ttl",
        "AERON_SOCKET_MULTICAST_TTL",
        "0",
        &[("-1", "0"), ("256", "255")],
    ),
    Expected {
        key: "aeron.nak.unicast.delay",
        env: "AERON_NAK_UNICAST_DELAY",
        default: "1us",
        accepts: &[("1us", "1us"), ("60us", "60us"), ("1ms", "1ms")],
        clamps: &[("0", "1us"), ("999", "1us")],
        refuses: NOT_DURATION,
    },
    number(
        "aeron.nak.unicast.retry.delay.ratio",
        "AERON_NAK_UNICAST_RETRY_DELAY_RATIO",
        "100",
        &[("0", "1")],
    ),
    number(
        "aeron.nak.multicast.group.size",
        "AERON_NAK_MULTICAST_GROUP_SIZE",
        "10",
        &[("0", "1")],
    ),
    Expected {
        key: "aeron.nak.multicast.max.backoff",
        env: "AERON_NAK_MULTICAST_MAX_BACKOFF",
        default: "10ms",
        accepts: &[("60ms", "60ms"), ("1us", "1us")],
        clamps: &[("0", "1us")],
        refuses: NOT_DURATION,
    },
    flag("fulmar.nak.every.gap", "FULMAR_NAK_EVERY_GAP", "true"),
    flag("fulmar.nak.adaptive", "FULMAR_NAK_ADAPTIVE", "true"),
    flag("fulmar.retransmit.adaptive", "FULMAR_RETRANSMIT_ADAPTIVE", "true"),
    delay("fulmar.heartbeat.tail", "FULMAR_HEARTBEAT_TAIL", "1ms"),
    delay(
        "fulmar.status.message.repeat",
        "FULMAR_STATUS_MESSAGE_REPEAT",
        "1ms",
    ),
    delay(
        "aeron.retransmit.unicast.delay",
        "AERON_RETRANSMIT_UNICAST_DELAY",
        "0ns",
    ),
    delay(
        "aeron.retransmit.unicast.linger",
        "AERON_RETRANSMIT_UNICAST_LINGER",
        "10ms",
    ),
    number(
        "fulmar.retransmit.budget",
        "FULMAR_RETRANSMIT_BUDGET",
        "50",
        &[("0", "1"), ("10001", "10000")],
    ),
    number(
        "aeron.max.resend",
        "AERON_MAX_RESEND",
        "16",
        &[("0", "1"), ("257", "256"), ("-5", "1")],
    ),
    number(
        "aeron.unicast.flow.control.rrwm",
        "AERON_UNICAST_FLOW_CONTROL_RRWM",
        "16",
        &[("0", "1")],
    ),
    number(
        "aeron.multicast.flow.control.rrwm",
        "AERON_MULTICAST_FLOW_CONTROL_RRWM",
        "4",
        &[("0", "1")],
    ),
    number(
        "aeron.network.publication.max.messages.per.send",
        "AERON_NETWORK_PUBLICATION_MAX_MESSAGES_PER_SEND",
        // Aeron: 4, and 16 at most. Ours go out as one run.
        "64",
        &[("0", "1"), ("65", "64")],
    ),
    number(
        "aeron.receiver.io.vector.capacity",
        "AERON_RECEIVER_IO_VECTOR_CAPACITY",
        "4",
        &[("0", "1"), ("17", "16")],
    ),
    Expected {
        key: "fulmar.io",
        env: "FULMAR_IO",
        default: "auto",
        accepts: &[("auto", "auto"), ("mmsg", "mmsg"), ("uring", "uring")],
        clamps: &[],
        refuses: &["epoll", "1"],
    },
    words(
        "aeron.multicast.flow.control.strategy",
        "AERON_MULTICAST_FLOW_CONTROL_STRATEGY",
        "max",
    ),
    words(
        "aeron.unicast.flow.control.strategy",
        "AERON_UNICAST_FLOW_CONTROL_STRATEGY",
        "unicast",
    ),
    words(
        "aeron.congestioncontrol.supplier",
        "AERON_CONGESTIONCONTROL_SUPPLIER",
        "default",
    ),
    flag(
        "aeron.cubiccongestioncontrol.measurertt",
        "AERON_CUBICCONGESTIONCONTROL_MEASURERTT",
        "false",
    ),
    Expected {
        key: "aeron.cubiccongestioncontrol.initialrtt",
        env: "AERON_CUBICCONGESTIONCONTROL_INITIALRTT",
        default: "100us",
        accepts: &[("60ms", "60ms"), ("1us", "1us")],
        clamps: &[("0", "1us")],
        refuses: NOT_DURATION,
    },
    flag(
        "aeron.cubiccongestioncontrol.tcpmode",
        "AERON_CUBICCONGESTIONCONTROL_TCPMODE",
        "false",
    ),
    timeout(
        "aeron.flow.control.receiver.timeout",
        "AERON_FLOW_CONTROL_RECEIVER_TIMEOUT",
        "5s",
    ),
    Expected {
        key: "aeron.flow.control.group.tag",
        env: "AERON_FLOW_CONTROL_GROUP_TAG",
        default: "-1",
        accepts: &[("-9223372036854775808", "-9223372036854775808"), ("1001", "1001")],
        clamps: &[],
        refuses: NOT_NUMBER,
    },
    number(
        "aeron.flow.control.group.min.size",
        "AERON_FLOW_CONTROL_GROUP_MIN_SIZE",
        "0",
        &[("-1", "0"), ("2147483648", "2147483647")],
    ),
    Expected {
        key: "aeron.receiver.group.tag",
        env: "AERON_RECEIVER_GROUP_TAG",
        default: "unset",
        accepts: &[
            ("1001", "1001"),
            ("0", "0"),
            ("unset", "unset"),
            ("-1", "-1"),
            ("-2", "-2"),
        ],
        clamps: &[],
        refuses: NOT_NUMBER,
    },
    Expected {
        key: "aeron.receiver.group.consideration",
        env: "AERON_RECEIVER_GROUP_CONSIDERATION",
        default: "infer",
        accepts: &[
            ("infer", "infer"),
            ("TRUE", "true"),
            ("false", "false"),
            ("FORCE_TRUE", "true"),
        ],
        clamps: &[],
        refuses: &["maybe", "1"],
    },
    number(
        "aeron.driver.stream.session.limit",
        "AERON_DRIVER_STREAM_SESSION_LIMIT",
        "2147483647",
        &[("0", "1"), ("2147483648", "2147483647")],
    ),
    number(
        "fulmar.receiver.images.max",
        "FULMAR_RECEIVER_IMAGES_MAX",
        "1024",
        &[("0", "1"), ("1000001", "1000000")],
    ),
    Expected {
        key: "fulmar.receiver.term.length.max",
        env: "FULMAR_RECEIVER_TERM_LENGTH_MAX",
        default: "64m",
        accepts: TERMS,
        clamps: TERM_CLAMPS,
        refuses: NOT_TERM,
    },
    flag(
        "fulmar.receiver.source.check",
        "FULMAR_RECEIVER_SOURCE_CHECK",
        "true",
    ),
    Expected {
        key: "aeron.sender.wildcard.port.range",
        env: "AERON_SENDER_WILDCARD_PORT_RANGE",
        default: "",
        accepts: &[
            ("20000 30000", "20000 30000"),
            ("  20000   20000 ", "20000 20000"),
            ("", ""),
        ],
        clamps: &[],
        refuses: &["20000", "30000 20000", "1 2 3", "a b", "0 10", "1 65536", "-1 5"],
    },
    Expected {
        key: "aeron.receiver.wildcard.port.range",
        env: "AERON_RECEIVER_WILDCARD_PORT_RANGE",
        default: "",
        accepts: &[("20000 30000", "20000 30000")],
        clamps: &[],
        refuses: &["20000", "30000 20000"],
    },
    flag("aeron.driver.connect", "AERON_DRIVER_CONNECT", "true"),
    delay(
        "aeron.driver.reresolution.check.interval",
        "AERON_DRIVER_RERESOLUTION_CHECK_INTERVAL",
        "1s",
    ),
    words(
        "aeron.name.resolver.supplier",
        "AERON_NAME_RESOLVER_SUPPLIER",
        "default",
    ),
    words(
        "aeron.name.resolver.init.args",
        "AERON_NAME_RESOLVER_INIT_ARGS",
        "",
    ),
    words("aeron.driver.resolver.name", "AERON_DRIVER_RESOLVER_NAME", ""),
    words(
        "aeron.driver.resolver.interface",
        "AERON_DRIVER_RESOLVER_INTERFACE",
        "",
    ),
    words(
        "aeron.driver.resolver.bootstrap.neighbor",
        "AERON_DRIVER_RESOLVER_BOOTSTRAP_NEIGHBOR",
        "",
    ),
    timeout(
        "aeron.driver.resolver.self.resolution.interval",
        "AERON_DRIVER_RESOLVER_SELF_RESOLUTION_INTERVAL",
        "1s",
    ),
    timeout(
        "aeron.driver.resolver.neighbor.resolution.interval",
        "AERON_DRIVER_RESOLVER_NEIGHBOR_RESOLUTION_INTERVAL",
        "2s",
    ),
    timeout(
        "aeron.driver.resolver.neighbor.timeout",
        "AERON_DRIVER_RESOLVER_NEIGHBOR_TIMEOUT",
        "10s",
    ),
    timeout(
        "aeron.driver.resolver.bootstrap.neighbor.resolution.interval",
        "AERON_DRIVER_RESOLVER_BOOTSTRAP_NEIGHBOR_RESOLUTION_INTERVAL",
        "10s",
    ),
    words(
        "aeron.udp.channel.incoming.interceptors",
        "AERON_UDP_CHANNEL_INCOMING_INTERCEPTORS",
        "",
    ),
    words(
        "aeron.udp.channel.outgoing.interceptors",
        "AERON_UDP_CHANNEL_OUTGOING_INTERCEPTORS",
        "",
    ),
    words(
        "aeron.udp.channel.transport.bindings.loss.args",
        "AERON_UDP_CHANNEL_TRANSPORT_BINDINGS_LOSS_ARGS",
        "",
    ),
    words(
        "aeron.udp.channel.transport.bindings.fixed.loss.args",
        "AERON_UDP_CHANNEL_TRANSPORT_BINDINGS_FIXED_LOSS_ARGS",
        "",
    ),
    words(
        "aeron.udp.channel.transport.bindings.multi.gap.loss.args",
        "AERON_UDP_CHANNEL_TRANSPORT_BINDINGS_MULTI_GAP_LOSS_ARGS",
        "",
    ),
    words("fulmar.capture", "FULMAR_CAPTURE", ""),
];

fn row(settings: &DriverSettings, key: &str) -> Row {
    let row = settings.explain().into_iter().find(|row| row.key == key);
    row.unwrap_or_else(|| panic!("{key} is not in the table"))
}

#[test]
fn every_setting_is_expected_and_every_expected_setting_exists() {
    let mut expected: Vec<&str> = EXPECTED.iter().map(|row| row.key).collect();
    // The default directory depends on the user; it has its own test.
    expected.push("aeron.dir");
    expected.sort_unstable();
    let mut present: Vec<&str> = TABLE.iter().map(|row| row.key).collect();
    present.sort_unstable();
    assert_eq!(present, expected);
}

#[test]
fn every_setting_has_its_environment_name_and_default() {
    for expected in EXPECTED {
        let row = row(&DriverSettings::defaults(), expected.key);
        assert_eq!(row.env_name, expected.env);
        assert_eq!(row.value, expected.default, "{}", expected.key);
        assert_eq!(row.default, expected.default, "{}", expected.key);
        assert_eq!(row.source, Source::Default);
        assert!(
            !row.doc.is_empty() && !row.unit.is_empty() && !row.bounds.is_empty(),
            "{}",
            expected.key
        );
    }
}

#[test]
fn every_value_within_bounds_is_taken_without_a_warning() {
    for expected in EXPECTED {
        for (text, value) in expected.accepts {
            let mut settings = DriverSettings::defaults();
            settings
                .set(expected.key, text)
                .unwrap_or_else(|error| panic!("{error}"));
            let remarks = settings
                .warnings()
                .iter()
                .filter(|warning| warning.0.contains(" using "))
                .count();
            assert_eq!(remarks, 0, "{}={text}: {:?}", expected.key, settings.warnings());
            let row = row(&settings, expected.key);
            assert_eq!(row.value, *value, "{}={text}", expected.key);
            assert_eq!(row.source, Source::Program);
        }
    }
}

#[test]
fn every_value_out_of_bounds_is_clamped_with_one_warning_that_names_the_setting() {
    for expected in EXPECTED {
        for (text, value) in expected.clamps {
            let mut settings = DriverSettings::defaults();
            settings
                .define(&format!("{}={text}", expected.key))
                .unwrap_or_else(|error| panic!("{error}"));
            let warnings = settings.warnings();
            let notes: Vec<_> = warnings
                .iter()
                .filter(|warning| warning.0.contains(" using "))
                .collect();
            assert_eq!(notes.len(), 1, "{}={text}: {warnings:?}", expected.key);
            assert!(
                notes[0].0.starts_with(&format!("-D: {}={text}: ", expected.key)),
                "{}",
                notes[0]
            );
            assert!(notes[0].0.ends_with(value), "{}", notes[0]);
            assert_eq!(
                row(&settings, expected.key).value,
                *value,
                "{}={text}",
                expected.key
            );
        }
    }
}

#[test]
fn every_text_that_is_no_value_is_refused_by_every_source_and_changes_nothing() {
    for expected in EXPECTED {
        for text in expected.refuses {
            let mut settings = DriverSettings::defaults();
            let pair = format!("{}={text}", expected.key);
            let refused = [
                settings.set(expected.key, text),
                settings.define(&pair),
                settings.option("--option", expected.key, text),
            ];
            for outcome in refused {
                let error = outcome.expect_err(&pair);
                assert!(matches!(error, ConfigError::BadValue { .. }), "{error}");
                let sentence = error.to_string();
                assert!(
                    sentence.contains(expected.key) && sentence.contains(text),
                    "{sentence}"
                );
            }
            if !text.is_empty() {
                let variable = (expected.env.to_owned(), (*text).to_owned());
                let error = settings.apply_env([variable]).expect_err(&pair);
                assert!(error.to_string().contains(expected.env), "{error}");
                let error = settings.apply_properties("x.properties", &pair).expect_err(&pair);
                assert!(error.to_string().starts_with("x.properties:1: "), "{error}");
            }
            let row = row(&settings, expected.key);
            assert_eq!(
                (row.value.as_str(), row.source),
                (expected.default, Source::Default),
                "{pair}"
            );
        }
    }
}

#[test]
fn every_setting_is_read_under_its_environment_name_and_its_property_names() {
    for expected in EXPECTED {
        let Some((text, value)) = expected
            .accepts
            .iter()
            .find(|(_, value)| *value != expected.default)
        else {
            panic!("{} has no accepted value besides its default", expected.key);
        };
        let mut settings = DriverSettings::defaults();
        settings
            .apply_env([(expected.env.to_owned(), (*text).to_owned())])
            .unwrap();
        let from_env = row(&settings, expected.key);
        assert_eq!(from_env.value, *value);
        assert_eq!(from_env.source, Source::Environment(expected.env.to_owned()));
        // The property that follows from the environment name: lower case, `_` as `.`.
        let property = expected.env.to_lowercase().replace('_', ".");
        let mut settings = DriverSettings::defaults();
        settings
            .apply_properties("p", &format!("{property}={text}"))
            .unwrap();
        assert_eq!(row(&settings, expected.key).value, *value);
    }
}

#[test]
fn shown_values_are_read_back_as_the_same_values() {
    for expected in EXPECTED {
        for (text, _) in expected.accepts {
            let mut settings = DriverSettings::defaults();
            settings.set(expected.key, text).unwrap();
            let shown = row(&settings, expected.key).value;
            let mut again = DriverSettings::defaults();
            again
                .set(expected.key, &shown)
                .unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(again.values(), settings.values(), "{}={text}", expected.key);
        }
    }
}

#[test]
fn other_names_of_the_same_setting_are_read() {
    for (name, key) in [
        (
            "aeron.multicast.FlowControl.supplier",
            "aeron.multicast.flow.control.strategy",
        ),
        (
            "AERON_MULTICAST_FLOWCONTROL_SUPPLIER",
            "aeron.multicast.flow.control.strategy",
        ),
        (
            "aeron.unicast.FlowControl.supplier",
            "aeron.unicast.flow.control.strategy",
        ),
        (
            "AERON_UNICAST_FLOWCONTROL_SUPPLIER",
            "aeron.unicast.flow.control.strategy",
        ),
        (
            "aeron.CongestionControl.supplier",
            "aeron.congestioncontrol.supplier",
        ),
        ("aeron.socket.so.rcvbuf", "aeron.socket.so_rcvbuf"),
        ("AERON_SOCKET_SO_SNDBUF", "aeron.socket.so_sndbuf"),
    ] {
        let index = Setting::index_of(name).unwrap_or_else(|| panic!("{name} is not known"));
        assert_eq!(TABLE[index].key, key);
    }
    assert!(Setting::index_of("aeron.no.such").is_none());
}

#[test]
fn no_two_settings_share_a_name() {
    let mut names: Vec<String> = Vec::new();
    for row in TABLE {
        names.push(row.env_name());
        names.extend(
            row.aliases
                .iter()
                .map(|alias| alias.to_uppercase().replace('.', "_")),
        );
        assert!(
            row.key.starts_with("aeron.") || row.key.starts_with("fulmar."),
            "{}",
            row.key
        );
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
