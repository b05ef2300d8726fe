//! A process that may write to the shared files writes anything there, while a driver and clients are live. Nobody may
//! crash, hang or grow without bound, and streams whose files were not touched go on without a gap.
//!
//! `FULMAR_HOSTILE_SECONDS` sets the length (default 8); a long run under AddressSanitizer is described in
//! docs/reliability.md.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "tests run threads and read clocks"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fulmar::memory::{AtomicBuffer, Region, View, mapped};
use fulmar::{Client, ClientSettings};
use fulmar_media_driver::{DriverSettings, MediaDriver};

const VICTIM_STREAM: i32 = 7;
const BYSTANDER_STREAM: i32 = 8;
const CHANNEL: &str = "aeron:ipc?term-length=64k";

/// What is written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Ring,
    Broadcast,
    Counters,
    ErrorLog,
    VictimLogMetadata,
    VictimTerms,
    Extension,
    Header,
}

const TARGETS: [Target; 8] = [
    Target::VictimTerms,
    Target::VictimLogMetadata,
    Target::Ring,
    Target::Counters,
    Target::Extension,
    Target::Broadcast,
    Target::ErrorLog,
    Target::Header,
];

impl Target {
    /// Whether only the victim's stream may suffer.
    fn spares_bystander(self) -> bool {
        matches!(self, Target::VictimTerms | Target::VictimLogMetadata)
    }
}

/// Random and almost-valid values: what is there, slightly changed, and the numbers that code gets wrong.
fn nasty(random: &mut fastrand::Rng, current: i64) -> i64 {
    const NUMBERS: [i64; 20] = [
        0,
        1,
        -1,
        7,
        8,
        31,
        32,
        33,
        64,
        127,
        128,
        4096,
        65535,
        65536,
        1 << 20,
        (1 << 31) - 1,
        -(1 << 31),
        i64::MAX,
        i64::MIN,
        1 << 40,
    ];
    match random.u8(0..7) {
        0 => random.i64(..),
        1 => NUMBERS[random.usize(..NUMBERS.len())],
        2 => current.wrapping_add(NUMBERS[random.usize(..NUMBERS.len())]),
        3 => current ^ (1 << random.u32(0..64)),
        4 => current.wrapping_neg(),
        5 => (i64::from(random.i32(..)) << 32) | NUMBERS[random.usize(..NUMBERS.len())] & 0xffff_ffff,
        _ => current.wrapping_sub(8 * i64::from(random.i32(-4..4))),
    }
}

fn scribble_once(view: &View, random: &mut fastrand::Rng, start: usize, length: usize) {
    if length < 8 {
        return;
    }
    // Half of the writes go to the first kilobyte and to the last one, where the interesting words are.
    let span = length / 8;
    let word = match random.u8(0..4) {
        0 => random.usize(..span.min(128)),
        1 => span - 1 - random.usize(..span.min(128)),
        _ => random.usize(..span),
    };
    let offset = start + word * 8;
    if random.bool() {
        let current = view.load_relaxed_i64(offset);
        view.store_relaxed_i64(offset, nasty(random, current));
    } else {
        let half = offset + 4 * usize::from(random.bool());
        let current = view.load_relaxed_i32(half);
        view.store_relaxed_i32(half, nasty(random, i64::from(current)) as i32);
    }
}

struct Files {
    cnc: Region,
    extension: Option<Region>,
    victim_log: Region,
    sections: [usize; 5],
}

fn open_files(dir: &Path, victim: i64) -> Files {
    let cnc = mapped::open(&dir.join("cnc.dat")).unwrap();
    let header = cnc.as_view();
    let sections = [4, 8, 12, 16, 20].map(|offset| header.load_acquire_i32(offset) as usize);
    Files {
        extension: mapped::open(&dir.join("fulmar.dat")).ok(),
        victim_log: mapped::open(&dir.join(format!("publications/{victim}.logbuffer"))).unwrap(),
        cnc,
        sections,
    }
}

fn scribble(files: &Files, target: Target, random: &mut fastrand::Rng) {
    let [ring, broadcast, metadata, values, errors] = files.sections;
    let (region, start, length) = match target {
        Target::Header => (&files.cnc, 0, 128),
        Target::Ring => (&files.cnc, 128, ring),
        Target::Broadcast => (&files.cnc, 128 + ring, broadcast),
        Target::Counters if random.bool() => (&files.cnc, 128 + ring + broadcast, (64 * 512).min(metadata)),
        Target::Counters => (
            &files.cnc,
            128 + ring + broadcast + metadata,
            (64 * 128).min(values),
        ),
        Target::ErrorLog => (
            &files.cnc,
            128 + ring + broadcast + metadata + values,
            errors.min(8192),
        ),
        Target::VictimLogMetadata => (&files.victim_log, files.victim_log.len() - 4096, 512),
        Target::VictimTerms => (&files.victim_log, 0, files.victim_log.len() - 4096),
        Target::Extension => match &files.extension {
            Some(region) => (region, 0, region.len()),
            None => return,
        },
    };
    scribble_once(&region.as_view(), random, start, length);
}

/// A client with a publisher and a subscriber on one stream, in one thread, until told to stop.
fn traffic(
    dir: String,
    stream: i32,
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    registration: Arc<Mutex<Option<i64>>>,
) -> Option<String> {
    let settings = ClientSettings {
        dir,
        driver_timeout: Duration::from_secs(2),
        reattach: false,
        ..ClientSettings::default()
    };
    let client = match Client::connect(settings) {
        Ok(client) => client,
        Err(error) => return Some(error.to_string()),
    };
    let mut subscription = match client.add_subscription(CHANNEL, stream) {
        Ok(subscription) => subscription,
        Err(error) => return Some(error.to_string()),
    };
    let publication = match client.add_publication(CHANNEL, stream) {
        Ok(publication) => publication,
        Err(error) => return Some(error.to_string()),
    };
    *registration.lock().unwrap() = Some(publication.registration_id().0);
    let mut next = 0u64;
    let mut expected = 0u64;
    let mut gap = None;
    let mut message = [0u8; 200];
    while !stop.load(Ordering::Relaxed) {
        message[..8].copy_from_slice(&next.to_le_bytes());
        let length = if next.is_multiple_of(64) { 200 } else { 32 };
        if publication.offer(&message[..length]).position().is_some() {
            next += 1;
        }
        if next.is_multiple_of(97)
            && let Ok(mut claim) = publication.try_claim(16)
        {
            claim.buffer_mut()[..8].copy_from_slice(&next.to_le_bytes());
            if claim.commit().is_ok() {
                next += 1;
            }
        }
        let polled = subscription.poll(
            |payload, _| {
                let number = payload.read_u64(0).unwrap_or(u64::MAX);
                if number != expected && gap.is_none() {
                    gap = Some(format!("stream {stream}: expected {expected}, saw {number}"));
                }
                expected = number.wrapping_add(1);
            },
            16,
        );
        received.fetch_add(polled as u64, Ordering::Relaxed);
        if polled == 0 {
            thread::yield_now();
        }
    }
    gap
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn within<T: Send + 'static>(what: &str, limit: Duration, action: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || {
        let _ = sender.send(action());
    });
    match receiver.recv_timeout(limit) {
        Ok(value) => {
            thread.join().unwrap();
            value
        }
        Err(_) if thread.is_finished() => panic!("{what} panicked"),
        Err(_) => panic!("{what} did not end within {limit:?}"),
    }
}

fn round(target: Target, seed: u64, length: Duration) {
    let mut settings = DriverSettings::defaults();
    settings
        .set(
            "aeron.threading.mode",
            if seed.is_multiple_of(2) {
                "shared"
            } else {
                "dedicated"
            },
        )
        .unwrap();
    settings.set("aeron.counters.buffer.length", "1m").unwrap();
    let errors: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = Arc::clone(&errors);
    let driver = MediaDriver::embedded_with_errors(
        settings,
        Arc::new(move |text| sink.lock().unwrap().push(text.to_owned())),
    )
    .unwrap();
    let dir = driver.dir().to_owned();
    let stop = Arc::new(AtomicBool::new(false));
    let start = |stream| {
        let received = Arc::new(AtomicU64::new(0));
        let registration = Arc::new(Mutex::new(None));
        let (dir, stop, count, id) = (
            dir.clone(),
            Arc::clone(&stop),
            Arc::clone(&received),
            Arc::clone(&registration),
        );
        (
            thread::spawn(move || traffic(dir, stream, stop, count, id)),
            received,
            registration,
        )
    };
    let (victim, victim_received, victim_id) = start(VICTIM_STREAM);
    let (bystander, bystander_received, _) = start(BYSTANDER_STREAM);
    let begun = Instant::now();
    while victim_received.load(Ordering::Relaxed) < 100 || bystander_received.load(Ordering::Relaxed) < 100 {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{target:?} seed {seed}: no traffic before the scribbling"
        );
        thread::yield_now();
    }
    let victim_id = victim_id
        .lock()
        .unwrap()
        .expect("traffic flows, so there is a publication");
    let files = open_files(&PathBuf::from(&dir), victim_id);
    let mut random = fastrand::Rng::with_seed(seed);
    let before = bystander_received.load(Ordering::Relaxed);
    let end = Instant::now() + length;
    while Instant::now() < end {
        for _ in 0..random.usize(1..64) {
            scribble(&files, target, &mut random);
        }
        if random.u8(0..8) == 0 {
            thread::yield_now();
        }
    }
    if target.spares_bystander() {
        let begun = Instant::now();
        while bystander_received.load(Ordering::Relaxed) < before + 1000 {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{target:?} seed {seed}: the bystander stands still"
            );
            thread::yield_now();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let limit = Duration::from_secs(30);
    let _ = within("the victim's client", limit, move || {
        victim.join().expect("the victim's client does not panic")
    });
    let gap = within("the bystander's client", limit, move || {
        bystander.join().expect("the bystander does not panic")
    });
    if target.spares_bystander() {
        assert_eq!(gap, None, "{target:?} seed {seed}");
    }
    within("the driver", limit, move || drop(driver));
    let _ = std::fs::remove_dir_all(&dir);
    let panics: Vec<String> = errors
        .lock()
        .unwrap()
        .iter()
        .filter(|text| text.contains("panic"))
        .cloned()
        .collect();
    assert!(panics.is_empty(), "{target:?} seed {seed}: {panics:?}");
}

#[test]
fn nobody_crashes_hangs_or_grows_when_shared_memory_is_scribbled_over() {
    let seconds: u64 = std::env::var("FULMAR_HOSTILE_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(8);
    let first_seed: u64 = std::env::var("FULMAR_HOSTILE_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut seed = first_seed;
    let mut memory_after_warm_up = None;
    while Instant::now() < end || seed < first_seed + TARGETS.len() as u64 {
        let target = TARGETS[(seed % TARGETS.len() as u64) as usize];
        round(target, seed, Duration::from_millis(400));
        seed += 1;
        if seed == first_seed + TARGETS.len() as u64 {
            memory_after_warm_up = Some(resident_bytes());
        }
    }
    let growth = resident_bytes().saturating_sub(memory_after_warm_up.expect("every target had a turn"));
    assert!(
        growth < 512 << 20,
        "resident memory grew by {growth} bytes over {} rounds",
        seed - first_seed
    );
    println!(
        "{} rounds of hostile writes, resident growth {growth} bytes",
        seed - first_seed
    );
    assert!(seed > first_seed);
}
