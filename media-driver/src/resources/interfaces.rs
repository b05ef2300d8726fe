//! The network interfaces of this machine, from the system.

use core::ffi::CStr;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ptr;

use crate::io::{InterfaceList, NetworkInterface};

/// Addresses taken from the system at most; a machine has a few, a host of containers some hundreds.
const INTERFACES_MAX: usize = 16_384;

/// The interfaces that the system lists.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemInterfaces;

impl InterfaceList for SystemInterfaces {
    fn interfaces(&self) -> std::io::Result<Vec<NetworkInterface>> {
        list()
    }
}

fn list() -> std::io::Result<Vec<NetworkInterface>> {
    let mut interfaces = Vec::new();
    let mut head: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: `head` is a valid place for the result. On success it is the head of a list that we free below.
    if unsafe { libc::getifaddrs(&raw mut head) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let mut entry = head;
    while !entry.is_null() && interfaces.len() < INTERFACES_MAX {
        // SAFETY: `entry` is a non-null element of the list that getifaddrs returned, which lives until freeifaddrs.
        let current = unsafe { &*entry };
        interfaces.extend(interface_of(current));
        entry = current.ifa_next;
    }
    // SAFETY: `head` came from getifaddrs and nothing of the list is used any more: `interface_of` copies.
    unsafe { libc::freeifaddrs(head) };
    Ok(interfaces)
}

fn interface_of(entry: &libc::ifaddrs) -> Option<NetworkInterface> {
    // SAFETY: of an entry of getifaddrs, `ifa_addr` is null or a complete address of its family.
    let address = unsafe { address_of(entry.ifa_addr) }?;
    // SAFETY: as above, for `ifa_netmask`.
    let netmask = unsafe { address_of(entry.ifa_netmask) };
    // SAFETY: `ifa_name` of an entry of getifaddrs is a C string that lives as long as the list.
    let name = unsafe { CStr::from_ptr(entry.ifa_name) };
    let has = |flag: libc::c_int| entry.ifa_flags & flag as libc::c_uint != 0;
    // SAFETY: the name is a valid C string; the call only reads it.
    let index = unsafe { libc::if_nametoindex(entry.ifa_name) };
    Some(NetworkInterface {
        index,
        name: name.to_string_lossy().into_owned(),
        address,
        prefix_length: netmask.map_or(if address.is_ipv4() { 32 } else { 128 }, leading_ones),
        is_up: has(libc::IFF_UP),
        is_multicast: has(libc::IFF_MULTICAST),
        is_loopback: has(libc::IFF_LOOPBACK),
    })
}

fn leading_ones(netmask: IpAddr) -> u8 {
    let ones = match netmask {
        IpAddr::V4(mask) => u32::from(mask).leading_ones(),
        IpAddr::V6(mask) => u128::from(mask).leading_ones(),
    };
    u8::try_from(ones).unwrap_or(u8::MAX)
}

/// The IP address of a socket address; `None` for null and for other families.
///
/// # Safety
/// `address` is null or points to a socket address of the full length of its family.
unsafe fn address_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: not null, so by the caller's promise a socket address; each has its family at the same place.
    let family = i32::from(unsafe { (*address).sa_family });
    match family {
        libc::AF_INET => {
            // SAFETY: of this family, so by the caller's promise a sockaddr_in. Read unaligned, because the promise
            // says nothing about alignment.
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_among_the_interfaces_of_this_machine() {
        let interfaces = SystemInterfaces.interfaces().unwrap();
        let loopback = interfaces
            .iter()
            .find(|interface| interface.address == IpAddr::V4(Ipv4Addr::LOCALHOST))
            .expect("every machine that runs tests has 127.0.0.1");
        assert!(loopback.is_loopback && loopback.is_up);
        assert_eq!(loopback.prefix_length, 8);
        assert!(loopback.index > 0 && !loopback.name.is_empty());
    }

    #[test]
    fn netmasks_become_prefix_lengths() {
        assert_eq!(leading_ones(IpAddr::V4(Ipv4Addr::new(255, 255, 240, 0))), 20);
        assert_eq!(leading_ones(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), 0);
        assert_eq!(leading_ones(IpAddr::V6(Ipv6Addr::from(u128::MAX))), 128);
    }
}
