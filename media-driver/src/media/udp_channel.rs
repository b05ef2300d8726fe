//! The addresses of a UDP channel (wire-protocol 6 and 8.2), in two steps, because looking names up is slow and happens
//! on another agent: [`ChannelSpec`] is what the text says and which names it needs, [`UdpChannel`] is the outcome once
//! the answers are there. Both steps only compute.
#![forbid(unsafe_code)]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use fulmar::control::ErrorCode;
use fulmar::uri::{Address, ChannelUri, ControlMode, ParamError, Role};

use super::interface::{self, Family, InterfaceParam};
use super::resolver::{NameAnswer, NameRequest, NameUse, Resolution};
use crate::config::ParamsError;
use crate::io::NetworkInterface;

/// A host and a port as the channel gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// As written: `host:port` or `[ipv6%scope]:port`.
    pub text: String,
    /// Name or address, without brackets and scope.
    pub host: String,
    /// Scope of an IPv6 address: name or number of an interface.
    pub scope: Option<String>,
    /// Whether the host was in brackets, that is, is an IPv6 address.
    pub is_bracketed: bool,
    /// Port; 0 lets the driver choose.
    pub port: u16,
}

impl HostPort {
    /// Reads `host:port`, for instance the name in a request to look it up again.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Address::parse(text).ok().map(|address| Self::of(&address, text))
    }

    fn of(address: &Address<'_>, text: &str) -> Self {
        Self {
            text: text.to_owned(),
            host: address.host.to_owned(),
            scope: address.scope.map(str::to_owned),
            is_bracketed: address.is_bracketed,
            port: address.port,
        }
    }

    /// The address, if the host is none that has to be looked up.
    #[must_use]
    pub fn literal(&self) -> Option<IpAddr> {
        literal(&self.host, self.is_bracketed)
    }

    /// What to ask the resource agent; `None` for a literal address.
    #[must_use]
    pub fn request(&self, used_as: NameUse, family: Family) -> Option<NameRequest> {
        request(&self.host, self.is_bracketed, used_as, family)
    }

    /// The address with the port, from the answers.
    fn resolve(
        &self,
        used_as: NameUse,
        resolution: &Resolution,
        uri: &ChannelUri,
    ) -> Result<SocketAddr, ParamsError> {
        let address = match self.literal() {
            Some(address) => address,
            None => answered(&self.host, used_as, resolution, uri)?,
        };
        let scope_id = self.scope_id(&resolution.interfaces).ok_or_else(|| {
            ParamsError::generic(format!(
                "invalid {}={}: no interface has the scope's name: {uri}",
                used_as.name(),
                self.text
            ))
        })?;
        Ok(socket_address(address, self.port, scope_id))
    }

    fn scope_id(&self, interfaces: &[NetworkInterface]) -> Option<u32> {
        let Some(scope) = &self.scope else {
            return Some(0);
        };
        scope.parse().ok().or_else(|| {
            let named = interfaces.iter().find(|interface| interface.name == *scope);
            named.map(|interface| interface.index)
        })
    }

    fn needs_interfaces(&self) -> bool {
        self.scope
            .as_ref()
            .is_some_and(|scope| scope.parse::<u32>().is_err())
    }
}

/// What the text of a UDP channel says about addresses, checked as far as that goes without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSpec {
    /// The channel.
    pub uri: ChannelUri,
    /// What it is wanted for.
    pub role: Role,
    /// `endpoint`.
    pub endpoint: Option<HostPort>,
    /// `control`.
    pub control: Option<HostPort>,
    /// `control-mode`.
    pub control_mode: Option<ControlMode>,
    /// `interface`.
    pub interface: Option<InterfaceParam>,
    /// The channel's part of `tags`.
    pub tag: Option<i64>,
    /// `ttl`.
    pub ttl: Option<u8>,
}

impl ChannelSpec {
    /// Reads a channel. Spies are read as the publication they spy on.
    ///
    /// # Errors
    /// INVALID_CHANNEL for a channel that can not have this role, GENERIC_ERROR for addresses that can not be.
    pub fn from_uri(uri: &ChannelUri, role: Role) -> Result<Self, ParamsError> {
        uri.check_role(role)?;
        if !uri.is_udp() {
            return Err(ParamsError::generic(format!("not aeron:udp: {uri}")));
        }
        let mut spec = Self::read(uri, role).map_err(|error| ParamsError::of_param(&error, uri))?;
        if let Some(text) = uri.params().interface() {
            let interface = InterfaceParam::parse(text).ok_or_else(|| {
                ParamsError::generic(format!(
                    "invalid interface={text}: must be address[:port][/prefix] or {{name}}[:port]: {uri}"
                ))
            })?;
            spec.interface = Some(interface);
        }
        spec.check()?;
        Ok(spec)
    }

    fn read(uri: &ChannelUri, role: Role) -> Result<Self, ParamError> {
        let params = uri.params();
        let text = |key: &str| uri.get(key).unwrap_or_default();
        let endpoint = params
            .endpoint()?
            .map(|address| HostPort::of(&address, text("endpoint")));
        let control = params
            .control()?
            .map(|address| HostPort::of(&address, text("control")));
        Ok(Self {
            uri: uri.clone(),
            role,
            endpoint,
            control,
            control_mode: params.control_mode(),
            interface: None,
            tag: params.tags().channel,
            ttl: params.ttl()?,
        })
    }

    fn check(&self) -> Result<(), ParamsError> {
        let uri = &self.uri;
        let sends = self.sends();
        let has_port_zero = |at: &Option<HostPort>| at.as_ref().is_some_and(|at| at.port == 0);
        let is_multi_destination = matches!(
            self.control_mode,
            Some(ControlMode::Manual | ControlMode::Dynamic)
        );
        if sends && has_port_zero(&self.endpoint) && !is_multi_destination {
            return Err(ParamsError::generic(format!(
                "invalid endpoint: a publication needs a port other than 0: {uri}"
            )));
        }
        if !sends && has_port_zero(&self.control) {
            return Err(ParamsError::generic(format!(
                "invalid control: a subscription needs a port other than 0: {uri}"
            )));
        }
        if self.role == Role::Publication
            && self.control.is_some()
            && self.endpoint.is_none()
            && self.control_mode.is_none()
        {
            return Err(ParamsError::generic(format!(
                "control without endpoint needs control-mode: {uri}"
            )));
        }
        Ok(())
    }

    /// Whether only a tag says what is meant: the channel is that of an existing endpoint with the same tag.
    #[must_use]
    pub fn is_tag_only(&self) -> bool {
        self.tag.is_some() && self.endpoint.is_none() && self.control.is_none() && self.control_mode.is_none()
    }

    /// The names to be looked up.
    #[must_use]
    pub fn names(&self) -> Vec<NameRequest> {
        let family = self.preferred_family();
        let host = |at: &Option<HostPort>, used_as| at.as_ref().and_then(|at| at.request(used_as, family));
        let mut names = Vec::new();
        names.extend(host(&self.endpoint, NameUse::Endpoint));
        names.extend(host(&self.control, NameUse::Control));
        if let Some(InterfaceParam::Address {
            host, is_bracketed, ..
        }) = &self.interface
        {
            names.extend(request(host, *is_bracketed, NameUse::Interface, family));
        }
        names
    }

    /// The family of whatever is given as a literal address; names are looked up in it first.
    fn preferred_family(&self) -> Family {
        let literal = |at: &Option<HostPort>| at.as_ref().and_then(HostPort::literal);
        literal(&self.endpoint)
            .or_else(|| literal(&self.control))
            .map_or(Family::V4, Family::of)
    }

    /// Where a publication's datagrams leave from and a subscription's channel has a sender: spies take the shape of the
    /// publication they spy on.
    fn sends(&self) -> bool {
        matches!(self.role, Role::Publication | Role::SendDestination) || self.uri.is_spy()
    }

    fn fault(&self, text: &str) -> ParamsError {
        ParamsError::generic(format!("{text}: {}", self.uri))
    }

    /// Whether the list of network interfaces is needed.
    #[must_use]
    pub fn needs_interfaces(&self) -> bool {
        let may_be_multicast = |at: &HostPort| at.literal().is_none_or(|address| address.is_multicast());
        let has_scope = |at: &Option<HostPort>| at.as_ref().is_some_and(HostPort::needs_interfaces);
        self.interface.is_some()
            || self.endpoint.as_ref().is_some_and(may_be_multicast)
            || has_scope(&self.endpoint)
            || has_scope(&self.control)
    }

    /// Whether [`UdpChannel::resolve`] gets along without answers of the resource agent.
    #[must_use]
    pub fn is_self_contained(&self) -> bool {
        self.names().is_empty() && !self.needs_interfaces()
    }
}

/// The network interface a channel uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelInterface {
    /// Number of the interface; 0 where unknown.
    pub index: u32,
    /// Its name; empty where unknown.
    pub name: String,
    /// The address of it that is used.
    pub address: IpAddr,
}

/// A UDP channel with addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpChannel {
    /// What the text says.
    pub spec: ChannelSpec,
    /// Two channels with the same form share their sockets (wire-protocol 8.2).
    pub canonical_form: String,
    /// Where data go; for a subscription the address that data come to. The wildcard with port 0 if the channel has no
    /// endpoint.
    pub remote_data: SocketAddr,
    /// Where status messages, NAKs and the like go: for multicast the control group, for a subscription with `control`
    /// that address, otherwise as `remote_data`.
    pub remote_control: SocketAddr,
    /// Where a sender binds.
    pub local_data: SocketAddr,
    /// As `local_data`; differs from it in nothing today, but the protocol keeps them apart.
    pub local_control: SocketAddr,
    /// `control`, if given.
    pub explicit_control: Option<SocketAddr>,
    /// `control-mode`, if given.
    pub control_mode: Option<ControlMode>,
    /// The interface that is used for multicast, or that `interface` named.
    pub interface: Option<ChannelInterface>,
    /// Whether the endpoint is a multicast group.
    pub is_multicast: bool,
    /// Time to live of multicast datagrams as the channel gives it.
    pub ttl: Option<u8>,
    /// The channel's tag.
    pub tag: Option<i64>,
    /// Family of all its addresses.
    pub family: Family,
}

impl UdpChannel {
    /// Finds the addresses with the answers to [`ChannelSpec::names`]. `unique` sets channels apart that can not be
    /// shared by their text, such as those with port 0; the correlation id of the command serves.
    ///
    /// # Errors
    /// UNKNOWN_HOST for a name without address; GENERIC_ERROR for an even multicast address, an interface that no
    /// interface matches, or addresses of different families.
    pub fn resolve(spec: ChannelSpec, resolution: &Resolution, unique: i64) -> Result<Self, ParamsError> {
        let find = |at: &Option<HostPort>, used_as| {
            at.as_ref()
                .map(|at| at.resolve(used_as, resolution, &spec.uri))
                .transpose()
        };
        let endpoint = find(&spec.endpoint, NameUse::Endpoint)?;
        let control = find(&spec.control, NameUse::Control)?;
        if let (Some(endpoint), Some(control)) = (endpoint, control)
            && endpoint.is_ipv4() != control.is_ipv4()
        {
            return Err(spec.fault("endpoint and control are of different address families"));
        }
        match endpoint {
            // A destination is only an address; nobody joins its group here.
            Some(group) if group.ip().is_multicast() && spec.role != Role::SendDestination => {
                Self::multicast(spec, resolution, group)
            }
            _ => Self::unicast(spec, resolution, endpoint, control, unique),
        }
    }

    fn multicast(spec: ChannelSpec, resolution: &Resolution, group: SocketAddr) -> Result<Self, ParamsError> {
        if last_byte(group.ip()) & 1 == 0 {
            return Err(spec.fault("the last byte of a multicast address has to be odd"));
        }
        let family = Family::of(group.ip());
        let chosen = match chosen_interface(&spec, resolution, family, true)? {
            Some(chosen) => chosen,
            None => interface::find_for_multicast(&resolution.interfaces, family)
                .ok_or_else(|| spec.fault("no network interface for multicast"))?,
        };
        let port = spec.interface.as_ref().map_or(0, InterfaceParam::port);
        let local = socket_address(chosen.address, port, chosen.index);
        let group = with_scope(group, chosen.index);
        let canonical_form = canonical(&local.to_string(), &endpoint_text(&spec, group));
        Ok(Self {
            canonical_form,
            remote_data: group,
            remote_control: control_group(group),
            local_data: local,
            local_control: local,
            explicit_control: None,
            control_mode: spec.control_mode,
            interface: Some(ChannelInterface::of(chosen)),
            is_multicast: true,
            ttl: spec.ttl,
            tag: spec.tag,
            family,
            spec,
        })
    }

    fn unicast(
        spec: ChannelSpec,
        resolution: &Resolution,
        endpoint: Option<SocketAddr>,
        control: Option<SocketAddr>,
        unique: i64,
    ) -> Result<Self, ParamsError> {
        let given = endpoint.or(control);
        let family = given.map_or(Family::V4, |given| Family::of(given.ip()));
        let chosen = chosen_interface(&spec, resolution, family, false)?;
        let port = spec.interface.as_ref().map_or(0, InterfaceParam::port);
        let from_interface = match chosen {
            Some(chosen) => socket_address(chosen.address, port, chosen.index),
            None => SocketAddr::new(family.wildcard(), port),
        };
        let remote = endpoint.unwrap_or(SocketAddr::new(family.wildcard(), 0));
        let sends = spec.sends();
        let local = control.filter(|_| sends).unwrap_or(from_interface);
        let local_text = match &spec.control {
            Some(control) => control.text.clone(),
            None => local.to_string(),
        };
        let mut canonical_form = canonical(&local_text, &endpoint_text(&spec, remote));
        let is_destination = matches!(spec.role, Role::SendDestination | Role::ReceiveDestination);
        let has_port_zero = [endpoint, control].iter().flatten().any(|at| at.port() == 0);
        if !is_destination && (given.is_none() || has_port_zero) {
            canonical_form.push_str(&format!("#{unique}"));
        }
        Ok(Self {
            canonical_form,
            remote_data: remote,
            remote_control: control.filter(|_| !sends).unwrap_or(remote),
            local_data: local,
            local_control: local,
            explicit_control: control,
            control_mode: spec.control_mode,
            interface: chosen.map(ChannelInterface::of),
            is_multicast: false,
            ttl: spec.ttl,
            tag: spec.tag,
            family,
            spec,
        })
    }

    /// Where a sender's socket is bound.
    #[must_use]
    pub fn send_bind_address(&self) -> SocketAddr {
        self.local_control
    }

    /// Where a receiver's socket is bound: every address of the port for a multicast group, the endpoint otherwise.
    /// Without an endpoint the system chooses a port.
    #[must_use]
    pub fn receive_bind_address(&self) -> SocketAddr {
        if self.is_multicast {
            SocketAddr::new(self.family.wildcard(), self.remote_data.port())
        } else {
            self.remote_data
        }
    }

    /// Whether destinations are added and removed by commands.
    #[must_use]
    pub fn is_manual(&self) -> bool {
        self.control_mode == Some(ControlMode::Manual)
    }

    /// Whether receivers announce themselves at `control`.
    #[must_use]
    pub fn is_dynamic(&self) -> bool {
        self.control_mode == Some(ControlMode::Dynamic)
    }

    /// Whether it is one end of a response channel.
    #[must_use]
    pub fn is_response(&self) -> bool {
        self.control_mode == Some(ControlMode::Response)
    }

    /// Whether a publication on this channel sends to several destinations of its own.
    #[must_use]
    pub fn is_multi_destination(&self) -> bool {
        self.is_manual() || self.is_dynamic()
    }

    /// Whether a publication on this channel has to reckon with several receivers (wire-protocol 6.3).
    #[must_use]
    pub fn has_group_semantics(&self) -> bool {
        self.is_multicast || self.is_multi_destination()
    }

    /// The one address a unicast publication sends to; `None` for groups, several destinations and response channels.
    #[must_use]
    pub fn unicast_destination(&self) -> Option<SocketAddr> {
        let has_one = !self.has_group_semantics() && !self.is_response() && self.spec.endpoint.is_some();
        has_one.then_some(self.remote_data)
    }

    /// Whether a channel `asked` may use the sockets of this one by its canonical form. Different tags keep apart what
    /// would be shared otherwise (wire-protocol 8.2).
    #[must_use]
    pub fn is_shared_by(&self, asked: &UdpChannel) -> bool {
        let tags_conflict = matches!((self.tag, asked.tag), (Some(a), Some(b)) if a != b);
        self.canonical_form == asked.canonical_form && !tags_conflict
    }

    /// Whether a channel `asked` means this one by its tag. `local` is the address this one's socket is bound to, which
    /// stands for port 0.
    ///
    /// # Errors
    /// GENERIC_ERROR if the tag is the same but addresses or mode contradict.
    pub fn matches_tag(&self, asked: &UdpChannel, local: SocketAddr) -> Result<bool, ParamsError> {
        let Some(tag) = asked.tag.filter(|tag| self.tag == Some(*tag)) else {
            return Ok(false);
        };
        let same_mode = asked.control_mode.is_none() || asked.control_mode == self.control_mode;
        let same = |wanted: Option<SocketAddr>, given: Option<SocketAddr>| match (wanted, given) {
            (None, _) => true,
            (Some(wanted), Some(given)) => wanted == given || (given.port() == 0 && wanted == local),
            (Some(_), None) => false,
        };
        let endpoint = |channel: &UdpChannel| channel.spec.endpoint.as_ref().map(|_| channel.remote_data);
        let same_endpoint = same(endpoint(asked), endpoint(self));
        let same_control = same(asked.explicit_control, self.explicit_control);
        if same_mode && same_endpoint && same_control {
            return Ok(true);
        }
        Err(asked.spec.fault(&format!(
            "tag {tag} is that of {}, whose endpoint, control or control-mode differs",
            self.spec.uri
        )))
    }
}

impl ChannelInterface {
    fn of(interface: &NetworkInterface) -> Self {
        Self {
            index: interface.index,
            name: interface.name.clone(),
            address: interface.address,
        }
    }
}

/// The control group of a data group: the last byte of the address plus one, without carry (wire-protocol 6.2).
#[must_use]
pub fn control_group(group: SocketAddr) -> SocketAddr {
    match group {
        SocketAddr::V4(group) => {
            let [a, b, c, last] = group.ip().octets();
            let ip = Ipv4Addr::new(a, b, c, last.wrapping_add(1));
            SocketAddr::V4(SocketAddrV4::new(ip, group.port()))
        }
        SocketAddr::V6(group) => {
            let mut octets = group.ip().octets();
            octets[15] = octets[15].wrapping_add(1);
            SocketAddr::V6(SocketAddrV6::new(
                Ipv6Addr::from(octets),
                group.port(),
                group.flowinfo(),
                group.scope_id(),
            ))
        }
    }
}

/// The interface that `interface` names; `None` if the channel has no such parameter, or it is the wildcard.
fn chosen_interface<'a>(
    spec: &ChannelSpec,
    resolution: &'a Resolution,
    family: Family,
    for_multicast: bool,
) -> Result<Option<&'a NetworkInterface>, ParamsError> {
    let interfaces = &resolution.interfaces;
    let found = match &spec.interface {
        None => return Ok(None),
        Some(InterfaceParam::Named { name, .. }) => interface::find_by_name(interfaces, name, family),
        Some(InterfaceParam::Address {
            host,
            is_bracketed,
            prefix_length,
            ..
        }) => {
            let address = match literal(host, *is_bracketed) {
                Some(address) => address,
                None => answered(host, NameUse::Interface, resolution, &spec.uri)?,
            };
            if address.is_unspecified() {
                return Ok(None);
            }
            let length = prefix_length.unwrap_or(Family::of(address).bits());
            interface::find_by_prefix(interfaces, address, length, for_multicast)
                .filter(|interface| Family::of(interface.address) == family)
        }
    };
    found
        .map(Some)
        .ok_or_else(|| spec.fault("no network interface matches"))
}

fn literal(host: &str, is_bracketed: bool) -> Option<IpAddr> {
    if is_bracketed {
        host.parse().ok().map(IpAddr::V6)
    } else {
        host.parse().ok().map(IpAddr::V4)
    }
}

fn request(host: &str, is_bracketed: bool, used_as: NameUse, family: Family) -> Option<NameRequest> {
    literal(host, is_bracketed).is_none().then(|| NameRequest {
        host: host.to_owned(),
        used_as,
        family,
        is_re_resolution: false,
    })
}

fn answered(
    host: &str,
    used_as: NameUse,
    resolution: &Resolution,
    uri: &ChannelUri,
) -> Result<IpAddr, ParamsError> {
    let reason = match resolution.find(host, used_as) {
        Some(NameAnswer {
            result: Ok(address), ..
        }) => return Ok(*address),
        Some(NameAnswer {
            result: Err(fault), ..
        }) => fault.to_string(),
        None => "not looked up".to_owned(),
    };
    Err(ParamsError {
        code: ErrorCode::UnknownHost,
        text: format!(
            "Unable to resolve host=({host}) of {}: {reason}: {uri}",
            used_as.name()
        ),
    })
}

fn socket_address(address: IpAddr, port: u16, scope_id: u32) -> SocketAddr {
    match address {
        IpAddr::V4(ip) => SocketAddr::V4(SocketAddrV4::new(ip, port)),
        IpAddr::V6(ip) => {
            // Only addresses that mean something else on each link have a scope; others would never compare equal to
            // what datagrams come from.
            let scope_id = if ip.is_unicast_link_local() || ip.is_multicast() {
                scope_id
            } else {
                0
            };
            SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope_id))
        }
    }
}

/// The group on the interface it is used on: the kernel needs that to send to groups of a link.
fn with_scope(group: SocketAddr, index: u32) -> SocketAddr {
    match group {
        SocketAddr::V6(v6) if v6.scope_id() == 0 => socket_address(group.ip(), group.port(), index),
        _ => group,
    }
}

fn last_byte(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    }
}

fn endpoint_text(spec: &ChannelSpec, otherwise: SocketAddr) -> String {
    match &spec.endpoint {
        Some(endpoint) => endpoint.text.clone(),
        None => otherwise.to_string(),
    }
}

fn canonical(local: &str, remote: &str) -> String {
    format!("UDP-{local}-{remote}")
}

#[cfg(test)]
mod tests;
