//! Prints every message of a stream: `cargo run --example basic_subscriber [DIRECTORY]`.

use fulmar::agent::idle::{Backoff, IdleStrategy};
use fulmar::time::{NanoTime, SystemClock};
use fulmar::{Client, ClientSettings, ImageHandlers};

/// Most fragments taken in one poll, so that one stream can not hold the loop for long.
const FRAGMENT_LIMIT: usize = 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = match std::env::args().nth(1) {
        Some(dir) => ClientSettings::with_dir(dir),
        None => ClientSettings::default(),
    };
    let client = Client::connect(settings)?;
    let handlers = ImageHandlers {
        on_available: Some(Box::new(|image| println!("joined {image:?}"))),
        on_unavailable: Some(Box::new(|image| println!("left {image:?}"))),
    };
    let mut subscription = client.add_subscription_with("aeron:ipc", 1001, handlers)?;
    let mut idle = Backoff::default();
    while !subscription.is_closed() {
        let fragments = subscription.poll(
            |payload, header| {
                let text = String::from_utf8_lossy(&payload.to_vec()).into_owned();
                println!(
                    "session {} position {}: {text}",
                    header.session_id(),
                    header.position()
                );
            },
            FRAGMENT_LIMIT,
        );
        let now = SystemClock.nanos();
        idle.idle(fragments, NanoTime::never_after(now), now);
    }
    Ok(())
}
