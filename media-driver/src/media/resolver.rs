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

/// A table of names for tests and closed worlds: what is in it is not looked up elsewhere.
///
/// Rows are separated by bars and have three or four fields: name, parameter (`endpoint`, `control`, `interface`,
/// `neighbor`), address, and the address that is given when the name is looked up again; without the fourth field it
/// stays the same. An empty address stands for a name that can not be resolved.
///
/// ```text
/// server,endpoint,10.0.0.1,10.0.0.2|server,control,10.0.0.1
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableResolver {
    rows: Vec<TableRow>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct TableRow {
    host: String,
    used_as: NameUse,
    first: Option<IpAddr>,
    again: Option<IpAddr>,
}

/// A row of a [`TableResolver`] that can not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid row of the table of names: {row}: must be name,parameter,address[,address when looked up again]"
)]
pub struct TableError {
    /// The row.
    pub row: String,
}

impl TableResolver {
    /// Reads a table.
    ///
    /// # Errors
    /// [`TableError`] for a row with another number of fields, an unknown parameter, or an address that is none.
    pub fn parse(text: &str) -> Result<Self, TableError> {
        let rows = text.split('|').map(str::trim).filter(|row| !row.is_empty());
        let read = |row: &str| TableRow::parse(row).ok_or_else(|| TableError { row: row.to_owned() });
        Ok(Self {
            rows: rows.map(read).collect::<Result<_, _>>()?,
        })
    }
}

impl TableRow {
    fn parse(row: &str) -> Option<Self> {
        let fields: Vec<&str> = row.split(',').map(str::trim).collect();
        let (host, used_as, first, again) = match fields.as_slice() {
            [host, used_as, first] => (host, used_as, first, first),
            [host, used_as, first, again] => (host, used_as, first, again),
            _ => return None,
        };
        let address = |text: &str| match text {
            "" => Some(None),
            text => text.parse().ok().map(Some),
        };
        let uses = [
            NameUse::Endpoint,
            NameUse::Control,
            NameUse::Interface,
            NameUse::Neighbor,
        ];
        Some(Self {
            host: (!host.is_empty()).then(|| (*host).to_owned())?,
            used_as: uses.into_iter().find(|candidate| candidate.name() == *used_as)?,
            first: address(first)?,
            again: address(again)?,
        })
    }
}

impl NameResolver for TableResolver {
    fn at_once(&self, request: &NameRequest) -> Option<Result<IpAddr, NameFault>> {
        let row = self
            .rows
            .iter()
            .find(|row| row.host == request.host && row.used_as == request.used_as);
        let Some(row) = row else {
            return SystemResolver.at_once(request);
        };
        let address = if request.is_re_resolution {
            row.again
        } else {
            row.first
        };
        Some(address.ok_or_else(|| NameFault {
            reason: "the table of names has no address for it".to_owned(),
        }))
    }

    fn look_up(&self, request: &NameRequest) -> Result<IpAddr, NameFault> {
        self.at_once(request)
            .unwrap_or_else(|| SystemResolver.look_up(request))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host: &str, used_as: NameUse, is_re_resolution: bool) -> NameRequest {
        NameRequest {
            host: host.to_owned(),
            used_as,
            family: Family::V4,
            is_re_resolution,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_table_answers_by_name_use_and_turn() {
        let table =
            "server,endpoint,10.0.0.1,10.0.0.2| server , control , 10.0.0.3 |gone,endpoint,,10.0.0.4|";
        let table = TableResolver::parse(table).unwrap();
        let answer = |host, used_as, again| table.at_once(&request(host, used_as, again));
        assert_eq!(
            answer("server", NameUse::Endpoint, false),
            Some(Ok(ip("10.0.0.1")))
        );
        assert_eq!(
            answer("server", NameUse::Endpoint, true),
            Some(Ok(ip("10.0.0.2")))
        );
        assert_eq!(answer("server", NameUse::Control, true), Some(Ok(ip("10.0.0.3"))));
        assert!(answer("gone", NameUse::Endpoint, false).unwrap().is_err());
        assert_eq!(answer("gone", NameUse::Endpoint, true), Some(Ok(ip("10.0.0.4"))));
        assert_eq!(
            answer("server", NameUse::Interface, false),
            None,
            "left to the system"
        );
        assert_eq!(
            answer("10.9.9.9", NameUse::Endpoint, false),
            Some(Ok(ip("10.9.9.9")))
        );
        assert_eq!(
            table.look_up(&request("server", NameUse::Control, false)),
            Ok(ip("10.0.0.3"))
        );
    }

    #[test]
    fn rows_that_can_not_be_read_are_named() {
        for row in [
            "server",
            "server,endpoint",
            "server,port,10.0.0.1",
            "server,endpoint,nosuch",
            ",endpoint,10.0.0.1",
            "server,endpoint,10.0.0.1,10.0.0.2,10.0.0.3",
        ] {
            let text = format!("good,endpoint,10.0.0.1|{row}");
            assert_eq!(TableResolver::parse(&text).unwrap_err().row, row);
        }
        assert_eq!(TableResolver::parse(""), Ok(TableResolver::default()));
    }

    #[test]
    fn the_preferred_family_wins_and_then_the_first() {
        let addresses = [ip("::1"), ip("10.0.0.1"), ip("10.0.0.2")];
        assert_eq!(choose(addresses.into_iter(), Family::V4), Ok(ip("10.0.0.1")));
        assert_eq!(choose(addresses.into_iter(), Family::V6), Ok(ip("::1")));
        assert_eq!(choose([ip("::1")].into_iter(), Family::V4), Ok(ip("::1")));
        assert!(choose(core::iter::empty(), Family::V4).is_err());
    }

    #[test]
    fn the_system_knows_localhost_and_not_what_can_not_be() {
        let asked = request("localhost", NameUse::Endpoint, false);
        assert_eq!(SystemResolver.at_once(&asked), None);
        assert!(SystemResolver.look_up(&asked).unwrap().is_loopback());
        // No name may have an empty label, so this fails without asking a server.
        let fault = SystemResolver.look_up(&request("no..such", NameUse::Endpoint, false));
        assert!(!fault.unwrap_err().reason.is_empty());
    }
}
