//! A subscription: the images of every source that matches, polled in turn (shared-memory spec 11).
#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex};

use super::action::Action;
use super::client::{Client, Handle};
use super::error::RegistrationError;
use super::event::{ImageHandlers, ImageInfo};
use super::header::Header;
use super::image::{Block, Image, ImageShared};
use super::pending::PendingOperation;
use super::registry::ResourceKey;
use super::slot::lock;
use super::status::ChannelStatus;
use crate::id::{CounterId, RegistrationId, SessionId};
use crate::log::Payload;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// Set in the version word once the subscription is closed.
const CLOSED: u64 = 1;
const CHANGE: u64 = 2;

/// What the conductor and the handle of one subscription share.
// Not in a cache line with what other threads write.
#[repr(align(128))]
pub(super) struct SubscriptionShared {
    pub(super) channel: String,
    pub(super) stream_id: i32,
    /// Counts changes of the list; the only word a poll looks at besides its images.
    version: AtomicU64,
    /// Images that can be polled at the driver's word.
    live_count: AtomicUsize,
    inner: Mutex<Inner>,
    pub(super) handlers: Mutex<ImageHandlers>,
}

struct Inner {
    images: Vec<Arc<ImageShared>>,
    registration_id: RegistrationId,
    status: CounterId,
}

impl SubscriptionShared {
    pub(super) fn new(channel: &str, stream_id: i32, handlers: ImageHandlers) -> Self {
        SubscriptionShared {
            channel: channel.to_owned(),
            stream_id,
            version: AtomicU64::new(0),
            live_count: AtomicUsize::new(0),
            inner: Mutex::new(Inner {
                images: Vec::new(),
                registration_id: RegistrationId(0),
                status: CounterId::NONE,
            }),
            handlers: Mutex::new(handlers),
        }
    }

    /// The driver has confirmed the subscription.
    pub(super) fn set_ready(&self, registration_id: RegistrationId, status: CounterId) {
        let mut inner = lock(&self.inner);
        inner.registration_id = registration_id;
        inner.status = status;
    }

    /// The channel's status counter.
    pub(super) fn status(&self) -> CounterId {
        lock(&self.inner).status
    }

    /// Whether an image of this id is there and live.
    pub(super) fn has_image(&self, id: RegistrationId) -> bool {
        lock(&self.inner)
            .images
            .iter()
            .any(|image| image.info().correlation_id == id && !image.is_ended())
    }

    /// An image can be polled from now on.
    pub(super) fn add_image(&self, image: Arc<ImageShared>) {
        let mut inner = lock(&self.inner);
        inner.images.push(image);
        self.changed(&inner);
    }

    /// The driver took an image away: nothing more may be read, nor its position be stored.
    pub(super) fn remove_image(&self, id: RegistrationId) -> Option<Arc<ImageShared>> {
        let mut inner = lock(&self.inner);
        let index = inner
            .images
            .iter()
            .position(|image| image.info().correlation_id == id && !image.is_ended())?;
        let image = inner.images.remove(index);
        image.close();
        self.changed(&inner);
        Some(image)
    }

    /// The driver is gone: its images can be read to their end. Returns those that ended just now.
    pub(super) fn end_images(&self) -> Vec<Arc<ImageShared>> {
        let mut inner = lock(&self.inner);
        // What was left over from the driver before goes now: memory does not grow with every lost driver.
        inner.images.retain(|image| {
            let keep = !image.is_ended();
            if !keep {
                image.close();
            }
            keep
        });
        for image in &inner.images {
            image.end();
        }
        self.changed(&inner);
        inner.images.clone()
    }

    /// Takes out an image that can not be read any further; true if it was still there.
    pub(super) fn discard(&self, image: &Arc<ImageShared>) -> bool {
        let mut inner = lock(&self.inner);
        let before = inner.images.len();
        inner.images.retain(|other| !Arc::ptr_eq(other, image));
        image.close();
        self.changed(&inner);
        inner.images.len() < before
    }

    /// Images whose driver was lost and has come back: it goes on writing their logs for new images.
    pub(super) fn close_ended(&self) {
        let mut inner = lock(&self.inner);
        inner.images.retain(|image| {
            let keep = !image.is_ended();
            if !keep {
                image.close();
            }
            keep
        });
        self.changed(&inner);
    }

    /// Images that the driver has left behind, at two looks in a row; they are closed. One look is not enough: a
    /// driver on its way out frees its counters one by one before it says so.
    pub(super) fn close_lapsed(&self) -> Vec<Arc<ImageShared>> {
        self.close_images(|image| image.has_lapsed_again())
    }

    /// The handle has read an ended image to its end.
    fn drained(&self, image: &Arc<ImageShared>) {
        let mut inner = lock(&self.inner);
        inner.images.retain(|other| !Arc::ptr_eq(other, image));
        image.close();
        self.changed(&inner);
    }

    /// Closes the subscription for good. Returns the images it had that were live.
    pub(super) fn close(&self) -> Vec<Arc<ImageShared>> {
        let mut inner = lock(&self.inner);
        let mut images = core::mem::take(&mut inner.images);
        images.retain(|image| image.close());
        self.changed(&inner);
        self.version.fetch_or(CLOSED, Ordering::AcqRel);
        images
    }

    /// Images whose log was truncated; they are closed.
    pub(super) fn close_damaged(&self) -> Vec<Arc<ImageShared>> {
        self.close_images(|image| image.log().region().is_damaged())
    }

    fn close_images(&self, matches: impl Fn(&ImageShared) -> bool) -> Vec<Arc<ImageShared>> {
        let mut inner = lock(&self.inner);
        let closed: Vec<_> = inner.images.extract_if(.., |image| matches(image)).collect();
        if !closed.is_empty() {
            for image in &closed {
                image.close();
            }
            self.changed(&inner);
        }
        closed
    }

    fn changed(&self, inner: &Inner) {
        let live = inner.images.iter().filter(|image| !image.is_ended()).count();
        self.live_count.store(live, Ordering::Release);
        // SYNC image-list: the list is complete before the version changes.
        self.version.fetch_add(CHANGE, Ordering::AcqRel);
    }
}

/// A subscription. It belongs to one thread at a time; several threads take a subscription each.
// Not in a cache line with what other threads write.
#[repr(align(128))]
pub struct Subscription {
    handle: Handle,
    shared: Arc<SubscriptionShared>,
    version: u64,
    images: Vec<Image>,
    next_image: usize,
    /// Whether some image's driver is gone, so that it has to leave once it is read to its end.
    has_ended: bool,
}

impl Subscription {
    pub(super) fn new(client: Client, key: ResourceKey, shared: Arc<SubscriptionShared>) -> Self {
        Subscription {
            handle: Handle::new(client, key),
            shared,
            version: u64::MAX,
            images: Vec::new(),
            next_image: 0,
            has_ended: false,
        }
    }

    /// Takes the next messages, at most `fragment_limit` fragments of them, and returns how many fragments that
    /// were. Messages of several fragments are put together; the handler sees whole messages only.
    ///
    /// A poll may leave messages that are there: at the end of a term, and where the reader of a dense stream keeps a
    /// distance from its publisher. One that passes nothing but padding returns 0. The next poll takes them.
    ///
    /// Images take turns in going first. Payloads are looked at in place where they have one fragment: what the
    /// handler does not copy is gone when it returns.
    #[inline]
    pub fn poll(
        &mut self,
        mut handler: impl FnMut(Payload<'_>, &Header<'_>),
        fragment_limit: usize,
    ) -> usize {
        self.poll_images(fragment_limit, |image, left| image.poll(&mut handler, left))
    }

    /// As [`Self::poll`], with fragments as they are.
    #[inline]
    pub fn poll_fragments(
        &mut self,
        mut handler: impl FnMut(Payload<'_>, &Header<'_>),
        fragment_limit: usize,
    ) -> usize {
        self.poll_images(fragment_limit, |image, left| {
            image.poll_fragments(&mut handler, left)
        })
    }

    /// As [`Self::poll`], where the handler says how to go on. An aborted message comes again at the next poll.
    #[inline]
    pub fn controlled_poll(
        &mut self,
        mut handler: impl FnMut(Payload<'_>, &Header<'_>) -> Action,
        fragment_limit: usize,
    ) -> usize {
        self.poll_images(fragment_limit, |image, left| {
            image.controlled_poll(&mut handler, left)
        })
    }

    /// Hands blocks of whole frames, at most `byte_limit` bytes from each image, to the handler; returns the bytes.
    pub fn block_poll(&mut self, mut handler: impl FnMut(Block<'_>), byte_limit: usize) -> usize {
        if !self.is_current() {
            self.refresh();
        }
        let bytes = self
            .images
            .iter_mut()
            .map(|image| image.block_poll(&mut handler, byte_limit))
            .sum();
        if bytes == 0 && self.has_ended {
            self.drop_drained();
        }
        bytes
    }

    #[inline(always)]
    fn poll_images(
        &mut self,
        fragment_limit: usize,
        mut poll: impl FnMut(&mut Image, usize) -> usize,
    ) -> usize {
        if !self.is_current() {
            self.refresh();
        }
        let first = self.first_image();
        let mut fragments = 0;
        let (before, from) = self.images.split_at_mut(first);
        for image in from.iter_mut().chain(before) {
            if fragments >= fragment_limit {
                break;
            }
            fragments += poll(image, fragment_limit - fragments);
        }
        if fragments == 0 && self.has_ended {
            self.drop_drained();
        }
        fragments
    }

    #[inline(always)]
    fn is_current(&self) -> bool {
        // SYNC image-list: the list fetched after seeing this version is at least as new.
        self.version == self.shared.version.load(Ordering::Acquire)
    }

    #[inline(always)]
    fn first_image(&mut self) -> usize {
        let first = self.next_image;
        if first >= self.images.len() {
            self.next_image = 1;
            return 0;
        }
        self.next_image = first + 1;
        first
    }

    /// Brings the own list up to date.
    #[cold]
    fn refresh(&mut self) {
        let shared = self.shared.clone();
        let inner = lock(&shared.inner);
        self.version = shared.version.load(Ordering::Acquire);
        let mut kept = Vec::with_capacity(inner.images.len());
        for image in self.images.drain(..) {
            if inner.images.iter().any(|other| image.is(other)) {
                kept.push(image);
            } else {
                self.handle.client().linger(image.into_log());
            }
        }
        for state in &inner.images {
            if !kept.iter().any(|image| image.is(state)) {
                kept.push(Image::new(state.clone(), self.handle.client().clone()));
            }
        }
        self.images = kept;
        self.has_ended = inner.images.iter().any(|image| image.is_ended());
    }

    /// Lets go of images whose driver is gone and that have nothing more to read.
    #[cold]
    fn drop_drained(&mut self) {
        for image in &self.images {
            if image.shared().is_ended() && !image.has_more() {
                self.shared.drained(image.shared());
            }
        }
        self.refresh();
    }

    /// The images as of now, in polling order.
    pub fn images(&mut self) -> &mut [Image] {
        if !self.is_current() {
            self.refresh();
        }
        &mut self.images
    }

    /// The image of a session, if it is there.
    pub fn image(&mut self, session_id: SessionId) -> Option<&mut Image> {
        self.images()
            .iter_mut()
            .find(|image| image.session_id() == session_id)
    }

    /// How many images there are at the driver's word.
    #[must_use]
    pub fn image_count(&self) -> usize {
        self.shared.live_count.load(Ordering::Acquire)
    }

    /// Whether there is at least one image.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.image_count() > 0
    }

    /// Whether there is no image.
    #[must_use]
    pub fn has_no_images(&self) -> bool {
        self.image_count() == 0
    }

    /// The channel as it was asked for.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.shared.channel
    }

    /// The stream.
    #[must_use]
    pub fn stream_id(&self) -> i32 {
        self.shared.stream_id
    }

    /// The registration id under the present driver.
    #[must_use]
    pub fn registration_id(&self) -> RegistrationId {
        lock(&self.shared.inner).registration_id
    }

    /// Whether the subscription, or its client, is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.version.load(Ordering::Acquire) & CLOSED != 0
    }

    /// The state of the channel.
    #[must_use]
    pub fn channel_status(&self) -> ChannelStatus {
        if self.is_closed() {
            return ChannelStatus::Closing;
        }
        self.handle.client().channel_status(self.channel_status_id())
    }

    /// The index of the channel's status counter; [`CounterId::NONE`] for IPC and spies.
    #[must_use]
    pub fn channel_status_id(&self) -> CounterId {
        self.shared.status()
    }

    /// Addresses the channel is bound to, `host:port`; empty for IPC and until the channel is active.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<String> {
        self.handle.client().local_addresses(self.channel_status_id())
    }

    /// Adds a destination to a subscription with `control-mode=manual` and waits for the driver's word.
    ///
    /// # Errors
    /// [`RegistrationError`]: refused, late, or the driver is away.
    pub fn add_destination(&self, uri: &str) -> Result<(), RegistrationError> {
        self.async_add_destination(uri)?.wait().map(|_| ())
    }

    /// As [`Self::add_destination`], without waiting.
    ///
    /// # Errors
    /// [`RegistrationError`]: the command could not be sent.
    pub fn async_add_destination(&self, uri: &str) -> Result<PendingOperation, RegistrationError> {
        self.handle
            .client()
            .add_receive_destination(self.handle.key(), uri)
    }

    /// Removes a destination by its URI and waits for the driver's word.
    ///
    /// # Errors
    /// [`RegistrationError`]: refused, late, or the driver is away.
    pub fn remove_destination(&self, uri: &str) -> Result<(), RegistrationError> {
        self.handle
            .client()
            .remove_receive_destination(self.handle.key(), uri)
    }

    /// Closes the subscription; dropping it does the same.
    pub fn close(self) {}

    /// Facts about the images as of now, for logs and tools.
    #[must_use]
    pub fn image_infos(&self) -> Vec<ImageInfo> {
        lock(&self.shared.inner)
            .images
            .iter()
            .filter(|image| !image.is_ended())
            .map(|image| image.current_info())
            .collect()
    }
}

impl core::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Subscription")
            .field("channel", &self.shared.channel)
            .field("stream_id", &self.shared.stream_id)
            .field("images", &self.image_count())
            .finish_non_exhaustive()
    }
}

// Cache lines: what an application thread writes in its handle is in no line that another thread reads.
const _: () = assert!(align_of::<SubscriptionShared>() == 128 && align_of::<Subscription>() == 128);
