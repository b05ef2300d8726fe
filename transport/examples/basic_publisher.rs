//! Publishes a numbered message every second: `cargo run --example basic_publisher [DIRECTORY]`.

use std::time::Duration;

use fulmar::agent::idle::sleep;
use fulmar::{Client, ClientSettings, Offer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = match std::env::args().nth(1) {
        Some(dir) => ClientSettings::with_dir(dir),
        None => ClientSettings::default(),
    };
    let client = Client::connect(settings)?;
    let publication = client.add_publication("aeron:ipc", 1001)?;
    for number in 0u64.. {
        let message = format!("message {number}");
        match publication.offer(message.as_bytes()) {
            Offer::Position(position) => println!("{message} is at position {position}"),
            Offer::NotConnected => println!("nobody subscribes"),
            outcome if outcome.is_retryable() => println!("not now: {outcome:?}"),
            outcome => {
                println!("never again: {outcome:?}");
                break;
            }
        }
        sleep(Duration::from_secs(1));
    }
    Ok(())
}
