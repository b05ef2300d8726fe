//! What stands between channels and sockets: addresses, names, network interfaces, and the endpoints of channels.

#[cfg(test)]
pub(crate) mod fixtures;
pub mod gossip_resolver;
pub mod interface;
pub mod receive_destination;
pub mod receive_endpoint;
pub mod receive_timestamps;
pub mod resolver;
pub mod send_endpoint;
pub mod udp_channel;
