//! Prints every counter of a driver and of its clients: `cargo run --example counters [DIRECTORY]`.

use fulmar::{Client, ClientSettings};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = match std::env::args().nth(1) {
        Some(dir) => ClientSettings::with_dir(dir),
        None => ClientSettings::default(),
    };
    let client = Client::connect(settings)?;
    let own = client.add_counter(1001, b"example", "examples run")?;
    own.increment();
    let counters = client.counters().ok_or("the driver has just gone")?;
    counters.for_each(|record| println!("{:5} {:20} {}", record.id.get(), record.value, record.label));
    Ok(())
}
