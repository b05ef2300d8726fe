//! What a client does after each message to the network: it wakes a driver that sleeps, once, and costs one that is
//! awake nothing. IPC publications do not look at all.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod scripted;

use fulmar::agent::doorbell::{DoorbellWords, SLEEPING_OFFSET};
use fulmar::cnc::extension::{Extension, Sleepers};
use fulmar::directory::{BellPipe, Directory, FsDirectory};
use fulmar::id::CounterId;
use fulmar::memory::{AtomicBuffer, View};
use fulmar::{Client, ExclusivePublication, Offer, Publication};
use scripted::{FakeDriver, FakePublication, ManualClock, connect};

const UDP: &str = "aeron:udp?endpoint=localhost:40123";

struct Host {
    _home: tempfile::TempDir,
    driver: FakeDriver<FsDirectory>,
    extension: Extension,
    pipe: BellPipe,
    client: Client,
}

fn host(sleepers: Sleepers) -> Host {
    let home = tempfile::tempdir().unwrap();
    let directory = FsDirectory::new(home.path().join("driver").to_str().unwrap());
    let clock = ManualClock::new();
    let driver = FakeDriver::start_in(directory, &clock, 77);
    let extension = driver.extend();
    extension.set_sleepers(sleepers);
    let pipe = driver.directory.create_bell().unwrap().unwrap();
    let (client, _) = connect(&driver);
    Host {
        _home: home,
        driver,
        extension,
        pipe,
        client,
    }
}

impl Host {
    fn publication(&mut self, channel: &str, limit: i64) -> (Publication, FakePublication) {
        let mut pending = self.client.async_add_publication(channel, 10).unwrap();
        let fake = self.answer(channel, limit);
        (pending.poll().unwrap().unwrap(), fake)
    }

    fn exclusive(&mut self, channel: &str, limit: i64) -> (ExclusivePublication, FakePublication) {
        let mut pending = self.client.async_add_exclusive_publication(channel, 10).unwrap();
        let fake = self.answer(channel, limit);
        (pending.poll().unwrap().unwrap(), fake)
    }

    fn answer(&mut self, channel: &str, limit: i64) -> FakePublication {
        let (header, _) = self.driver.next().unwrap();
        let status = if channel == UDP {
            self.driver.counter(6, header.correlation_id.get(), 1)
        } else {
            CounterId::NONE
        };
        let session = header.correlation_id.get() as i32;
        self.driver
            .answer_publication_of(header.correlation_id, session, 10, limit, status)
    }

    fn sleeper(&self) -> DoorbellWords<View> {
        DoorbellWords::new(self.extension.sender_doorbell_words())
    }
}

/// A way of publishing, with its name.
type Way<'a> = (&'static str, Box<dyn FnMut() + 'a>);

/// Each way of publishing rings once per announcement, after the message is there.
#[test]
fn every_way_of_publishing_to_the_network_wakes_a_sleeping_sender_once() {
    let mut host = host(Sleepers::FutexAndPipe);
    let (shared, _) = host.publication(UDP, 1 << 20);
    let (mut own, _) = host.exclusive(UDP, 1 << 20);
    let sleeper = host.sleeper();
    let own = std::cell::RefCell::new(&mut own);
    let mut ways: Vec<Way<'_>> = Vec::new();
    ways.push(("offer", Box::new(|| assert!(shared.offer(b"1").is_accepted()))));
    ways.push((
        "long offer",
        Box::new(|| assert!(shared.offer(&[7; 5000]).is_accepted())),
    ));
    ways.push((
        "parts",
        Box::new(|| assert!(shared.offer_parts(&[b"1", b"2"]).is_accepted())),
    ));
    ways.push((
        "batch",
        Box::new(|| assert_eq!(shared.offer_batch(&[b"1", b"2", b"3"]).accepted, 3)),
    ));
    ways.push((
        "strip",
        Box::new(|| assert_eq!(shared.offer_batch_of(b"123", 1).accepted, 3)),
    ));
    ways.push((
        "commit",
        Box::new(|| {
            shared.try_claim(9).unwrap().commit().unwrap();
        }),
    ));
    ways.push(("abort", Box::new(|| shared.try_claim(9).unwrap().abort())));
    ways.push((
        "exclusive offer",
        Box::new(|| assert!(own.borrow_mut().offer(b"1").is_accepted())),
    ));
    ways.push((
        "exclusive batch",
        Box::new(|| assert_eq!(own.borrow_mut().offer_batch(&[b"1", b"2"]).accepted, 2)),
    ));
    ways.push((
        "exclusive strip",
        Box::new(|| assert_eq!(own.borrow_mut().offer_batch_of(b"12", 1).accepted, 2)),
    ));
    ways.push((
        "exclusive commit",
        Box::new(|| {
            own.borrow_mut().try_claim(9).unwrap().commit().unwrap();
        }),
    ));
    ways.push((
        "exclusive abort",
        Box::new(|| own.borrow_mut().try_claim(9).unwrap().abort()),
    ));
    ways.push((
        "padding",
        Box::new(|| assert!(own.borrow_mut().append_padding(64).is_accepted())),
    ));
    for (name, publish) in &mut ways {
        publish();
        assert!(!host.pipe.drain(), "{name}: the sender is awake");
        sleeper.announce();
        publish();
        assert!(host.pipe.drain(), "{name}: the sender sleeps");
        publish();
        assert!(!host.pipe.drain(), "{name}: it was woken already");
        sleeper.announce_again();
        publish();
        assert!(host.pipe.drain(), "{name}: it sleeps again");
        sleeper.leave();
    }
}

#[test]
fn a_claim_rings_when_it_is_committed() {
    let mut host = host(Sleepers::FutexAndPipe);
    let (shared, _) = host.publication(UDP, 1 << 20);
    let (mut own, _) = host.exclusive(UDP, 1 << 20);
    let sleeper = host.sleeper();
    let claim = shared.try_claim(9).unwrap();
    sleeper.announce();
    assert!(!host.pipe.drain());
    assert_eq!(claim.commit(), Ok(64));
    assert!(host.pipe.drain());
    sleeper.leave();
    let claim = own.try_claim(9).unwrap();
    sleeper.announce();
    assert!(!host.pipe.drain());
    assert_eq!(claim.commit(), Ok(64));
    assert!(host.pipe.drain());
}

#[test]
fn ipc_publications_never_ring() {
    let mut host = host(Sleepers::FutexAndPipe);
    let (shared, _) = host.publication("aeron:ipc", 1 << 20);
    let (mut own, _) = host.exclusive("aeron:ipc", 1 << 20);
    host.sleeper().announce();
    for _ in 0..3 {
        assert!(shared.offer(b"1").is_accepted() && own.offer(b"1").is_accepted());
        shared.try_claim(9).unwrap().commit().unwrap();
        own.try_claim(9).unwrap().abort();
    }
    assert!(!host.pipe.drain());
}

#[test]
fn publications_to_the_network_keep_to_their_limit() {
    let mut host = host(Sleepers::FutexAndPipe);
    let (shared, fake) = host.publication(UDP, 128);
    let (mut own, fake_own) = host.exclusive(UDP, 128);
    for position in [64, 128] {
        assert_eq!(shared.offer(&[0; 32]), Offer::Position(position));
        assert_eq!(own.offer(&[0; 32]), Offer::Position(position));
    }
    assert_eq!(shared.offer(&[0; 32]), Offer::BackPressured);
    assert_eq!(own.offer(&[0; 32]), Offer::BackPressured);
    assert_eq!(shared.try_claim(8).unwrap_err(), Offer::BackPressured);
    assert_eq!(own.try_claim(8).unwrap_err(), Offer::BackPressured);
    for fake in [&fake, &fake_own] {
        host.driver.counters.set_value(fake.limit, 1 << 20);
    }
    assert_eq!(shared.offer(&[0; 32]), Offer::Position(192));
    assert_eq!(own.offer(&[0; 32]), Offer::Position(192));
    // With nobody to read, the limit of before does not count.
    for fake in [&fake, &fake_own] {
        fake.log.metadata().set_connected(false);
        host.driver.counters.set_value(fake.limit, 192);
    }
    assert_eq!(shared.offer(&[0; 32]), Offer::NotConnected);
    assert_eq!(own.offer(&[0; 32]), Offer::NotConnected);
}

#[test]
fn a_driver_with_one_thread_is_woken_by_commands_and_offers_alike() {
    let mut host = host(Sleepers::Pipe);
    let (shared, _) = host.publication(UDP, 1 << 20);
    let words = host.extension.doorbell_words();
    let thread = DoorbellWords::new(words.clone());
    thread.announce();
    assert!(shared.offer(b"1").is_accepted());
    assert!(host.pipe.drain());
    let _pending = host.client.async_add_publication(UDP, 11).unwrap();
    assert!(host.pipe.drain());
    assert_eq!(words.load_acquire_i32(SLEEPING_OFFSET), 1);
}

#[test]
fn without_a_pipe_or_with_nonsense_in_the_file_everything_but_the_waking_works() {
    for (driver_sleep, offer_doorbell, pipe) in [
        (1, 256, false),
        (1, 128, false),
        (0, 264, true),
        (7, -1, true),
        (i32::MIN, i32::MAX, true),
    ] {
        let home = tempfile::tempdir().unwrap();
        let directory = FsDirectory::new(home.path().join("driver").to_str().unwrap());
        let clock = ManualClock::new();
        let mut driver = FakeDriver::start_in(directory, &clock, 77);
        let extension = driver.extend();
        let header = extension.region().as_view();
        header.store_relaxed_i32(56, driver_sleep);
        header.store_relaxed_i32(60, offer_doorbell);
        let pipe = pipe.then(|| driver.directory.create_bell().unwrap().unwrap());
        let (client, _) = connect(&driver);
        let mut pending = client.async_add_publication(UDP, 10).unwrap();
        let (header, _) = driver.next().unwrap();
        let status = driver.counter(6, 1, 1);
        driver.answer_publication_of(header.correlation_id, 1, 10, 1 << 20, status);
        let publication = pending.poll().unwrap().unwrap();
        DoorbellWords::new(extension.sender_doorbell_words()).announce();
        assert_eq!(publication.offer(b"1"), Offer::Position(64));
        assert!(!pipe.is_some_and(|pipe| pipe.drain()));
    }
}
