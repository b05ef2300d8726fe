//! Ports for channels that leave theirs to the driver with port 0 (wire-protocol, appendix A).
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use thiserror::Error;

/// Hands out the ports of a configured range; without a range the system chooses.
#[derive(Clone, Debug)]
pub struct WildcardPorts {
    range: Option<(u16, u16)>,
    next: u16,
    /// Ports of the range and by how many sockets each is used: those of groups, or of different addresses, share one.
    taken: BTreeMap<u16, usize>,
}

/// Every port of the range is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no free port in the wildcard port range {low} {high}")]
pub struct PortsExhausted {
    /// First port of the range.
    pub low: u16,
    /// Last port of the range.
    pub high: u16,
}

impl WildcardPorts {
    /// Ports from `range`, both ends included; `None` leaves the choice to the system.
    #[must_use]
    pub fn new(range: Option<(u16, u16)>) -> Self {
        Self {
            range,
            next: range.map_or(0, |(low, _)| low),
            taken: BTreeMap::new(),
        }
    }

    /// The port to bind for a channel with the port `asked`. Ports of the range that channels name themselves are
    /// remembered, so that they are not handed out. Every claim is followed by a [`release`](Self::release) of the
    /// answer.
    ///
    /// # Errors
    /// [`PortsExhausted`] if port 0 was asked for and the range has none left.
    pub fn claim(&mut self, asked: u16) -> Result<u16, PortsExhausted> {
        let Some((low, high)) = self.range else {
            return Ok(asked);
        };
        if asked != 0 {
            if (low..=high).contains(&asked) {
                *self.taken.entry(asked).or_default() += 1;
            }
            return Ok(asked);
        }
        for _ in low..=high {
            let port = self.next;
            self.next = if port >= high { low } else { port + 1 };
            if let Entry::Vacant(free) = self.taken.entry(port) {
                free.insert(1);
                return Ok(port);
            }
        }
        Err(PortsExhausted { low, high })
    }

    /// Gives a claimed port back. It is free once everybody who claimed it has given it back.
    pub fn release(&mut self, port: u16) {
        if let Entry::Occupied(mut taken) = self.taken.entry(port) {
            *taken.get_mut() -= 1;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_range_the_system_chooses() {
        let mut ports = WildcardPorts::new(None);
        assert_eq!(ports.claim(0), Ok(0));
        assert_eq!(ports.claim(40123), Ok(40123));
    }

    #[test]
    fn ports_of_the_range_are_handed_out_once_in_turn() {
        let mut ports = WildcardPorts::new(Some((100, 102)));
        assert_eq!(ports.claim(101), Ok(101), "a channel's own port");
        assert_eq!(ports.claim(0), Ok(100));
        assert_eq!(ports.claim(0), Ok(102));
        let exhausted = ports.claim(0).unwrap_err();
        assert_eq!(
            exhausted.to_string(),
            "no free port in the wildcard port range 100 102"
        );
        ports.release(100);
        ports.release(101);
        // The search goes on behind the last one, so that a port just closed is not reused at once.
        assert_eq!(ports.claim(0), Ok(100));
        assert_eq!(ports.claim(0), Ok(101));
        assert_eq!(ports.claim(99), Ok(99), "outside the range anything goes");
        assert_eq!(ports.claim(0), Err(exhausted));
    }

    #[test]
    fn a_port_that_several_channels_name_is_free_when_the_last_of_them_is_gone() {
        let mut ports = WildcardPorts::new(Some((7, 7)));
        assert_eq!(ports.claim(7), Ok(7));
        assert_eq!(ports.claim(7), Ok(7), "another group on the same port");
        ports.release(7);
        assert!(ports.claim(0).is_err());
        ports.release(7);
        assert_eq!(ports.claim(0), Ok(7));
        ports.release(7);
        ports.release(7);
        assert_eq!(ports.claim(0), Ok(7));
    }

    #[test]
    fn a_range_up_to_the_last_port_ends() {
        let mut ports = WildcardPorts::new(Some((65534, 65535)));
        assert_eq!(ports.claim(0), Ok(65534));
        assert_eq!(ports.claim(0), Ok(65535));
        assert!(ports.claim(0).is_err());
        let mut one = WildcardPorts::new(Some((7, 7)));
        assert_eq!(one.claim(0), Ok(7));
        assert!(one.claim(0).is_err());
    }
}
