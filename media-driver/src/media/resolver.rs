//! Names and their addresses. Looking a name up may take seconds, so it happens on the resource agent only; everybody
//! else asks with a [`NameRequest`] and gets a [`NameAnswer`].
#![forbid(unsafe_code)]

use core::fmt;
use core::net::IpAddr;

use super::interface::Family;
use crate::io::NetworkInterface;

/// Which parameter names the host; tables of names may give another answer for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameUse {
    /// `endpoint`.
    Endpoint,
    /// `control`.
    Control,
    /// `interface`.
    Interface,
    /// A neighbour of the driver's own name resolution.
    Neighbor,
}

impl NameUse {
    /// The name of the parameter.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Control => "control",
            Self::Interface => "interface",
            Self::Neighbor => "neighbor",
        }
    }
}

/// A name to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRequest {
    /// The host, never a literal address when it comes from a channel.
    pub host: String,
    /// What it is for.
    pub used_as: NameUse,
    /// Which family to prefer; an answer of the other one is given when there is no other.
    pub family: Family,
    /// Whether it was looked up before, for the same purpose.
    pub is_re_resolution: bool,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAnswer {
    /// What was asked.
    pub request: NameRequest,
    /// The address, or why there is none.
    pub result: Result<IpAddr, NameFault>,
}

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameFault {
    /// In words, such as the system's `Name or service not known`; without the name itself.
    pub reason: String,
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Answers of the resource agent: all that is needed to turn the text of a channel into addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// One for each request, in the order of the requests.
    pub answers: Vec<NameAnswer>,
    /// The network interfaces, if they were asked for.
    pub interfaces: Vec<NetworkInterface>,
}

impl Resolution {
    /// The answer for a host in a use.
    #[must_use]
    pub fn find(&self, host: &str, used_as: NameUse) -> Option<&NameAnswer> {
        self.answers
            .iter()
            .find(|answer| answer.request.host == host && answer.request.used_as == used_as)
    }
}

/// Finds addresses of names.
pub trait NameResolver: Send + Sync {
    /// The answer, if it can be given without waiting: from a table, from memory. `None` leaves the name to
    /// [`look_up`](Self::look_up).
    fn at_once(&self, request: &NameRequest) -> Option<Result<IpAddr, NameFault>>;

    /// Looks a name up, however long that takes. Called on threads that may wait.
    ///
    /// # Errors
    /// [`NameFault`] if the name has no address.
    fn look_up(&self, request: &NameRequest) -> Result<IpAddr, NameFault>;
}

/// The system's resolver: files and DNS, as the system is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl NameResolver for SystemResolver {
    fn at_once(&self, request: &NameRequest) -> Option<Result<IpAddr, NameFault>> {
        request.host.parse().ok().map(Ok)
    }

    fn look_up(&self, request: &NameRequest) -> Result<IpAddr, NameFault> {
        use std::net::ToSocketAddrs;
        let found = (request.host.as_str(), 0)
            .to_socket_addrs()
            .map_err(|error| NameFault {
                reason: error.to_string(),
            })?;
        choose(found.map(|at| at.ip()), request.family)
    }
}

/// The first address of the preferred family, else the first one.
///
/// # Errors
/// [`NameFault`] if there is none at all.
pub fn choose(addresses: impl Iterator<Item = IpAddr>, family: Family) -> Result<IpAddr, NameFault> {
    let mut other = None;
    for address in addresses {
        if Family::of(address) == family {
            return Ok(address);
        }
        other.get_or_insert(address);
    }
    other.ok_or_else(|| NameFault {
        reason: "no address".to_owned(),
    })
}
