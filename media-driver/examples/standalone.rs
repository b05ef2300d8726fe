//! Runs a driver in the directory given as the argument until a client is allowed to terminate it, or it is killed.

use std::time::Duration;

use fulmar_media_driver::{DriverSettings, MediaDriver};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut settings = DriverSettings::from_env()?;
    if let Some(dir) = std::env::args().nth(1) {
        settings.set("aeron.dir", &dir)?;
    }
    let driver = MediaDriver::launch(settings.conclude()?)?;
    println!("driver ready dir={} pid={}", driver.dir(), std::process::id());
    while driver.wait(Duration::from_secs(3600)).is_none() {}
    Ok(())
}
