//! Processes: who is that, and does it still live.
//!
//! A process id alone proves nothing, because ids are reused; a process is named by its id, its start time and the
//! namespace in which both mean something. Death is learnt from a process descriptor (`pidfd`), which can not be
//! fooled by reuse. Where the kernel has none, or the process lives in another namespace, callers fall back to
//! heartbeats.

use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process, told apart from every other one that has or had its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// The id, positive.
    pub pid: i64,
    /// Clock ticks from the start of the system to the start of the process; 0 if not known.
    pub start_time_ticks: u64,
    /// Names the pid and time namespaces in which the two numbers hold; 0 if not known.
    pub namespace: u64,
}

impl ProcessId {
    /// This process.
    #[must_use]
    pub fn current() -> Self {
        let pid = i64::from(std::process::id());
        Self {
            pid,
            start_time_ticks: start_time_of(pid).unwrap_or(0),
            namespace: own_namespace(),
        }
    }
}

/// When the process that has this id now was started, in clock ticks since the start of the system. `None` if there
/// is none or the kernel does not tell.
#[must_use]
pub fn start_time_of(pid: i64) -> Option<u64> {
    if pid <= 0 {
        return None;
    }
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    start_time_in(&stat)
}

/// Field 22 of a stat line. The second field is the command name in parentheses and may hold anything, parentheses
/// and line ends included, so fields are counted from the last closing one.
fn start_time_in(stat: &[u8]) -> Option<u64> {
    const AFTER_NAME: usize = 22 - 3;
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = core::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(AFTER_NAME)?.parse().ok()
}

fn own_namespace() -> u64 {
    let inode = |path| std::fs::metadata(path).map_or(0, |metadata| metadata.ino());
    inode("/proc/self/ns/pid") ^ inode("/proc/self/ns/time").rotate_left(32)
}

/// Why a process can not be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The process is dead; its id is free or belongs to another process.
    #[error("the process is gone")]
    Gone,
    /// Nothing can be said from here: no process descriptors, no `/proc`, or another namespace.
    #[error("the process can not be watched from here")]
    Unsupported,
}

/// Tells when a process has ended, whether or not it was waited for by its parent.
#[derive(Debug)]
pub struct ProcessWatch {
    process: ProcessId,
    descriptor: OwnedFd,
}

impl ProcessWatch {
    /// Starts watching.
    ///
    /// # Errors
    /// [`WatchError::Gone`] if the process is certainly dead, [`WatchError::Unsupported`] if nothing can be said.
    pub fn open(process: ProcessId) -> Result<Self, WatchError> {
        if process.start_time_ticks == 0 || process.namespace == 0 || process.namespace != own_namespace() {
            return Err(WatchError::Unsupported);
        }
        let descriptor = open_descriptor(process.pid)?;
        // The descriptor is held first: whatever process it names, the start time read now is that process's or, if
        // it ended in between, that of none or of a later one.
        match start_time_of(process.pid) {
            Some(ticks) if ticks == process.start_time_ticks => Ok(Self { process, descriptor }),
            Some(_) => Err(WatchError::Gone),
            None if is_readable(&descriptor) => Err(WatchError::Gone),
            None => Err(WatchError::Unsupported),
        }
    }

    /// The process that is watched.
    #[must_use]
    pub fn process(&self) -> ProcessId {
        self.process
    }

    /// Readable once the process has ended.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Whether the process has ended.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        is_readable(&self.descriptor)
    }
}

/// Waits until one of the processes has ended, and says which (the first, if several); `None` when the time is over
/// or a signal came. With no process at all it waits for the time given.
#[must_use]
pub fn wait_any(watches: &[&ProcessWatch], timeout: Duration) -> Option<usize> {
    let mut polled: Vec<libc::pollfd> = watches
        .iter()
        .map(|watch| libc::pollfd {
            fd: watch.descriptor.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    if poll(&mut polled, timeout) <= 0 {
        return None;
    }
    polled.iter().position(|entry| entry.revents & libc::POLLIN != 0)
}

/// Watched processes, each with something that belongs to it. One look at all of them is one system call and
/// allocates nothing.
#[derive(Debug)]
pub struct ProcessWatches<T> {
    entries: Vec<(ProcessWatch, T)>,
    /// In the order of `entries`.
    polled: Vec<libc::pollfd>,
}

impl<T> Default for ProcessWatches<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            polled: Vec::new(),
        }
    }
}

impl<T> ProcessWatches<T> {
    /// Number of processes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no process is watched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a process.
    pub fn insert(&mut self, watch: ProcessWatch, value: T) {
        self.polled.push(libc::pollfd {
            fd: watch.descriptor.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        });
        self.entries.push((watch, value));
    }

    /// What belongs to a process, if it is watched.
    pub fn get_mut(&mut self, process: ProcessId) -> Option<&mut T> {
        self.entries
            .iter_mut()
            .find(|(watch, _)| watch.process() == process)
            .map(|(_, value)| value)
    }

    /// Stops watching every process for which `keep` says no.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        let mut index = 0;
        while index < self.entries.len() {
            if keep(&mut self.entries[index].1) {
                index += 1;
            } else {
                self.remove(index);
            }
        }
    }

    /// Looks at all processes, without waiting; `on_dead` gets what belonged to those that have ended, and they are
    /// not watched any more. Returns how many they were.
    pub fn check(&mut self, mut on_dead: impl FnMut(T)) -> usize {
        if poll(&mut self.polled, Duration::ZERO) <= 0 {
            return 0;
        }
        let mut dead = 0;
        let mut index = 0;
        while index < self.entries.len() {
            if self.polled[index].revents & libc::POLLIN == 0 {
                index += 1;
            } else {
                on_dead(self.remove(index));
                dead += 1;
            }
        }
        dead
    }

    fn remove(&mut self, index: usize) -> T {
        self.polled.swap_remove(index);
        self.entries.swap_remove(index).1
    }
}

/// Whether a process with this id exists in our namespace and has not ended; `None` if nothing can be said. Weaker
/// than [`ProcessWatch`]: the id may have been reused, or mean another process elsewhere.
#[must_use]
pub fn pid_is_alive(pid: i64) -> Option<bool> {
    match open_descriptor(pid) {
        Ok(descriptor) => Some(!is_readable(&descriptor)),
        Err(WatchError::Gone) => Some(false),
        Err(WatchError::Unsupported) => None,
    }
}

/// The process that has this id in our namespace now, if it has this file mapped: that tells a process apart from one
/// of another namespace that is called by the same number there. Never the calling process.
#[must_use]
pub fn process_that_maps(pid: i64, path: &Path) -> Option<ProcessId> {
    if pid == i64::from(std::process::id()) {
        return None;
    }
    let process = ProcessId {
        pid,
        start_time_ticks: start_time_of(pid)?,
        namespace: own_namespace(),
    };
    let path = std::fs::canonicalize(path).ok()?;
    let maps = std::fs::read(format!("/proc/{pid}/maps")).ok()?;
    let name = path.as_os_str().as_encoded_bytes();
    maps.split(|byte| *byte == b'\n')
        .any(|line| {
            line.strip_suffix(name)
                .is_some_and(|rest| rest.last() == Some(&b' '))
        })
        .then_some(process)
}

/// Processor time that the calling thread has used.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    let mut usage = core::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is a writable rusage; RUSAGE_THREAD is valid on Linux, so the call can only fill it.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    let duration = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.max(0) as u64) + Duration::from_micros(time.tv_usec.max(0) as u64)
    };
    duration(usage.ru_utime) + duration(usage.ru_stime)
}

fn open_descriptor(pid: i64) -> Result<OwnedFd, WatchError> {
    let Ok(pid @ 1..) = libc::pid_t::try_from(pid) else {
        return Err(WatchError::Gone);
    };
    // SAFETY: pidfd_open(pid, flags) has no memory arguments; flags are 0.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if descriptor < 0 {
        return Err(match io::Error::last_os_error().raw_os_error() {
            // EINVAL and ENOENT: the number now names a thread that leads no process.
            Some(libc::ESRCH | libc::EINVAL | libc::ENOENT) => WatchError::Gone,
            _ => WatchError::Unsupported,
        });
    }
    // SAFETY: the call has just returned this descriptor; nobody else owns it. It has close-on-exec set.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as libc::c_int) })
}

fn is_readable(descriptor: &OwnedFd) -> bool {
    let mut polled = [libc::pollfd {
        fd: descriptor.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    poll(&mut polled, Duration::ZERO) > 0 && polled[0].revents & libc::POLLIN != 0
}

fn poll(polled: &mut [libc::pollfd], timeout: Duration) -> libc::c_int {
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs().min(3600) as libc::time_t,
        tv_nsec: libc::c_long::from(timeout.subsec_nanos() as i32),
    };
    // SAFETY: the pointer and the count describe `polled`, which is exclusively borrowed for the call; the timespec
    // is valid and outlives it; no signal mask is given.
    unsafe {
        libc::ppoll(
            polled.as_mut_ptr(),
            polled.len() as libc::nfds_t,
            &raw const timeout,
            core::ptr::null(),
        )
    }
}

/// Keeps the calling thread on one processor.
///
/// # Errors
/// What the system says, for instance that there is no such processor or that this process may not use it.
pub fn pin_current_thread(cpu: u32) -> io::Result<()> {
    const WORD_BITS: usize = u64::BITS as usize;
    // As many processors as the settings can name; the kernel ignores bits beyond those it has.
    let mut mask = [0_u64; 4096 / WORD_BITS];
    let cpu = cpu as usize;
    let word = mask.get_mut(cpu / WORD_BITS).ok_or(io::ErrorKind::InvalidInput)?;
    *word = 1 << (cpu % WORD_BITS);
    // SAFETY: thread id 0 is the calling thread; the pointer and the length describe `mask`, which lives through the
    // call and is only read. The kernel takes the mask as an array of words of whatever length it is told.
    let status =
        unsafe { libc::sched_setaffinity(0, size_of_val(&mask), mask.as_ptr().cast::<libc::cpu_set_t>()) };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn sleeping_child() -> Child {
        Command::new("sleep")
            .arg("600")
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn id_of(child: &Child) -> ProcessId {
        let pid = i64::from(child.id());
        ProcessId {
            pid,
            start_time_ticks: start_time_of(pid).unwrap(),
            namespace: own_namespace(),
        }
    }

    #[test]
    fn the_start_time_is_found_behind_any_command_name() {
        let fields: Vec<String> = (4..=30).map(|field| field.to_string()).collect();
        let line = format!("77 (a) b) S 1 (x\n) R {}\n", fields.join(" "));
        assert_eq!(start_time_in(line.as_bytes()), Some(22));
        assert_eq!(start_time_in(b"77 (cut) R 1 2"), None);
        assert_eq!(start_time_in(b""), None);
        assert_eq!(start_time_in(b"1 (\xff) R \xff"), None);
    }

    #[test]
    fn this_process_is_alive_and_known_by_its_start_time() {
        let current = ProcessId::current();
        assert!(current.start_time_ticks > 0);
        let watch = ProcessWatch::open(current).unwrap();
        assert!(!watch.is_dead());
        assert_eq!(wait_any(&[&watch], Duration::from_millis(1)), None);
        assert_eq!(pid_is_alive(current.pid), Some(true));
    }

    #[test]
    fn the_death_of_a_process_is_seen_before_its_parent_waits_for_it() {
        let mut child = sleeping_child();
        let watch = ProcessWatch::open(id_of(&child)).unwrap();
        assert!(!watch.is_dead());
        child.kill().unwrap();
        let own = ProcessWatch::open(ProcessId::current()).unwrap();
        assert_eq!(wait_any(&[&own, &watch], Duration::from_secs(60)), Some(1));
        assert!(watch.is_dead());
        let id = watch.process();
        assert_eq!(pid_is_alive(id.pid), Some(false));
        child.wait().unwrap();
        assert!(watch.is_dead());
        assert_eq!(ProcessWatch::open(id).unwrap_err(), WatchError::Gone);
    }

    #[test]
    fn one_look_finds_all_that_ended_and_forgets_them() {
        let mut children: Vec<Child> = (0..3).map(|_| sleeping_child()).collect();
        let mut watches = ProcessWatches::default();
        watches.insert(ProcessWatch::open(ProcessId::current()).unwrap(), 9);
        for (number, child) in children.iter().enumerate() {
            watches.insert(ProcessWatch::open(id_of(child)).unwrap(), number);
        }
        assert_eq!(watches.check(|number| panic!("{number} lives")), 0);
        let last = id_of(&children[2]);
        assert_eq!(watches.get_mut(last), Some(&mut 2));
        for child in &mut children[..2] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let mut dead = Vec::new();
        assert_eq!(watches.check(|number| dead.push(number)), 2);
        dead.sort_unstable();
        assert_eq!(dead, [0, 1]);
        assert_eq!(watches.len(), 2);
        watches.retain(|number| *number != 9);
        children[2].kill().unwrap();
        children[2].wait().unwrap();
        assert_eq!(watches.check(|number| dead.push(number)), 1);
        assert_eq!(dead, [0, 1, 2]);
        assert!(watches.is_empty() && watches.get_mut(last).is_none());
    }

    #[test]
    fn a_reused_id_does_not_pass_for_the_process_that_had_it() {
        let mut id = ProcessId::current();
        id.start_time_ticks -= 1;
        assert_eq!(ProcessWatch::open(id).unwrap_err(), WatchError::Gone);
    }

    #[test]
    fn nothing_is_said_about_a_process_of_another_namespace() {
        let mut id = ProcessId::current();
        id.namespace ^= 1;
        assert_eq!(ProcessWatch::open(id).unwrap_err(), WatchError::Unsupported);
        id.namespace = 0;
        assert_eq!(ProcessWatch::open(id).unwrap_err(), WatchError::Unsupported);
    }

    #[test]
    fn a_process_is_known_by_a_file_it_maps() {
        let mut child = sleeping_child();
        let pid = i64::from(child.id());
        let program_of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        // A child can be seen for a moment as the program that it is started from, or before its maps are made.
        let mut looks = 0_u32;
        let program = loop {
            let program = program_of(&pid.to_string());
            if program != program_of("self") && process_that_maps(pid, &program).is_some() {
                break program;
            }
            looks += 1;
            assert!(looks < 1_000_000, "the child does not start");
            std::thread::yield_now();
        };
        assert_eq!(process_that_maps(pid, &program), Some(id_of(&child)));
        assert_eq!(process_that_maps(pid, Path::new("/proc/self/maps")), None);
        assert_eq!(process_that_maps(pid, Path::new("/nowhere")), None);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(process_that_maps(pid, &program), None);
        let own = i64::from(std::process::id());
        let own_program = std::fs::read_link("/proc/self/exe").unwrap();
        assert_eq!(process_that_maps(own, &own_program), None);
    }

    #[test]
    fn impossible_ids_name_no_process() {
        for pid in [0, -1, i64::MIN, i64::MAX, 1 << 32] {
            assert_eq!(pid_is_alive(pid), Some(false));
            assert_eq!(start_time_of(pid), None);
        }
    }

    #[test]
    fn processor_time_grows_with_work() {
        let before = thread_cpu_time();
        let mut turns = 0u64;
        while thread_cpu_time() < before + Duration::from_millis(2) {
            turns += 1;
        }
        assert!(turns > 0);
    }

    #[test]
    fn a_thread_is_pinned_to_a_processor_it_may_use_and_to_no_other() {
        let allowed = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            line.unwrap().trim().to_owned()
        };
        let first: u32 = allowed().split([',', '-']).next().unwrap().parse().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pin_current_thread(first).unwrap();
                assert_eq!(allowed(), first.to_string());
                assert!(pin_current_thread(4095).is_err());
                assert!(pin_current_thread(4096).is_err());
                assert_eq!(allowed(), first.to_string());
            });
        });
    }
}
