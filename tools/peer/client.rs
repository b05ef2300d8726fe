//! Aeron's C client under the commands of [`worker`].

#[allow(dead_code, unreachable_pub, reason = "the files serve several programs")]
mod c_aeron;
#[allow(dead_code, unreachable_pub, reason = "the files serve several programs")]
mod facts;
#[allow(dead_code, unreachable_pub, reason = "the files serve several programs")]
mod pattern;
#[allow(dead_code, unreachable_pub, reason = "the files serve several programs")]
mod worker;

use c_aeron::{
    CClaim, CClient, CClientSettings, CCounter, CExclusive, CFragment, CPublication, CSubscription,
};
use facts::{CounterLine, EventLog, Failure, ImageFacts, PublicationFacts};
use worker::{
    ClientApi, CounterApi, Library, MessageHandler, PublicationApi, SubscriptionApi, Worker, pause,
};

fn main() {
    let library = Library {
        connect: |dir, driver_timeout_ms| {
            let settings = CClientSettings {
                dir: dir.to_owned(),
                invoker: false,
                driver_timeout_ms,
            };
            Ok(Box::new(CClient::connect(&settings)?))
        },
        terminate: CClient::request_termination,
        version: c_aeron::version,
    };
    Worker::new(library).run();
}

impl ClientApi for CClient {
    fn client_id(&self) -> i64 {
        self.client_id()
    }

    fn is_closed(&self) -> bool {
        self.is_closed()
    }

    fn events(&self) -> &EventLog {
        self.events()
    }

    fn add_publication(&self, channel: &str, stream: i32) -> Result<Box<dyn PublicationApi>, Failure> {
        Ok(Box::new(self.add_publication(channel, stream, &mut pause)?))
    }

    fn add_exclusive(&self, channel: &str, stream: i32) -> Result<Box<dyn PublicationApi>, Failure> {
        Ok(Box::new(self.add_exclusive(channel, stream, &mut pause)?))
    }

    fn add_subscription(&self, channel: &str, stream: i32) -> Result<Box<dyn SubscriptionApi>, Failure> {
        Ok(Box::new(self.add_subscription(channel, stream, &mut pause)?))
    }

    fn add_counter(
        &self,
        type_id: i32,
        key: &[u8],
        label: &str,
        static_id: Option<i64>,
    ) -> Result<Box<dyn CounterApi>, Failure> {
        Ok(Box::new(
            self.add_counter(type_id, key, label, static_id, &mut pause)?,
        ))
    }

    fn next_session_id(&self, stream: i32) -> Result<i32, Failure> {
        self.next_session_id(stream, &mut pause)
    }

    fn counters(&self) -> Vec<CounterLine> {
        self.counters()
    }
}

fn finish(mut claim: CClaim, message: &[u8], commit: bool) {
    claim.fill(message);
    if commit {
        claim.commit();
    } else {
        claim.abort();
    }
}

/// The two kinds of publication have the same methods on different C types.
macro_rules! publication_api {
    ($type:ty, $destination:expr, $revoke:expr) => {
        impl PublicationApi for $type {
            fn offer(&mut self, message: &[u8]) -> i64 {
                <$type>::offer(self, message)
            }

            fn claim(&mut self, message: &[u8], commit: &mut dyn FnMut(i64) -> bool) -> Result<i64, i64> {
                let (position, claim) = self.try_claim(message.len())?;
                finish(claim, message, commit(position));
                Ok(position)
            }

            fn is_connected(&self) -> bool {
                <$type>::is_connected(self)
            }

            fn is_closed(&self) -> bool {
                <$type>::is_closed(self)
            }

            fn position(&self) -> i64 {
                <$type>::position(self)
            }

            fn position_limit(&self) -> i64 {
                <$type>::position_limit(self)
            }

            fn facts(&self) -> PublicationFacts {
                <$type>::facts(self)
            }

            fn destination(&self, add: bool, uri: &str) -> Result<(), Failure> {
                $destination(self, add, uri)
            }

            fn revoke(self: Box<Self>) -> Result<(), Failure> {
                $revoke(&*self)
            }
        }
    };
}

publication_api!(
    CPublication,
    |publication: &CPublication, add, uri: &str| publication.destination(add, uri, &mut pause),
    |_: &CPublication| Err(Failure::of("the C client revokes exclusive publications only"))
);

publication_api!(
    CExclusive,
    |_: &CExclusive, _, _: &str| Err(Failure::of("scripts use destinations on concurrent publications")),
    |publication: &CExclusive| {
        publication.revoke_on_close();
        Ok(())
    }
);

impl SubscriptionApi for CSubscription {
    fn poll(&mut self, handler: MessageHandler<'_>, limit: usize) -> Result<usize, Failure> {
        let mut deliver = |fragment: CFragment<'_>| {
            handler(fragment.bytes, fragment.position(), fragment.session_id());
        };
        let fragments = self.poll_assembled(&mut deliver, limit)?;
        usize::try_from(fragments).map_err(|_| Failure::of("a negative count"))
    }

    fn is_connected(&self) -> bool {
        self.is_connected()
    }

    fn is_closed(&self) -> bool {
        self.is_closed()
    }

    fn images(&mut self) -> Vec<ImageFacts> {
        (0..self.image_count())
            .filter_map(|index| Some(self.image(index)?.facts()))
            .collect()
    }

    fn reject(&mut self, index: usize, reason: &str) -> Result<(), Failure> {
        self.image(index)
            .ok_or_else(|| Failure::of("no such image"))?
            .reject(reason)
    }

    fn registration_id(&self) -> i64 {
        self.registration_id()
    }

    fn destination(&self, add: bool, uri: &str) -> Result<(), Failure> {
        self.destination(add, uri, &mut pause)
    }
}

impl CounterApi for CCounter {
    fn ids(&self) -> (i32, i64) {
        self.ids()
    }

    fn set(&self, value: i64) {
        self.set(value);
    }

    fn get(&self) -> i64 {
        self.get()
    }
}
