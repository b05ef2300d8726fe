//! What the conductor does for streams in every duty cycle, and for which of them: only those that are awake are visited
//! ([`Resting`]).
#![forbid(unsafe_code)]

use super::agent::Conductor;
use super::network_publications::NetworkPublication;
use crate::stream::image_conductor::ImageWatch;
use crate::stream::ipc_publication::IpcPublication;
use crate::stream::publication_conductor::PublicationWatch;
use crate::stream::resting::{Resting, TailWatch, Watch};

/// The streams by their place in the conductor's lists, awake or at rest.
#[derive(Debug, Default)]
pub(super) struct Visits {
    pub(super) publications: Resting<TailWatch>,
    pub(super) network_publications: Resting<PublicationWatch>,
    pub(super) images: Resting<ImageWatch>,
    /// Something happened that may concern any stream, or lists have changed: a command, an event, a timer.
    is_stale: bool,
}

/// How many of each are awake.
#[derive(Clone, Copy, Debug, Default)]
struct Awake {
    publications: usize,
    network_publications: usize,
    images: usize,
}

impl Visits {
    /// From the next pass on all streams are awake.
    pub(super) fn wake_all(&mut self) {
        self.is_stale = true;
    }

    /// As [`Self::wake_all`], and until then nothing is watched: a watch keeps its log mapped.
    pub(super) fn forget(&mut self) {
        self.publications.reset(0);
        self.network_publications.reset(0);
        self.images.reset(0);
        self.is_stale = true;
    }

    fn look_at_some(&mut self) {
        self.publications.look_at_some();
        self.network_publications.look_at_some();
        self.images.look_at_some();
    }

    fn awake(&self) -> Awake {
        Awake {
            publications: self.publications.awake(),
            network_publications: self.network_publications.awake(),
            images: self.images.awake(),
        }
    }

    fn look_at_all(&mut self) -> usize {
        self.publications.look_at_all() + self.network_publications.look_at_all() + self.images.look_at_all()
    }
}

impl Conductor {
    /// The streams' part of a duty cycle.
    pub(super) fn visit_streams(&mut self) -> usize {
        if core::mem::take(&mut self.visits.is_stale) {
            self.visits.publications.reset(self.publications.len());
            self.visits
                .network_publications
                .reset(self.network_publications.len());
            self.visits.images.reset(self.images.len());
        } else {
            self.visits.look_at_some();
        }
        self.visit(Awake::default())
    }

    /// Visits streams at rest that have news, before the conductor waits.
    pub(super) fn visit_news(&mut self) -> usize {
        let seen = self.visits.awake();
        if self.visits.look_at_all() == 0 {
            return 0;
        }
        self.visit(seen)
    }

    /// Visits those that are awake, but for the first so many.
    fn visit(&mut self, seen: Awake) -> usize {
        let mut work = self.track_images(seen.images);
        let Visits {
            publications,
            network_publications,
            ..
        } = &mut self.visits;
        work += visit_list(publications, &mut self.publications, seen.publications);
        work += visit_list(
            network_publications,
            &mut self.network_publications,
            seen.network_publications,
        );
        work
    }
}

/// A publication of either kind, as a visit sees it.
trait Visited {
    type Watch: Watch;

    fn update_limit(&mut self) -> usize;
    fn producer_position(&self) -> i64;
    fn is_quiet(&self) -> bool;
    fn rest(&self, watch: &mut Option<Self::Watch>);
}

impl Visited for IpcPublication {
    type Watch = TailWatch;

    #[inline]
    fn update_limit(&mut self) -> usize {
        IpcPublication::update_limit(self)
    }

    #[inline]
    fn producer_position(&self) -> i64 {
        IpcPublication::producer_position(self)
    }

    #[inline]
    fn is_quiet(&self) -> bool {
        IpcPublication::is_quiet(self)
    }

    #[inline]
    fn rest(&self, watch: &mut Option<TailWatch>) {
        IpcPublication::rest(self, watch);
    }
}

impl Visited for NetworkPublication {
    type Watch = PublicationWatch;

    #[inline]
    fn update_limit(&mut self) -> usize {
        self.half.update_limit()
    }

    #[inline]
    fn producer_position(&self) -> i64 {
        self.half.producer_position()
    }

    #[inline]
    fn is_quiet(&self) -> bool {
        self.half.is_quiet()
    }

    #[inline]
    fn rest(&self, watch: &mut Option<PublicationWatch>) {
        self.half.rest(watch);
    }
}

/// Visits those of a list that are awake, but for the first `seen`.
#[inline]
fn visit_list<P: Visited>(list: &mut Resting<P::Watch>, all: &mut [P], seen: usize) -> usize {
    let mut work = 0;
    for at in seen..list.awake() {
        let Some(index) = list.member(at) else { break };
        let Some(publication) = all.get_mut(index) else {
            continue;
        };
        let before = publication.producer_position();
        let done = publication.update_limit();
        work += done;
        let is_busy = done > 0 || publication.producer_position() != before || !publication.is_quiet();
        if list.is_tired(index, is_busy) {
            list.rest(index, |watch| publication.rest(watch));
        }
    }
    list.end_pass();
    work
}

#[cfg(test)]
mod tests {
    use fulmar::directory::{Blocks, Directory, LogKind, MemDirectory};
    use fulmar::id::{RegistrationId, SessionId, StreamId, TermId};
    use fulmar::log::descriptor::log_length;
    use fulmar::log::{LogBuffers, LogInit};

    use super::*;

    #[test]
    fn a_log_that_is_handed_over_for_removal_is_held_no_more() {
        let directory = MemDirectory::new("logs");
        directory.create_dirs().unwrap();
        let id = RegistrationId(11);
        let init = LogInit::ipc_default(id, SessionId(1), StreamId(2), TermId(3), 65_536);
        let length = log_length(init.term_length, init.page_size);
        let (region, _) = directory
            .create_log(LogKind::Publication, id, length, Blocks::Sparse)
            .unwrap();
        let log = LogBuffers::initialise(region, &init).unwrap();
        let mut visits = Visits::default();
        visits.publications.reset(2);
        visits
            .publications
            .rest(1, |watch| *watch = Some(TailWatch::new(&log, 0)));
        visits.publications.end_pass();
        drop(log);
        assert_eq!(directory.held().len(), 1, "it is watched");
        visits.forget();
        assert_eq!(directory.held(), [""; 0]);
        assert!(visits.is_stale, "the next pass begins with new lists");
    }
}
