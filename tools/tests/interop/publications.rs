//! What a publication is when it begins, is shared, is refused or ends: checklist rows 6 to 8, 25 to 30, 38, 41, 45 to 47.

use std::ffi::CString;

use crate::process::{Client, Directory, Driver, Make, eventually, read_i32, read_i64};
use crate::scenario::{World, mixed_scenarios, scenarios};

const METADATA: usize = 4096;

/// Row 6.
fn first_publication(world: &World) {
    let driver = world.driver(&[("AERON_IPC_TERM_BUFFER_LENGTH", "64m")]);
    let mut client = world.client();
    let publication = client.publication("add_pub p aeron:ipc 1001");
    assert_eq!(publication.registration_id, publication.original_registration_id);
    assert_eq!(publication.term_length, 64 << 20);
    assert_eq!(publication.max_message_length, 8 << 20);
    assert_eq!(publication.max_payload_length, 1408 - 32);
    let log = publication.log(&world.dir);
    assert_eq!(
        std::fs::metadata(&log).expect("the log").len(),
        3 * (64 << 20) + 4096
    );
    let counters = client.counters();
    let heartbeat = counters
        .iter()
        .find(|counter| counter.type_id == 11)
        .expect("a client heartbeat");
    assert_eq!(heartbeat.owner_id, heartbeat.registration_id);
    for type_id in [1, 12] {
        let counter = client.counter(type_id, publication.registration_id);
        assert_eq!(counter.value, 0, "{counter:?}");
        assert_eq!(counter.owner_id, heartbeat.owner_id, "{counter:?}");
        assert!(counter.label.ends_with("1001 aeron:ipc"), "{counter:?}");
    }
    assert_eq!(client.number("offer_once p 32"), -1);
    assert_eq!(client.number("position p"), 0);
    client.close();
    driver.stop();
}

/// Rows 7 and 8.
fn shared_and_exclusive(world: &World) {
    let driver = world.driver(&[]);
    let mut client = world.client();
    let mut other = world.other();
    let first = client.publication("add_pub first aeron:ipc 1001");
    let second = client.publication("add_pub second aeron:ipc 1001");
    let third = other.publication("add_pub third aeron:ipc 1001");
    let exclusive = other.publication("add_xpub exclusive aeron:ipc 1001");
    for shared in [&second, &third] {
        assert_ne!(shared.registration_id, first.registration_id);
        assert_eq!(shared.original_registration_id, first.registration_id);
        assert_eq!(shared.session_id, first.session_id);
    }
    assert_eq!(exclusive.registration_id, exclusive.original_registration_id);
    assert_ne!(exclusive.session_id, first.session_id);
    assert_eq!(world.dir.list("publications").len(), 2);

    other.ok("add_sub s aeron:ipc 1001");
    other.ok("image_count s 2 10000");
    client.ok("close first");
    client.ok("offer second 5 100 2 10000");
    other.ok("offer third 5 100 3 10000");
    other.ok("offer exclusive 5 100 4 10000");
    other.ok("poll s 15 10000");
    client.close();
    other.close();
    driver.stop();
}

/// Row 25.
fn bad_channels(world: &World) {
    let driver = world.driver(&[]);
    let mut client = world.client();
    for channel in [
        "aeron:tcp?x=1",
        "aeron:udp?endpoint",
        "aeron:udp?=x",
        "ipc",
        "aeron",
    ] {
        for command in ["add_pub", "add_xpub", "add_sub"] {
            let (code, text) = client.refused(&format!("{command} x {channel} 1001"));
            assert_eq!(code.abs(), 1, "{channel}: {text}");
        }
    }
    let errors = client
        .counters()
        .iter()
        .find(|counter| counter.id == 15)
        .expect("a system counter")
        .value;
    assert!(errors >= 15, "{errors} errors were counted");
    client.ok("add_pub p aeron:ipc 1001");
    client.close();
    driver.stop();
}

/// Row 26.
fn clashing_parameters(world: &World) {
    let driver = world.driver(&[]);
    let mut client = world.client();
    let mut other = world.other();
    let first = client.publication("add_pub first aeron:ipc?term-length=64k|mtu=1408 1001");
    assert_eq!(first.term_length, 64 << 10);
    let clashes = [
        "aeron:ipc?mtu=2048".to_owned(),
        "aeron:ipc?term-length=128k".to_owned(),
        format!("aeron:ipc?session-id={}", first.session_id.wrapping_add(1)),
    ];
    for channel in &clashes {
        let (code, text) = other.refused(&format!("add_pub x {channel} 1001"));
        assert_eq!(code.abs(), 11, "{channel}: {text}");
    }
    let second = other.publication("add_pub second aeron:ipc 1001");
    assert_eq!(second.original_registration_id, first.registration_id);
    client.close();
    other.close();
    driver.stop();
}

/// Rows 27 and 38.
fn session_ids(world: &World) {
    let driver = world.driver(&[]);
    let mut client = world.client();
    let mut other = world.other();
    let next = client.number("next_session 1001");
    assert!(!(-1..=1000).contains(&next), "{next} is reserved");
    let channel = format!("aeron:ipc?session-id={next}");
    let publication = client.publication(&format!("add_xpub p {channel} 1001"));
    assert_eq!(i64::from(publication.session_id), next);
    let (code, text) = other.refused(&format!("add_xpub q {channel} 1001"));
    assert_eq!(code.abs(), 1, "{text}");
    assert_ne!(other.number("next_session 1001"), next);
    client.close();
    other.close();
    driver.stop();
}

/// Row 28.
fn explicit_position(world: &World) {
    let driver = world.driver(&[]);
    let mut client = world.client();
    let mut other = world.other();
    let channel = "aeron:ipc?term-length=65536|init-term-id=5|term-id=8|term-offset=1024";
    let publication = client.publication(&format!("add_xpub p {channel} 1001"));
    assert_eq!(publication.initial_term_id, 5);
    let position = 3 * 65536 + 1024;
    assert_eq!(client.number("position p"), position);
    let log = publication.log(&world.dir);
    let metadata =
        usize::try_from(std::fs::metadata(&log).expect("the log").len()).expect("small") - METADATA;
    assert_eq!(read_i32(&log, metadata + 24), 3, "active term count");
    assert_eq!(
        read_i64(&log, metadata),
        (8 << 32) + 1024,
        "tail of the active term"
    );
    let subscription = other.number("add_sub s aeron:ipc 1001");
    other.ok("image_count s 1 10000");
    let image = &other.images("s")[0];
    assert_eq!((image.join_position, image.position), (position, position));
    let counter = other.counter(4, subscription);
    assert!(counter.label.ends_with("@197632"), "{counter:?}");
    assert_eq!(counter.reference_id, publication.registration_id);
    client.tell("offer p 3000 100 9 30000");
    other.ok("poll s 3000 30000");
    client.answered();
    client.close();
    other.close();
    driver.stop();
}

/// Row 29.
fn last_term(world: &World) {
    let driver = world.driver(&[]);
    let mut client = world.client();
    let mut other = world.other();
    // The last term of a stream is the one 2^31 - 1 after its first.
    let channel = "aeron:ipc?term-length=65536|init-term-id=0|term-id=2147483647|term-offset=64512";
    client.ok(&format!("add_xpub p {channel} 1001"));
    other.ok("add_sub s aeron:ipc 1001");
    client.ok("connected p true 10000");
    client.ok("offer p 8 64 1 10000");
    other.ok("poll s 8 10000");
    let answer = client.ok("fill p 64");
    let words: Vec<&str> = answer.split(' ').collect();
    assert_eq!(words[1], "-5", "{answer}");
    assert_eq!(client.number("offer_once p 64"), -5);
    client.close();
    other.close();
    driver.stop();
}

/// Row 30.
fn revoked_publication(world: &World) {
    let driver = world.driver(&[("AERON_TIMER_INTERVAL", "200ms")]);
    let mut client = world.client();
    let mut other = world.other();
    let log = client.publication("add_xpub p aeron:ipc 1001").log(&world.dir);
    other.ok("add_sub s aeron:ipc 1001");
    client.ok("connected p true 10000");
    client.ok("offer p 10 200 1 10000");
    client.ok("revoke p");
    other.ok("event image-gone 20000");
    other.ok("image_count s 0 10000");
    eventually("the revocation is counted", || other.system_counter(40) == 1);
    eventually("the log goes", || !log.exists());
    client.close();
    other.close();
    driver.stop();
}

/// Row 41.
fn churn_leaks_nothing(world: &World) {
    let driver = world.driver(&[
        ("AERON_COUNTERS_FREE_TO_REUSE_TIMEOUT", "1ns"),
        ("AERON_IPC_TERM_BUFFER_LENGTH", "64k"),
        ("AERON_TIMER_INTERVAL", "50ms"),
        ("AERON_PUBLICATION_LINGER_TIMEOUT", "100ms"),
    ]);
    let mut client = world.client();
    client.ok("add_pub keeper aeron:ipc 1");
    client.ok("churn aeron:ipc 1001 20");
    eventually("the logs go", || world.dir.list("publications").len() == 1);
    let (mapped, counters) = (client.system_counter(35), client.counters().len());
    // In parts: a driver keeps what was closed for its linger, so that a fast client has a whole part under way.
    for _ in 0..10 {
        client.ok("churn aeron:ipc 1001 200");
        eventually("the logs go again", || world.dir.list("publications").len() == 1);
    }
    if world.driver == Make::Fulmar {
        // The C driver (1.54) never takes the bytes of a log that it unmapped off this counter.
        eventually("mapped bytes return to the base", || {
            client.system_counter(35) == mapped
        });
    }
    let after = client.counters();
    assert_eq!(after.len(), counters);
    client.ok("add_pub last aeron:ipc 2");
    let highest = client
        .counters()
        .iter()
        .map(|counter| counter.id)
        .max()
        .expect("counters");
    assert!(highest < 2000, "counter ids are not used again: {highest}");
    client.close();
    driver.stop();
}

/// Row 45.
fn big_pages(world: &World) {
    let driver = world.driver(&[
        ("AERON_FILE_PAGE_SIZE", "2m"),
        ("AERON_PERFORM_STORAGE_CHECKS", "false"),
    ]);
    let mut client = world.client();
    let mut other = world.other();
    let publication = client.publication("add_pub p aeron:ipc?term-length=64k 1001");
    let log = publication.log(&world.dir);
    assert_eq!(std::fs::metadata(&log).expect("the log").len(), 2 << 20);
    let metadata = (2 << 20) - METADATA;
    assert_eq!(read_i32(&log, metadata + 276), 64 << 10);
    assert_eq!(read_i32(&log, metadata + 280), 2 << 20);
    other.ok("add_sub s aeron:ipc 1001");
    client.ok("connected p true 10000");
    client.tell("offer p 3000 300 1 30000");
    other.ok("poll s 3000 30000");
    client.answered();
    client.close();
    other.close();
    driver.stop();
}

/// Row 46. The file is sparse: only what is written takes memory.
fn gigabyte_terms(world: &World) {
    let driver = world.driver(&[("AERON_PERFORM_STORAGE_CHECKS", "false")]);
    let mut client = world.client();
    let mut other = world.other();
    // Starts just below the boundary of 2 GiB, which is the end of the second term.
    let channel = "aeron:ipc?term-length=1g|init-term-id=0|term-id=1|term-offset=1073709056";
    let publication = client.publication(&format!("add_xpub p {channel} 1001"));
    let length = std::fs::metadata(publication.log(&world.dir))
        .expect("the log")
        .len();
    assert_eq!(length, (3 << 30) + 4096);
    other.ok("add_sub s aeron:ipc 1001");
    client.ok("connected p true 10000");
    client.tell("offer p 1000 1000 1 30000");
    let polled = crate::process::Polled::parse(&other.ok("poll s 1000 30000"));
    client.answered();
    assert!(polled.position > 2 << 30, "{polled:?}");
    client.close();
    other.close();
    driver.stop();
}

/// Row 47.
fn storage_exhausted(world: &World) {
    let Some(disk) = SmallDisk::mount(32 << 20) else {
        // Only root can make a file system of a known size; without one there is nothing to exhaust.
        assert_ne!(effective_user(), 0, "root could not mount a file system");
        return;
    };
    let driver = Driver::start(
        world.driver,
        &disk.dir,
        &[("AERON_TERM_BUFFER_SPARSE_FILE", "false")],
    );
    let mut client = Client::connect(world.client, &disk.dir);
    client.ok("add_pub keeper aeron:ipc?term-length=64k 1");
    let (code, text) = client.refused("add_pub p aeron:ipc?term-length=16m 1001");
    assert_eq!(code.abs(), 12, "{text}");
    assert_eq!(disk.dir.list("publications").len(), 1);
    assert!(client.system_counter(15) >= 1);
    client.ok("add_pub q aeron:ipc?term-length=64k 1001");
    client.close();
    driver.stop();
}

/// A file system of a given size, with a driver directory in it.
struct SmallDisk {
    root: CString,
    dir: Directory,
}

impl SmallDisk {
    fn mount(bytes: u64) -> Option<SmallDisk> {
        let root = Directory::new();
        std::fs::create_dir(root.path()).expect("a fresh directory");
        let dir = Directory::below(&root, "driver");
        let target = CString::new(root.path()).expect("no NUL");
        let options = CString::new(format!("size={bytes}")).expect("no NUL");
        // SAFETY: every pointer is a valid NUL-terminated string during the call.
        let mounted = unsafe {
            libc::mount(
                c"tmpfs".as_ptr(),
                target.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                options.as_ptr().cast(),
            )
        };
        if mounted == 0 {
            // The mount point itself goes when the disk does.
            std::mem::forget(root);
            Some(SmallDisk { root: target, dir })
        } else {
            None
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // SAFETY: the path is a valid NUL-terminated string; detaching lets processes that still map files end later.
        unsafe {
            libc::umount2(self.root.as_ptr(), libc::MNT_DETACH);
            libc::rmdir(self.root.as_ptr());
        }
    }
}

fn effective_user() -> libc::uid_t {
    // SAFETY: the call has no preconditions.
    unsafe { libc::geteuid() }
}

/// Reading counters of the other make's publication: its position is what its owner says.
fn positions_are_visible(world: &World) {
    let driver = world.driver(&[]);
    let mut client = world.client();
    let mut other = world.other();
    let publication = client.publication("add_pub p aeron:ipc 1001");
    let subscription = other.number("add_sub s aeron:ipc 1001");
    client.ok("connected p true 10000");
    let position = client.number("offer p 100 100 1 10000");
    eventually("the sampled position", || {
        other.counter(12, publication.registration_id).value == position
    });
    other.ok("poll s 100 10000");
    eventually("the consumer's position", || {
        client.counter(4, subscription).value == position
    });
    assert_eq!(
        client.counter(4, subscription).reference_id,
        publication.registration_id
    );
    let limit = client.number("limit p");
    assert_eq!(other.counter(1, publication.registration_id).value, limit);
    client.close();
    other.close();
    driver.stop();
}

scenarios!(
    first_publication,
    bad_channels,
    churn_leaks_nothing,
    storage_exhausted
);
mixed_scenarios!(
    shared_and_exclusive,
    clashing_parameters,
    session_ids,
    explicit_position,
    last_term,
    revoked_publication,
    big_pages,
    gigabyte_terms,
    positions_are_visible,
);
