//! The table of tests/conformance/scheduling.json, which the Node client runs too. Its README says what the keys mean.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nexus_protocol::message::HelloLimits;
use serde_json::{Value, json};

use crate::error::Error;
use crate::outbox::{Bounds, Outbox, Ticket, Turn, Waiting};
use crate::restart::{Next, RestartPolicy, Restarts};

/// Of this process's clock, so that a time before the first step can be told.
const BEFORE_MS: i64 = 100_000;

fn table() -> Value {
    serde_json::from_str(include_str!("../../tests/conformance/scheduling.json")).unwrap()
}

fn limits(hello: &Value) -> HelloLimits {
    let number = |key: &str, otherwise| hello[key].as_u64().unwrap_or(otherwise);
    HelloLimits {
        max_in_flight: number("maxInFlight", 0),
        timeout_ms: number("timeoutMs", 5_000),
        max_suspended: hello["maxSuspended"].as_u64(),
        suspension_timeout_ms: number("suspensionTimeoutMs", 30_000),
        ..HelloLimits::default()
    }
}

/// One number, or all from the first to the second.
fn numbers(value: &Value) -> Vec<u64> {
    match value.as_array().map(Vec::as_slice) {
        Some([first, last]) => (first.as_u64().unwrap()..=last.as_u64().unwrap()).collect(),
        _ => value.as_u64().into_iter().collect(),
    }
}

/// A client of which only the decisions are there.
struct Client {
    outbox: Outbox,
    places: HashMap<String, Turn>,
    tickets: HashMap<u64, Ticket>,
}

impl Client {
    fn turn(&mut self, step: &Value) -> Turn {
        match step["place"].as_str() {
            Some(name) => {
                *self.places.entry(name.to_owned()).or_insert_with(|| Turn::BeginsAt(self.outbox.places.number()))
            }
            None if step["continues"] == true => Turn::Continues,
            None => Turn::Begins,
        }
    }

    fn request(&mut self, id: u64, step: &Value, now: Instant) -> Value {
        let turn = self.turn(step);
        if self.outbox.pass(turn, now) {
            return json!("sent");
        }
        let frame = vec![0; step["bytes"].as_u64().unwrap_or(10) as usize];
        match self.outbox.push(Waiting { id: id as u32, frame, turn, suspension: None }, false) {
            Ok(ticket) => {
                self.tickets.insert(id, ticket);
                json!("waits")
            }
            Err(Error::Overloaded { resource, limit, count, .. }) => {
                json!({ "resource": resource, "limit": limit, "count": count })
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn step(&mut self, step: &Value, now: Instant) {
        for id in numbers(&step["request"]).into_iter().chain(numbers(&step["requests"])) {
            assert_eq!(self.request(id, step, now), step["out"], "{step}");
        }
        if let Some(id) = step["withdraw"].as_u64() {
            let taken = self.tickets.get(&id).and_then(|ticket| self.outbox.remove(*ticket));
            assert_eq!(json!(taken.is_some()), step["out"], "{step}");
        }
        if let Some(Turn::BeginsAt(place)) = step["leave"].as_str().and_then(|name| self.places.get(name)).copied() {
            self.outbox.places.leave(place);
        }
        for _ in numbers(&step["answered"]) {
            self.outbox.done(step["queueMs"].as_f64().map(|ms| Duration::from_micros((ms * 1000.0) as u64)));
        }
        let sent: Vec<_> = std::iter::from_fn(|| self.outbox.take(now)).map(|waiting| waiting.id).collect();
        assert_eq!(json!(sent), step.get("sends").cloned().unwrap_or(json!([])), "{step}");
    }
}

#[test]
fn every_case_of_scheduling_is_decided_as_the_table_says() {
    for case in table()["scheduling"].as_array().unwrap() {
        let bounds = &case["bounds"];
        let bound = |key: &str, otherwise| bounds[key].as_u64().unwrap_or(otherwise) as usize;
        let bounds = Bounds { requests: bound("requests", 1_000), bytes: bound("bytes", 1_000_000) };
        let outbox = Outbox::new(&limits(&case["hello"]), bounds);
        let mut client = Client { outbox, places: HashMap::new(), tickets: HashMap::new() };
        let (start, mut at) = (Instant::now(), 0);
        for step in case["steps"].as_array().unwrap() {
            at = step["at"].as_u64().unwrap_or(at);
            client.step(step, start + Duration::from_millis(at));
        }
    }
}

#[test]
fn every_case_of_restarts_is_decided_as_the_table_says() {
    for case in table()["restarts"].as_array().unwrap() {
        let policy = &case["policy"];
        let millis = |key: &str| Duration::from_millis(policy[key].as_u64().unwrap());
        let mut restarts = Restarts::new(RestartPolicy {
            max_crashes: policy["deaths"].as_u64().unwrap() as usize,
            window: millis("windowMs"),
            cool_down: millis("coolDownMs"),
            max_delay: millis("maxDelayMs"),
        });
        let start = Instant::now();
        let moment = |ms: i64| start + Duration::from_millis((ms + BEFORE_MS) as u64);
        for step in case["steps"].as_array().unwrap() {
            let now = moment(step["at"].as_i64().unwrap());
            if let Some(died) = step["died"].as_object() {
                restarts.died(died.get("readySince").map(|since| moment(since.as_i64().unwrap())), now);
            }
            let Some(next) = step["next"].as_object() else { continue };
            match restarts.next(now) {
                Next::Start(wait) => {
                    let full = next["waitMs"].as_u64().map(Duration::from_millis).unwrap();
                    assert!(full / 2 <= wait && wait <= full, "{}: {step}: {wait:?}", case["name"]);
                }
                Next::Refuse { deaths, retry_after } => {
                    let told = json!({ "refusedForMs": retry_after.as_millis() as u64, "deaths": deaths });
                    assert_eq!(told, step["next"], "{}", case["name"]);
                }
                Next::Never => panic!("{}: {step}", case["name"]),
            }
        }
    }
}
