//! Frames from the network: any datagram is classified and taken apart or refused; what is taken apart is put together
//! again as the same values.
#![no_main]

use fulmar::wire::resolution::{self, EntryIter};
use fulmar::wire::status_message::SM_MAX_LENGTH;
use fulmar::wire::{
    DataHeader, ErrorFrame, FrameKind, Nak, ResponseSetup, Rttm, Setup, StatusMessage, classify, dissect,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let kind = classify(data);
    if let Ok(setup) = Setup::parse(data) {
        assert!(setup.check().is_err() || setup.term_offset < setup.term_length);
        assert_eq!(Setup::parse(&setup.encode()), Ok(setup));
    }
    if let Ok(sm) = StatusMessage::parse(data) {
        let _ = sm.check(1 << 30);
        let mut bytes = [0; SM_MAX_LENGTH];
        let length = sm.encode(&mut bytes);
        let parsed = StatusMessage::parse(&bytes[..length]).expect("it was just encoded");
        assert_eq!(
            StatusMessage {
                has_bad_tag_length: sm.has_bad_tag_length,
                ..parsed
            },
            sm
        );
    }
    if let Ok(nak) = Nak::parse(data) {
        assert!(nak.check(1 << 16).is_err() || nak.term_offset + nak.length <= 1 << 16);
        assert_eq!(Nak::parse(&nak.encode()), Ok(nak));
    }
    if let Ok(rttm) = Rttm::parse(data) {
        assert_eq!(Rttm::parse(&rttm.encode()), Ok(rttm));
        assert!(!rttm.answer().is_request());
    }
    if let Ok(error) = ErrorFrame::parse(data) {
        let mut bytes = [0; 1063];
        let length = error.encode(&mut bytes);
        assert_eq!(ErrorFrame::parse(&bytes[..length]), Ok(error));
    }
    if let Ok(setup) = ResponseSetup::parse(data) {
        assert_eq!(ResponseSetup::parse(&setup.encode()), Ok(setup));
    }
    if let Ok(entries) = EntryIter::parse(data) {
        let entries: Vec<_> = entries.collect();
        assert!(entries.len() <= data.len() / 8 + 1);
        let sound: Vec<_> = entries.into_iter().map_while(Result::ok).collect();
        let mut bytes = vec![0; data.len() + 8];
        let written = resolution::encode(sound.iter().copied(), &mut bytes);
        assert_eq!(written.entries, sound.len());
        if !sound.is_empty() {
            let again: Vec<_> = EntryIter::parse(&bytes[..written.length])
                .expect("it was just encoded")
                .map_while(Result::ok)
                .collect();
            assert_eq!(again, sound);
        }
    }
    if let Some(header) = DataHeader::parse(data) {
        assert_eq!(header.encode(), data[..32]);
    }
    // Whatever passes the common check can be taken apart, but for what only the frame itself knows.
    match kind {
        Ok(FrameKind::Setup) => assert!(Setup::parse(data).is_ok()),
        Ok(FrameKind::StatusMessage) => assert!(StatusMessage::parse(data).is_ok()),
        Ok(FrameKind::Nak) => assert!(Nak::parse(data).is_ok()),
        Ok(FrameKind::Rttm) => assert!(Rttm::parse(data).is_ok()),
        Ok(FrameKind::ResponseSetup) => assert!(ResponseSetup::parse(data).is_ok()),
        Ok(FrameKind::Data) => assert!(DataHeader::parse(data).is_some()),
        Ok(FrameKind::Error | FrameKind::Resolution) | Err(_) => {}
    }
    let line = dissect::line(data);
    assert!(!line.contains('\n') && !line.is_empty());
});
