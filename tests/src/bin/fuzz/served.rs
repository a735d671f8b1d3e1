//! A real sidecar, and peers that send it whatever they like: random requests as they are, and after something has happened to
//! their bytes. Each connection is answered or closed, nobody else feels it, and the process lives.

use std::net::Shutdown;
use std::time::Duration;

use nexus_protocol::{ClientMessage, RequestId};
use nexus_tests::rng::Rng;
use nexus_tests::{Client, Options, Sidecar};

use crate::requests::{self, Words};

/// A peer's requests.
const REQUESTS: usize = 12;
/// After so many peers somebody who means well looks in.
const EVERY: u64 = 50;
/// An answer that takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(40);

/// See the module.
pub struct Served {
    sidecar: Sidecar,
    healthy: Client,
    peers: u64,
}

impl Served {
    pub fn start() -> Self {
        let options =
            Options::new().flag("max-instances", 2).flag("timeout-ms", 200).flag("suspension-timeout-ms", 200);
        let sidecar =
            options.flag("log", "error").flag("max-frame-bytes", 1 << 20).flag("max-result-bytes", 1 << 18).listen();
        let mut healthy = sidecar.connect();
        healthy.set_patience(PATIENCE);
        Self { sidecar, healthy, peers: 0 }
    }

    /// One peer. Panics when something is wrong.
    pub fn meet(&mut self, rng: &mut Rng) {
        let mut peer = self.sidecar.connect_silently();
        peer.set_patience(PATIENCE);
        if rng.below(8) > 0 {
            peer.hello();
        }
        for number in 0..1 + rng.below(REQUESTS) {
            let words = Words::random(rng);
            let mut frame = Vec::new();
            let message = requests::random(rng, &words);
            let id = if matches!(message, ClientMessage::Hello(_)) { 0 } else { 1 + number as u32 };
            message.encode(RequestId(id), 1 << 20, &mut frame).expect("it fits");
            if rng.below(3) == 0 {
                damage(rng, &mut frame);
            }
            if !peer.write_raw(&frame) {
                break;
            }
        }
        // what comes is read until nothing more can come
        let _ = peer.stream().shutdown(Shutdown::Write);
        while peer.next_reply().is_some() {}
        self.peers += 1;
        if self.peers.is_multiple_of(EVERY) {
            self.healthy.still_works();
            self.sidecar.connect().still_works();
            assert!(self.sidecar.is_running());
            assert_eq!(self.sidecar.stdout(), "");
        }
    }
}

/// Something happens to the bytes of a body; the length stays honest, or it would be the only thing that is looked at.
fn damage(rng: &mut Rng, frame: &mut Vec<u8>) {
    let mut body = frame.split_off(4);
    rng.mutate(&mut body);
    frame.clear();
    frame.extend((body.len() as u32).to_le_bytes());
    frame.append(&mut body);
}
