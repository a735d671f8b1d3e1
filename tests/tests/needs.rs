//! What check lists is enough, and what it calls certain is needed.
//!
//! `NEXUS_PROPERTY_SEED` chooses other handlers, `NEXUS_PROPERTY_CASES` how many.

use std::collections::VecDeque;

use nexus_protocol::ErrorCode;
use nexus_protocol::message::Status;
use nexus_tests::run::listening;
use nexus_tests::{Client, Options, Rng, Run, Segment, needs, number};
use serde_json::json;

/// To its end, whatever it calls.
fn ended(client: &mut Client, run: Run) -> Segment {
    let mut segment = client.run(run);
    let mut waiting = VecDeque::new();
    while segment.status == Status::Suspended {
        waiting.extend(segment.calls.clone());
        let call = waiting.pop_front().expect("a suspended handler waits for a call");
        segment = client.resume(&call.id, &json!({"n": 1, "list": []}));
    }
    segment
}

fn with_grants(source: &str, tokens: &[String]) -> Run {
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    Run::source(source).grant(&tokens).state(&needs::state()).args(&json!({"x": 1}))
}

/// What is wrong, if anything.
fn refused(client: &mut Client, source: &str) -> Option<String> {
    let found = client.check(source).unwrap_or_else(|e| panic!("{e:?}\n{source}"));
    let segment = ended(client, with_grants(source, &found.capabilities));
    let error = segment.error.filter(|error| error.code == ErrorCode::PermissionDenied)?;
    Some(format!("{:?} beside {:?}\n{source}", error.capability, found.capabilities))
}

// shows P-enough
#[test]
fn who_grants_what_check_lists_is_not_told_of_missing_grants() {
    let (_w, _s, mut client) = listening(&Options::new());
    let (seed, cases) = (number("NEXUS_PROPERTY_SEED", 0x9e_ed), number("NEXUS_PROPERTY_CASES", 1_500));
    let mut wrong = Vec::new();
    for case in 0..cases {
        let source = needs::handler(&mut Rng::new(seed ^ (case << 32)));
        wrong.extend(refused(&mut client, &source));
    }
    wrong.sort_by_key(String::len);
    assert!(wrong.is_empty(), "{} of {cases}; the shortest:\n{}", wrong.len(), wrong[..wrong.len().min(3)].join("\n"));
}

/// As people write them.
const REAL: &[&str] = &[
    "const cart = $state.a; cart.tags.push('new'); cart.n = cart.tags.length; $emit('cart:changed', cart); return cart.n",
    "for (const item of $state.items) item.done = true;",
    "const u = $state.a; u.name = 'x'",
    "$state.items.find(i => i.n === 1).done = true",
    "$state.get('a').name = 'x'",
    "[].push.call($state.items, 1)",
    "const item = $state.items.find(({ n }) => n === 1); if (!item) return null; item.n += 1; return item",
    "const byN = Object.groupBy($state.items, i => i.n); for (const group of Object.values(byN)) group[0].first = true",
    "const r = await $ext.http.get('/x'); $state.a = { ...$state.a, ...r }; $emit.toast('saved'); return r",
    "const [x, y] = await Promise.all([$ext.a.b($state.n), $ext.c.d()]); $state.n = x.n + y.n",
    "const r = $ext.a.b(); $state.items.push(r); return $state.items.length",
    "const update = (key, change) => { $state[key] = { ...$state[key], ...change } }; update('a', { n: 2 })",
    "const handlers = { add() { $state.n += 1 }, reset() { $state.n = 0 } }; handlers[$args.x ? 'add' : 'reset']()",
    "class Repo { constructor(s) { this.s = s } all() { return this.s.items } touch() { for (const i of this.all()) i.n++ } } new Repo($state).touch()",
    "const sorted = $state.items; sorted.sort((p, q) => p.n - q.n); return sorted[0].n",
    "const draft = JSON.parse(JSON.stringify($state.a)); draft.n = 9; $state.a = draft",
    "$state.update('items', items => items.map(i => { i.n += 1; return i }))",
    "const { a: { deep } } = $state; deep.er.n = 5",
    "Object.entries($state.a).forEach(([k, v]) => { if (v && v.er) v.er.n = k.length })",
    "let e; ({ $emit: e } = this); e('saved')",
    "const f = g => g.$emit('x'); f(globalThis)",
];

#[test]
fn nor_is_who_runs_handlers_as_people_write_them() {
    let (_w, _s, mut client) = listening(&Options::new());
    for source in REAL {
        let found = client.check(source).unwrap();
        let segment = ended(&mut client, with_grants(source, &found.capabilities));
        assert_eq!(segment.status, Status::Success, "{source} with {:?}: {:?}", found.capabilities, segment.error);
    }
}

// shows P-enough
#[test]
fn what_strict_refuses_is_refused_without_it() {
    let (_w, _s, mut client) = listening(&Options::new());
    let (seed, cases) = (number("NEXUS_PROPERTY_SEED", 0x57_41), number("NEXUS_PROPERTY_CASES", 1_000));
    let (mut wrong, mut refused) = (Vec::new(), 0);
    for case in 0..cases {
        let mut rng = Rng::new(seed ^ (case << 32));
        let source = if case % 2 == 0 { needs::straight(&mut rng) } else { needs::handler(&mut rng) };
        // what is granted may be what makes the rest needless: half of it, or nothing
        let mut granted = client.check(&source).unwrap_or_else(|e| panic!("{e:?}\n{source}")).capabilities;
        granted.retain(|_| case / 4 % 2 == 0 && rng.below(2) == 0);
        let granted: Vec<&str> = granted.iter().map(String::as_str).collect();
        let run = || Run::source(&source).grant(&granted).state(&needs::state()).args(&json!({"x": case / 2 % 2}));
        let strict = client.run(run().strict());
        let denied = |segment: &Segment| segment.error.as_ref().is_some_and(|e| e.code == ErrorCode::PermissionDenied);
        if denied(&strict) {
            refused += 1;
            let plain = ended(&mut client, run());
            if !denied(&plain) {
                wrong.push(format!("{:?} beside {granted:?}, but {:?}\n{source}", strict.error, plain.status));
            }
        }
    }
    assert!(refused > cases / 4, "{refused} were refused");
    wrong.sort_by_key(String::len);
    assert!(wrong.is_empty(), "{} of {cases}; the shortest:\n{}", wrong.len(), wrong[..wrong.len().min(3)].join("\n"));
}
