//! The interfaces of this machine.

use core::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One address of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkInterface {
    /// Its name, for instance `eth0`.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// Leading bits of the address that name its network.
    pub prefix_length: u8,
    /// Whether it is in use.
    pub is_up: bool,
    /// Whether it is the loopback.
    pub is_loopback: bool,
    /// Whether it says that it can do multicast. Linux's loopback does not say so, and can.
    pub is_multicast: bool,
}

/// Lists interfaces.
pub trait InterfaceList: Send + Sync {
    /// Every address of every interface, in the order of the system.
    ///
    /// # Errors
    /// What the system says.
    fn interfaces(&self) -> io::Result<Vec<NetworkInterface>>;
}

impl InterfaceList for Vec<NetworkInterface> {
    fn interfaces(&self) -> io::Result<Vec<NetworkInterface>> {
        Ok(self.clone())
    }
}

/// The interfaces that the system lists now.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemInterfaces;

impl InterfaceList for SystemInterfaces {
    fn interfaces(&self) -> io::Result<Vec<NetworkInterface>> {
        let mut first: *mut libc::ifaddrs = core::ptr::null_mut();
        // SAFETY: getifaddrs writes a list, or nothing on an error, to `first`, which lives through the call.
        if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let list = List(first);
        let mut found = Vec::new();
        let mut next = list.0;
        while !next.is_null() {
            // SAFETY: a pointer of the list that is not null points to an entry that lives until `list` is dropped.
            let entry = unsafe { &*next };
            found.extend(interface(entry));
            next = entry.ifa_next;
        }
        Ok(found)
    }
}

/// What getifaddrs allocated.
struct List(*mut libc::ifaddrs);

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the pointer came from getifaddrs and is freed once; nothing of the list is borrowed any more.
        unsafe { libc::freeifaddrs(self.0) }
    }
}

/// The entry as ours, if it has an IP address.
fn interface(entry: &libc::ifaddrs) -> Option<NetworkInterface> {
    // SAFETY: the addresses of an entry are null or point to a sockaddr of the family that they name.
    let (address, mask) = unsafe { (ip(entry.ifa_addr)?, ip(entry.ifa_netmask)) };
    // SAFETY: the name is a string with an end that lives as long as the entry.
    let name = unsafe { CStr::from_ptr(entry.ifa_name) };
    // SAFETY: as above; the call only reads it.
    let index = unsafe { libc::if_nametoindex(entry.ifa_name) };
    let has = |flag: libc::c_int| entry.ifa_flags & flag.cast_unsigned() != 0;
    Some(NetworkInterface {
        name: name.to_string_lossy().into_owned(),
        index,
        address,
        prefix_length: match mask {
            Some(IpAddr::V4(mask)) => mask.to_bits().leading_ones() as u8,
            Some(IpAddr::V6(mask)) => mask.to_bits().leading_ones() as u8,
            None if address.is_ipv4() => 32,
            None => 128,
        },
        is_up: has(libc::IFF_UP),
        is_loopback: has(libc::IFF_LOOPBACK),
        is_multicast: has(libc::IFF_MULTICAST),
    })
}

/// # Safety
/// The pointer is null or points to a socket address of the family that it names.
unsafe fn ip(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: every socket address starts with its family.
    let family = unsafe { (&raw const (*address).sa_family).read() };
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: of this family, so of this form.
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes()).into())
        }
        libc::AF_INET6 => {
            // SAFETY: of this family, so of this form.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_listed_with_its_network() {
        let all = SystemInterfaces.interfaces().unwrap();
        let loopback = all
            .iter()
            .find(|one| one.address == IpAddr::from(Ipv4Addr::LOCALHOST))
            .unwrap();
        assert!(loopback.is_loopback && loopback.is_up);
        assert_eq!(loopback.prefix_length, 8);
        assert!(loopback.index > 0);
        assert!(!loopback.name.is_empty());
        for one in &all {
            assert!(one.prefix_length <= if one.address.is_ipv4() { 32 } else { 128 });
        }
    }
}
