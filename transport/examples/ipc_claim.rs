//! Two ends in one process: claims on one side, polling on the other: `cargo run --example ipc_claim [DIRECTORY]`.
//! A claim is filled in place and committed, without a buffer of the application's own.

use fulmar::{Client, ClientSettings, Offer};

const MESSAGES: u64 = 1_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = match std::env::args().nth(1) {
        Some(dir) => ClientSettings::with_dir(dir),
        None => ClientSettings::default(),
    };
    let client = Client::connect(settings)?;
    let mut subscription = client.add_subscription("aeron:ipc", 1002)?;
    let mut publication = client.add_exclusive_publication("aeron:ipc", 1002)?;
    let (mut sent, mut sum) = (0u64, 0u64);
    let mut received = 0;
    while received < MESSAGES {
        if sent < MESSAGES {
            match publication.try_claim(size_of::<u64>()) {
                Ok(mut claim) => {
                    claim.copy_from_slice(&sent.to_le_bytes());
                    claim.commit()?;
                    sent += 1;
                }
                Err(Offer::BackPressured | Offer::AdminAction | Offer::NotConnected) => {}
                Err(outcome) => return Err(format!("{outcome:?}").into()),
            }
        }
        received += subscription.poll(|payload, _| sum += payload.read_u64(0).unwrap_or(0), 16) as u64;
    }
    println!("{received} messages, sum {sum}");
    Ok(())
}
