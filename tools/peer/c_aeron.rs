//! A thin layer over Aeron's own C driver and C client, as built by the crate `rusteron-media-driver` (its static
//! library holds both). The interop programs and the paired benchmarks share this file.
//!
//! The calls of the data path go straight to the C functions, so that a benchmark measures Aeron and not a wrapper.
//! Handles keep the client alive; closing a handle is its drop. Text that C reports becomes [`Failure`].

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use rusteron_media_driver::bindings as c;

use super::facts::{CounterLine, EventLog, Failure, ImageFacts, PublicationFacts};

fn last_error() -> Failure {
    // SAFETY: both calls only read thread-local state of the C library.
    let (code, text) = unsafe { (c::aeron_errcode(), text_of(c::aeron_errmsg())) };
    Failure { code, text }
}

/// # Safety
/// `text` is null or points to a NUL-terminated string that stays unchanged during the call.
unsafe fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller vouches for the terminator.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn c_text(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::of("text with a NUL byte"))
}

fn check(result: c_int) -> Result<(), Failure> {
    if result < 0 { Err(last_error()) } else { Ok(()) }
}

/// How the C driver runs its agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CThreading {
    /// All agents in one thread of the driver.
    Shared,
    /// No threads: the owner calls [`CDriver::do_work`].
    Invoker,
    /// Whatever `AERON_THREADING_MODE` says.
    Environment,
}

/// What the benchmarks set; everything else comes from `AERON_*` variables and defaults.
#[derive(Clone, Debug)]
pub struct CDriverSettings {
    /// The driver directory.
    pub dir: String,
    /// Who runs the agents.
    pub threading: CThreading,
    /// Name of the idle strategy of a shared driver, as Aeron spells it; empty: as the environment says.
    pub idle: String,
    /// Term length of IPC publications in bytes; 0: as the environment says.
    pub ipc_term_length: usize,
    /// Remove the directory before start and after stop.
    pub own_directory: bool,
}

/// A running C media driver. Dropping it stops it.
pub struct CDriver {
    driver: *mut c::aeron_driver_t,
    context: *mut c::aeron_driver_context_t,
}

// SAFETY: the C driver may be closed and driven from a thread other than its creator's; the type is not Sync, so only
// one thread at a time does so.
unsafe impl Send for CDriver {}

unsafe extern "C" fn on_termination(state: *mut c_void) {
    // SAFETY: `state` is the `terminated` callback leaked in `launch`, so it lives as long as the process.
    let callback = unsafe { &*state.cast::<Box<dyn Fn() + Send + Sync>>() };
    callback();
}

impl CDriver {
    /// Starts a driver. `terminated` runs when a client's termination request was allowed by the validator.
    pub fn launch(
        settings: &CDriverSettings,
        terminated: Option<Box<dyn Fn() + Send + Sync>>,
    ) -> Result<CDriver, Failure> {
        let dir = c_text(&settings.dir)?;
        let idle = c_text(&settings.idle)?;
        let mut driver = CDriver {
            driver: null_mut(),
            context: null_mut(),
        };
        // SAFETY: every pointer handed over is valid during the call; the C side copies strings. The context was
        // created by the first call, whose failure ends the sequence.
        unsafe {
            check(c::aeron_driver_context_init(&raw mut driver.context))?;
            let context = driver.context;
            check(c::aeron_driver_context_set_dir(context, dir.as_ptr()))?;
            if settings.own_directory {
                check(c::aeron_driver_context_set_dir_delete_on_start(context, true))?;
                check(c::aeron_driver_context_set_dir_delete_on_shutdown(context, true))?;
            }
            let mode = match settings.threading {
                CThreading::Shared => Some(c::aeron_threading_mode_t::AERON_THREADING_MODE_SHARED),
                CThreading::Invoker => Some(c::aeron_threading_mode_t::AERON_THREADING_MODE_INVOKER),
                CThreading::Environment => None,
            };
            if let Some(mode) = mode {
                check(c::aeron_driver_context_set_threading_mode(context, mode))?;
            }
            if !settings.idle.is_empty() {
                check(c::aeron_driver_context_set_shared_idle_strategy(
                    context,
                    idle.as_ptr(),
                ))?;
            }
            if settings.ipc_term_length != 0 {
                let length = settings.ipc_term_length;
                check(c::aeron_driver_context_set_ipc_term_buffer_length(
                    context, length,
                ))?;
            }
            if let Some(terminated) = terminated {
                let state = Box::into_raw(Box::new(terminated)).cast();
                let hook: c::aeron_driver_termination_hook_func_t = Some(on_termination);
                check(c::aeron_driver_context_set_driver_termination_hook(
                    context, hook, state,
                ))?;
            }
            check(c::aeron_driver_init(&raw mut driver.driver, context))?;
            let manual = settings.threading == CThreading::Invoker;
            check(c::aeron_driver_start(driver.driver, manual))?;
        }
        Ok(driver)
    }

    /// One duty cycle of an invoker driver.
    #[inline]
    pub fn do_work(&self) -> i32 {
        // SAFETY: the driver was started and is closed only by drop.
        unsafe { c::aeron_driver_main_do_work(self.driver) }
    }
}

impl Drop for CDriver {
    fn drop(&mut self) {
        // SAFETY: each pointer is null or was created by its init call and is closed once, the driver first.
        unsafe {
            if !self.driver.is_null() {
                c::aeron_driver_close(self.driver);
            }
            if !self.context.is_null() {
                c::aeron_driver_context_close(self.context);
            }
        }
    }
}

/// # Safety
/// `clientd` came from [`clientd_of`] with a log that is alive.
unsafe fn log_of<'a>(clientd: *mut c_void) -> &'a EventLog {
    // SAFETY: by the caller's promise.
    unsafe { &*clientd.cast::<EventLog>() }
}

fn clientd_of(log: &Arc<EventLog>) -> *mut c_void {
    Arc::as_ptr(log).cast_mut().cast()
}

unsafe extern "C" fn on_error(clientd: *mut c_void, code: c_int, message: *const c_char) {
    // SAFETY: `clientd` is the event log of the client, alive until the client was closed; C passes valid text.
    let (log, text) = unsafe { (log_of(clientd), text_of(message)) };
    log.push(format!("error {code} {}", text.replace('\n', " | ")));
}

unsafe extern "C" fn on_close(clientd: *mut c_void) {
    // SAFETY: `clientd` is the event log of the client, alive until the client was closed.
    unsafe { log_of(clientd) }.push("client-closed".to_owned());
}

unsafe extern "C" fn on_publication_error(
    clientd: *mut c_void,
    values: *mut c::aeron_publication_error_values_t,
) {
    // SAFETY: `clientd` as above. C passes a valid record whose message length counts the bytes that follow it.
    unsafe {
        let log = log_of(clientd);
        let registration_id = (&raw const (*values).registration_id).read_unaligned();
        let code = (&raw const (*values).error_code).read_unaligned();
        let length = (&raw const (*values).error_message_length).read_unaligned();
        let start = (&raw const (*values).error_message).cast::<u8>();
        let bytes = std::slice::from_raw_parts(start, usize::try_from(length).unwrap_or(0));
        let text = String::from_utf8_lossy(bytes);
        log.push(format!("publication-error {registration_id} {code} {text}"));
    }
}

unsafe extern "C" fn on_available_counter(
    clientd: *mut c_void,
    _reader: *mut c::aeron_counters_reader_t,
    registration_id: i64,
    counter_id: i32,
) {
    // SAFETY: `clientd` as above.
    unsafe { log_of(clientd) }.push(format!("counter {registration_id} {counter_id}"));
}

unsafe extern "C" fn on_unavailable_counter(
    clientd: *mut c_void,
    _reader: *mut c::aeron_counters_reader_t,
    registration_id: i64,
    counter_id: i32,
) {
    // SAFETY: `clientd` as above.
    unsafe { log_of(clientd) }.push(format!("counter-gone {registration_id} {counter_id}"));
}

fn image_line(
    what: &str,
    subscription: *mut c::aeron_subscription_t,
    image: *mut c::aeron_image_t,
) -> String {
    let (stream, facts) = (stream_of(subscription), image_facts(image));
    format!(
        "{what} stream={stream} session={} id={} join={} source={}",
        facts.session_id, facts.correlation_id, facts.join_position, facts.source_identity
    )
}

fn stream_of(subscription: *mut c::aeron_subscription_t) -> i32 {
    let mut constants = c::aeron_subscription_constants_t::default();
    // SAFETY: callers pass a live subscription; `constants` is exclusively borrowed.
    unsafe { c::aeron_subscription_constants(subscription, &raw mut constants) };
    constants.stream_id
}

unsafe extern "C" fn on_available_image(
    clientd: *mut c_void,
    subscription: *mut c::aeron_subscription_t,
    image: *mut c::aeron_image_t,
) {
    // SAFETY: `clientd` as above; both handles are valid during the call.
    unsafe { log_of(clientd) }.push(image_line("image", subscription, image));
}

unsafe extern "C" fn on_unavailable_image(
    clientd: *mut c_void,
    subscription: *mut c::aeron_subscription_t,
    image: *mut c::aeron_image_t,
) {
    // SAFETY: `clientd` as above; both handles are valid during the call.
    unsafe { log_of(clientd) }.push(image_line("image-gone", subscription, image));
}

/// How a client is to be made.
#[derive(Clone, Debug)]
pub struct CClientSettings {
    /// The driver directory.
    pub dir: String,
    /// No conductor thread: the owner calls [`CClient::do_work`].
    pub invoker: bool,
    /// How long to wait for a driver, in milliseconds.
    pub driver_timeout_ms: u64,
}

struct ClientInner {
    client: *mut c::aeron_t,
    context: *mut c::aeron_context_t,
    events: Arc<EventLog>,
}

// SAFETY: the C client's API is thread safe for everything this file calls on the client itself.
unsafe impl Send for ClientInner {}
// SAFETY: as above.
unsafe impl Sync for ClientInner {}

impl Drop for ClientInner {
    fn drop(&mut self) {
        // SAFETY: each pointer is null or live; every handle holds this value, so nothing uses the client afterwards.
        unsafe {
            if !self.client.is_null() {
                c::aeron_close(self.client);
            }
            if !self.context.is_null() {
                c::aeron_context_close(self.context);
            }
        }
    }
}

/// A C client. Clones share it; the last drop closes it.
#[derive(Clone)]
pub struct CClient(Arc<ClientInner>);

/// What to do while a command is on its way: sleep, or run the duty cycles of invoker clients and drivers.
pub type Pump<'a> = &'a mut dyn FnMut();

impl CClient {
    /// Connects, waiting for the driver as the C client does.
    pub fn connect(settings: &CClientSettings) -> Result<CClient, Failure> {
        let dir = c_text(&settings.dir)?;
        let events = Arc::new(EventLog::default());
        let clientd = clientd_of(&events);
        let mut inner = ClientInner {
            client: null_mut(),
            context: null_mut(),
            events,
        };
        // SAFETY: pointers are valid during the calls and strings are copied; `clientd` points into the event log,
        // which `inner` owns and drops after closing the client.
        unsafe {
            check(c::aeron_context_init(&raw mut inner.context))?;
            let context = inner.context;
            check(c::aeron_context_set_dir(context, dir.as_ptr()))?;
            check(c::aeron_context_set_driver_timeout_ms(
                context,
                settings.driver_timeout_ms,
            ))?;
            check(c::aeron_context_set_use_conductor_agent_invoker(
                context,
                settings.invoker,
            ))?;
            check(c::aeron_context_set_error_handler(
                context,
                Some(on_error),
                clientd,
            ))?;
            check(c::aeron_context_set_on_close_client(
                context,
                Some(on_close),
                clientd,
            ))?;
            check(c::aeron_context_set_publication_error_frame_handler(
                context,
                Some(on_publication_error),
                clientd,
            ))?;
            check(c::aeron_context_set_on_available_counter(
                context,
                Some(on_available_counter),
                clientd,
            ))?;
            check(c::aeron_context_set_on_unavailable_counter(
                context,
                Some(on_unavailable_counter),
                clientd,
            ))?;
            check(c::aeron_init(&raw mut inner.client, context))?;
            check(c::aeron_start(inner.client))?;
        }
        Ok(CClient(Arc::new(inner)))
    }

    /// What the client was told so far.
    #[must_use]
    pub fn events(&self) -> &EventLog {
        &self.0.events
    }

    /// The client's id.
    #[must_use]
    pub fn client_id(&self) -> i64 {
        // SAFETY: the client is live.
        unsafe { c::aeron_client_id(self.0.client) }
    }

    /// Whether the client gave up.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        // SAFETY: the client is live.
        unsafe { c::aeron_is_closed(self.0.client) }
    }

    /// One duty cycle of an invoker client.
    #[inline]
    pub fn do_work(&self) -> i32 {
        // SAFETY: the client is live.
        unsafe { c::aeron_main_do_work(self.0.client) }
    }

    /// Adds a concurrent publication.
    pub fn add_publication(
        &self,
        channel: &str,
        stream: i32,
        pump: Pump<'_>,
    ) -> Result<CPublication, Failure> {
        let uri = c_text(channel)?;
        let (mut pending, mut raw) = (null_mut(), null_mut());
        // SAFETY: out pointers are valid, the URI is copied, and `pending` is not used after the poll that ends it.
        unsafe {
            check(c::aeron_async_add_publication(
                &raw mut pending,
                self.0.client,
                uri.as_ptr(),
                stream,
            ))?;
            complete(pump, || {
                c::aeron_async_add_publication_poll(&raw mut raw, pending)
            })?;
        }
        Ok(CPublication {
            raw,
            client: self.clone(),
        })
    }

    /// Adds an exclusive publication.
    pub fn add_exclusive(&self, channel: &str, stream: i32, pump: Pump<'_>) -> Result<CExclusive, Failure> {
        let uri = c_text(channel)?;
        let (mut pending, mut raw) = (null_mut(), null_mut());
        // SAFETY: as in `add_publication`.
        unsafe {
            let client = self.0.client;
            check(c::aeron_async_add_exclusive_publication(
                &raw mut pending,
                client,
                uri.as_ptr(),
                stream,
            ))?;
            complete(pump, || {
                c::aeron_async_add_exclusive_publication_poll(&raw mut raw, pending)
            })?;
        }
        Ok(CExclusive {
            raw,
            client: self.clone(),
        })
    }

    /// Adds a subscription; image events go to the event log.
    pub fn add_subscription(
        &self,
        channel: &str,
        stream: i32,
        pump: Pump<'_>,
    ) -> Result<CSubscription, Failure> {
        let uri = c_text(channel)?;
        let clientd = clientd_of(&self.0.events);
        let (mut pending, mut raw) = (null_mut(), null_mut());
        // SAFETY: as in `add_publication`; the event log outlives the subscription.
        unsafe {
            check(c::aeron_async_add_subscription(
                &raw mut pending,
                self.0.client,
                uri.as_ptr(),
                stream,
                Some(on_available_image),
                clientd,
                Some(on_unavailable_image),
                clientd,
            ))?;
            complete(pump, || {
                c::aeron_async_add_subscription_poll(&raw mut raw, pending)
            })?;
        }
        Ok(CSubscription {
            raw,
            assembler: null_mut(),
            sink: null_mut(),
            client: self.clone(),
        })
    }

    /// Adds a counter owned by this client, or, with a registration id, a static one.
    pub fn add_counter(
        &self,
        type_id: i32,
        key: &[u8],
        label: &str,
        static_id: Option<i64>,
        pump: Pump<'_>,
    ) -> Result<CCounter, Failure> {
        let (mut pending, mut raw) = (null_mut(), null_mut());
        let (key_start, key_length) = (key.as_ptr(), key.len());
        let (label_start, label_length) = (label.as_ptr().cast(), label.len());
        let client = self.0.client;
        // SAFETY: key and label are valid for the given lengths and copied; the rest as in `add_publication`.
        unsafe {
            check(match static_id {
                None => c::aeron_async_add_counter(
                    &raw mut pending,
                    client,
                    type_id,
                    key_start,
                    key_length,
                    label_start,
                    label_length,
                ),
                Some(id) => c::aeron_async_add_static_counter(
                    &raw mut pending,
                    client,
                    type_id,
                    key_start,
                    key_length,
                    label_start,
                    label_length,
                    id,
                ),
            })?;
            complete(pump, || c::aeron_async_add_counter_poll(&raw mut raw, pending))?;
        }
        Ok(CCounter {
            raw,
            _client: self.clone(),
        })
    }

    /// A session id that no publication of the stream uses.
    pub fn next_session_id(&self, stream: i32, pump: Pump<'_>) -> Result<i32, Failure> {
        let mut pending = null_mut();
        let mut session_id = 0;
        // SAFETY: as in `add_publication`.
        unsafe {
            check(c::aeron_async_next_session_id(
                &raw mut pending,
                self.0.client,
                stream,
            ))?;
            complete(pump, || {
                c::aeron_async_next_session_id_poll(&raw mut session_id, pending)
            })?;
        }
        Ok(session_id)
    }

    /// Every allocated counter as `id type value label`.
    #[must_use]
    pub fn counters(&self) -> Vec<CounterLine> {
        let mut lines: Vec<CounterLine> = Vec::new();
        // SAFETY: the reader belongs to the live client; the callback gets `lines` back and runs before the call ends.
        unsafe {
            let reader = c::aeron_counters_reader(self.0.client);
            c::aeron_counters_reader_foreach_counter(reader, Some(on_counter), (&raw mut lines).cast());
            for line in &mut lines {
                c::aeron_counters_reader_counter_registration_id(
                    reader,
                    line.id,
                    &raw mut line.registration_id,
                );
                c::aeron_counters_reader_counter_owner_id(reader, line.id, &raw mut line.owner_id);
                c::aeron_counters_reader_counter_reference_id(reader, line.id, &raw mut line.reference_id);
            }
        }
        lines
    }

    /// Asks the driver in `dir` to stop.
    pub fn request_termination(dir: &str, token: &[u8]) -> Result<(), Failure> {
        let dir = c_text(dir)?;
        // SAFETY: both buffers are valid during the call.
        check(unsafe {
            c::aeron_context_request_driver_termination(dir.as_ptr(), token.as_ptr(), token.len())
        })
    }
}

fn complete(pump: Pump<'_>, mut poll: impl FnMut() -> c_int) -> Result<(), Failure> {
    loop {
        match poll() {
            0 => pump(),
            result => return check(result),
        }
    }
}

unsafe extern "C" fn on_counter(
    value: i64,
    id: i32,
    type_id: i32,
    key: *const u8,
    key_length: usize,
    label: *const c_char,
    label_length: usize,
    clientd: *mut c_void,
) {
    // SAFETY: `clientd` is the vector lent by `counters`; key and label are valid for their lengths.
    unsafe {
        let lines = &mut *clientd.cast::<Vec<CounterLine>>();
        let label = std::slice::from_raw_parts(label.cast::<u8>(), label_length);
        lines.push(CounterLine {
            id,
            type_id,
            value,
            key: std::slice::from_raw_parts(key, key_length).to_vec(),
            label: String::from_utf8_lossy(label).into_owned(),
            ..CounterLine::default()
        });
    }
}

fn facts(constants: &c::aeron_publication_constants_t) -> PublicationFacts {
    PublicationFacts {
        registration_id: constants.registration_id,
        original_registration_id: constants.original_registration_id,
        session_id: constants.session_id,
        initial_term_id: constants.initial_term_id,
        term_length: constants.term_buffer_length,
        max_message_length: constants.max_message_length,
        max_payload_length: constants.max_payload_length,
    }
}

/// A claimed range of a log: fill it, then commit or abort.
pub struct CClaim(c::aeron_buffer_claim_t);

impl CClaim {
    /// Copies `bytes` to the start of the claimed payload, cut at its end.
    pub fn fill(&mut self, bytes: &[u8]) {
        let length = bytes.len().min(self.0.length);
        // SAFETY: the claim owns `length` bytes of the log until it is committed or aborted.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.data, length) };
    }

    /// Publishes the message.
    pub fn commit(mut self) {
        // SAFETY: the claim is open.
        unsafe { c::aeron_buffer_claim_commit(&raw mut self.0) };
    }

    /// Gives the range up as padding.
    pub fn abort(mut self) {
        // SAFETY: the claim is open.
        unsafe { c::aeron_buffer_claim_abort(&raw mut self.0) };
    }
}

/// A concurrent publication.
pub struct CPublication {
    raw: *mut c::aeron_publication_t,
    client: CClient,
}

// SAFETY: the C publication is thread safe; this handle is used by one thread at a time.
unsafe impl Send for CPublication {}

impl CPublication {
    /// Offers one message; negative results are Aeron's codes -1 to -6.
    #[inline]
    pub fn offer(&self, message: &[u8]) -> i64 {
        // SAFETY: the publication is live and the message valid for its length.
        unsafe { c::aeron_publication_offer(self.raw, message.as_ptr(), message.len(), None, null_mut()) }
    }

    /// Claims `length` payload bytes.
    pub fn try_claim(&self, length: usize) -> Result<(i64, CClaim), i64> {
        let mut claim = c::aeron_buffer_claim_t::default();
        // SAFETY: the publication is live and `claim` exclusively borrowed.
        let position = unsafe { c::aeron_publication_try_claim(self.raw, length, &raw mut claim) };
        if position < 0 {
            Err(position)
        } else {
            Ok((position, CClaim(claim)))
        }
    }

    /// Whether a subscriber is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        // SAFETY: the publication is live.
        unsafe { c::aeron_publication_is_connected(self.raw) }
    }

    /// Whether the client closed it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        // SAFETY: the publication is live.
        unsafe { c::aeron_publication_is_closed(self.raw) }
    }

    /// Current position, or a negative code.
    #[must_use]
    pub fn position(&self) -> i64 {
        // SAFETY: the publication is live.
        unsafe { c::aeron_publication_position(self.raw) }
    }

    /// Current position limit, or a negative code.
    #[must_use]
    pub fn position_limit(&self) -> i64 {
        // SAFETY: the publication is live.
        unsafe { c::aeron_publication_position_limit(self.raw) }
    }

    /// Session, ids and lengths.
    #[must_use]
    pub fn facts(&self) -> PublicationFacts {
        let mut constants = c::aeron_publication_constants_t::default();
        // SAFETY: the publication is live and `constants` exclusively borrowed.
        unsafe { c::aeron_publication_constants(self.raw, &raw mut constants) };
        facts(&constants)
    }

    /// Adds (`add`) or removes a destination of a manual multi-destination publication.
    pub fn destination(&self, add: bool, uri: &str, pump: Pump<'_>) -> Result<(), Failure> {
        let uri = c_text(uri)?;
        let (client, mut pending) = (self.client.0.client, null_mut());
        // SAFETY: handles are live, the URI is copied, `pending` ends with the poll that reports the result.
        unsafe {
            check(if add {
                c::aeron_publication_async_add_destination(&raw mut pending, client, self.raw, uri.as_ptr())
            } else {
                c::aeron_publication_async_remove_destination(
                    &raw mut pending,
                    client,
                    self.raw,
                    uri.as_ptr(),
                )
            })?;
            complete(pump, || c::aeron_publication_async_destination_poll(pending))
        }
    }
}

impl Drop for CPublication {
    fn drop(&mut self) {
        // SAFETY: closed once; the client is kept alive by `self.client`.
        unsafe { c::aeron_publication_close(self.raw, None, null_mut()) };
    }
}

/// An exclusive publication.
pub struct CExclusive {
    raw: *mut c::aeron_exclusive_publication_t,
    #[expect(dead_code, reason = "keeps the client alive")]
    client: CClient,
}

// SAFETY: an exclusive publication may move between threads, it is used by one at a time.
unsafe impl Send for CExclusive {}

impl CExclusive {
    /// Offers one message; negative results are Aeron's codes -1 to -6.
    #[inline]
    pub fn offer(&self, message: &[u8]) -> i64 {
        // SAFETY: the publication is live and the message valid for its length.
        unsafe {
            c::aeron_exclusive_publication_offer(self.raw, message.as_ptr(), message.len(), None, null_mut())
        }
    }

    /// Claims `length` payload bytes.
    pub fn try_claim(&self, length: usize) -> Result<(i64, CClaim), i64> {
        let mut claim = c::aeron_buffer_claim_t::default();
        // SAFETY: the publication is live and `claim` exclusively borrowed.
        let position = unsafe { c::aeron_exclusive_publication_try_claim(self.raw, length, &raw mut claim) };
        if position < 0 {
            Err(position)
        } else {
            Ok((position, CClaim(claim)))
        }
    }

    /// Whether a subscriber is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        // SAFETY: the publication is live.
        unsafe { c::aeron_exclusive_publication_is_connected(self.raw) }
    }

    /// Whether the client closed it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        // SAFETY: the publication is live.
        unsafe { c::aeron_exclusive_publication_is_closed(self.raw) }
    }

    /// Current position, or a negative code.
    #[must_use]
    pub fn position(&self) -> i64 {
        // SAFETY: the publication is live.
        unsafe { c::aeron_exclusive_publication_position(self.raw) }
    }

    /// Current position limit, or a negative code.
    #[must_use]
    pub fn position_limit(&self) -> i64 {
        // SAFETY: the publication is live.
        unsafe { c::aeron_exclusive_publication_position_limit(self.raw) }
    }

    /// Session, ids and lengths.
    #[must_use]
    pub fn facts(&self) -> PublicationFacts {
        let mut constants = c::aeron_publication_constants_t::default();
        // SAFETY: the publication is live and `constants` exclusively borrowed.
        unsafe { c::aeron_exclusive_publication_constants(self.raw, &raw mut constants) };
        facts(&constants)
    }

    /// Asks for revocation when the handle is dropped.
    pub fn revoke_on_close(&self) {
        // SAFETY: the publication is live.
        unsafe { c::aeron_exclusive_publication_revoke_on_close(self.raw) };
    }
}

impl Drop for CExclusive {
    fn drop(&mut self) {
        // SAFETY: closed once; the client is kept alive by `self.client`.
        unsafe { c::aeron_exclusive_publication_close(self.raw, None, null_mut()) };
    }
}

/// One delivered message or fragment.
pub struct CFragment<'a> {
    /// Its bytes, in the log or in the assembler's buffer.
    pub bytes: &'a [u8],
    header: *mut c::aeron_header_t,
}

impl CFragment<'_> {
    /// Position after the message.
    #[must_use]
    pub fn position(&self) -> i64 {
        // SAFETY: the header is valid during the delivery, to which the lifetime ties this value.
        unsafe { c::aeron_header_position(self.header) }
    }

    /// Session id of the publisher.
    #[must_use]
    pub fn session_id(&self) -> i32 {
        let mut values = c::aeron_header_values_t::default();
        // SAFETY: as above; `values` is exclusively borrowed.
        unsafe { c::aeron_header_values(self.header, &raw mut values) };
        values.frame.session_id
    }
}

fn image_facts(image: *mut c::aeron_image_t) -> ImageFacts {
    let mut constants = c::aeron_image_constants_t::default();
    // SAFETY: callers pass a live image; the source identity lives as long as the image.
    unsafe {
        c::aeron_image_constants(image, &raw mut constants);
        ImageFacts {
            session_id: constants.session_id,
            correlation_id: constants.correlation_id,
            join_position: constants.join_position,
            position: c::aeron_image_position(image),
            is_end_of_stream: c::aeron_image_is_end_of_stream(image),
            is_publication_revoked: c::aeron_image_is_publication_revoked(image),
            source_identity: text_of(constants.source_identity),
        }
    }
}

/// An image, valid while its subscription is borrowed.
pub struct CImage<'a> {
    raw: *mut c::aeron_image_t,
    subscription: &'a CSubscription,
}

impl CImage<'_> {
    /// Session, id, positions and state.
    #[must_use]
    pub fn facts(&self) -> ImageFacts {
        image_facts(self.raw)
    }

    /// Refuses the image with a reason.
    pub fn reject(&self, reason: &str) -> Result<(), Failure> {
        let reason = c_text(reason)?;
        // SAFETY: the image is retained until drop and the reason copied.
        check(unsafe { c::aeron_image_reject(self.raw, reason.as_ptr()) })
    }
}

impl Drop for CImage<'_> {
    fn drop(&mut self) {
        // SAFETY: retained once by `CSubscription::image`.
        unsafe { c::aeron_subscription_image_release(self.subscription.raw, self.raw) };
    }
}

/// A subscription.
pub struct CSubscription {
    raw: *mut c::aeron_subscription_t,
    assembler: *mut c::aeron_fragment_assembler_t,
    /// Cell that the assembler's delegate reads to find the closure of the current poll.
    sink: *mut SinkCell,
    client: CClient,
}

// SAFETY: the handle is used by one thread at a time, which may change.
unsafe impl Send for CSubscription {}

type SinkCell = *mut c_void;

unsafe extern "C-unwind" fn deliver<F: FnMut(CFragment<'_>)>(
    clientd: *mut c_void,
    buffer: *const u8,
    length: usize,
    header: *mut c::aeron_header_t,
) {
    // SAFETY: `clientd` is the closure lent to the poll that is running; C passes a payload valid for `length` bytes.
    unsafe {
        let closure = &mut *clientd.cast::<F>();
        closure(CFragment {
            bytes: std::slice::from_raw_parts(buffer, length),
            header,
        });
    }
}

unsafe extern "C-unwind" fn deliver_assembled(
    clientd: *mut c_void,
    buffer: *const u8,
    length: usize,
    header: *mut c::aeron_header_t,
) {
    // SAFETY: `clientd` is the sink cell, which holds the closure of the poll that is running.
    unsafe {
        let closure = &mut **clientd.cast::<*mut &mut dyn FnMut(CFragment<'_>)>();
        closure(CFragment {
            bytes: std::slice::from_raw_parts(buffer, length),
            header,
        });
    }
}

impl CSubscription {
    /// Delivers raw fragments.
    #[inline]
    pub fn poll<F: FnMut(CFragment<'_>)>(&self, handler: &mut F, limit: usize) -> i32 {
        // SAFETY: the subscription is live; the closure outlives the call.
        unsafe { c::aeron_subscription_poll(self.raw, Some(deliver::<F>), (&raw mut *handler).cast(), limit) }
    }

    /// Delivers whole messages through Aeron's fragment assembler.
    pub fn poll_assembled(
        &mut self,
        handler: &mut dyn FnMut(CFragment<'_>),
        limit: usize,
    ) -> Result<i32, Failure> {
        if self.assembler.is_null() {
            self.sink = Box::into_raw(Box::new(null_mut()));
            // SAFETY: out pointer valid; the sink cell lives until drop, after the assembler is gone.
            check(unsafe {
                c::aeron_fragment_assembler_create(
                    &raw mut self.assembler,
                    Some(deliver_assembled),
                    self.sink.cast(),
                )
            })?;
        }
        let mut closure: &mut dyn FnMut(CFragment<'_>) = handler;
        // SAFETY: the cell is ours; the closure it names outlives the poll, and is not used after it. The handler
        // function differs from the declared type by its unwind ABI only, and it does not unwind.
        let fragments = unsafe {
            *self.sink = (&raw mut closure).cast();
            let handler: c::aeron_fragment_handler_t = Some(assemble);
            c::aeron_subscription_poll(self.raw, handler, self.assembler.cast(), limit)
        };
        if fragments < 0 {
            Err(last_error())
        } else {
            Ok(fragments)
        }
    }

    /// Whether any image is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        // SAFETY: the subscription is live.
        unsafe { c::aeron_subscription_is_connected(self.raw) }
    }

    /// Whether the client closed it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        // SAFETY: the subscription is live.
        unsafe { c::aeron_subscription_is_closed(self.raw) }
    }

    /// Number of images.
    #[must_use]
    pub fn image_count(&self) -> usize {
        // SAFETY: the subscription is live.
        usize::try_from(unsafe { c::aeron_subscription_image_count(self.raw) }).unwrap_or(0)
    }

    /// The image at `index`.
    #[must_use]
    pub fn image(&self, index: usize) -> Option<CImage<'_>> {
        // SAFETY: the subscription is live; the call retains what it returns.
        let raw = unsafe { c::aeron_subscription_image_at_index(self.raw, index) };
        (!raw.is_null()).then_some(CImage {
            raw,
            subscription: self,
        })
    }

    /// Registration id.
    #[must_use]
    pub fn registration_id(&self) -> i64 {
        let mut constants = c::aeron_subscription_constants_t::default();
        // SAFETY: the subscription is live and `constants` exclusively borrowed.
        unsafe { c::aeron_subscription_constants(self.raw, &raw mut constants) };
        constants.registration_id
    }

    /// Adds (`add`) or removes a destination of a manual multi-destination subscription.
    pub fn destination(&self, add: bool, uri: &str, pump: Pump<'_>) -> Result<(), Failure> {
        let uri = c_text(uri)?;
        let (client, mut pending) = (self.client.0.client, null_mut());
        // SAFETY: as in `CPublication::destination`.
        unsafe {
            check(if add {
                c::aeron_subscription_async_add_destination(&raw mut pending, client, self.raw, uri.as_ptr())
            } else {
                c::aeron_subscription_async_remove_destination(
                    &raw mut pending,
                    client,
                    self.raw,
                    uri.as_ptr(),
                )
            })?;
            complete(pump, || c::aeron_subscription_async_destination_poll(pending))
        }
    }
}

unsafe extern "C-unwind" fn assemble(
    clientd: *mut c_void,
    buffer: *const u8,
    length: usize,
    header: *mut c::aeron_header_t,
) {
    // SAFETY: the arguments are those of the poll, with the assembler as client data, as the function asks.
    unsafe { c::aeron_fragment_assembler_handler(clientd, buffer, length, header) };
}

impl Drop for CSubscription {
    fn drop(&mut self) {
        // SAFETY: each is closed or freed once, and only if it was made; no poll runs any more.
        unsafe {
            c::aeron_subscription_close(self.raw, None, null_mut());
            if !self.assembler.is_null() {
                c::aeron_fragment_assembler_delete(self.assembler);
            }
            if !self.sink.is_null() {
                drop(Box::from_raw(self.sink));
            }
        }
    }
}

/// A counter of this client.
pub struct CCounter {
    raw: *mut c::aeron_counter_t,
    _client: CClient,
}

// SAFETY: a counter handle may move between threads.
unsafe impl Send for CCounter {}

impl CCounter {
    /// Counter id and registration id.
    #[must_use]
    pub fn ids(&self) -> (i32, i64) {
        let mut constants = c::aeron_counter_constants_t::default();
        // SAFETY: the counter is live and `constants` exclusively borrowed.
        unsafe { c::aeron_counter_constants(self.raw, &raw mut constants) };
        (constants.counter_id, constants.registration_id)
    }

    /// Stores a value.
    pub fn set(&self, value: i64) {
        // SAFETY: the address is that of an aligned word in the mapped counter values, alive with the client.
        unsafe { c::aeron_counter_addr(self.raw).write_volatile(value) };
    }

    /// Reads the value.
    #[must_use]
    pub fn get(&self) -> i64 {
        // SAFETY: as above.
        unsafe { c::aeron_counter_addr(self.raw).read_volatile() }
    }
}

impl Drop for CCounter {
    fn drop(&mut self) {
        // SAFETY: closed once.
        unsafe { c::aeron_counter_close(self.raw, None, null_mut()) };
    }
}

/// The version of the C library.
#[must_use]
pub fn version() -> String {
    // SAFETY: the function returns a static string.
    unsafe { text_of(c::aeron_version_full()) }
}
