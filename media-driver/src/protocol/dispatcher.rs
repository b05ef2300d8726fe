//! Which sessions of which streams a receive endpoint takes (wire spec 4.1): for every datagram it says whether there
//! is an image, whether a SETUP has to be asked for, whether an image has to be made, or whether it is nobody's.
//!
//! A cached "no interest" of the protocol's description is not kept: whether anybody is interested is one look-up, so
//! there is nothing to remember of sessions that nobody wants, however many of them somebody makes up.
//!
//! Tables are sorted arrays: streams and sessions per stream are few, and the order of a hash table with keys from the
//! network could be chosen by whoever sends.
#![forbid(unsafe_code)]

use fulmar::id::{SessionId, StreamId};

/// Sessions without an image that are remembered per stream. Only streams that are not joined again after their image
/// ended come near it; beyond it they are.
pub const SESSION_STATES_MAX: usize = 1 << 14;

/// What is known of a session without an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// A status message that asks for a SETUP was sent.
    PendingSetup,
    /// The conductor makes the image.
    InitInProgress,
    /// The image went away without an end of stream.
    CoolDown,
}

/// What to do with a DATA or PAD datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataRoute<I> {
    /// It belongs to this image.
    Image(I),
    /// The session is unknown and wanted: ask its source for a SETUP. [`Dispatcher::set_pending`] records that.
    Elicit,
    /// Nobody's, or not yet.
    Drop,
}

/// What to do with a SETUP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupRoute<I> {
    /// The image exists; the SETUP may be from another transport.
    Image(I),
    /// An image is to be made. [`Dispatcher::set_init_in_progress`] records that once it was asked for.
    Create {
        /// Whether the SETUP was asked for.
        elicited: bool,
    },
    /// The stream has as many sessions as it may have.
    LimitReached,
    /// Nobody's, or already on its way.
    Drop,
}

/// A sorted array as a map with small, copied keys.
#[derive(Debug)]
struct SortedMap<K, V> {
    entries: Vec<(K, V)>,
}

impl<K: Ord + Copy, V> SortedMap<K, V> {
    const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    #[inline]
    fn find(&self, key: K) -> Result<usize, usize> {
        self.entries.binary_search_by(|(at, _)| at.cmp(&key))
    }

    #[inline]
    fn get(&self, key: K) -> Option<&V> {
        self.find(key).ok().map(|index| &self.entries[index].1)
    }

    fn get_mut(&mut self, key: K) -> Option<&mut V> {
        match self.find(key) {
            Ok(index) => Some(&mut self.entries[index].1),
            Err(_) => None,
        }
    }

    fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(key) {
            Ok(index) => Some(core::mem::replace(&mut self.entries[index].1, value)),
            Err(index) => {
                self.entries.insert(index, (key, value));
                None
            }
        }
    }

    fn remove(&mut self, key: K) -> Option<V> {
        let index = self.find(key).ok()?;
        Some(self.entries.remove(index).1)
    }

    fn retain(&mut self, mut keep: impl FnMut(K) -> bool) {
        self.entries.retain(|(key, _)| keep(*key));
    }
}

/// One stream that somebody subscribed to.
#[derive(Debug)]
struct Stream<I> {
    /// Whether sessions are taken whatever their id.
    all_sessions: bool,
    /// Sessions that are taken by id.
    wanted: SortedMap<SessionId, ()>,
    images: SortedMap<SessionId, I>,
    states: SortedMap<SessionId, SessionState>,
}

impl<I> Stream<I> {
    fn new() -> Self {
        Self {
            all_sessions: false,
            wanted: SortedMap::new(),
            images: SortedMap::new(),
            states: SortedMap::new(),
        }
    }

    fn wants(&self, session_id: SessionId) -> bool {
        self.all_sessions || self.wanted.get(session_id).is_some()
    }

    fn is_unwanted(&self) -> bool {
        !self.all_sessions && self.wanted.entries.is_empty()
    }

    /// Forgets what belongs to sessions that nobody wants any more.
    fn forget_unwanted(&mut self) {
        let Self {
            all_sessions,
            wanted,
            images,
            states,
        } = self;
        let wants = |session_id| *all_sessions || wanted.get(session_id).is_some();
        images.retain(wants);
        states.retain(wants);
    }
}

/// The streams of one receive endpoint. `I` is how its owner finds an image: small and copied.
#[derive(Debug)]
pub struct Dispatcher<I> {
    streams: SortedMap<StreamId, Stream<I>>,
    session_limit: usize,
}

impl<I: Copy + PartialEq> Dispatcher<I> {
    /// No stream is taken. Of each stream at most `session_limit` sessions will be.
    #[must_use]
    pub fn new(session_limit: usize) -> Self {
        Self {
            streams: SortedMap::new(),
            session_limit,
        }
    }

    /// Whether any stream is taken.
    #[must_use]
    pub fn has_interest(&self) -> bool {
        !self.streams.entries.is_empty()
    }

    /// Takes every session of a stream.
    pub fn add_subscription(&mut self, stream_id: StreamId) {
        self.stream(stream_id).all_sessions = true;
    }

    /// Takes one session of a stream.
    pub fn add_session_subscription(&mut self, stream_id: StreamId, session_id: SessionId) {
        self.stream(stream_id).wanted.insert(session_id, ());
    }

    /// No longer takes every session of a stream: images of those that are not taken by id get nothing any more.
    pub fn remove_subscription(&mut self, stream_id: StreamId) {
        if let Some(stream) = self.streams.get_mut(stream_id) {
            stream.all_sessions = false;
        }
        self.tidy(stream_id);
    }

    /// No longer takes this session by its id.
    pub fn remove_session_subscription(&mut self, stream_id: StreamId, session_id: SessionId) {
        if let Some(stream) = self.streams.get_mut(stream_id) {
            stream.wanted.remove(session_id);
        }
        self.tidy(stream_id);
    }

    fn stream(&mut self, stream_id: StreamId) -> &mut Stream<I> {
        let index = match self.streams.find(stream_id) {
            Ok(index) => index,
            Err(index) => {
                self.streams.entries.insert(index, (stream_id, Stream::new()));
                index
            }
        };
        &mut self.streams.entries[index].1
    }

    fn tidy(&mut self, stream_id: StreamId) {
        let Some(stream) = self.streams.get_mut(stream_id) else {
            return;
        };
        if stream.is_unwanted() {
            self.streams.remove(stream_id);
        } else {
            stream.forget_unwanted();
        }
    }

    /// Where a DATA or PAD datagram goes. A frame that announces the end of a stream never elicits.
    #[inline]
    #[must_use]
    pub fn on_data(
        &self,
        stream_id: StreamId,
        session_id: SessionId,
        is_end_of_stream: bool,
    ) -> DataRoute<I> {
        let Some(stream) = self.streams.get(stream_id) else {
            return DataRoute::Drop;
        };
        if let Some(image) = stream.images.get(session_id) {
            return DataRoute::Image(*image);
        }
        let is_known = stream.states.get(session_id).is_some();
        if is_known || is_end_of_stream || !stream.wants(session_id) {
            DataRoute::Drop
        } else {
            DataRoute::Elicit
        }
    }

    /// What a SETUP leads to.
    #[must_use]
    pub fn on_setup(&self, stream_id: StreamId, session_id: SessionId) -> SetupRoute<I> {
        let Some(stream) = self.streams.get(stream_id) else {
            return SetupRoute::Drop;
        };
        if let Some(image) = stream.images.get(session_id) {
            return SetupRoute::Image(*image);
        }
        let elicited = match stream.states.get(session_id) {
            Some(SessionState::PendingSetup) => true,
            Some(SessionState::InitInProgress | SessionState::CoolDown) => return SetupRoute::Drop,
            None if stream.wants(session_id) => false,
            None => return SetupRoute::Drop,
        };
        let in_progress = stream.states.entries.iter().filter(is_in_progress).count();
        if stream.images.entries.len() + in_progress >= self.session_limit {
            return SetupRoute::LimitReached;
        }
        SetupRoute::Create { elicited }
    }

    /// The image of a session.
    #[must_use]
    pub fn image(&self, stream_id: StreamId, session_id: SessionId) -> Option<I> {
        self.streams.get(stream_id)?.images.get(session_id).copied()
    }

    /// What is known of a session without an image.
    #[must_use]
    pub fn state(&self, stream_id: StreamId, session_id: SessionId) -> Option<SessionState> {
        self.streams.get(stream_id)?.states.get(session_id).copied()
    }

    /// Images that the conductor was asked for and has not given yet.
    #[must_use]
    pub fn in_progress(&self) -> usize {
        let states = self
            .streams
            .entries
            .iter()
            .flat_map(|(_, stream)| &stream.states.entries);
        states.filter(is_in_progress).count()
    }

    /// A SETUP was asked for.
    pub fn set_pending(&mut self, stream_id: StreamId, session_id: SessionId) {
        self.set_state(stream_id, session_id, SessionState::PendingSetup);
    }

    /// The conductor was asked for an image.
    pub fn set_init_in_progress(&mut self, stream_id: StreamId, session_id: SessionId) {
        self.set_state(stream_id, session_id, SessionState::InitInProgress);
    }

    fn set_state(&mut self, stream_id: StreamId, session_id: SessionId, state: SessionState) {
        if let Some(stream) = self.streams.get_mut(stream_id) {
            stream.states.insert(session_id, state);
        }
    }

    /// No answer came to a request for a SETUP: the next datagram asks again.
    pub fn remove_pending(&mut self, stream_id: StreamId, session_id: SessionId) {
        self.remove_state(stream_id, session_id, SessionState::PendingSetup);
    }

    /// The image could not be made, or is no longer wanted.
    pub fn remove_init_in_progress(&mut self, stream_id: StreamId, session_id: SessionId) {
        self.remove_state(stream_id, session_id, SessionState::InitInProgress);
    }

    /// A session whose image went away may be taken again.
    pub fn remove_cool_down(&mut self, stream_id: StreamId, session_id: SessionId) {
        self.remove_state(stream_id, session_id, SessionState::CoolDown);
    }

    fn remove_state(&mut self, stream_id: StreamId, session_id: SessionId, state: SessionState) {
        if let Some(stream) = self.streams.get_mut(stream_id)
            && stream.states.get(session_id) == Some(&state)
        {
            stream.states.remove(session_id);
        }
    }

    /// The image is there. `false` if nobody wants it any more; then it gets no data. An image that was there for this
    /// session before gets no more data.
    pub fn add_image(&mut self, stream_id: StreamId, session_id: SessionId, image: I) -> bool {
        let Some(stream) = self.streams.get_mut(stream_id) else {
            return false;
        };
        stream.states.remove(session_id);
        if !stream.wants(session_id) {
            return false;
        }
        stream.images.insert(session_id, image);
        true
    }

    /// The image is gone. Unless its stream ended, data of its session is ignored until the cool-down is removed; a
    /// source that ended may begin anew at once.
    pub fn remove_image(&mut self, stream_id: StreamId, session_id: SessionId, image: I, ended: bool) {
        let Some(stream) = self.streams.get_mut(stream_id) else {
            return;
        };
        if stream.images.get(session_id) != Some(&image) {
            return;
        }
        stream.images.remove(session_id);
        if !ended && stream.states.entries.len() < SESSION_STATES_MAX {
            stream.states.insert(session_id, SessionState::CoolDown);
        }
    }
}

fn is_in_progress((_, state): &&(SessionId, SessionState)) -> bool {
    *state == SessionState::InitInProgress
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId(1001);
    const OTHER: StreamId = StreamId(7);
    const SESSION: SessionId = SessionId(-55);
    const SECOND: SessionId = SessionId(90);

    fn dispatcher() -> Dispatcher<u32> {
        Dispatcher::new(16)
    }

    fn subscribed() -> Dispatcher<u32> {
        let mut dispatcher = dispatcher();
        dispatcher.add_subscription(STREAM);
        dispatcher
    }

    #[test]
    fn a_stream_without_subscription_is_dropped_silently() {
        let dispatcher = subscribed();
        assert_eq!(dispatcher.on_data(OTHER, SESSION, false), DataRoute::Drop);
        assert_eq!(dispatcher.on_setup(OTHER, SESSION), SetupRoute::Drop);
    }

    #[test]
    fn data_of_an_unknown_wanted_session_elicits_once() {
        let mut dispatcher = subscribed();
        assert_eq!(dispatcher.on_data(STREAM, SESSION, false), DataRoute::Elicit);
        dispatcher.set_pending(STREAM, SESSION);
        assert_eq!(dispatcher.on_data(STREAM, SESSION, false), DataRoute::Drop);
        dispatcher.remove_pending(STREAM, SESSION);
        assert_eq!(dispatcher.on_data(STREAM, SESSION, false), DataRoute::Elicit);
    }

    #[test]
    fn a_frame_that_ends_a_stream_never_elicits() {
        let dispatcher = subscribed();
        assert_eq!(dispatcher.on_data(STREAM, SESSION, true), DataRoute::Drop);
        assert_eq!(dispatcher.state(STREAM, SESSION), None);
    }

    #[test]
    fn a_setup_creates_the_image_whether_it_was_asked_for_or_not() {
        let mut dispatcher = subscribed();
        assert_eq!(
            dispatcher.on_setup(STREAM, SESSION),
            SetupRoute::Create { elicited: false }
        );
        dispatcher.set_pending(STREAM, SESSION);
        assert_eq!(
            dispatcher.on_setup(STREAM, SESSION),
            SetupRoute::Create { elicited: true }
        );
        dispatcher.set_init_in_progress(STREAM, SESSION);
        assert_eq!(dispatcher.on_setup(STREAM, SESSION), SetupRoute::Drop);
        assert_eq!(dispatcher.on_data(STREAM, SESSION, false), DataRoute::Drop);
        dispatcher.remove_pending(STREAM, SESSION);
        assert_eq!(
            dispatcher.state(STREAM, SESSION),
            Some(SessionState::InitInProgress),
            "the end of the wait for a SETUP is not the end of the creation"
        );
        assert!(dispatcher.add_image(STREAM, SESSION, 3));
        assert_eq!(dispatcher.on_setup(STREAM, SESSION), SetupRoute::Image(3));
        assert_eq!(dispatcher.on_data(STREAM, SESSION, true), DataRoute::Image(3));
    }

    #[test]
    fn a_failed_creation_lets_the_next_setup_try_again() {
        let mut dispatcher = subscribed();
        dispatcher.set_init_in_progress(STREAM, SESSION);
        dispatcher.remove_init_in_progress(STREAM, SESSION);
        assert_eq!(
            dispatcher.on_setup(STREAM, SESSION),
            SetupRoute::Create { elicited: false }
        );
    }

    #[test]
    fn an_image_that_went_away_cools_down_unless_its_stream_ended() {
        let mut dispatcher = subscribed();
        dispatcher.add_image(STREAM, SESSION, 1);
        dispatcher.add_image(STREAM, SECOND, 2);
        dispatcher.remove_image(STREAM, SESSION, 1, false);
        dispatcher.remove_image(STREAM, SECOND, 2, true);
        assert_eq!(dispatcher.on_data(STREAM, SESSION, false), DataRoute::Drop);
        assert_eq!(dispatcher.on_setup(STREAM, SESSION), SetupRoute::Drop);
        assert_eq!(dispatcher.on_data(STREAM, SECOND, false), DataRoute::Elicit);
        dispatcher.remove_cool_down(STREAM, SESSION);
        assert_eq!(dispatcher.on_data(STREAM, SESSION, false), DataRoute::Elicit);
    }

    #[test]
    fn removing_an_image_that_was_replaced_leaves_the_new_one() {
        let mut dispatcher = subscribed();
        dispatcher.add_image(STREAM, SESSION, 1);
        dispatcher.add_image(STREAM, SESSION, 2);
        dispatcher.remove_image(STREAM, SESSION, 1, false);
        assert_eq!(dispatcher.image(STREAM, SESSION), Some(2));
    }

    #[test]
    fn only_the_subscribed_sessions_are_taken() {
        let mut dispatcher = dispatcher();
        dispatcher.add_session_subscription(STREAM, SESSION);
        assert_eq!(dispatcher.on_data(STREAM, SECOND, false), DataRoute::Drop);
        assert_eq!(dispatcher.on_setup(STREAM, SECOND), SetupRoute::Drop);
        assert_eq!(dispatcher.on_data(STREAM, SESSION, false), DataRoute::Elicit);
        dispatcher.add_subscription(STREAM);
        assert_eq!(dispatcher.on_data(STREAM, SECOND, false), DataRoute::Elicit);
    }

    #[test]
    fn the_end_of_a_stream_wide_subscription_forgets_all_but_the_sessions_taken_by_id() {
        let mut dispatcher = subscribed();
        dispatcher.add_session_subscription(STREAM, SESSION);
        dispatcher.add_image(STREAM, SESSION, 1);
        dispatcher.add_image(STREAM, SECOND, 2);
        dispatcher.set_pending(STREAM, SessionId(3));
        dispatcher.remove_subscription(STREAM);
        assert_eq!(dispatcher.on_data(STREAM, SESSION, false), DataRoute::Image(1));
        assert_eq!(dispatcher.on_data(STREAM, SECOND, false), DataRoute::Drop);
        assert_eq!(dispatcher.state(STREAM, SessionId(3)), None);
        dispatcher.remove_session_subscription(STREAM, SESSION);
        assert!(!dispatcher.has_interest());
        assert_eq!(dispatcher.image(STREAM, SESSION), None);
    }

    #[test]
    fn a_cool_down_without_rejoin_ends_with_the_subscription() {
        let mut dispatcher = subscribed();
        dispatcher.add_image(STREAM, SESSION, 1);
        dispatcher.remove_image(STREAM, SESSION, 1, false);
        dispatcher.remove_subscription(STREAM);
        dispatcher.add_subscription(STREAM);
        assert_eq!(dispatcher.on_data(STREAM, SESSION, false), DataRoute::Elicit);
    }

    #[test]
    fn an_image_that_nobody_wants_any_more_is_not_taken() {
        let mut dispatcher = dispatcher();
        assert!(!dispatcher.add_image(STREAM, SESSION, 1));
        dispatcher.add_session_subscription(STREAM, SECOND);
        assert!(!dispatcher.add_image(STREAM, SESSION, 1));
        assert_eq!(dispatcher.image(STREAM, SESSION), None);
    }

    #[test]
    fn a_stream_takes_no_more_sessions_than_its_limit() {
        let mut dispatcher = Dispatcher::new(2);
        dispatcher.add_subscription(STREAM);
        for session in 0..2 {
            dispatcher.add_image(STREAM, SessionId(session), session as u32);
        }
        assert_eq!(dispatcher.on_setup(STREAM, SESSION), SetupRoute::LimitReached);
        assert_eq!(
            dispatcher.on_setup(STREAM, SessionId(0)),
            SetupRoute::Image(0),
            "an image that is there stays reachable"
        );
        dispatcher.remove_image(STREAM, SessionId(1), 1, true);
        assert_eq!(
            dispatcher.on_setup(STREAM, SESSION),
            SetupRoute::Create { elicited: false }
        );
        dispatcher.set_init_in_progress(STREAM, SESSION);
        assert_eq!(
            dispatcher.on_setup(STREAM, SECOND),
            SetupRoute::LimitReached,
            "an image that is being made has its place"
        );
    }
}
