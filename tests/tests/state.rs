//! `$state` behaves as a plain object does, and what it records makes the old state the new one.
//!
//! Random programs, each on `$state` and on a plain object in its place. `NEXUS_PROPERTY_SEED` chooses other programs,
//! `NEXUS_PROPERTY_CASES` how many; a failure names the seed and prints the program.

use nexus_protocol::ErrorCode;
use nexus_protocol::message::Status;
use nexus_tests::aliases;
use nexus_tests::programs::Program;
use nexus_tests::run::{ALL, sidecar};
use nexus_tests::values::{decode, encode, same};
use nexus_tests::{Client, Options, Rng, Run, Waiting, Watchdog, number};
use rmpv::Value;
use serde_json::json;

/// A state as a client keeps it: the last of equal keys counts.
struct State(Vec<(String, Value)>);

impl State {
    fn new(map: &Value) -> Self {
        let mut state = Self(Vec::new());
        for (key, value) in map.as_map().expect("a state is a map") {
            state.set(key.as_str().expect("with strings as keys"), value.clone());
        }
        state
    }

    fn set(&mut self, key: &str, value: Value) {
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some(entry) => entry.1 = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    fn apply(&mut self, mutations: &Value) {
        for mutation in mutations.as_array().expect("a list") {
            let key = mutation["key"].as_str().expect("a key");
            match mutation["op"].as_str() {
                Some("set") => self.set(key, mutation["value"].clone()),
                Some("delete") => self.0.retain(|(name, _)| name != key),
                other => panic!("{other:?}"),
            }
        }
    }

    fn value(self) -> Value {
        Value::Map(self.0.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }
}

/// What is wrong, if anything.
fn check(client: &mut Client, program: &Program) -> Option<String> {
    let state = encode(&program.state);
    let run = Run::source(&*program.source).state_bytes(state.clone()).args_bytes(state).suspend_mode(program.mode);
    let mut segment = client.run(run.grant(&["state:read:*", "state:write:*", "ext:test"]));
    let mut replayed = State::new(&program.state);
    let mut waiting = Waiting::default();
    while segment.status == Status::Suspended {
        replayed.apply(&decode(&segment.raw_mutations));
        let resumed = client.start_resume_bytes(&waiting.next(&segment).id, &[0xc0]);
        segment = client.segment(resumed);
    }
    replayed.apply(&decode(&segment.raw_mutations));
    if segment.status != Status::Success {
        return Some(format!("{:?}", segment.error));
    }
    let value = decode(segment.raw_value());
    let noted = |name: &str| value[name].as_array().expect("a list").clone();
    let (on_state, on_model) = (noted("onState"), noted("onModel"));
    for (number, (found, expected)) in on_state.iter().zip(&on_model).enumerate() {
        if !same(found, expected) {
            return Some(format!("operation {number} noted\n  {found}\ninstead of\n  {expected}"));
        }
    }
    if on_state.len() != on_model.len() {
        return Some(format!("{} operations on $state, {} on the plain object", on_state.len(), on_model.len()));
    }
    // what the handler did not touch is as the client had it, not as JavaScript would write it
    let replayed = nexus_tests::values::through_javascript(&replayed.value());
    (!same(&replayed, &value["data"]))
        .then(|| format!("the mutations make\n  {replayed}\ninstead of\n  {}", value["data"]))
}

#[test]
fn random_programs_do_to_state_what_they_do_to_a_plain_object() {
    let _w = Watchdog::seconds(120);
    let (seed, cases) = (number("NEXUS_PROPERTY_SEED", 0x57a7e), number("NEXUS_PROPERTY_CASES", 1500));
    let (_sidecar, mut client) = Options::new().debug().child();
    let mut failures = Vec::new();
    for case in 0..cases {
        let program = Program::random(&mut Rng::new(seed ^ (case << 32)));
        if let Some(what) = check(&mut client, &program) {
            let text = program.source.split("function modelOf").next().unwrap_or_default();
            failures.push(format!("seed {seed}, case {case}: {what}\nstate {}\n{text}", program.state));
        }
    }
    failures.sort_by_key(String::len);
    assert!(failures.is_empty(), "{} of {cases} programs; the shortest:\n{}", failures.len(), failures[0]);
}

// shows P-room-around
#[test]
fn a_change_under_any_name_arrives_or_is_refused() {
    let _w = Watchdog::seconds(240);
    let (seed, cases) = (number("NEXUS_PROPERTY_SEED", 0xa11a5), number("NEXUS_PROPERTY_CASES", 1500));
    let (_sidecar, mut client) = Options::new().debug().child();
    let (mut failures, mut whole, mut told) = (Vec::new(), 0, 0);
    for case in 0..cases {
        let program = aliases::Program::random(&mut Rng::new(seed ^ (case << 32)), case % 2 == 0);
        // one key may only be read in half of them
        let writes: &[&str] = if case % 2 == 0 {
            &["state:write:*"]
        } else {
            &["state:write:a", "state:write:list", "state:write:user", "state:write:q", "state:write:r"]
        };
        let grants = [&["state:read:*", "ext:test"], writes].concat();
        match follow(&mut client, &program, &grants) {
            Ok(true) => whole += 1,
            Ok(false) => told += 1,
            Err(what) => {
                let text = program.source.split("const plain").next().unwrap_or_default();
                failures.push(format!("seed {seed}, case {case}: {what}\n{text}"));
            }
        }
    }
    failures.sort_by_key(String::len);
    assert!(failures.is_empty(), "{} of {cases} programs; the shortest:\n{}", failures.len(), failures[0]);
    assert!(whole > 4 * told, "{whole} programs came to their end, {told} were told at the end of a segment");
}

/// Whether it came to its end, and what the client has is what the plain objects are; else it was told what cannot be kept.
fn follow(client: &mut Client, program: &aliases::Program, grants: &[&str]) -> Result<bool, String> {
    let initial = aliases::initial();
    let run = Run::source(&*program.source).state(&initial).suspend_mode(program.mode).grant(grants);
    let mut segment = client.run(run);
    let mut kept = State::new(&decode(&rmp_serde::to_vec_named(&initial).expect("JSON fits")));
    let mut waiting = Waiting::default();
    while segment.status == Status::Suspended {
        kept.apply(&decode(&segment.raw_mutations));
        let resumed = client.start_resume_bytes(&waiting.next(&segment).id, &[0xc0]);
        segment = client.segment(resumed);
    }
    if let Some(error) = &segment.error {
        let is_of_state = error.name.as_deref() == Some("TypeError")
            && ["in $state", "was changed afterwards"].iter().any(|part| error.message.contains(part));
        let is_unencoded = error.code == ErrorCode::SerializationError;
        return if is_of_state || is_unencoded { Ok(false) } else { Err(format!("{error:?}")) };
    }
    kept.apply(&decode(&segment.raw_mutations));
    let value = decode(segment.raw_value());
    let (kept, plain) = (kept.value(), &value["plain"]);
    for (key, expected) in plain.as_map().expect("a map") {
        let key = key.as_str().expect("a name");
        // the order of the names within a value is part of it
        if encode(&kept[key]) != encode(expected) {
            return Err(format!("{key} is\n  {}\ninstead of\n  {expected}", kept[key]));
        }
    }
    let count = plain.as_map().map(Vec::len);
    if kept.as_map().map(Vec::len) == count { Ok(true) } else { Err(format!("{kept}\ninstead of\n  {plain}")) }
}

#[test]
fn what_an_effect_holds_leaves_room_for_what_is_around_it() {
    let (_w, _s, mut client) = sidecar();
    let nested = |levels: u32, send: &str| format!("let v = 1; for (let i = 0; i < {levels}; i++) v = [v]; {send}");
    for (most, send) in [
        (62, "$state.v = v"),
        (62, "$state.old.v = v.pop()"),
        (62, "$emit('e', v)"),
        (62, "$view.command('id', 'c', v)"),
        (61, "$view.setFilter('id', v)"),
        (61, "$view.scrollTo('id', v)"),
        (63, "await $ext.a.b(v)"),
    ] {
        for (levels, fits) in [(most, true), (most + 1, false)] {
            let run = Run::source(nested(levels, send)).state(&json!({"old": {}})).grant(&ALL);
            let segment = client.run(run);
            let error = segment.error.as_ref().map(|e| e.code);
            let expected = (!fits).then_some(ErrorCode::SerializationError);
            assert_eq!(error, expected, "{levels} levels, {send}");
            if let Some(call) = segment.calls.first() {
                client.resume(&call.id, &json!(1));
            }
        }
    }
}

#[test]
fn the_token_that_is_missing_is_told_whole() {
    let (_w, _s, mut client) = sidecar();
    let long = "k".repeat(1000);
    for (source, token) in [
        (format!("$state['{long}']"), format!("state:read:{long}")),
        ("$state['a\\0b'] = 1".to_owned(), "state:write:a\0b".to_owned()),
        ("$state.o.x = 1".to_owned(), "state:write:o".to_owned()),
        (format!("$ext['{long}'].m()"), format!("ext:{long}.m")),
        (format!("$emit('{long}')"), format!("events:emit:{long}")),
    ] {
        let mut run = |source: &str| client.run(Run::source(source).state(&json!({"o": {}})).grant(&["state:read:o"]));
        assert_eq!(run(&source).error().capability.as_deref(), Some(&*token));
        assert_eq!(run(&format!("try {{ {source} }} catch (e) {{ return e.capability }}")).value(), json!(token));
    }
}
