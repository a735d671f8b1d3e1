//! What it costs that guests run in a process of their own: two sidecars, with and without, in turns.

use std::os::unix::net::UnixStream;

use nexus_tests::bench::Sample;
use nexus_tests::leaks::{of_guests, private_bytes_of};
use nexus_tests::{Options, Run, Sidecar};
use serde_json::{Map, Value, json};

use crate::socket::{Lean, pipelined};
use crate::{Scale, summary};

const TURNS: usize = 40;
const NAMES: [&str; 2] = ["none", "shared"];

struct Side {
    sidecar: Sidecar,
    lean: Lean,
    tiny: Sample,
    /// Requests per second with sixteen under way, turn by turn.
    rates: Vec<f64>,
}

fn options(isolation: &str) -> Options {
    Options::new().patient().flag("log", "error").flag("isolation", isolation)
}

pub fn figures(scale: Scale) -> Map<String, Value> {
    let run = Run::source("return $args.a + 1").args(&json!({"a": 41}));
    let mut sides = NAMES.map(|name| {
        let sidecar = options(name).listen();
        let lean = Lean::over(UnixStream::connect(sidecar.path()).expect("the sidecar is there"));
        Side { sidecar, lean, tiny: Sample::default(), rates: Vec::new() }
    });
    let private = sides.each_ref().map(|side| private_bytes_of(of_guests(side.sidecar.pid())));
    for turn in 0..TURNS {
        // neither always comes first
        for at in [turn % 2, 1 - turn % 2] {
            let Side { lean, tiny, rates, .. } = &mut sides[at];
            tiny.extend(&Sample::of(scale.of(2_000) / TURNS, scale.of(40_000) / TURNS, || {
                lean.round_trip(&run, &[42])
            }));
            let told = pipelined(lean, &run, scale.of(80_000) / TURNS);
            rates.push(told["perSecond"].as_f64().expect("a number"));
        }
    }
    let mut figures = Map::new();
    for ((name, side), private) in NAMES.iter().zip(sides).zip(private) {
        let mut rates = side.rates;
        rates.sort_by(f64::total_cmp);
        let starts = Sample::of(2, scale.of(20), || drop(options(name).child()));
        let told = json!({
            "tiny": summary(&side.tiny),
            "tiny16PerSecond": rates[rates.len() / 2],
            "startToHello": summary(&starts),
            "privateBytes": private,
        });
        figures.insert((*name).into(), told);
    }
    figures
}
