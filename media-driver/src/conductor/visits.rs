//! What the conductor does for streams in every duty cycle, and for which of them: only those that are awake are visited
//! ([`Resting`]).
#![forbid(unsafe_code)]

use super::agent::Conductor;
use crate::stream::image_conductor::ImageWatch;
use crate::stream::publication_conductor::PublicationWatch;
use crate::stream::resting::{Resting, TailWatch};

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

    fn awake(&self) -> Awake {
        Awake {
            publications: self.publications.awake(),
            network_publications: self.network_publications.awake(),
            images: self.images.awake(),
        }
    }

    fn look_at_some(&mut self) {
        self.publications.look_at_some();
        self.network_publications.look_at_some();
        self.images.look_at_some();
    }

    fn look_at_the_others(&mut self) -> bool {
        let publications = self.publications.look_at_the_others();
        let network_publications = self.network_publications.look_at_the_others();
        let images = self.images.look_at_the_others();
        publications || network_publications || images
    }
}

impl Conductor {
    /// The streams' part of a duty cycle in which so much else was done.
    pub(super) fn visit_streams(&mut self, work_so_far: usize) -> usize {
        if core::mem::take(&mut self.visits.is_stale) {
            self.visits.publications.reset(self.publications.len());
            self.visits
                .network_publications
                .reset(self.network_publications.len());
            self.visits.images.reset(self.images.len());
        } else {
            self.visits.look_at_some();
        }
        let mut work = self.visit(Awake::default());
        if work + work_so_far == 0 {
            // Before the cycle is said to have found nothing.
            let seen = self.visits.awake();
            if self.visits.look_at_the_others() {
                work += self.visit(seen);
            }
        }
        work
    }

    /// Visits those that are awake, but for the first so many.
    fn visit(&mut self, seen: Awake) -> usize {
        let mut work = self.track_images(seen.images);
        let (list, all) = (&mut self.visits.publications, &mut self.publications);
        for at in seen.publications..list.awake() {
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
        let (list, all) = (
            &mut self.visits.network_publications,
            &mut self.network_publications,
        );
        for at in seen.network_publications..list.awake() {
            let Some(index) = list.member(at) else { break };
            let Some(publication) = all.get_mut(index) else {
                continue;
            };
            let half = &mut publication.half;
            let before = half.producer_position();
            let done = half.update_limit();
            work += done;
            let is_busy = done > 0 || half.producer_position() != before || !half.is_quiet();
            if list.is_tired(index, is_busy) {
                list.rest(index, |watch| half.rest(watch));
            }
        }
        list.end_pass();
        work
    }
}
