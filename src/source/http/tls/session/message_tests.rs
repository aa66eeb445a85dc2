//! Alerts, tickets and key updates, between the records of data and on their own.
//!
//! Hazards: a truncated body counts as complete; a message is taken for data; records after a key
//! update are opened with the old key; a server keeps this side busy without sending anything.

use super::super::test_peer::{SUITES, Sides, block_on, session};
use super::*;
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const ROOM: usize = 1 << 16;

/// The content that `session` receives from `input`.
fn received(session: &mut Session, input: &[u8]) -> Vec<u8> {
    let mut into = vec![0; ROOM];
    let done = session.receive(input, &mut into);
    into.truncate(done.written);
    into
}

#[test]
fn the_announced_end_is_no_failure_and_nothing_follows_it() {
    for suite in SUITES {
        for level in [1, 2] {
            let (mut session, mut peer) = session(suite);
            let input = [peer.data(b"all"), peer.alert(level, 0), peer.data(b"beyond")].concat();
            assert_eq!(received(&mut session, &input), b"all");
            assert_eq!(session.ended(), Some(&Ended::Closed));
            session.close();
            session.close();
            let told = peer.opened(session.to_send());
            assert_eq!(told, [(ContentType::Alert, vec![1, 0])]);
        }
    }
}

#[test]
fn alerts_are_errors_unless_they_are_mere_warnings() {
    for suite in SUITES {
        let is_12 = matches!(suite, SupportedCipherSuite::Tls12(_));
        for (level, description, passes) in
            [(2, 40, false), (2, 90, false), (1, 90, true), (1, 100, is_12), (1, 255, is_12)]
        {
            let (mut session, mut peer) = session(suite);
            let input =
                [peer.data(b"before"), peer.alert(level, description), peer.data(b", after")];
            let all = received(&mut session, &input.concat());
            let failed = Ended::Failed(Error::AlertReceived(description.into()));
            match passes {
                true => assert_eq!((&all[..], session.ended()), (&b"before, after"[..], None)),
                false => {
                    assert_eq!((&all[..], session.ended()), (&b"before"[..], Some(&failed)));
                }
            }
        }
        for wrong in [&[][..], &[1], &[1, 0, 0]] {
            let (mut session, mut peer) = session(suite);
            let input = [peer.record(ContentType::Alert, wrong), peer.data(b"after")].concat();
            assert_eq!(received(&mut session, &input), b"");
            assert!(matches!(session.ended(), Some(Ended::Failed(_))), "{wrong:?}");
        }
    }
}

#[test]
fn other_kinds_of_records_are_refused() {
    for suite in SUITES {
        let is_13 = matches!(suite, SupportedCipherSuite::Tls13(_));
        // ChangeCipherSpec, heartbeats, and types that nobody knows.
        for kind in (0..=255_u8).filter(|kind| !((21..=23).contains(kind) || is_13 && *kind == 0)) {
            let (mut session, mut peer) = session(suite);
            let input = [peer.record(kind.into(), b"data"), peer.data(b"after")].concat();
            assert_eq!(received(&mut session, &input), b"", "{kind}");
            let Some(Ended::Failed(error)) = session.ended() else { panic!("{kind}") };
            assert!(matches!(error, Error::InappropriateMessage { .. }), "{kind}: {error}");
        }
        // In clear.
        for kind in [20, 21, 22, 23] {
            let (mut session, _) = session(suite);
            let input = [&[kind, 3, 3, 0, 40][..], &[1; 40]].concat();
            assert_eq!(received(&mut session, &input), b"");
            assert!(matches!(session.ended(), Some(Ended::Failed(_))), "{kind}");
        }
    }
}

#[test]
fn key_updates_between_data_are_followed_and_answered() {
    for suite in &SUITES[..2] {
        let (mut session, mut peer) = session(*suite);
        for round in 0..5_u8 {
            let (first, second) = ([round; 100], [round + 100; 200]);
            let input = [peer.data(&first), peer.key_update(round % 2 == 1), peer.data(&second)];
            assert_eq!(received(&mut session, &input.concat()), [&first[..], &second].concat());
            let answered = peer.opened(session.to_send());
            let update = (ContentType::Handshake, vec![24, 0, 0, 1, 0]);
            assert_eq!(answered, vec![update; usize::from(round % 2)]);
            session.sent(session.to_send().len());
            session.send(b"GET").unwrap();
            let request = (ContentType::ApplicationData, b"GET".to_vec());
            assert_eq!(peer.opened(session.to_send()), [request]);
            session.sent(session.to_send().len());
        }
        // Several requests before the answer is sent get one answer.
        let input: Vec<u8> = (0..7).flat_map(|_| peer.key_update(true)).collect();
        assert_eq!(received(&mut session, &input), b"");
        assert_eq!(peer.opened(session.to_send()).len(), 1);
        session.sent(session.to_send().len());
        assert_eq!(received(&mut session, &peer.data(b"after")), b"after");
    }
}

#[test]
fn key_updates_are_refused_where_they_must_not_be() {
    let wrong: [&[u8]; 5] = [
        &[24, 0, 0, 1, 2],                 // neither requested nor not
        &[24, 0, 0, 0],                    // empty
        &[24, 0, 0, 2, 0, 0],              // too long
        &[24, 0, 0, 1, 0, 4],              // not the end of its record
        &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0], // two in one record
    ];
    for message in wrong {
        let (mut session, mut peer) = session(SUITES[0]);
        let record = peer.record(ContentType::Handshake, message);
        peer.next_outgoing();
        assert_eq!(received(&mut session, &[record, peer.data(b"after")].concat()), b"");
        assert!(matches!(session.ended(), Some(Ended::Failed(_))), "{message:?}");
    }
    // TLS 1.2 has none, and no tickets after the handshake.
    for message in [&[24, 0, 0, 1, 0][..], &ticket(b"ticket")] {
        let (mut session, mut peer) = session(SUITES[2]);
        let input = [peer.record(ContentType::Handshake, message), peer.data(b"after")].concat();
        assert_eq!(received(&mut session, &input), b"");
        assert!(matches!(session.ended(), Some(Ended::Failed(_))));
    }
}

#[test]
fn renegotiation_is_declined() {
    let (mut session, mut peer) = session(SUITES[2]);
    let hello_request = peer.record(ContentType::Handshake, &[0, 0, 0, 0]);
    assert_eq!(received(&mut session, &[hello_request, peer.data(b"after")].concat()), b"after");
    assert_eq!(peer.opened(session.to_send()), [(ContentType::Alert, vec![1, 100])]);
}

/// Counts the tickets that rustls keeps.
#[derive(Debug, Default)]
struct Tickets(AtomicUsize);

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }
    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {}
    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}

/// The message with a new session ticket.
fn ticket(ticket: &[u8]) -> Vec<u8> {
    let len = (ticket.len() as u16).to_be_bytes();
    let payload = [&[0, 0, 2, 0, 1, 2, 3, 4, 2, 8, 8][..], &len, ticket, &[0, 0]].concat();
    [&[4, 0][..], &(payload.len() as u16).to_be_bytes(), &payload].concat()
}

#[test]
fn tickets_between_data_are_kept_however_they_are_split() {
    let store = Arc::new(Tickets::default());
    let mut sides = Sides::with_store(SUITES[0], store.clone());
    Arc::make_mut(&mut sides.server).send_tls13_tickets = 0;
    let (mut connected, mut peer) = block_on(sides.connect());
    let session = &mut connected.session;
    let mut count = 0;
    let message = ticket(&[7; 20]);
    for split in 1..=message.len() {
        for (before, after) in [(&b"some "[..], &b"more"[..]), (b"", b"")] {
            let input = [
                peer.data(before),
                peer.record(ContentType::Handshake, &message[..split]),
                match split < message.len() {
                    true => peer.record(ContentType::Handshake, &message[split..]),
                    false => Vec::new(),
                },
                peer.data(after),
            ];
            assert_eq!(received(session, &input.concat()), [before, after].concat());
            assert_eq!(session.ended(), None, "split at {split}");
            count += 1;
            assert_eq!(store.0.load(Ordering::Relaxed), count);
        }
        assert_eq!(received(session, &peer.data(b"data")), b"data");
    }
    // Several in one record, and a long one over several.
    let several = peer.record(ContentType::Handshake, &message.repeat(3));
    let long = ticket(&[3; 60_000]);
    let long: Vec<u8> =
        long.chunks(16384).flat_map(|part| peer.record(ContentType::Handshake, part)).collect();
    let input = [several, long, peer.data(b"data")].concat();
    let mut into = vec![0; 1 << 17];
    assert_eq!(session.receive(&input, &mut into).written, 4, "{:?}", session.ended());
    assert_eq!(store.0.load(Ordering::Relaxed), count + 4);
}

#[test]
fn messages_that_are_interleaved_cut_or_wrong_are_refused() {
    let message = ticket(&[7; 20]);
    let handshake = ContentType::Handshake;
    let wrong: [&[(ContentType, &[u8])]; 7] = [
        &[(handshake, &message[..9]), (ContentType::ApplicationData, b"data")],
        &[(handshake, &message[..9]), (ContentType::Alert, &[1, 0])],
        &[(handshake, b"")],
        &[(handshake, &[4, 0, 0, 0])],           // an empty ticket
        &[(handshake, &[4, 255, 255, 255])],     // a message of 16 MiB
        &[(handshake, &[2, 0, 0, 0])],           // ServerHello
        &[(handshake, &[13, 0, 0, 3, 0, 0, 0])], // a request for a certificate
    ];
    for records in wrong {
        let (mut session, mut peer) = session(SUITES[0]);
        let input = records.iter().flat_map(|(kind, content)| peer.record(*kind, content));
        assert_eq!(received(&mut session, &input.collect::<Vec<_>>()), b"");
        assert!(matches!(session.ended(), Some(Ended::Failed(_))), "{records:?}");
    }
}

#[test]
fn records_without_data_are_accepted_up_to_a_number() {
    for suite in SUITES {
        for kind in [ContentType::ApplicationData, ContentType::Handshake, ContentType::Alert] {
            let is_13 = matches!(suite, SupportedCipherSuite::Tls13(_));
            let content: &[u8] = match kind {
                ContentType::ApplicationData => b"",
                ContentType::Handshake if is_13 => &[24, 0, 0, 1, 0],
                ContentType::Handshake => &[0, 0, 0, 0],
                _ => &[1, 90],
            };
            let (mut session, mut peer) = session(suite);
            let mut next = || {
                let record = peer.record(kind, content);
                if kind == ContentType::Handshake && is_13 {
                    peer.next_outgoing();
                }
                record
            };
            let input: Vec<u8> = (0..WITHOUT_DATA_MAX).flat_map(|_| next()).collect();
            assert_eq!(received(&mut session, &input), b"");
            assert_eq!(session.ended(), None);
            let one_more = next();
            assert_eq!(received(&mut session, &one_more), b"");
            let failed = Error::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments);
            assert_eq!(session.ended(), Some(&Ended::Failed(failed)));
        }
    }
}

/// The second connection goes on with the session of the first one, whose ticket came after the
/// handshake (TLS 1.3) or in it.
#[test]
fn sessions_are_resumed() {
    for suite in SUITES {
        let sides = Sides::of(suite);
        block_on(async {
            for number in 0..5 {
                let (mut connected, mut peer) = sides.connect().await;
                assert_eq!(connected.resumed, number > 0, "{suite:?}");
                let input = [connected.early, peer.data(&[number; 10])].concat();
                assert_eq!(received(&mut connected.session, &input), [number; 10]);
                connected.session.send(b"GET").unwrap();
                let sent = connected.session.to_send();
                assert_eq!(peer.opened(sent), [(ContentType::ApplicationData, b"GET".to_vec())]);
            }
        });
    }
}
