//! Aeron's C media driver as a process, for the interop tests. `AERON_*` variables configure it. It prints
//! `driver ready dir=DIR pid=PID`, then runs until standard input ends or a client's termination request is allowed.

#[allow(dead_code, unreachable_pub, reason = "the files serve several programs")]
mod c_aeron;
#[allow(dead_code, unreachable_pub, reason = "the files serve several programs")]
mod facts;

use std::process::ExitCode;
use std::sync::Arc;

use c_aeron::{CDriver, CDriverSettings, CThreading};
use fulmar::sync::{AtomicBool, Ordering};

fn main() -> ExitCode {
    let Ok(dir) = std::env::var("AERON_DIR") else {
        eprintln!("AERON_DIR names no directory");
        return ExitCode::from(2);
    };
    let terminated = Arc::new(AtomicBool::new(false));
    let hook = Arc::clone(&terminated);
    let settings = CDriverSettings {
        dir: dir.clone(),
        threading: CThreading::Environment,
        idle: String::new(),
        ipc_term_length: 0,
        own_directory: false,
    };
    let driver = CDriver::launch(
        &settings,
        Some(Box::new(move || hook.store(true, Ordering::Release))),
    );
    let driver = match driver {
        Ok(driver) => driver,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    println!("driver ready dir={dir} pid={}", std::process::id());
    while !terminated.load(Ordering::Acquire) && !input_ended() {}
    drop(driver);
    ExitCode::SUCCESS
}

/// Waits 10 ms for standard input and says whether it ended.
fn input_ended() -> bool {
    let mut wait = libc::pollfd {
        fd: libc::STDIN_FILENO,
        events: libc::POLLIN,
        revents: 0,
    };
    let mut byte = 0u8;
    // SAFETY: both calls get valid, exclusively borrowed buffers of the stated lengths.
    unsafe {
        libc::poll(&raw mut wait, 1, 10) > 0 && libc::read(libc::STDIN_FILENO, (&raw mut byte).cast(), 1) == 0
    }
}
