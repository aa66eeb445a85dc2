//! Random connections: a server that sends records of all kinds, right and wrong ones, and a wire on
//! which some bytes are changed. Each is received in parts of random length.
//!
//! Hazards: a panic; content that the server has not sent, or not in this order; content that does not
//! arrive although nothing was wrong.

use super::super::test_peer::{Peer, SUITES, Sides, block_on};
use super::*;
use crate::test_fuzz::campaign;
use fastrand::Rng;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Resumed handshakes are cheaper.
static SIDES: LazyLock<[Sides; 4]> = LazyLock::new(|| SUITES.map(Sides::of));

/// Appends something that the server sends to `wire`, and its data to `data`. Whether it is right.
fn send(rng: &mut Rng, peer: &mut Peer, wire: &mut Vec<u8>, data: &mut Vec<u8>) -> bool {
    let is_13 = peer.version == Version::Tls13;
    let content: Vec<u8> = match rng.u8(..8) {
        0 => Vec::new(),
        1 => vec![rng.u8(..); rng.usize(..=CONTENT_BYTES_MAX)],
        _ => (0..rng.usize(..100)).map(|_| rng.u8(..)).collect(),
    };
    let mut right = true;
    wire.extend(match rng.u8(..16) {
        0 if is_13 => peer.key_update(rng.bool()),
        1 if is_13 => {
            let padding = rng.usize(..=(CONTENT_BYTES_MAX - content.len()).min(300));
            data.extend_from_slice(&content);
            peer.padded(&content, padding)
        }
        2 => peer.alert(1, 90),
        3 if rng.u8(..8) == 0 => {
            right = false;
            match rng.u8(..4) {
                0 => peer.alert(rng.u8(..), rng.u8(..)),
                // Neither data, nor padding whose content would end with a type.
                1 => peer.record([1, 20, 24, 99, 255][rng.usize(..5)].into(), &content),
                2 => peer.record(ContentType::Handshake, &content),
                _ => content,
            }
        }
        _ => {
            data.extend_from_slice(&content);
            peer.data(&content)
        }
    });
    right
}

/// Receives `wire` in parts of random length, as the stream does.
fn receive(rng: &mut Rng, session: &mut Session, wire: &[u8]) -> Vec<u8> {
    let (mut all, mut consumed, mut arrived) = (Vec::new(), 0, 0);
    let mut into = vec![0; 1 << 16];
    let most = [1, 30, 1000, 1 << 16][rng.usize(..4)];
    while arrived < wire.len() {
        arrived = (arrived + rng.usize(1..=most)).min(wire.len());
        loop {
            let room = rng.usize(1..=most);
            let taken = session.take_plain(&mut into[..room]);
            all.extend_from_slice(&into[..taken]);
            if taken == 0 && session.ended().is_some() {
                return all;
            }
            let done = session.receive(&wire[consumed..arrived], &mut into[..room]);
            consumed += done.consumed;
            all.extend_from_slice(&into[..done.written]);
            if taken == 0 && done == Received::default() && session.is_drained() {
                break;
            }
        }
    }
    all
}

fn judge(seed: &[u8], counts: &[AtomicU64; 2]) {
    let mut rng = Rng::with_seed(u64::from_le_bytes(seed.try_into().unwrap()));
    let (mut connected, mut peer) = block_on(SIDES[rng.usize(..4)].connect());
    let (mut wire, mut data, mut right) = (connected.early, Vec::new(), true);
    for _ in 0..rng.usize(..12) {
        right &= send(&mut rng, &mut peer, &mut wire, &mut data);
    }
    for _ in 0..[0, 0, 1, 2][rng.usize(..4)] {
        let at = rng.usize(..=wire.len());
        right = false;
        match rng.u8(..4) {
            0 if at < wire.len() => wire[at] ^= 1 << rng.u8(..8),
            1 if at < wire.len() => drop(wire.remove(at)),
            2 => wire.insert(at, rng.u8(..)),
            _ => wire.truncate(at),
        }
    }
    let session = &mut connected.session;
    let received = receive(&mut rng, session, &wire);
    assert!(data.starts_with(&received), "{} of {} bytes", received.len(), data.len());
    if right {
        assert_eq!((received.len(), session.ended()), (data.len(), None));
    }
    counts[usize::from(right)].fetch_add(1, Ordering::Relaxed);
}

#[test]
fn random_connections_deliver_what_was_sent_or_end() {
    let counts = [const { AtomicU64::new(0) }; 2];
    let make = |rng: &mut Rng| rng.u64(..).to_le_bytes().to_vec();
    let all = campaign("tls", 1000, make, |seed| judge(seed, &counts));
    let [wrong, right] = counts.map(AtomicU64::into_inner);
    eprintln!("tls: {wrong} wrong, {right} right");
    assert!(all < 1000 || wrong.min(right) > all / 5, "{wrong} wrong, {right} right");
}
