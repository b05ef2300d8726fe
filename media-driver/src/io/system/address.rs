//! Addresses as the system writes them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for an IPv4 or an IPv6 address. Every bit pattern is a value.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union Name {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Name {
    /// Bytes that a call may fill in.
    pub(super) const LENGTH: libc::socklen_t = size_of::<Name>() as libc::socklen_t;

    /// An address, and how many bytes of it count.
    pub(super) fn encode(address: SocketAddr) -> (Name, libc::socklen_t) {
        match address {
            SocketAddr::V4(v4) => (
                Name {
                    v4: libc::sockaddr_in {
                        sin_family: libc::AF_INET as libc::sa_family_t,
                        sin_port: v4.port().to_be(),
                        sin_addr: libc::in_addr {
                            s_addr: u32::from_ne_bytes(v4.ip().octets()),
                        },
                        sin_zero: [0; 8],
                    },
                },
                size_of::<libc::sockaddr_in>() as libc::socklen_t,
            ),
            SocketAddr::V6(v6) => (
                Name {
                    v6: libc::sockaddr_in6 {
                        sin6_family: libc::AF_INET6 as libc::sa_family_t,
                        sin6_port: v6.port().to_be(),
                        sin6_flowinfo: v6.flowinfo(),
                        sin6_addr: libc::in6_addr {
                            s6_addr: v6.ip().octets(),
                        },
                        sin6_scope_id: v6.scope_id(),
                    },
                },
                size_of::<libc::sockaddr_in6>() as libc::socklen_t,
            ),
        }
    }

    /// The address that the system wrote to these bytes; `None` for other families.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<SocketAddr> {
        let mut name = core::mem::MaybeUninit::<Name>::uninit();
        let length = bytes.len().min(Self::LENGTH as usize);
        // SAFETY: `length` bytes are readable in the one and writable in the other, and they do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), name.as_mut_ptr().cast(), length) };
        // SAFETY: so many bytes were just initialised.
        unsafe { Self::decode(name.as_ptr(), length as libc::socklen_t) }
    }

    /// The address of which the system wrote `length` bytes; `None` for other families.
    ///
    /// # Safety
    /// The first `length` bytes, and at most those of the union, are initialised.
    pub(super) unsafe fn decode(this: *const Name, length: libc::socklen_t) -> Option<SocketAddr> {
        let length = length as usize;
        if length < size_of::<libc::sa_family_t>() {
            return None;
        }
        // SAFETY: the family is initialised, as `length` covers it.
        let family = unsafe { (&raw const (*this).family).read() };
        match i32::from(family) {
            libc::AF_INET if length >= size_of::<libc::sockaddr_in>() => {
                // SAFETY: `length` covers the IPv4 form, and the caller vouches for it.
                let v4 = unsafe { (&raw const (*this).v4).read() };
                let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 if length >= size_of::<libc::sockaddr_in6>() => {
                // SAFETY: `length` covers the IPv6 form, and the caller vouches for it.
                let v6 = unsafe { (&raw const (*this).v6).read() };
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_went() {
        for text in [
            "127.0.0.1:40123",
            "224.20.30.39:1",
            "[::1]:65535",
            "[ff02::7%3]:24326",
        ] {
            let address: SocketAddr = text.parse().unwrap();
            let (name, length) = Name::encode(address);
            // SAFETY: `encode` initialised as many bytes as it says.
            assert_eq!(unsafe { Name::decode(&raw const name, length) }, Some(address));
            // SAFETY: as above.
            assert_eq!(unsafe { Name::decode(&raw const name, length - 1) }, None);
            // SAFETY: as above.
            assert_eq!(unsafe { Name::decode(&raw const name, 0) }, None);
        }
    }

    #[test]
    fn the_wire_form_is_in_network_order() {
        let (name, length) = Name::encode("1.2.3.4:258".parse().unwrap());
        assert_eq!(length, 16);
        // SAFETY: the IPv4 form was just written.
        let v4 = unsafe { name.v4 };
        assert_eq!(v4.sin_port.to_ne_bytes(), [1, 2]);
        assert_eq!(v4.sin_addr.s_addr.to_ne_bytes(), [1, 2, 3, 4]);
    }
}
