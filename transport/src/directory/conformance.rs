//! What every [`Directory`] does, tested on each.

use core::time::Duration;

use super::activity::{Activity, Inactive, Unknown, examine};
use super::{
    Blocks, Directory, DirectoryError, FsDirectory, LogKind, MemDirectory, Refusal, StartError, StartOptions,
};
use crate::agent::ProcessId;
use crate::cnc::cnc_file::tests::small_spec;
use crate::cnc::{CncFile, CncSpec, Extension, extension};
use crate::id::RegistrationId;
use crate::memory::AtomicBuffer;
use crate::report::ErrorLog;
use crate::time::{Clock, EpochMs, NanoTime, Now};

const NOW: EpochMs = EpochMs(1_795_294_985_051);
const TIMEOUT: Duration = Duration::from_secs(10);
const OPTIONS: StartOptions = StartOptions {
    delete_on_start: false,
    driver_timeout: TIMEOUT,
};

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Now {
        Now {
            nanos: NanoTime(0),
            epoch: NOW,
        }
    }
}

/// A process that nobody can watch, so that the heartbeat decides.
fn spec() -> CncSpec {
    CncSpec {
        pid: i64::from(std::process::id()),
        ..small_spec()
    }
}

fn started(directory: &dyn Directory) -> CncFile {
    directory.create_dirs().unwrap();
    let spec = spec();
    let region = directory.create_cnc(spec.file_length().unwrap() as u64).unwrap();
    let cnc = CncFile::create(&region, &spec).unwrap();
    cnc.set_driver_heartbeat(NOW);
    cnc.publish_version();
    cnc
}

fn activity(directory: &dyn Directory) -> Activity {
    examine(directory, TIMEOUT, &FixedClock, &|_| {}).unwrap()
}

fn before_creation(directory: &dyn Directory) {
    assert!(!directory.exists());
    assert!(matches!(
        directory.map_cnc(),
        Err(DirectoryError::NotFound { .. })
    ));
    assert!(directory.create_cnc(4096).is_err());
    assert!(directory.usable_space().is_err());
    assert!(directory.logs().is_err());
    assert_eq!(activity(directory), Activity::Absent);
    directory.delete().unwrap();
    assert!(
        directory
            .prepare(&OPTIONS, &FixedClock)
            .unwrap()
            .replaced
            .is_none()
    );
}

fn files_are_zero_shared_and_made_once(directory: &dyn Directory) {
    directory.create_dirs().unwrap();
    assert!(directory.exists());
    assert!(matches!(
        directory.create_dirs(),
        Err(DirectoryError::AlreadyExists { .. })
    ));
    let created = [
        directory.create_cnc(8192).unwrap(),
        directory.create_extension(8192).unwrap(),
        directory.create_loss_report(8192).unwrap(),
    ];
    let mapped = [
        directory.map_cnc().unwrap(),
        directory.map_extension().unwrap(),
        directory.map_loss_report().unwrap(),
    ];
    for (index, (ours, theirs)) in created.iter().zip(&mapped).enumerate() {
        assert_eq!((ours.len(), theirs.len()), (8192, 8192));
        let mut bytes = vec![1u8; 8192];
        theirs.as_view().copy_out(0, &mut bytes);
        assert!(bytes.iter().all(|byte| *byte == 0));
        ours.as_view().store_release_i64(4096, index as i64 + 1);
        assert_eq!(theirs.as_view().load_acquire_i64(4096), index as i64 + 1);
    }
    assert!(matches!(
        directory.create_cnc(8192),
        Err(DirectoryError::AlreadyExists { .. })
    ));
    assert_eq!(created[0].as_view().load_acquire_i64(4096), 1);
}

fn logs_live_by_their_path(directory: &dyn Directory) {
    directory.create_dirs().unwrap();
    let id = RegistrationId(-7);
    let (log, path) = directory
        .create_log(LogKind::Publication, id, 3 * 65536 + 4096, Blocks::Allocate)
        .unwrap();
    assert_eq!(path, format!("{}/publications/-7.logbuffer", directory.path()));
    let (_sparse, image) = directory
        .create_log(LogKind::Image, id, 1 << 30, Blocks::Sparse)
        .unwrap();
    assert_eq!(image, format!("{}/images/-7.logbuffer", directory.path()));
    assert_eq!(directory.logs().unwrap(), [image.clone(), path.clone()]);
    assert!(matches!(
        directory.create_log(LogKind::Publication, id, 4096, Blocks::Sparse),
        Err(DirectoryError::AlreadyExists { .. })
    ));
    assert!(directory.allocated_length(&path).unwrap() >= 3 * 65536 + 4096);
    assert!(directory.allocated_length(&image).unwrap() < 1 << 20);

    let theirs = directory.map_log(&path).unwrap();
    log.as_view().store_release_i64(65536, 42);
    directory.delete_log(&path).unwrap();
    assert_eq!(theirs.as_view().load_acquire_i64(65536), 42);
    assert!(matches!(
        directory.map_log(&path),
        Err(DirectoryError::NotFound { .. })
    ));
    assert!(matches!(
        directory.delete_log(&path),
        Err(DirectoryError::NotFound { .. })
    ));
    directory
        .create_log(LogKind::Publication, id, 4096, Blocks::Allocate)
        .unwrap();
    assert_eq!(directory.map_log(&path).unwrap().as_view().load_acquire_i64(0), 0);
}

fn only_logs_of_the_directory_are_deleted(directory: &dyn Directory) {
    drop(started(directory));
    for path in [
        format!("{}/cnc.dat", directory.path()),
        format!("{}/images/../cnc.dat", directory.path()),
        "/etc/passwd".to_owned(),
        String::new(),
    ] {
        assert!(matches!(
            directory.delete_log(&path),
            Err(DirectoryError::Refused {
                refusal: Refusal::NotALog,
                ..
            })
        ));
        assert!(matches!(
            directory.map_log(&path),
            Err(DirectoryError::Refused {
                refusal: Refusal::NotALog,
                ..
            })
        ));
        assert!(directory.allocated_length(&path).is_err());
    }
    assert!(matches!(
        directory.delete_log("/elsewhere/images/1.logbuffer"),
        Err(DirectoryError::Refused {
            refusal: Refusal::Outside,
            ..
        })
    ));
    assert!(directory.map_cnc().is_ok());
}

fn an_active_directory_is_left_alone(directory: &dyn Directory) {
    let cnc = started(directory);
    for age_ms in [0, 5_000, 10_000] {
        cnc.set_driver_heartbeat(EpochMs(NOW.0 - age_ms));
        assert_eq!(
            activity(directory),
            Activity::Active {
                pid: spec().pid,
                heartbeat_age_ms: age_ms
            }
        );
        assert!(matches!(
            directory.prepare(&OPTIONS, &FixedClock),
            Err(StartError::Active { .. })
        ));
    }
    assert!(directory.map_cnc().is_ok());
    let forced = StartOptions {
        delete_on_start: true,
        ..OPTIONS
    };
    directory.prepare(&forced, &FixedClock).unwrap();
    assert!(!directory.exists());
}

fn a_directory_left_behind_is_replaced(directory: &dyn Directory) {
    let mut cnc = started(directory);
    for (heartbeat, reason) in [
        (-1, Inactive::CleanStop),
        (NOW.0 - 10_001, Inactive::HeartbeatOld { age_ms: 10_001 }),
        (0, Inactive::HeartbeatOld { age_ms: NOW.0 }),
        (i64::MIN, Inactive::HeartbeatOld { age_ms: i64::MAX }),
        (
            NOW.0 + 3_600_000,
            Inactive::HeartbeatStuck { ahead_ms: 3_600_000 },
        ),
        (
            i64::MAX,
            Inactive::HeartbeatStuck {
                ahead_ms: i64::MAX - NOW.0,
            },
        ),
    ] {
        cnc.set_driver_heartbeat(EpochMs(heartbeat));
        assert_eq!(activity(directory), Activity::Inactive(reason));
        let prepared = directory.prepare(&OPTIONS, &FixedClock).unwrap();
        assert_eq!(prepared.replaced, Some(reason));
        assert_eq!(prepared.saved_error_log, None);
        assert!(!directory.exists());
        cnc = started(directory);
    }
}

fn a_heartbeat_that_moves_is_alive_whatever_the_clock_says(directory: &dyn Directory) {
    let cnc = started(directory);
    let ahead = EpochMs(NOW.0 + 3_600_000);
    cnc.set_driver_heartbeat(ahead);
    let activity = examine(directory, TIMEOUT, &FixedClock, &|_| {
        cnc.set_driver_heartbeat(EpochMs(ahead.0 + 1));
    })
    .unwrap();
    assert!(matches!(activity, Activity::Active { .. }), "{activity:?}");
}

fn a_stop_while_the_heartbeat_is_watched_is_a_clean_stop(directory: &dyn Directory) {
    let cnc = started(directory);
    cnc.set_driver_heartbeat(EpochMs(NOW.0 + 3_600_000));
    let activity = examine(directory, TIMEOUT, &FixedClock, &|_| {
        cnc.set_driver_heartbeat(EpochMs(-1));
    })
    .unwrap();
    assert!(matches!(activity, Activity::Inactive(_)), "{activity:?}");
}

fn a_file_that_is_not_published_is_waited_for(directory: &dyn Directory) {
    let cnc = started(directory);
    let version = || cnc.region().as_view();
    version().store_release_i32(0, 0);
    let undecided = examine(directory, TIMEOUT, &FixedClock, &|_| {}).unwrap();
    assert_eq!(
        undecided,
        Activity::Unknown(Unknown::NotReady { pid: spec().pid })
    );
    let published = examine(directory, TIMEOUT, &FixedClock, &|_| cnc.publish_version()).unwrap();
    assert!(matches!(published, Activity::Active { .. }));
}

fn a_foreign_major_version_is_refused(directory: &dyn Directory) {
    let cnc = started(directory);
    for version in [1 << 16, -1, i32::MIN] {
        cnc.region().as_view().store_release_i32(0, version);
        cnc.set_driver_heartbeat(EpochMs(-1));
        assert_eq!(
            activity(directory),
            Activity::Unknown(Unknown::VersionMismatch(version))
        );
        let error = directory.prepare(&OPTIONS, &FixedClock).unwrap_err();
        assert!(error.to_string().contains("has version"), "{error}");
        assert!(directory.exists());
    }
}

fn the_extension_says_whether_the_process_lives(directory: &dyn Directory) {
    let cnc = started(directory);
    let region = directory.create_extension(extension::FILE_LENGTH as u64).unwrap();
    // Another process that lives for as long as the test: the one that started it.
    let parent = i64::from(std::os::unix::process::parent_id());
    let mut driver = ProcessId {
        pid: parent,
        start_time_ticks: crate::agent::process::start_time_of(parent).unwrap(),
        namespace: ProcessId::current().namespace,
    };
    Extension::create(&region, driver, spec().start).unwrap();
    let old = EpochMs(NOW.0 - 3_600_000);
    cnc.set_driver_heartbeat(old);
    assert_eq!(
        activity(directory),
        Activity::Stalled {
            pid: parent,
            heartbeat_age_ms: 3_600_000
        }
    );
    assert!(matches!(
        directory.prepare(&OPTIONS, &FixedClock),
        Err(StartError::Stalled { .. })
    ));
    // A driver of this very process that ended without a word.
    Extension::create(&region, ProcessId::current(), spec().start).unwrap();
    assert!(matches!(
        activity(directory),
        Activity::Inactive(Inactive::HeartbeatOld { .. })
    ));
    // A dead driver whose id was given to another process: no need to wait for the heartbeat to age.
    cnc.set_driver_heartbeat(NOW);
    driver.start_time_ticks += 1;
    Extension::create(&region, driver, spec().start).unwrap();
    let dead = Inactive::ProcessDead { pid: parent };
    assert_eq!(activity(directory), Activity::Inactive(dead));
    // The extension of another run says nothing about this one.
    Extension::create(&region, driver, EpochMs(1)).unwrap();
    assert!(matches!(activity(directory), Activity::Active { .. }));
    // Neither does a process of another namespace.
    driver.namespace ^= 1;
    Extension::create(&region, driver, spec().start).unwrap();
    assert!(matches!(activity(directory), Activity::Active { .. }));
    driver.namespace ^= 1;
    Extension::create(&region, driver, spec().start).unwrap();
    assert_eq!(
        directory.prepare(&OPTIONS, &FixedClock).unwrap().replaced,
        Some(dead)
    );
}

fn the_error_log_of_the_last_driver_is_saved(
    directory: &dyn Directory,
    read: &dyn Fn(&str) -> Option<String>,
) {
    let cnc = started(directory);
    cnc.set_driver_heartbeat(EpochMs(-1));
    let mut log = ErrorLog::new(cnc.error_log());
    assert!(log.record(EpochMs(951_782_400_000), 12, "no space left"));
    assert!(!log.record(EpochMs(951_782_400_001), 12, "no space left"));
    let prepared = directory.prepare(&OPTIONS, &FixedClock).unwrap();
    let name = prepared.saved_error_log.unwrap();
    assert_eq!(
        name,
        format!("{}-2026-11-21 21-03-05.051+0000-error.log", directory.path())
    );
    let text = read(&name).unwrap();
    assert!(text.contains("2 observations"), "{text}");
    assert!(text.contains("no space left"), "{text}");
    assert!(text.contains("2000-02-29 00-00-00.001+0000"), "{text}");
    assert!(!directory.exists());
}

/// Whatever a crash or a scribbler leaves in the two files: an answer, no panic, and the files stay as they are
/// unless the answer is that no driver lives.
fn no_content_upsets_the_examination(directory: &dyn Directory) {
    use proptest::prelude::*;
    let cnc = started(directory);
    let region = directory.create_extension(extension::FILE_LENGTH as u64).unwrap();
    let word = prop_oneof![
        any::<i64>(),
        Just(-1),
        Just(0),
        Just(512),
        Just(NOW.0),
        (any::<i32>(), any::<i32>()).prop_map(|(low, high)| i64::from(low) << 32 | i64::from(high)),
    ];
    let change = (any::<bool>(), 0usize..160, word);
    proptest!(ProptestConfig::with_cases(512), |(changes in proptest::collection::vec(change, 1..6))| {
        for view in [cnc.region().as_view(), region.as_view()] {
            view.zero(0, view.capacity());
        }
        let fresh = CncFile::create(cnc.region(), &spec()).unwrap();
        fresh.set_driver_heartbeat(NOW);
        fresh.publish_version();
        Extension::create(&region, ProcessId::current(), spec().start).unwrap();
        for (in_cnc, index, word) in changes {
            let view = if in_cnc { cnc.region().as_view() } else { region.as_view() };
            // The first words of the header, then words spread over the file.
            let offset = if index < 20 { index * 8 } else { ((index * 488) % view.capacity()) & !7 };
            view.store_relaxed_i64(offset, word);
        }
        let found = examine(directory, Duration::from_millis(3), &FixedClock, &|_| {}).unwrap();
        prop_assert_ne!(found, Activity::Absent);
    });
}

macro_rules! conformance {
    ($($name:ident $(, $read:ident)?;)*) => {
        mod file_system {
            $(
                #[test]
                fn $name() {
                    let parent = tempfile::tempdir().unwrap();
                    let directory = super::FsDirectory::new(format!("{}/driver", parent.path().display()));
                    $(let $read = |path: &str| std::fs::read_to_string(path).ok();)?
                    super::$name(&directory $(, &$read)?);
                }
            )*
        }
        mod memory {
            $(
                #[test]
                fn $name() {
                    let directory = super::MemDirectory::new("/simulated/driver");
                    $(let $read = |name: &str| directory.saved_error_log(name);)?
                    super::$name(&directory $(, &$read)?);
                }
            )*
        }
    };
}

conformance! {
    before_creation;
    files_are_zero_shared_and_made_once;
    logs_live_by_their_path;
    only_logs_of_the_directory_are_deleted;
    an_active_directory_is_left_alone;
    a_directory_left_behind_is_replaced;
    a_heartbeat_that_moves_is_alive_whatever_the_clock_says;
    a_stop_while_the_heartbeat_is_watched_is_a_clean_stop;
    a_file_that_is_not_published_is_waited_for;
    a_foreign_major_version_is_refused;
    the_extension_says_whether_the_process_lives;
    the_error_log_of_the_last_driver_is_saved, read;
    no_content_upsets_the_examination;
}

#[test]
fn a_full_memory_directory_refuses_and_keeps_nothing() {
    let directory = MemDirectory::with_capacity("/simulated/driver", 10_000);
    directory.create_dirs().unwrap();
    let _cnc = directory.create_cnc(8192).unwrap();
    assert_eq!(directory.usable_space().unwrap(), 1808);
    assert!(matches!(
        directory.create_log(LogKind::Image, RegistrationId(1), 4096, Blocks::Allocate),
        Err(DirectoryError::NoSpace { length: 4096, .. })
    ));
    assert!(directory.logs().unwrap().is_empty());
    assert!(
        directory
            .create_log(LogKind::Image, RegistrationId(1), 4096, Blocks::Sparse)
            .is_ok()
    );
}
