//! Records of all lengths, wrong ones, and incomplete ones.
//!
//! Hazards: bytes of a record that is not authentic are counted; bytes get lost or doubled where a
//! record does not fit its destination; a record that was cut off counts.

use super::super::keys::RecordKey;
use super::super::record::RECORD_BYTES_MAX;
use super::super::test_peer::{Peer, SUITES, session};
use super::*;
use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::{AeadKey, Iv};

/// Bytes that tell their place.
fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + seed * 7 + (at >> 8)) as u8).collect()
}

/// Receives `input` into destinations of `room` bytes each, until nothing more can be received.
fn received(session: &mut Session, input: &[u8], room: usize) -> (Vec<u8>, usize) {
    let (mut all, mut consumed) = (Vec::new(), 0);
    let mut into = vec![0xa5; room];
    loop {
        let taken = session.take_plain(&mut into);
        all.extend_from_slice(&into[..taken]);
        let done = session.receive(&input[consumed..], &mut into[..room]);
        consumed += done.consumed;
        all.extend_from_slice(&into[..done.written]);
        if taken == 0 && done == Received::default() {
            return (all, consumed);
        }
    }
}

#[test]
fn records_of_every_length_arrive_in_destinations_of_any_size() {
    for suite in SUITES {
        let (mut session, mut peer) = session(suite);
        // The room fits the record exactly, is one byte short (in TLS 1.3 for the type, too), or long.
        for len in 0..=CONTENT_BYTES_MAX {
            let (content, room) = (bytes(len, 1), [len, len + 1, len + 2, len / 2 + 1, 1 << 15]);
            let record = peer.data(&content);
            let room = room[len % 5].max(1);
            let outcome = received(&mut session, &record, room);
            assert!(outcome == (content, record.len()), "{suite:?}: {len} bytes into {room}");
        }
        assert_eq!(session.ended(), None);
    }
}

#[test]
fn padding_is_removed() {
    for suite in &SUITES[..2] {
        let (mut session, mut peer) = session(*suite);
        for (len, padding) in [(0, 0), (0, 300), (1, 1), (1000, 255), (16384, 0), (100, 16284)] {
            for room in [1, 999, 1000, 1001, 1 << 15] {
                let (content, record) = (bytes(len, 2), peer.padded(&bytes(len, 2), padding));
                assert_eq!(received(&mut session, &record, room), (content, record.len()));
            }
        }
        // A plaintext of padding alone has no type.
        let mut record = Vec::new();
        peer.outgoing.seal_plaintext(ContentType::ApplicationData, &[0; 50], &mut record).unwrap();
        assert_eq!(received(&mut session, &record, 100).0, b"");
        assert!(matches!(session.ended(), Some(Ended::Failed(Error::PeerMisbehaved(_)))));
    }
}

#[test]
fn content_that_is_too_long_is_refused() {
    let (mut near, mut peer) = session(SUITES[0]);
    let record = peer.padded(&bytes(CONTENT_BYTES_MAX + 1, 3), 0);
    assert_eq!(received(&mut near, &record, 1 << 15).0, b"");
    assert_eq!(near.ended(), Some(&Ended::Failed(Error::PeerSentOversizedRecord)));
    for (suite, most) in [(SUITES[0], 16384 + 256), (SUITES[2], 16384 + 24)] {
        for (len, refused) in [(most, false), (most + 1, true), (0xffff, true)] {
            let (mut session, _) = session(suite);
            let header = [23, 3, 3, (len >> 8) as u8, len as u8];
            // The header alone says so: nothing is awaited.
            assert_eq!(session.receive(&header, &mut [0; 10]), Received::default());
            assert_eq!(session.ended().is_some(), refused, "{len}");
        }
    }
    const { assert!(RECORD_BYTES_MAX >= 5 + 16384 + 256) };
}

/// No byte of a record of which any bit was changed is counted, and none of what follows.
#[test]
fn every_flipped_bit_is_found() {
    for suite in SUITES {
        let (good, secret) = (b"good".as_slice(), b"must not arrive".as_slice());
        let bits = 8 * session(suite).1.data(secret).len();
        for bit in 0..bits {
            let (mut session, mut peer) = session(suite);
            let first = peer.data(good);
            let mut wrong = peer.data(secret);
            wrong[bit / 8] ^= 1 << (bit % 8);
            // A longer record is awaited until there are enough bytes, which are not its own.
            let more: Vec<u8> = (0..5).flat_map(|_| peer.data(&bytes(16384, 4))).collect();
            let (all, _) = received(&mut session, &[first, wrong, more].concat(), 1 << 16);
            assert_eq!(all, good, "{suite:?}: bit {bit}");
            let Some(Ended::Failed(_)) = session.ended() else { panic!("{suite:?}: bit {bit}") };
            // The server is told, and nothing more is received or sent.
            let next = peer.data(secret);
            assert_eq!(received(&mut session, &next, 100), (Vec::new(), 0));
            assert!(session.send(b"GET").is_err());
            let told = peer.opened(session.to_send());
            assert!(matches!(told[..], [(ContentType::Alert, _)]), "bit {bit}: {told:?}");
        }
    }
}

/// Records that are dropped, repeated or swapped on the way.
#[test]
fn the_order_of_records_is_checked() {
    for suite in SUITES {
        for order in [&[1_usize][..], &[0, 0], &[0, 2], &[0, 1, 0]] {
            let (mut session, mut peer) = session(suite);
            let records: Vec<_> = (0..3).map(|number| peer.data(&[number; 9])).collect();
            let input: Vec<u8> = order.iter().flat_map(|&at| records[at].clone()).collect();
            let right = order.iter().enumerate().take_while(|(place, at)| place == *at).count();
            assert_eq!(received(&mut session, &input, 100).0.len(), right * 9);
            assert_eq!(session.ended(), Some(&Ended::Failed(Error::DecryptError)));
        }
    }
}

fn some_records(peer: &mut Peer) -> (Vec<u8>, Vec<usize>) {
    let mut input = peer.data(&bytes(20, 5));
    let mut ends = vec![input.len()];
    if peer.version == Version::Tls13 {
        input.extend(peer.key_update(false));
        ends.push(input.len());
    }
    input.extend(peer.data(&bytes(30, 6)));
    ends.push(input.len());
    (input, ends)
}

/// Wherever the connection breaks off, exactly the complete records have arrived, and the rest goes on
/// from there.
#[test]
fn records_may_arrive_in_two_parts_of_any_length() {
    for suite in SUITES {
        let (input, ends) = some_records(&mut session(suite).1);
        for cut in 0..=input.len() {
            for room in [1, 64] {
                let (mut session, mut peer) = session(suite);
                let (input, _) = some_records(&mut peer);
                let (mut all, consumed) = received(&mut session, &input[..cut], room);
                let complete = ends.iter().copied().filter(|&end| end <= cut).max().unwrap_or(0);
                let data = match () {
                    () if cut < ends[0] => 0,
                    () if cut < input.len() => 20,
                    () => 50,
                };
                assert_eq!((all.len(), consumed), (data, complete), "{suite:?}, cut at {cut}");
                assert!(!session.can_receive(&input[consumed..cut]));
                all.extend(received(&mut session, &input[consumed..], room).0);
                assert_eq!(all, [bytes(20, 5), bytes(30, 6)].concat(), "{suite:?}, cut at {cut}");
                assert_eq!(session.ended(), None);
            }
        }
    }
}

#[test]
fn numbers_of_records_are_never_used_twice() {
    let secrets = || ConnectionTrafficSecrets::Aes128Gcm {
        key: AeadKey::from([7; 32]),
        iv: Iv::from([9; 12]),
    };
    // The key of AES-128 has 16 bytes.
    assert!(RecordKey::new(Version::Tls13, (0, secrets())).is_err());
    let secrets = |sequence| {
        let (key, iv) = (AeadKey::from([7; 32]), Iv::from([9; 12]));
        (sequence, ConnectionTrafficSecrets::Aes256Gcm { key, iv })
    };
    for version in [Version::Tls12, Version::Tls13] {
        let mut key = RecordKey::new(version, secrets(u64::MAX - 1)).unwrap();
        let mut sealed = Vec::new();
        key.seal(ContentType::ApplicationData, b"last", &mut sealed).unwrap();
        assert_eq!(key.seal(ContentType::Alert, b"", &mut sealed), Err(Error::EncryptError));
        let mut key = RecordKey::new(version, secrets(u64::MAX - 1)).unwrap();
        let record = Record::first(version, &sealed).unwrap().unwrap();
        let mut plaintext = vec![0; record.plaintext_bytes()];
        key.open(&record, &mut plaintext).unwrap();
        assert!(key.open(&record, &mut plaintext).is_err());
    }
    let chacha = ConnectionTrafficSecrets::Chacha20Poly1305 {
        key: AeadKey::from([7; 32]),
        iv: Iv::from([9; 12]),
    };
    assert!(RecordKey::new(Version::Tls13, (0, chacha)).is_err());
}

/// The limit of a key is low enough to be reached here: another one follows, or the connection ends.
#[test]
fn a_key_is_replaced_when_it_has_sealed_enough() {
    let (mut near, mut peer) = session(SUITES[0]);
    near.sealed_max = 3;
    for number in 0..10 {
        assert_eq!(near.send(&[number; 5]), Ok(5));
    }
    let opened = peer.opened(near.to_send());
    let data: Vec<_> =
        opened.iter().filter(|(kind, _)| *kind == ContentType::ApplicationData).collect();
    assert_eq!((opened.len(), data.len()), (13, 10));
    let (mut near, _) = session(SUITES[2]);
    near.sealed_max = 3; // one of them in the handshake
    assert_eq!([near.send(b"a"), near.send(b"b")], [Ok(1), Ok(1)]);
    assert_eq!(near.send(b"c"), Err(Error::EncryptError));
}
