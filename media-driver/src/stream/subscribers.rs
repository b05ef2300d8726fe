//! The subscribers of one log: their positions, and which of them hold the publisher back.
#![forbid(unsafe_code)]

use fulmar::counters::Counter;
use fulmar::id::{ClientId, CounterId, RegistrationId};

use crate::protocol::untethered::Tether;

/// Names one link of a subscription to sources; unlike registration ids it is never shared by two links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// One subscriber's position in one log.
#[derive(Debug)]
pub struct Subscriber {
    /// The link that made it.
    pub link: LinkId,
    /// The subscription, as the client knows it.
    pub registration_id: RegistrationId,
    /// Whose subscription it is.
    pub client_id: ClientId,
    /// Its position counter.
    pub counter_id: CounterId,
    /// The value of that counter; the client writes it.
    pub position: Counter,
    /// Whether it may be left behind, and where it stands in that.
    pub tether: Tether,
    /// The largest plausible position seen: a hostile or broken client can neither go back nor run ahead.
    seen: i64,
}

/// What the subscribers of a log say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The slowest position.
    pub min: i64,
    /// The fastest position.
    pub max: i64,
}

impl Subscriber {
    /// A subscriber that starts at `join_position`.
    #[must_use]
    pub fn new(
        (link, registration_id, client_id): (LinkId, RegistrationId, ClientId),
        (counter_id, position): (CounterId, Counter),
        tether: Tether,
        join_position: i64,
    ) -> Self {
        Self {
            link,
            registration_id,
            client_id,
            counter_id,
            position,
            tether,
            seen: join_position,
        }
    }

    /// The position, which never goes back and never passes `producer_position`.
    #[inline]
    pub fn position(&mut self, producer_position: i64) -> i64 {
        // SYNC subscriber-position: everything before this position was read.
        let value = self.position.get_acquire();
        if value > self.seen {
            self.seen = value.min(producer_position.max(self.seen));
        }
        self.seen
    }

    /// Where it was when it was last looked at.
    #[must_use]
    pub fn last_position(&self) -> i64 {
        self.seen
    }

    /// Moves it, for a return after resting.
    pub fn restart_at(&mut self, position: i64) {
        self.seen = position;
        self.position.set_release(position);
    }
}

/// Slowest and fastest of the working subscribers; `None` when there is none.
#[inline]
pub fn extent(subscribers: &mut [Subscriber], producer_position: i64) -> Option<Extent> {
    let mut extent: Option<Extent> = None;
    for subscriber in subscribers {
        if !subscriber.tether.is_working() {
            continue;
        }
        let position = subscriber.position(producer_position);
        extent = Some(match extent {
            None => Extent {
                min: position,
                max: position,
            },
            Some(so_far) => Extent {
                min: so_far.min.min(position),
                max: so_far.max.max(position),
            },
        });
    }
    extent
}

/// Whether any subscriber holds the publisher back.
#[must_use]
pub fn any_working(subscribers: &[Subscriber]) -> bool {
    subscribers
        .iter()
        .any(|subscriber| subscriber.tether.is_working())
}
