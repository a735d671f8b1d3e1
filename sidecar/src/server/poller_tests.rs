use std::io::Write;
use std::os::unix::net::UnixListener;

use nexus_protocol::message::{ClientHello, ClientMessage};
use nexus_protocol::version::{MAGIC, VersionRange};

use super::*;
use crate::server::peer::TURN_FRAMES;

const MAX_FRAME: usize = 1 << 20;

fn poller(wake: UnixStream) -> Poller {
    let (memory, allow_uids) = (Memory::new(MAX_FRAME), Vec::new());
    let rules = Rules { mode: Mode::Service, max_frame_bytes: MAX_FRAME, spin: false, allow_uids, memory };
    Poller::new(rules, wake).unwrap()
}

fn frames(pings: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let VersionRange { min, max } = VersionRange::SUPPORTED;
    let hello = ClientHello { magic: MAGIC, min, max, client: "a test" };
    ClientMessage::Hello(hello).encode(RequestId::CONNECTION, MAX_FRAME, &mut bytes).unwrap();
    for id in 1..=pings {
        ClientMessage::Ping.encode(RequestId(id), MAX_FRAME, &mut bytes).unwrap();
    }
    bytes
}

/// Pings of one session among events.
fn pings_of(session: SessionId, events: &[Event]) -> usize {
    let is_one = |event: &&Event| matches!(event, Event::Frame(c, Action::Pong(_)) if c.session == session);
    events.iter().filter(is_one).count()
}

#[test]
fn a_thousand_small_requests_of_one_connection_hold_nobody_up() {
    let (wake, _waker) = UnixStream::pair().unwrap();
    let mut poller = poller(wake);
    let mut connect = |pings| {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&frames(pings)).unwrap();
        (ours, poller.adopt(theirs).unwrap().session)
    };
    let (mut greedy, of_greed) = connect(1000);
    let (mut modest, of_modesty) = connect(1);
    let mut seen = (0, 0);
    for turn in 1.. {
        let mut events = Vec::new();
        // it does not sleep while there is something left
        poller.poll(true, &mut events);
        let taken = (pings_of(of_greed, &events), pings_of(of_modesty, &events));
        assert!(taken.0 <= TURN_FRAMES && events.len() <= 2 * TURN_FRAMES, "turn {turn}");
        seen = (seen.0 + taken.0, seen.1 + taken.1);
        // each turn of the one is a turn of the other
        assert_eq!(seen.1, turn.min(20), "turn {turn}");
        if seen == (1000, 20) {
            break;
        }
        if turn < 20 {
            let mut bytes = Vec::new();
            ClientMessage::Ping.encode(RequestId(7), MAX_FRAME, &mut bytes).unwrap();
            modest.write_all(&bytes).unwrap();
        }
    }
    // the end of the stream comes behind all that was sent
    greedy.write_all(&frames(40)[frames(0).len()..]).unwrap();
    drop(greedy);
    let mut events = Vec::new();
    while !events.iter().any(|event| matches!(event, Event::Closed(session) if *session == of_greed)) {
        poller.poll(true, &mut events);
    }
    assert_eq!(pings_of(of_greed, &events), 40);
}

#[test]
fn of_those_who_send_much_one_has_its_turn_at_a_look_and_who_sends_little_has_one_at_each() {
    const MANY: usize = 8;
    let (wake, _waker) = UnixStream::pair().unwrap();
    let mut poller = poller(wake);
    let mut connect = |pings| {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&frames(pings)).unwrap();
        (ours, poller.adopt(theirs).unwrap().session)
    };
    let many: Vec<_> = (0..MANY).map(|_| connect(200)).collect();
    let (mut modest, of_modesty) = connect(1);
    // what they are like shows at their first turn
    poller.poll(true, &mut Vec::new());
    let mut turns = [0; MANY];
    for look in 1..=3 * MANY {
        modest.write_all(&frames(1)[frames(0).len()..]).unwrap();
        let mut events = Vec::new();
        poller.poll(true, &mut events);
        assert_eq!(pings_of(of_modesty, &events), 1, "look {look}");
        let had_one = |(_, session): &&(UnixStream, SessionId)| pings_of(*session, &events) > 0;
        assert_eq!(many.iter().filter(had_one).count(), 1, "look {look}");
        let at = many.iter().position(|one| had_one(&one)).unwrap();
        turns[at] += 1;
    }
    assert_eq!(turns, [3; MANY]);
}

#[test]
fn a_crowd_at_the_door_comes_in_one_by_one() {
    let (wake, _waker) = UnixStream::pair().unwrap();
    let mut poller = poller(wake);
    let path = std::env::temp_dir().join(format!("nexus-poller-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    poller.listen(Source::Listener(listener)).unwrap();
    let crowd: Vec<UnixStream> = (0..50).map(|_| UnixStream::connect(&path).unwrap()).collect();
    std::fs::remove_file(&path).unwrap();
    for look in 1..=crowd.len() {
        let mut events = Vec::new();
        poller.poll(true, &mut events);
        assert_eq!((poller.peers.len(), events.len()), (look, 0));
    }
}

#[test]
fn a_refused_frame_is_read_to_its_end_whatever_it_is() {
    let (wake, _waker) = UnixStream::pair().unwrap();
    let mut poller = poller(wake);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let session = poller.adopt(theirs).unwrap().session;
    ours.write_all(&frames(0)).unwrap();
    // a ping and an unknown kind, each with 200 KB that nobody asked for
    for kind in [9, 0x7f] {
        let mut body = vec![0x93, kind, 5, 0x81, 0xa1, b'x', 0xc6];
        body.extend_from_slice(&200_000_u32.to_be_bytes());
        body.resize(body.len() + 200_000, 0);
        let writer = std::thread::spawn({
            let mut ours = ours.try_clone().unwrap();
            move || {
                ours.write_all(&(body.len() as u32).to_le_bytes()).unwrap();
                ours.write_all(&body).unwrap();
                ours.write_all(&frames(1)[frames(0).len()..]).unwrap();
            }
        });
        let mut events = Vec::new();
        while pings_of(session, &events) == 0 {
            poller.poll(true, &mut events);
        }
        writer.join().unwrap();
        let refused = |event: &Event| matches!(event, Event::Frame(_, Action::Refuse(RequestId(5), _)));
        assert_eq!(events.iter().filter(|event| refused(event)).count(), 1, "{events:?}");
    }
}
