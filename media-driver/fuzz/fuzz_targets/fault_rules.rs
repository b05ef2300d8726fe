//! Rules for losing datagrams: any text is taken or refused, and a socket that loses by them hands on a part of what
//! goes through, unchanged and in order.
#![no_main]

use std::net::SocketAddr;
use std::sync::Arc;

use fulmar::log::Payload;
use fulmar_media_driver::io::{
    FaultNetwork, FaultRules, FaultSettings, IoError, Network, ReceiveBatch, SendBatch, SendEntry,
    SocketRole, SocketSpec, UdpSocket,
};
use fulmar_media_driver_fuzz::receiver_support::frame;
use fulmar_media_driver_fuzz::{Input, SendLine, peer};
use libfuzzer_sys::fuzz_target;

struct OneLine(SendLine);

impl Network for OneLine {
    fn open(&self, _spec: &SocketSpec) -> Result<Box<dyn UdpSocket>, IoError> {
        Ok(self.0.socket())
    }
}

/// Texts to start from, so that the fuzzer need not spell them.
const LOSS: [&str; 2] = ["rate=0.5|seed=7|recv-msg-mask=0xf", "rate="];
const FIXED: [&str; 2] = ["term-id=2147483646|term-offset=0|length=64", "term-id="];
const GAPS: [&str; 2] = ["term-id=0|gap-radix=64|gap-length=32|total-gaps=3", "gap-radix="];

fn text(input: &mut Input<'_>, starts: [&str; 2]) -> String {
    let how = input.u8();
    let mut text = starts[usize::from(how & 1)].to_owned();
    let length = usize::from(how >> 3);
    text.push_str(&String::from_utf8_lossy(input.bytes(length)));
    if how & 4 != 0 {
        let at = usize::from(input.u8()) % (text.len() + 1);
        text = text.chars().take(at).collect();
    }
    text
}

/// Whether `part` is `whole` with some left out.
fn is_part(part: &[Vec<u8>], whole: &[Vec<u8>]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|datagram| rest.any(|other| other == datagram))
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let names = [
        "loss",
        "fixed-loss",
        "multi-gap-loss",
        "loss,fixed-loss , multi-gap-loss",
        "los",
    ];
    let (incoming, outgoing) = (usize::from(input.u8()), usize::from(input.u8()));
    let (loss, fixed_loss, multi_gap_loss) = (
        text(&mut input, LOSS),
        text(&mut input, FIXED),
        text(&mut input, GAPS),
    );
    let rules = FaultRules::parse(FaultSettings {
        incoming: names[incoming % names.len()],
        outgoing: names[outgoing % names.len()],
        loss: &loss,
        fixed_loss: &fixed_loss,
        multi_gap_loss: &multi_gap_loss,
    });
    let rules = match rules {
        Ok(rules) => rules,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let line = SendLine::default();
    let network = FaultNetwork::new(Arc::new(OneLine(line.clone())), rules);
    let spec = SocketSpec::new(SocketRole::Send, SocketAddr::from(([10, 0, 0, 1], 0)));
    let mut socket = network.open(&spec).expect("the inner socket always opens");
    let datagrams: Vec<Vec<u8>> = (0..8)
        .map(|index| {
            let mut bytes = frame(i64::from(input.u8()) * 32, &[index; 40]);
            if input.u8() & 7 == 7 {
                bytes.truncate(usize::from(input.u8() & 63));
            }
            bytes
        })
        .collect();
    for datagram in datagrams.iter().filter(|datagram| !datagram.is_empty()) {
        let entry = SendEntry::datagram(Payload::from_slice(datagram), Some(peer(1)));
        let outcome = socket.send(&SendBatch::of(entry));
        assert_eq!(
            (outcome.datagrams, outcome.bytes),
            (1, datagram.len()),
            "what is lost counts as sent"
        );
        line.traffic().incoming.push_back((peer(1), datagram.clone()));
    }
    let sent: Vec<_> = line.traffic().sent.drain(..).map(|(_, bytes)| bytes).collect();
    assert!(is_part(&sent, &datagrams));
    let mut batch = ReceiveBatch::new(4);
    let mut received = Vec::new();
    for _ in 0..8 {
        socket.receive(&mut batch);
        received.extend(batch.datagrams().map(|datagram| datagram.bytes.to_vec()));
    }
    assert!(is_part(&received, &datagrams));
    assert!(line.traffic().incoming.is_empty());
});
