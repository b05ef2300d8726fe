//! A driver in a file system that is too small for everything it is asked for: the one client is told, with the sizes,
//! and everything else goes on. Mounts a file system of its own and needs the right to do so.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the test waits on real time, and its helpers fail by panicking"
)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fulmar::{Client, ClientSettings, RegistrationError};
use fulmar_media_driver::{DriverSettings, MediaDriver};

struct Mount(tempfile::TempDir);

impl Mount {
    fn of(size: &str) -> Option<Mount> {
        let point = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "fulmar-test"])
            .arg(point.path())
            .stderr(std::process::Stdio::null())
            .status();
        matches!(mounted, Ok(status) if status.success()).then_some(Mount(point))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

fn driver_in(mount: &Mount) -> MediaDriver {
    let mut settings = DriverSettings::defaults();
    settings
        .set("aeron.dir", mount.path().join("driver").to_str().unwrap())
        .unwrap();
    MediaDriver::launch(settings.conclude().unwrap()).unwrap()
}

#[test]
fn a_publication_that_does_not_fit_gets_one_clear_error_and_others_go_on() {
    let Some(mount) = Mount::of("64m") else {
        println!("skipped: no right to mount a file system");
        return;
    };
    let driver = driver_in(&mount);
    let client = Client::connect(ClientSettings {
        dir: driver.dir().to_owned(),
        ..ClientSettings::default()
    })
    .unwrap();
    let mut subscription = client.add_subscription("aeron:ipc?term-length=64k", 1).unwrap();
    let publication = client.add_publication("aeron:ipc?term-length=64k", 1).unwrap();
    let refused = client.add_publication("aeron:ipc", 2);
    let text = match refused {
        Err(RegistrationError::Refused { ref message, .. }) => message.clone(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a log of 192 MiB fits nowhere in 64 MiB"),
    };
    println!("{text}");
    assert!(
        text.contains(&(3 * (64 << 20) + 4096).to_string()),
        "the size asked for: {text}"
    );
    assert!(text.contains(driver.dir()), "where: {text}");
    // More than three terms of the stream that was there before, every byte of it touched.
    let mut received = 0u64;
    let mut sent = 0u64;
    let begun = Instant::now();
    while received < 4000 {
        if publication.offer(&[7u8; 100]).position().is_some() {
            sent += 1;
        }
        received += subscription.poll(|payload, _| assert_eq!(payload.len(), 100), 10) as u64;
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "sent {sent}, received {received}"
        );
    }
    assert!(driver.is_running());
}

#[test]
fn logs_are_refused_before_the_space_runs_out_and_all_that_were_granted_can_be_filled() {
    let Some(mount) = Mount::of("56m") else {
        println!("skipped: no right to mount a file system");
        return;
    };
    let driver = driver_in(&mount);
    let client = Client::connect(ClientSettings {
        dir: driver.dir().to_owned(),
        ..ClientSettings::default()
    })
    .unwrap();
    let mut granted = Vec::new();
    for stream in 0..200 {
        let subscription = client
            .add_subscription("aeron:ipc?term-length=64k", stream)
            .unwrap();
        match client.add_publication("aeron:ipc?term-length=64k", stream) {
            Ok(publication) => granted.push((subscription, publication)),
            Err(error) => {
                println!("refused after {} logs: {error}", granted.len());
                break;
            }
        }
    }
    assert!((5..200).contains(&granted.len()), "{} logs", granted.len());
    // Sparse files: every page of every log is written now. A promise that was not kept would end this process.
    for (subscription, publication) in &mut granted {
        let mut received = 0;
        let begun = Instant::now();
        while received < 250 {
            let _ = publication.offer(&[1u8; 1000]);
            received += subscription.poll(|_, _| {}, 10);
            assert!(begun.elapsed() < Duration::from_secs(20));
        }
    }
    assert!(driver.is_running());
}
