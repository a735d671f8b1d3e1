//! The table of tests/conformance, which the Node client runs too. Its README says what the keys mean.

mod support;

use std::collections::BTreeMap;
use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use nexus_client::{
    CallError, CancelToken, Client, Context, ContextValue, Error, Extensions, Limits, Log, Payload, Segment,
    StateMutation,
};
use rmpv::Value;
use serde_json::{Map, Value as Json};
use support::{options, watched};

const TIMESTAMP: i8 = -1;

#[test]
fn every_case_of_the_table_holds() {
    watched(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/cases.json");
        let cases: Vec<Json> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let names: HashSet<_> = cases.iter().map(name).collect();
        assert_eq!(names.len(), cases.len(), "two cases of one name");
        assert!(cases.len() >= 80);
        let client = Client::spawn(options().debug(true)).wait().unwrap();
        let (mut ran, mut failed) = (0, Vec::new());
        for case in &cases {
            ran += 1;
            if catch_unwind(AssertUnwindSafe(|| check(&client, case))).is_err() {
                failed.push(name(case));
            }
        }
        assert!(failed.is_empty(), "{} cases failed: {failed:#?}", failed.len());
        assert_eq!(ran, cases.len());
    });
}

fn name(case: &Json) -> &str {
    case["name"].as_str().expect("a case has a name")
}

fn check(client: &Client, case: &Json) {
    let source = case["source"].as_str().unwrap();
    let expect = &case["check"];
    if let Some(code) = expect["error"].as_str() {
        assert_eq!(client.check(source).wait().unwrap_err().code().as_str(), code);
    } else if expect.is_object() {
        let mut checked = client.check(source).wait().unwrap();
        checked.capabilities.sort();
        assert_eq!(serde_json::json!(checked.capabilities), expect["capabilities"]);
        assert_eq!(checked.suspend_mode.as_str(), expect["suspendMode"].as_str().unwrap());
    } else if let Some(contexts) = case["many"].as_array() {
        run_many(client, case, source, contexts);
    } else {
        assert!(case["expect"].is_object(), "a case expects something");
        for _ in 0..case["repeat"].as_u64().unwrap_or(1) {
            run(client, case, source, &case["expect"]);
        }
    }
}

fn run(client: &Client, case: &Json, source: &str, expect: &Json) {
    let script = Arc::new(Script::new(case));
    let heard = Arc::clone(&script);
    let records = Arc::<Mutex<Vec<Log>>>::default();
    let (noted, token) = (Arc::clone(&records), CancelToken::new());
    let cancel = (case["cancel"] == true).then(|| token.clone());
    if let Some(path) = case["binary"].as_str() {
        let error = Client::spawn(options().binary(path)).wait().unwrap_err();
        return check_error(&expect["error"], &error);
    }
    let outcome = client
        .run(source)
        .context(&context(case))
        .extensions(extensions(&script, case))
        .on_segment(move |segment| heard.hear(segment))
        .on_log(move |log| {
            noted.lock().unwrap().push(log.clone());
            cancel.iter().for_each(CancelToken::cancel);
        })
        .cancel(&token)
        .wait();
    match (&outcome, expect.get("error")) {
        (Err(error), Some(expect)) => check_error(expect, error),
        (Ok(_), Some(_)) => panic!("it did not fail"),
        (Err(error), None) => panic!("{error}"),
        (Ok(outcome), None) => {
            let value: Value = outcome.value().unwrap();
            check_limited(expect, &outcome.limited());
            match expect["depth"].as_u64() {
                Some(levels) => assert_eq!(depth(&value), levels),
                None if expect["anyValue"] == true => {}
                None => assert_same(&expect["value"], &value),
            }
        }
    }
    if let (Some(report), Err(error)) = (expect["report"].as_str(), &outcome) {
        assert_eq!(error.report().source(source).to_string(), report);
    }
    let state = script.state.lock().unwrap();
    let logged: Vec<Log> = state.segments.iter().flat_map(|segment| segment.logs().unwrap()).collect();
    assert_eq!(*records.lock().unwrap(), logged);
    check_effects(expect, &state);
    state.segments.iter().take(1).for_each(|first| check_limited(expect, &first.limited));
    state.segments.iter().skip(1).for_each(|later| check_limited(&Json::Null, &later.limited));
}

fn check_limited(expect: &Json, limited: &BTreeMap<&'static str, u64>) {
    let wanted = expect.get("limited").cloned().unwrap_or(serde_json::json!({}));
    assert_eq!(serde_json::json!(limited), wanted);
}

fn run_many(client: &Client, case: &Json, source: &str, contexts: &[Json]) {
    let given = contexts.iter().map(context);
    let extensions = extensions(&Arc::new(Script::new(case)), case);
    let results = client.run_many(source, given).extensions(extensions).wait().unwrap();
    assert_eq!(results.len(), contexts.len());
    for (result, context) in results.iter().zip(contexts) {
        let expect = &context["expect"];
        match (result, expect.get("error")) {
            (Err(error), Some(expect)) => check_error(expect, error),
            (Ok(outcome), None) => {
                assert_same(&expect["value"], &outcome.value().unwrap());
                check_limited(expect, &outcome.limited());
            }
            (result, _) => panic!("{result:?}"),
        }
    }
}

fn context(case: &Json) -> Context {
    let mut context = Context::new().strict_capabilities(case["strict"] == true).limits(limits(&case["limits"]));
    if case.get("grants").is_some() {
        context = context.grants(strings(&case["grants"]));
    }
    for (key, set) in [
        ("state", Context::state_payload as fn(Context, Payload) -> Context),
        ("args", Context::args_payload),
        ("scope", Context::scope_payload),
    ] {
        if let Some(value) = case.get(key) {
            context = set(context, payload(value));
        }
    }
    if let Some(ms) = case["timeoutMs"].as_u64() {
        context = context.timeout(Duration::from_millis(ms));
    }
    if let Some(seed) = case["seed"].as_u64() {
        context = context.seed(seed);
    }
    context
}

fn limits(named: &Json) -> Limits {
    let mut limits = Limits::default();
    for (name, value) in named.as_object().into_iter().flatten() {
        let place = match name.as_str() {
            "memoryLimitBytes" => &mut limits.memory_limit_bytes,
            "maxHostCalls" => &mut limits.max_host_calls,
            "maxStateMutations" => &mut limits.max_state_mutations,
            "maxEvents" => &mut limits.max_events,
            "maxResultBytes" => &mut limits.max_result_bytes,
            "maxLogBytes" => &mut limits.max_log_bytes,
            other => panic!("limit {other}"),
        };
        *place = value.as_u64();
    }
    limits
}

fn strings(list: &Json) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// The scripted extensions of one run, and what happened in it.
struct Script {
    order: Option<Vec<String>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    segments: Vec<Segment>,
    calls: Vec<(String, Payload)>,
    wakers: Vec<Waker>,
}

impl Script {
    fn new(case: &Json) -> Self {
        Self { order: case.get("order").map(strings), state: Mutex::default() }
    }

    fn hear(&self, segment: &Segment) {
        let mut state = self.state.lock().unwrap();
        state.segments.push(segment.clone());
        state.wakers.drain(..).for_each(Waker::wake);
    }

    /// Notes a call; done when it may be answered.
    async fn turn(&self, call: &str, args: Payload) {
        {
            let mut state = self.state.lock().unwrap();
            state.calls.push((call.to_owned(), args));
            state.wakers.drain(..).for_each(Waker::wake);
        }
        let Some(order) = &self.order else { return };
        std::future::poll_fn(|context| {
            let mut state = self.state.lock().unwrap();
            let all_made = order.iter().all(|wanted| state.calls.iter().any(|(made, _)| made == wanted));
            let turn = order.iter().position(|wanted| wanted == call);
            if all_made && turn.is_some_and(|turn| state.segments.len() > turn) {
                return Poll::Ready(());
            }
            state.wakers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

fn extensions(script: &Arc<Script>, case: &Json) -> Extensions {
    let mut extensions = Extensions::new();
    for (extension, methods) in case["extensions"].as_object().into_iter().flatten() {
        for (method, answers) in methods.as_object().unwrap() {
            let call = format!("{extension}.{method}");
            let answers: Arc<Mutex<VecDeque<Json>>> =
                Arc::new(Mutex::new(answers.as_array().unwrap().iter().cloned().collect()));
            let script = Arc::clone(script);
            extensions = extensions.async_method(extension, method, move |args| {
                let (call, script, answers) = (call.clone(), Arc::clone(&script), Arc::clone(&answers));
                async move {
                    let answer = answers.lock().unwrap().pop_front();
                    let args: Value = args.all()?;
                    script.turn(&call, Payload::encode(&args)?).await;
                    let answer = answer.unwrap_or_else(|| panic!("{call} was called more often than it has answers"));
                    if let Some(error) = answer.get("error") {
                        return Err(call_error(error));
                    }
                    Ok(if answer["echo"] == true { args } else { untag(&answer["value"]) })
                }
            });
        }
    }
    extensions
}

fn call_error(told: &Json) -> CallError {
    let mut error = CallError::new(told["message"].as_str().unwrap());
    if let Some(name) = told["name"].as_str() {
        error = error.with_name(name);
    }
    if let Some(code) = told["code"].as_str() {
        error = error.with_code(code);
    }
    error
}

fn check_error(expect: &Json, error: &Error) {
    assert_eq!(error.code().as_str(), expect["code"].as_str().unwrap(), "{error}");
    if let Some(retryable) = expect["retryable"].as_bool() {
        assert_eq!(error.retryable(), retryable);
    }
    let Some(wire) = error.as_sidecar() else {
        let part = expect["messageContains"].as_str().unwrap_or_default();
        return assert!(error.to_string().contains(part), "{error}");
    };
    for (key, told) in [
        ("name", wire.name.as_deref()),
        ("message", Some(wire.message.as_str())),
        ("capability", wire.capability.as_deref()),
    ] {
        if let Some(wanted) = expect[key].as_str() {
            assert_eq!(told, Some(wanted), "{key} of {error}");
        }
    }
    if let Some(part) = expect["messageContains"].as_str() {
        assert!(wire.message.contains(part), "{error}");
    }
    if let Some(line) = expect["line"].as_u64() {
        assert_eq!(wire.location.map(|location| u64::from(location.line)), Some(line), "{error}");
    }
    for (key, wanted) in expect["context"].as_object().into_iter().flatten() {
        let told = wire.context.iter().find(|(name, _)| *name == key).map(|(_, value)| value);
        match told {
            Some(ContextValue::Text(text)) => assert_eq!(Some(text.as_str()), wanted.as_str()),
            Some(ContextValue::Number(number)) => assert_eq!(Some(*number), wanted.as_u64()),
            other => panic!("context {key} is {other:?}"),
        }
    }
}

fn check_effects(expect: &Json, state: &State) {
    let mut mutations = Vec::new();
    let (mut events, mut commands, mut logs, mut keys) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for segment in &state.segments {
        let mut own = Vec::new();
        for mutation in segment.state_mutations().unwrap() {
            let (op, key, value) = match mutation {
                StateMutation::Set { key, value } => ("set", key, Some(value)),
                StateMutation::Delete { key } => ("delete", key, None),
                other => panic!("{other:?}"),
            };
            own.push(key.clone());
            let mut fields = vec![("op", Value::from(op)), ("key", Value::from(key))];
            fields.extend(value.map(|value| ("value", value.decode().unwrap())));
            mutations.push(map(fields));
        }
        keys.push(own);
        for event in segment.events().unwrap() {
            events.push(map(vec![("name", event.name.into()), ("payload", event.payload.decode().unwrap())]));
        }
        for command in segment.view_commands().unwrap() {
            commands.push(map(vec![
                ("viewId", command.view_id.into()),
                ("command", command.command.into()),
                ("params", command.params.decode().unwrap()),
            ]));
        }
        logs.extend(segment.logs().unwrap().into_iter().map(|log| serde_json::json!([log.level, log.message])));
    }
    let none = Json::Array(Vec::new());
    assert_same(expect.get("stateMutations").unwrap_or(&none), &Value::Array(mutations));
    match expect["eventCount"].as_u64() {
        Some(count) => assert_eq!(events.len() as u64, count),
        None => assert_same(expect.get("events").unwrap_or(&none), &Value::Array(events)),
    }
    assert_same(expect.get("viewCommands").unwrap_or(&none), &Value::Array(commands));
    if let Some(wanted) = expect.get("logs") {
        assert_eq!(wanted, &Json::Array(logs));
    }
    if let Some(wanted) = expect.get("segments") {
        assert_eq!(wanted, &serde_json::json!(keys));
    }
    if let Some(wanted) = expect.get("calls") {
        let made =
            state.calls.iter().map(|(call, args)| Value::Array(vec![call.as_str().into(), args.decode().unwrap()]));
        assert_same(wanted, &Value::Array(made.collect()));
    }
}

fn map(fields: Vec<(&str, Value)>) -> Value {
    Value::Map(fields.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

fn depth(value: &Value) -> u64 {
    value.as_array().map_or(0, |items| 1 + items.first().map_or(0, depth))
}

/// JSON with tags to MessagePack.
fn untag(value: &Json) -> Value {
    match value {
        Json::Null => Value::Nil,
        Json::Bool(value) => (*value).into(),
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => Value::Array(items.iter().map(untag).collect()),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(value), _) => value.into(),
            (_, Some(value)) => value.into(),
            _ => number.as_f64().unwrap().into(),
        },
        Json::Object(fields) => tagged(fields).unwrap_or_else(|| {
            Value::Map(fields.iter().map(|(key, value)| (key.as_str().into(), untag(value))).collect())
        }),
    }
}

fn tagged(fields: &Map<String, Json>) -> Option<Value> {
    let (tag, content) = fields.iter().next().filter(|_| fields.len() == 1)?;
    let text = || content.as_str().unwrap();
    Some(match tag.as_str() {
        "$bigint" => text().parse::<u64>().map(Value::from).unwrap_or_else(|_| text().parse::<i64>().unwrap().into()),
        "$bytes" => {
            let digit = |at: usize| u8::from_str_radix(&text()[at..at + 2], 16).unwrap();
            Value::Binary((0..text().len()).step_by(2).map(digit).collect())
        }
        "$date" => {
            let ms = content.as_i64().unwrap();
            let nanos = (ms.rem_euclid(1000) * 1_000_000) as u32;
            Value::Ext(TIMESTAMP, [&nanos.to_be_bytes()[..], &ms.div_euclid(1000).to_be_bytes()[..]].concat())
        }
        "$number" => text().parse::<f64>().unwrap().into(),
        _ => return None,
    })
}

fn payload(value: &Json) -> Payload {
    Payload::encode(&untag(value)).unwrap()
}

fn assert_same(expected: &Json, actual: &Value) {
    let expected = untag(expected);
    assert!(same(&expected, actual), "expected {expected}, got {actual}");
}

/// As JavaScript tells values apart: 1 and 1.0 are one number, 0 and -0 are not; maps have no order.
fn same(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            let has = |key: &Value, value: &Value| b.iter().any(|(other, found)| other == key && same(value, found));
            a.len() == b.len() && a.iter().all(|(key, value)| has(key, value))
        }
        (Value::Ext(TIMESTAMP, a), Value::Ext(TIMESTAMP, b)) => time(a) == time(b),
        (Value::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
        _ => expected == actual,
    }
}

/// Seconds and nanoseconds of a timestamp of any length.
fn time(bytes: &[u8]) -> (i64, u32) {
    match bytes.len() {
        4 => (i64::from(u32::from_be_bytes(bytes.try_into().unwrap())), 0),
        8 => {
            let packed = u64::from_be_bytes(bytes.try_into().unwrap());
            ((packed & 0x3_ffff_ffff) as i64, (packed >> 34) as u32)
        }
        _ => {
            let (nanos, seconds) = bytes.split_at(4);
            (i64::from_be_bytes(seconds.try_into().unwrap()), u32::from_be_bytes(nanos.try_into().unwrap()))
        }
    }
}
