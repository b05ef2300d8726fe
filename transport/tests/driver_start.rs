//! What a driver does with a directory that another driver, a crash, a scribbler or another user left behind: it is
//! taken over, or refused with the reason and left as it is. It is never mapped blindly.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; the lint knows test functions only"
)]

use core::time::Duration;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;

use fulmar::cnc::{CncFile, CncSpec};
use fulmar::directory::activity::{Inactive, Unknown};
use fulmar::directory::{
    Activity, Directory, DirectoryError, FsDirectory, Prepared, Refusal, StartError, StartOptions,
    check_active,
};
use fulmar::time::{Clock, EpochMs, SystemClock};
use proptest::prelude::*;
use tempfile::TempDir;

/// Short, as some of the outcomes are reached only after it. Heartbeats are written somewhat ahead, so that they stay
/// fresh however slowly the test runs.
const TIMEOUT: Duration = Duration::from_millis(20);
const OPTIONS: StartOptions = StartOptions {
    delete_on_start: false,
    driver_timeout: TIMEOUT,
};
const FRESH_FOR_MS: i64 = 3_600_000;

/// A place for a driver's directory.
struct Place {
    parent: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            parent: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> String {
        self.parent.path().join("driver").to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(&self.path()).join(name)
    }

    fn directory(&self) -> FsDirectory {
        FsDirectory::new(self.path())
    }

    fn prepare(&self) -> Result<Prepared, StartError> {
        self.directory().prepare(&OPTIONS, &SystemClock)
    }

    /// Puts a CnC file with this content into the directory.
    fn put_cnc(&self, content: &[u8]) {
        fs::create_dir_all(self.path()).unwrap();
        fs::write(self.file("cnc.dat"), content).unwrap();
    }
}

fn spec(pid: i64) -> CncSpec {
    CncSpec {
        to_driver_length: 4096 + 768,
        to_clients_length: 4096 + 128,
        counter_values_length: 64 * 128,
        error_log_length: 4096,
        page_size: 4096,
        client_liveness_timeout_ns: 10_000_000_000,
        start: EpochMs(1_700_000_000_000),
        pid,
    }
}

/// The bytes of a complete CnC file.
fn cnc_bytes(pid: i64, heartbeat: EpochMs) -> Vec<u8> {
    let place = Place::new();
    let directory = place.directory();
    directory.create_dirs().unwrap();
    let spec = spec(pid);
    let region = directory.create_cnc(spec.file_length().unwrap() as u64).unwrap();
    let cnc = CncFile::create(&region, &spec).unwrap();
    cnc.set_driver_heartbeat(heartbeat);
    cnc.publish_version();
    fs::read(place.file("cnc.dat")).unwrap()
}

fn own_pid() -> i64 {
    i64::from(std::process::id())
}

/// A process id that no process has.
fn dead_pid() -> i64 {
    let mut child = Command::new("true").spawn().unwrap();
    let pid = i64::from(child.id());
    child.wait().unwrap();
    pid
}

fn fresh() -> EpochMs {
    EpochMs(SystemClock.now().epoch.0 + FRESH_FOR_MS)
}

#[test]
fn a_file_cut_anywhere_is_taken_over_only_if_its_driver_is_dead() {
    let alive = cnc_bytes(own_pid(), EpochMs(SystemClock.now().epoch.0 + 900));
    let dead = cnc_bytes(dead_pid(), EpochMs(SystemClock.now().epoch.0 + 900));
    // The last section ends before the page does; what is cut off after that is missed by nobody.
    let sections_end = 128 + 4864 + 4224 + 4 * 8192 + 8192 + 4096;
    for cut in (64..alive.len()).step_by(64) {
        let place = Place::new();
        place.put_cnc(&alive[..cut]);
        if cut <= 128 {
            assert_eq!(place.prepare().unwrap().replaced, Some(Inactive::NoCnc));
            assert!(!place.directory().exists());
        } else if cut < sections_end {
            let error = place.prepare().unwrap_err();
            assert!(
                matches!(
                    error,
                    StartError::Undecided {
                        reason: Unknown::Damaged(_),
                        ..
                    }
                ),
                "{cut}: {error}"
            );
            assert!(error.to_string().contains("damaged"), "{error}");
            assert_eq!(fs::read(place.file("cnc.dat")).unwrap(), &alive[..cut]);
        }

        let place = Place::new();
        place.put_cnc(&dead[..cut]);
        assert!(place.prepare().unwrap().replaced.is_some());
        assert!(!place.directory().exists());
    }
}

#[test]
fn a_header_written_half_way_is_refused_until_its_driver_is_known_to_be_dead() {
    let complete = cnc_bytes(own_pid(), EpochMs(-1));
    // The version is stored last, so a driver that dies earlier leaves 0 there and any prefix of the rest.
    for written in (4..=52).step_by(4) {
        let mut content = complete.clone();
        content[0..4].fill(0);
        content[written..].fill(0);
        let place = Place::new();
        place.put_cnc(&content);
        let pid = if written >= 48 { own_pid() } else { 0 };
        match place.prepare() {
            Err(StartError::Undecided {
                reason: Unknown::NotReady { pid: found },
                ..
            }) if written >= 48 || written <= 40 => assert_eq!(found, pid),
            // Half of the process id is another process id.
            Err(StartError::Undecided { .. }) | Ok(_) if written == 44 => {}
            other => panic!("{written}: {other:?}"),
        }
    }
    let mut content = cnc_bytes(dead_pid(), EpochMs(-1));
    content[0..4].fill(0);
    let place = Place::new();
    place.put_cnc(&content);
    assert!(matches!(
        place.prepare().unwrap().replaced,
        Some(Inactive::ProcessDead { .. })
    ));
}

#[test]
fn scribbled_files_are_taken_over_or_refused_untouched() {
    let complete = cnc_bytes(own_pid(), fresh());
    let length = complete.len();
    let change = (prop_oneof![0usize..64, 0..length], any::<u8>());
    let changes = proptest::collection::vec(change, 1..8);
    let config = ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(changes in changes, cut in 0..length)| {
        let mut content = complete.clone();
        for (at, byte) in changes {
            content[at] = byte;
        }
        if cut % 4 == 0 {
            content.truncate(cut);
        }
        let place = Place::new();
        place.put_cnc(&content);
        match place.prepare() {
            Ok(prepared) => {
                prop_assert!(prepared.replaced.is_some());
                prop_assert!(!place.directory().exists());
            }
            Err(error) => {
                prop_assert!(error.to_string().contains(&place.path()), "{}", error);
                prop_assert_eq!(fs::read(place.file("cnc.dat")).unwrap(), content);
            }
        }
    });
}

#[test]
fn a_driver_that_died_moments_ago_is_replaced_without_waiting_for_its_heartbeat_to_age() {
    let place = Place::new();
    place.put_cnc(&cnc_bytes(dead_pid(), EpochMs(SystemClock.now().epoch.0)));
    let options = StartOptions {
        driver_timeout: Duration::from_secs(3600),
        ..OPTIONS
    };
    let prepared = place.directory().prepare(&options, &SystemClock).unwrap();
    assert!(matches!(prepared.replaced, Some(Inactive::ProcessDead { .. })));
}

#[test]
fn links_are_not_followed() {
    let place = Place::new();
    let elsewhere = place.parent.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("precious"), b"x").unwrap();
    symlink(&elsewhere, place.path()).unwrap();
    let forced = StartOptions {
        delete_on_start: true,
        ..OPTIONS
    };
    for path in [place.path(), format!("{}/", place.path())] {
        for options in [OPTIONS, forced] {
            let directory = FsDirectory::new(path.clone());
            assert!(matches!(
                directory.prepare(&options, &SystemClock),
                Err(StartError::Directory(DirectoryError::Refused {
                    refusal: Refusal::SymbolicLink,
                    ..
                }))
            ));
            assert!(directory.create_dirs().is_err());
            assert!(directory.delete().is_err());
        }
    }
    assert!(elsewhere.join("precious").exists());
}

#[test]
fn a_cnc_file_that_is_no_plain_file_is_refused() {
    let place = Place::new();
    let target = place.parent.path().join("target");
    fs::write(&target, cnc_bytes(own_pid(), EpochMs(-1))).unwrap();
    fs::create_dir_all(place.path()).unwrap();
    symlink(&target, place.file("cnc.dat")).unwrap();
    assert_eq!(
        check_active(&place.path(), TIMEOUT).unwrap(),
        Activity::Unknown(Unknown::Refused(Refusal::SymbolicLink))
    );
    assert!(place.prepare().unwrap_err().to_string().contains("symbolic link"));

    fs::remove_file(place.file("cnc.dat")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(place.file("cnc.dat"))
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(
        check_active(&place.path(), TIMEOUT).unwrap(),
        Activity::Unknown(Unknown::Refused(Refusal::NotAFile))
    );

    fs::remove_file(place.file("cnc.dat")).unwrap();
    fs::write(place.file("cnc.dat"), b"").unwrap();
    assert_eq!(place.prepare().unwrap().replaced, Some(Inactive::NoCnc));
    assert!(target.exists());
}

#[test]
fn links_inside_the_directory_are_removed_without_what_they_lead_to() {
    let place = Place::new();
    let precious = place.parent.path().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), b"x").unwrap();
    place.put_cnc(&cnc_bytes(own_pid(), EpochMs(-1)));
    symlink(&precious, place.file("publications")).unwrap();
    assert_eq!(place.prepare().unwrap().replaced, Some(Inactive::CleanStop));
    assert!(!place.directory().exists());
    assert!(precious.join("file").exists());
}

#[test]
fn a_mistyped_path_deletes_nothing() {
    let place = Place::new();
    fs::create_dir(place.path()).unwrap();
    fs::write(place.file("thesis.tex"), b"x").unwrap();
    let error = place.prepare().unwrap_err();
    assert!(matches!(error, StartError::NotADriverDirectory { .. }));
    assert!(error.to_string().contains("thesis.tex"), "{error}");
    assert!(place.file("thesis.tex").exists());
    // A plain file where the directory should be.
    let file = FsDirectory::new(place.file("thesis.tex").to_str().unwrap());
    assert!(matches!(
        file.prepare(&OPTIONS, &SystemClock),
        Err(StartError::Directory(DirectoryError::Refused {
            refusal: Refusal::NotADirectory,
            ..
        }))
    ));
}

#[test]
fn of_drivers_that_start_together_one_gets_the_directory() {
    for _ in 0..20 {
        let place = Place::new();
        // Left behind by a driver that stopped, so that each of them wants to delete it first.
        place.put_cnc(&cnc_bytes(own_pid(), EpochMs(-1)));
        let barrier = Barrier::new(4);
        let options = StartOptions {
            driver_timeout: Duration::from_secs(60),
            ..OPTIONS
        };
        let start = || {
            let directory = place.directory();
            barrier.wait();
            let prepared = directory.prepare(&options, &SystemClock)?;
            assert!(prepared.is_locked());
            directory.create_dirs()?;
            let spec = spec(own_pid());
            let region = directory.create_cnc(spec.file_length().unwrap() as u64)?;
            let cnc = CncFile::create(&region, &spec).unwrap();
            cnc.set_driver_heartbeat(SystemClock.now().epoch);
            cnc.publish_version();
            Ok(())
        };
        let outcomes: Vec<Result<(), StartError>> = std::thread::scope(|scope| {
            let drivers: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            drivers.into_iter().map(|driver| driver.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        for outcome in outcomes {
            assert!(matches!(outcome, Ok(()) | Err(StartError::Active { .. })));
        }
        assert!(CncFile::open(&place.directory().map_cnc().unwrap()).is_ok());
    }
}

#[test]
fn files_and_directories_get_the_modes_they_were_given() {
    use fulmar::directory::{Blocks, LogKind, Modes};
    use std::os::unix::fs::PermissionsExt;
    for modes in [Modes::PRIVATE, Modes::GROUP] {
        let place = Place::new();
        let directory = FsDirectory::with_modes(place.path(), modes);
        directory.create_dirs().unwrap();
        directory.create_cnc(4096).unwrap();
        directory
            .create_log(LogKind::Image, 5.into(), 4096, Blocks::Sparse)
            .unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(place.path().into()), modes.directory);
        assert_eq!(mode(place.file("images")), modes.directory);
        assert_eq!(mode(place.file("publications")), modes.directory);
        assert_eq!(mode(place.file("cnc.dat")), modes.file);
        assert_eq!(mode(place.file("images/5.logbuffer")), modes.file);
    }
}

#[test]
fn a_file_that_does_not_fit_is_refused_and_leaves_nothing_behind() {
    use fulmar::directory::{Blocks, LogKind};
    let parent = tempfile::tempdir_in("/dev/shm").unwrap();
    let directory = FsDirectory::new(parent.path().join("driver").to_str().unwrap());
    directory.create_dirs().unwrap();
    assert!(directory.usable_space().unwrap() > 0, "a limited file system");
    let result = directory.create_log(LogKind::Publication, 9.into(), 1 << 50, Blocks::Allocate);
    assert!(
        matches!(result, Err(DirectoryError::NoSpace { .. })),
        "{result:?}"
    );
    assert!(directory.logs().unwrap().is_empty());
}
