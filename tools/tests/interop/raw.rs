//! A client made of single commands: what no client library sends can be sent to either driver.

use fulmar::cnc::CncFile;
use fulmar::control::{Command, CommandHeader, ErrorCode, Response};
use fulmar::directory::{Directory as _, FsDirectory};
use fulmar::id::{ClientId, CorrelationId, RegistrationId, StreamId};
use fulmar::memory::View;
use fulmar::ring::BroadcastReceiver;

use crate::process::{Directory, eventually, pause};
use crate::scenario::{World, scenarios};

/// A client id and the two ways to and from the driver.
pub struct Raw {
    cnc: CncFile,
    responses: BroadcastReceiver<View>,
    client_id: ClientId,
    scratch: Vec<u8>,
}

impl Raw {
    /// Attaches to a running driver.
    pub fn attach(dir: &Directory) -> Raw {
        let region = FsDirectory::new(dir.path().to_owned())
            .map_cnc()
            .expect("the driver's file");
        let cnc = CncFile::open(&region).expect("a driver's file");
        let responses = BroadcastReceiver::new(cnc.to_clients()).expect("a broadcast");
        let client_id = ClientId(cnc.to_driver_ring().next_correlation_id());
        Raw {
            cnc,
            responses,
            client_id,
            scratch: Vec::new(),
        }
    }

    /// Sends a command; waits while the ring is full.
    pub fn send(&self, command: &Command<'_>) -> CorrelationId {
        let ring = self.cnc.to_driver_ring();
        let correlation_id = CorrelationId(ring.next_correlation_id());
        let mut payload = Vec::new();
        let type_id = command.encode(
            CommandHeader {
                client_id: self.client_id,
                correlation_id,
            },
            &mut payload,
        );
        eventually("room in the ring", || ring.write(type_id, &payload).is_ok());
        correlation_id
    }

    /// Waits for the error that answers a command.
    pub fn error_for(&mut self, wanted: CorrelationId) -> ErrorCode {
        let mut found = None;
        eventually("an error answer", || {
            while let Some(type_id) = self.responses.receive(&mut self.scratch).expect("not lapped") {
                match Response::decode(type_id, &self.scratch).expect("a response") {
                    Response::Error {
                        correlation_id,
                        error_code,
                        ..
                    } if correlation_id == wanted => {
                        found = Some(error_code);
                    }
                    Response::OperationSuccess { correlation_id } => assert_ne!(correlation_id, wanted),
                    _ => {}
                }
            }
            found.is_some()
        });
        found.expect("just found")
    }

    /// Sends commands that the driver refuses at length until more than `bytes` of answers have passed.
    pub fn make_the_driver_talk(&mut self, bytes: usize) {
        // An error quotes the channel, in full or in part; what is counted is what arrives.
        let channel = format!("aeron:ipc?session-id={}", "x".repeat(3000));
        let mut said = 0;
        while said < bytes {
            let command = Command::AddPublication {
                stream_id: StreamId(1),
                channel: channel.as_str().into(),
            };
            for _ in 0..15 {
                self.send(&command);
            }
            let wanted = self.send(&command);
            let mut answered = false;
            eventually("answers", || {
                while let Some(type_id) = self.responses.receive(&mut self.scratch).expect("not lapped") {
                    said += self.scratch.len() + 8;
                    let response = Response::decode(type_id, &self.scratch);
                    if let Ok(Response::Error { correlation_id, .. }) = response {
                        answered |= correlation_id == wanted;
                    }
                }
                answered
            });
        }
    }
}

/// Row 24.
fn unknown_ids_are_refused(world: &World) {
    let driver = world.driver(&[]);
    let mut client = world.client();
    client.ok("add_pub p aeron:ipc 1001");
    let mut raw = Raw::attach(&world.dir);
    let registration_id = RegistrationId(987_654);
    let publication = raw.send(&Command::RemovePublication {
        registration_id,
        revoke: false,
    });
    assert_eq!(raw.error_for(publication), ErrorCode::UnknownPublication);
    let subscription = raw.send(&Command::RemoveSubscription { registration_id });
    assert_eq!(raw.error_for(subscription), ErrorCode::UnknownSubscription);
    let counter = raw.send(&Command::RemoveCounter { registration_id });
    assert_eq!(raw.error_for(counter), ErrorCode::UnknownCounter);
    let destination = raw.send(&Command::AddDestination {
        registration_id,
        channel: "aeron:udp?endpoint=localhost:1".into(),
    });
    assert_eq!(raw.error_for(destination), ErrorCode::UnknownPublication);
    let image = raw.send(&Command::RejectImage {
        image_correlation_id: CorrelationId(987_654),
        position: 0,
        reason: "no reason".into(),
    });
    assert_eq!(raw.error_for(image), ErrorCode::GenericError);
    client.ok("add_sub s aeron:ipc 1001");
    client.close();
    driver.stop();
}

/// Row 40.
fn lapped_client_gives_up(world: &World) {
    let driver = world.driver(&[]);
    let mut sleeper = world.client();
    sleeper.ok("add_pub p aeron:ipc 1001");
    sleeper.suspend();
    Raw::attach(&world.dir).make_the_driver_talk(2 << 20);
    sleeper.resume();
    match world.client {
        // The C client says so and goes on; what it missed it never learns.
        crate::process::Make::C => drop(sleeper.ok("event error 20000")),
        crate::process::Make::Fulmar => {
            eventually("the lapped client closes", || sleeper.ok("closed") == "true");
            assert_eq!(sleeper.number("offer_once p 32"), -4);
        }
    }
    // The driver did not mind.
    let mut other = world.other();
    other.ok("add_pub q aeron:ipc 1003");
    other.close();
    driver.stop();
}

/// Row 42: a claim in the ring that is never committed.
fn dead_command_is_cleared_away(world: &World) {
    let driver = world.driver(&[
        ("AERON_TIMER_INTERVAL", "200ms"),
        ("AERON_CLIENT_LIVENESS_TIMEOUT", "2s"),
        ("AERON_PUBLICATION_UNBLOCK_TIMEOUT", "3s"),
    ]);
    let mut client = world.client();
    client.ok("add_pub p aeron:ipc 1001");
    let raw = Raw::attach(&world.dir);
    let claim = raw.cnc.to_driver_ring().claim(4, 64).expect("room");
    std::mem::forget(claim);
    pause(300);
    assert_eq!(client.system_counter(20), 0);
    client.ok("add_pub q aeron:ipc 1002");
    assert_eq!(client.system_counter(20), 1);
    client.close();
    driver.stop();
}

scenarios!(
    unknown_ids_are_refused,
    lapped_client_gives_up,
    dead_command_is_cleared_away
);
