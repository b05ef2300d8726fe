//! Whether a new log fits. Sparse files promise blocks that the file system has not given yet, so what is promised
//! to live logs counts as used: otherwise a later store by a publisher would end it with SIGBUS.
#![forbid(unsafe_code)]

/// Outcome of the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StorageCheck {
    /// It fits.
    Enough,
    /// It fits, and what is left is at or below the warning threshold.
    Low,
    /// It does not fit.
    Insufficient {
        /// Bytes that could be given to a new log.
        available: u64,
    },
}

/// `usable` bytes of the file system, of which `promised` belong to live logs already, against `needed` new ones.
pub(super) fn check(usable: u64, promised: u64, needed: u64, warn_at: u64) -> StorageCheck {
    let available = usable.saturating_sub(promised);
    if available < needed {
        StorageCheck::Insufficient { available }
    } else if available - needed <= warn_at {
        StorageCheck::Low
    } else {
        StorageCheck::Enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_to_other_logs_count_as_used() {
        assert_eq!(
            check(100, 60, 50, 0),
            StorageCheck::Insufficient { available: 40 }
        );
        assert_eq!(check(100, 50, 50, 0), StorageCheck::Low);
        assert_eq!(check(100, 20, 50, 10), StorageCheck::Enough);
        assert_eq!(check(10, 20, 1, 10), StorageCheck::Insufficient { available: 0 });
    }
}
