//! What stands between channels and sockets: addresses, names, network interfaces, and the endpoints of channels.

pub mod interface;
pub mod resolver;
pub mod udp_channel;
