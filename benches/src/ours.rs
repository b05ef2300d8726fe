//! Fulmar's driver and client as a [`Side`].
#![forbid(unsafe_code)]

use core::cell::RefCell;
use core::time::Duration;

use fulmar::client::{Pending, Resource};
use fulmar::{
    Client, ClientSettings, ExclusivePublication, Header, Payload, Publication, RegistrationError,
    Subscription,
};
use fulmar_media_driver::{DriverSettings, MediaDriver, MediaDriverInvoker};

use crate::side::{BenchError, Mode, Publisher, Settings, Side, Subscriber, Tally};
use crate::workload::wait;

/// Ours. Fields drop in this order: the client leaves before its driver.
pub struct Ours {
    client: Client,
    driver: Driver,
}

enum Driver {
    Threads(#[expect(dead_code, reason = "lives as long as the side")] MediaDriver),
    Invoker(RefCell<MediaDriverInvoker>),
}

impl Ours {
    fn finish<R: Resource>(&self, pending: Result<Pending<R>, RegistrationError>) -> Result<R, BenchError> {
        let mut pending = pending?;
        loop {
            if let Some(result) = pending.poll() {
                return Ok(result?);
            }
            match self.driver {
                Driver::Invoker(_) => self.duty_cycle(),
                Driver::Threads(_) => wait(Duration::from_millis(1)),
            }
        }
    }
}

impl Side for Ours {
    type Concurrent = Publication;
    type Exclusive = ExclusivePublication;
    type Claims = Claims;
    type Subscriber = Subscription;

    fn start(settings: &Settings) -> Result<Ours, BenchError> {
        let mut driver = DriverSettings::defaults();
        let term_length = settings.term_length.to_string();
        let threading: &[(&str, &str)] = match settings.mode {
            Mode::Shared => &[
                ("aeron.threading.mode", "SHARED"),
                ("aeron.shared.idle.strategy", "backoff"),
            ],
            Mode::Invoker => &[("aeron.threading.mode", "INVOKER")],
            Mode::Defaults => &[],
        };
        let own = [
            ("aeron.dir", settings.dir.as_str()),
            ("aeron.dir.delete.on.start", "true"),
            ("aeron.dir.delete.on.shutdown", "true"),
            ("aeron.ipc.term.buffer.length", &term_length),
        ];
        for (key, value) in own.iter().chain(threading) {
            driver.set(key, value)?;
        }
        let context = driver.conclude()?;
        let driver = match settings.mode {
            Mode::Shared | Mode::Defaults => Driver::Threads(MediaDriver::launch(context)?),
            Mode::Invoker => {
                let mut invoker = MediaDriverInvoker::new(context)?;
                invoker.do_work()?;
                Driver::Invoker(RefCell::new(invoker))
            }
        };
        let client = Client::connect(ClientSettings {
            invoker: settings.mode == Mode::Invoker,
            ..ClientSettings::with_dir(settings.dir.clone())
        })?;
        Ok(Ours { client, driver })
    }

    fn concurrent(&self, channel: &str, stream: i32) -> Result<Publication, BenchError> {
        self.finish(self.client.async_add_publication(channel, stream))
    }

    fn exclusive(&self, channel: &str, stream: i32) -> Result<ExclusivePublication, BenchError> {
        self.finish(self.client.async_add_exclusive_publication(channel, stream))
    }

    fn claims(&self, channel: &str, stream: i32) -> Result<Claims, BenchError> {
        self.exclusive(channel, stream).map(Claims)
    }

    fn subscriber(&self, channel: &str, stream: i32) -> Result<Subscription, BenchError> {
        self.finish(
            self.client
                .async_add_subscription(channel, stream, fulmar::ImageHandlers::default()),
        )
    }

    fn duty_cycle(&self) {
        if let Driver::Invoker(driver) = &self.driver {
            // A driver that ended shows in the workload, which stops moving.
            let _ = driver.borrow_mut().do_work();
            self.client.invoke();
        }
    }

    fn drive(&self) {
        if let Driver::Invoker(driver) = &self.driver {
            let _ = driver.borrow_mut().do_work();
        }
    }
}

/// An exclusive publication whose messages are written into claims.
pub struct Claims(ExclusivePublication);

impl Publisher for Claims {
    #[inline(always)]
    fn offer(&mut self, message: &[u8]) -> bool {
        let Ok(mut claim) = self.0.try_claim(message.len()) else {
            return false;
        };
        claim.buffer_mut().copy_from_slice(message);
        claim.commit().is_ok()
    }

    fn is_connected(&self) -> bool {
        self.0.is_connected()
    }
}

impl Publisher for Publication {
    #[inline(always)]
    fn offer(&mut self, message: &[u8]) -> bool {
        Publication::offer(self, message).is_accepted()
    }

    fn is_connected(&self) -> bool {
        Publication::is_connected(self)
    }
}

impl Publisher for ExclusivePublication {
    #[inline(always)]
    fn offer(&mut self, message: &[u8]) -> bool {
        ExclusivePublication::offer(self, message).is_accepted()
    }

    #[inline(always)]
    fn offer_run(&mut self, messages: &[u8], length: usize) -> usize {
        self.offer_batch_of(messages, length).accepted
    }

    fn is_connected(&self) -> bool {
        ExclusivePublication::is_connected(self)
    }
}

impl Subscriber for Subscription {
    #[inline(always)]
    fn poll(&mut self, tally: &mut Tally, limit: usize) -> usize {
        // The reference delivers raw fragments in this workload, so ours does.
        let handler = |payload: Payload<'_>, _: &Header<'_>| {
            if let Some(word) = payload.read_u64(0) {
                tally.on_message(word);
            }
        };
        self.poll_fragments(handler, limit)
    }

    fn poll_assembled(&mut self, tally: &mut Tally, limit: usize) -> usize {
        let handler = |payload: Payload<'_>, _: &Header<'_>| {
            if let Some(word) = payload.read_u64(0) {
                tally.on_message(word);
            }
        };
        Subscription::poll(self, handler, limit)
    }

    fn is_connected(&self) -> bool {
        Subscription::is_connected(self)
    }
}
