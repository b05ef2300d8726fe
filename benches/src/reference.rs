//! Aeron's C driver and C client as a [`Side`].
#![forbid(unsafe_code)]

use core::time::Duration;

use crate::c_aeron::{
    self, CClient, CClientSettings, CDriver, CDriverSettings, CExclusive, CFragment, CPublication,
    CSubscription, CThreading,
};
use crate::side::{BenchError, Mode, Publisher, Settings, Side, Subscriber, Tally};

/// Version and commit of the C library that is linked, as it says them itself.
#[must_use]
pub fn version() -> String {
    named(&c_aeron::version())
}

/// The library's build asks git, which knows nothing of sources that come as an archive.
fn named(version: &str) -> String {
    match version.strip_suffix("commit=+guilty") {
        Some(version) => format!("{version}(its build names no commit)"),
        None => version.to_owned(),
    }
}

/// The reference. Fields drop in this order: the client leaves before its driver.
pub struct Reference {
    client: CClient,
    driver: CDriver,
    mode: Mode,
}

impl Reference {
    fn pump(&self) -> impl FnMut() + '_ {
        || match self.mode {
            Mode::Invoker => self.duty_cycle(),
            Mode::Shared | Mode::Defaults => crate::workload::wait(Duration::from_millis(1)),
        }
    }
}

impl Side for Reference {
    type Concurrent = CPublication;
    type Exclusive = CExclusive;
    type Claims = CClaims;
    type Subscriber = CSubscription;

    fn start(settings: &Settings) -> Result<Reference, BenchError> {
        let (threading, idle) = match settings.mode {
            Mode::Shared => (CThreading::Shared, "backoff"),
            Mode::Invoker => (CThreading::Invoker, ""),
            Mode::Defaults => (CThreading::Environment, ""),
        };
        let driver = CDriver::launch(
            &CDriverSettings {
                dir: settings.dir.clone(),
                threading,
                idle: idle.to_owned(),
                ipc_term_length: settings.term_length,
                own_directory: true,
            },
            None,
        )?;
        let client = CClient::connect(&CClientSettings {
            dir: settings.dir.clone(),
            invoker: settings.mode == Mode::Invoker,
            driver_timeout_ms: 10_000,
        })?;
        Ok(Reference {
            client,
            driver,
            mode: settings.mode,
        })
    }

    fn concurrent(&self, channel: &str, stream: i32) -> Result<CPublication, BenchError> {
        Ok(self.client.add_publication(channel, stream, &mut self.pump())?)
    }

    fn exclusive(&self, channel: &str, stream: i32) -> Result<CExclusive, BenchError> {
        Ok(self.client.add_exclusive(channel, stream, &mut self.pump())?)
    }

    fn claims(&self, channel: &str, stream: i32) -> Result<CClaims, BenchError> {
        self.exclusive(channel, stream).map(CClaims)
    }

    fn subscriber(&self, channel: &str, stream: i32) -> Result<CSubscription, BenchError> {
        Ok(self.client.add_subscription(channel, stream, &mut self.pump())?)
    }

    fn duty_cycle(&self) {
        if self.mode == Mode::Invoker {
            self.driver.do_work();
            self.client.do_work();
        }
    }

    fn drive(&self) {
        if self.mode == Mode::Invoker {
            self.driver.do_work();
        }
    }
}

/// An exclusive publication whose messages are written into claims.
pub struct CClaims(CExclusive);

impl Publisher for CClaims {
    #[inline(always)]
    fn offer(&mut self, message: &[u8]) -> bool {
        let Ok((_, mut claim)) = self.0.try_claim(message.len()) else {
            return false;
        };
        claim.fill(message);
        claim.commit();
        true
    }

    fn is_connected(&self) -> bool {
        self.0.is_connected()
    }
}

impl Publisher for CPublication {
    #[inline(always)]
    fn offer(&mut self, message: &[u8]) -> bool {
        CPublication::offer(self, message) > 0
    }

    fn is_connected(&self) -> bool {
        CPublication::is_connected(self)
    }
}

impl Publisher for CExclusive {
    #[inline(always)]
    fn offer(&mut self, message: &[u8]) -> bool {
        CExclusive::offer(self, message) > 0
    }

    fn is_connected(&self) -> bool {
        CExclusive::is_connected(self)
    }
}

impl Subscriber for CSubscription {
    #[inline(always)]
    fn poll(&mut self, tally: &mut Tally, limit: usize) -> usize {
        let mut handler = |fragment: CFragment<'_>| {
            if let Some(word) = fragment.bytes.first_chunk::<8>() {
                tally.on_message(u64::from_le_bytes(*word));
            }
        };
        usize::try_from(CSubscription::poll(self, &mut handler, limit)).unwrap_or(0)
    }

    fn poll_assembled(&mut self, tally: &mut Tally, limit: usize) -> usize {
        let mut handler = |fragment: CFragment<'_>| {
            if let Some(word) = fragment.bytes.first_chunk::<8>() {
                tally.on_message(u64::from_le_bytes(*word));
            }
        };
        let fragments = CSubscription::poll_assembled(self, &mut handler, limit);
        fragments.map_or(0, |fragments| usize::try_from(fragments).unwrap_or(0))
    }

    fn is_connected(&self) -> bool {
        CSubscription::is_connected(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_librarys_and_a_commit_is_named_only_where_there_is_one() {
        assert_eq!(
            named("aeron version=1.2.3 commit=0a1b"),
            "aeron version=1.2.3 commit=0a1b"
        );
        assert_eq!(
            named("aeron version=1.2.3 commit=+guilty"),
            "aeron version=1.2.3 (its build names no commit)"
        );
        let version = version();
        assert!(
            version.starts_with("aeron version=1.") && !version.contains("guilty"),
            "{version}"
        );
    }
}
