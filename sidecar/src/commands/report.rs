//! What an execution did, as text for people and as one JSON document for programs.

use std::fmt::Write;

use nexus_protocol::{InnerError, WireError};
use rmpv::Value;
use serde_json::{Value as Json, json};

use super::diagnostic::diagnostic;
use super::fixtures::Unused;
use super::notation::{decode, notation, to_json};
use super::replay::Missing;
use super::run::{Call, Outcome, Segment};
use crate::observe::logging::escape;

/// Width of the first column.
const LABEL_WIDTH: usize = 6;

/// Every effect in one line, in the order of the segments, then the value or the error, then the figures.
pub(super) fn text(outcome: &Outcome, name: &str, source: &str) -> String {
    let mut out = String::new();
    for (index, segment) in outcome.segments.iter().enumerate() {
        if outcome.segments.len() > 1 {
            let _ = writeln!(out, "segment {index}");
        }
        segment_text(&mut out, segment);
    }
    match &outcome.end {
        Ok(value) => {
            let _ = writeln!(out, "{}", notation(value, 0));
        }
        Err(error) => out.push_str(&diagnostic(error, name, source)),
    }
    let _ = writeln!(out, "({})", outcome.summary);
    out
}

pub(super) fn json(outcome: &Outcome) -> Json {
    let segments: Vec<Json> = outcome.segments.iter().map(segment_json).collect();
    let (status, key, end) = match &outcome.end {
        Ok(value) => ("success", "value", to_json(value)),
        Err(error) => ("error", "error", error_json(error)),
    };
    let missing = outcome.missing.iter().map(missing_json).collect::<Json>();
    let unused = outcome.unused.iter().map(|unused| json!({"name": unused.method.to_string(), "index": unused.index}));
    let mut document = json!({
        "status": status, key: end, "segments": segments, "metrics": outcome.metrics,
        "missingFixtures": missing, "unusedFixtures": unused.collect::<Json>(),
    });
    if let Some(tokens) = &outcome.granted {
        document["granted"] = json!(tokens);
    }
    document
}

/// The error, its payloads as the JSON that they stand for.
fn error_json(error: &WireError) -> Json {
    let mut document = json!(error);
    payload_json(&mut document, "properties", error.properties.as_deref());
    inner_json(&mut document, error.cause.as_deref(), &error.errors);
    document
}

fn inner_json(document: &mut Json, cause: Option<&InnerError>, errors: &[InnerError]) {
    if let Some(inner) = cause {
        one_inner_json(&mut document["cause"], inner);
    }
    for (index, inner) in errors.iter().enumerate() {
        one_inner_json(&mut document["errors"][index], inner);
    }
}

fn one_inner_json(document: &mut Json, inner: &InnerError) {
    payload_json(document, "value", inner.value.as_deref());
    payload_json(document, "properties", inner.properties.as_deref());
    inner_json(document, inner.cause.as_deref(), &inner.errors);
}

fn payload_json(document: &mut Json, key: &str, payload: Option<&[u8]>) {
    // what cannot be read stays as it came
    if let Some(value) = payload.and_then(|payload| decode(payload).ok()) {
        document[key] = to_json(&value);
    }
}

/// What was granted unasked, and what is wrong with the fixtures, for the person who runs it; mostly nothing.
pub(super) fn remarks(outcome: &Outcome) -> String {
    let mut out = String::new();
    match &outcome.granted {
        Some(tokens) if tokens.is_empty() => out.push_str("granted: nothing is needed\n"),
        Some(tokens) => {
            let tokens: Vec<String> = tokens.iter().map(|token| escape(token)).collect();
            let _ = writeln!(out, "granted: {}", tokens.join(" "));
        }
        None => {}
    }
    for missing in &outcome.missing {
        let _ = writeln!(out, "error: {}; {}. To answer it, add", escape(&missing.message()), missing.reason());
        let _ = writeln!(out, "  {}", escape(&missing.to_add().to_string()));
    }
    if !outcome.unused.is_empty() {
        let places = outcome.unused.iter().map(|Unused { method, index }| format!("{:?}[{index}]", method.to_string()));
        let places = places.collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "warning: --ext: no call took the answer {}", escape(&places));
    }
    out
}

fn missing_json(missing: &Missing) -> Json {
    json!({
        "name": missing.method.to_string(), "args": missing.args.iter().map(to_json).collect::<Json>(),
        "add": missing.to_add(),
    })
}

fn segment_text(out: &mut String, segment: &Segment) {
    let mut line = |label: &str, text: String| {
        let _ = writeln!(out, "{label:LABEL_WIDTH$} {text}");
    };
    for log in &segment.logs {
        line(&word(log, "level"), word(log, "message"));
    }
    for mutation in &segment.state_mutations {
        let key = word(mutation, "key");
        match field(mutation, "value") {
            Some(value) if word(mutation, "op") == "set" => {
                line("set", format!("{key} = {}", notation(value, LABEL_WIDTH + 1)))
            }
            _ => line(&word(mutation, "op"), key),
        }
    }
    for event in &segment.events {
        line("event", format!("{} {}", word(event, "name"), payload(event, "payload")));
    }
    for view in &segment.view_commands {
        line("view", format!("{} {} {}", word(view, "viewId"), word(view, "command"), payload(view, "params")));
    }
    if let Some(Call { name, args, answer }) = &segment.call {
        let args: Vec<String> = args.iter().map(|arg| notation(arg, LABEL_WIDTH + 1)).collect();
        let answer = match answer {
            Ok(value) => format!("-> {}", notation(value, LABEL_WIDTH + 1)),
            Err(message) => format!("fails: {}", escape(message)),
        };
        line("call", format!("{}({}) {answer}", escape(name), args.join(", ")));
    }
}

fn segment_json(segment: &Segment) -> Json {
    let list = |items: &[Value]| items.iter().map(to_json).collect::<Json>();
    let call = segment.call.as_ref().map(|call| {
        let (key, answer) = match &call.answer {
            Ok(value) => ("value", to_json(value)),
            Err(message) => ("error", json!(message)),
        };
        json!({"name": call.name, "args": list(&call.args), key: answer})
    });
    json!({
        "stateMutations": list(&segment.state_mutations),
        "events": list(&segment.events),
        "viewCommands": list(&segment.view_commands),
        "logs": list(&segment.logs),
        "call": call,
    })
}

fn field<'a>(record: &'a Value, key: &str) -> Option<&'a Value> {
    record.as_map()?.iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value)
}

/// A text field, safe for a terminal.
fn word(record: &Value, key: &str) -> String {
    escape(field(record, key).and_then(Value::as_str).unwrap_or_default())
}

fn payload(record: &Value, key: &str) -> String {
    field(record, key).map(|value| notation(value, LABEL_WIDTH + 1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use nexus_protocol::{EffectList, ErrorCode};

    use super::super::fixtures::{Lack, Method};
    use super::*;

    fn items(fill: impl FnOnce(&mut EffectList)) -> Vec<Value> {
        let mut list = EffectList::new();
        fill(&mut list);
        decode(list.payload().unwrap()).unwrap().as_array().unwrap().clone()
    }

    fn two_segments() -> Outcome {
        let first = Segment {
            state_mutations: items(|list| {
                list.push_set("count", &[2]);
                list.push_delete("old");
            }),
            events: items(|list| list.push_event("saved", &[0x81, 0xa2, b'i', b'd', 7], 5.0)),
            view_commands: items(|list| list.push_view_command("grid", "focus", &[0x80])),
            logs: items(|list| list.push_log("info", "hello\u{1b}", 5.0)),
            call: Some(Call {
                name: "http.get".to_owned(),
                args: vec![Value::from("/x")],
                answer: Ok(Value::from("body")),
            }),
        };
        let last = Segment { call: None, ..Segment::default() };
        let end = Ok(Value::from("done"));
        Outcome {
            granted: None,
            segments: vec![first, last],
            end,
            metrics: json!({"durationUs": 12}),
            summary: "12 us".to_owned(),
            missing: vec![],
            unused: vec![],
        }
    }

    #[test]
    fn effects_come_in_order_and_the_value_last() {
        let expected = r#"segment 0
info   hello\u{1b}
set    count = 2
delete old
event  saved { id: 7 }
view   grid focus {}
call   http.get("/x") -> "body"
segment 1
"done"
(12 us)
"#;
        assert_eq!(text(&two_segments(), "h.js", ""), expected);
    }

    #[test]
    fn a_handler_without_effects_is_its_value() {
        let outcome = Outcome {
            granted: None,
            segments: vec![Segment::default()],
            end: Ok(Value::from(42)),
            metrics: json!({}),
            summary: "9 us".to_owned(),
            missing: vec![],
            unused: vec![],
        };
        assert_eq!(text(&outcome, "h.js", ""), "42\n(9 us)\n");
    }

    #[test]
    fn what_an_error_carries_is_shown_as_json() {
        let payload = |value: Json| rmp_serde::to_vec_named(&value).unwrap();
        let mut error = WireError::new(ErrorCode::ExecutionError, "bad");
        error.properties = Some(payload(json!({"status": 404, "tags": ["x"]})).into());
        let mut cause = InnerError::new("down").with_value(payload(json!({"host": "a"})));
        cause.errors = vec![InnerError::new("inner").with_value(payload(json!(7)))];
        error.cause = Some(Box::new(cause));
        error.errors = vec![InnerError::new("one").with_value(payload(json!("text")))];
        let document = json(&Outcome { end: Err(Box::new(error)), ..two_segments() });
        let error = &document["error"];
        assert_eq!(error["properties"], json!({"status": 404, "tags": ["x"]}));
        assert_eq!(
            (&error["cause"]["value"], &error["cause"]["errors"][0]["value"]),
            (&json!({"host": "a"}), &json!(7))
        );
        assert_eq!(error["errors"][0]["value"], "text");
    }

    #[test]
    fn an_error_takes_the_place_of_the_value() {
        let error = WireError::new(ErrorCode::ExecutionError, "bad").with_location(1, 1);
        let outcome = Outcome { end: Err(Box::new(error)), ..two_segments() };
        assert!(
            text(&outcome, "h.js", "throw")
                .ends_with("error: EXECUTION_ERROR: bad\n  --> h.js:1:1\n   |\n 1 | throw\n   | ^\n(12 us)\n")
        );
        let document = json(&outcome);
        assert_eq!(document["status"], "error");
        assert_eq!(document["error"]["code"], "EXECUTION_ERROR");
        assert_eq!(document["error"]["location"], json!({"line": 1, "column": 1}));
        assert!(document.get("value").is_none());
    }

    #[test]
    fn the_document_for_programs_has_everything() {
        let document = json(&two_segments());
        assert_eq!(document["value"], "done");
        assert_eq!(document["metrics"]["durationUs"], 12);
        let first = &document["segments"][0];
        assert_eq!(first["stateMutations"][0], json!({"op": "set", "key": "count", "value": 2}));
        assert_eq!(first["events"][0]["payload"], json!({"id": 7}));
        assert_eq!(first["call"], json!({"name": "http.get", "args": ["/x"], "value": "body"}));
        assert_eq!(document["segments"][1]["call"], Json::Null);
        assert_eq!((&document["missingFixtures"], &document["unusedFixtures"]), (&json!([]), &json!([])));
    }

    #[test]
    fn fixtures_that_lack_and_that_nobody_used_are_told_apart_from_the_outcome() {
        let method = Method::parse("http.get").unwrap();
        let missing = Missing { method: method.clone(), args: vec![Value::from("/b")], lack: Lack::OtherArguments };
        let unused = vec![Unused { method: method.clone(), index: 0 }, Unused { method, index: 2 }];
        let outcome = Outcome { missing: vec![missing], unused, ..two_segments() };
        let expected = r#"error: --ext has no answer for http.get("/b"); those of this method that are left are for other arguments. To answer it, add
  {"http.get":[{"args":["/b"],"value":null}]}
warning: --ext: no call took the answer "http.get"[0], "http.get"[2]
"#;
        assert_eq!(remarks(&outcome), expected);
        let document = json(&outcome);
        let add = json!({"http.get": [{"args": ["/b"], "value": null}]});
        assert_eq!(document["missingFixtures"], json!([{"name": "http.get", "args": ["/b"], "add": add}]));
        assert_eq!(document["unusedFixtures"][1], json!({"name": "http.get", "index": 2}));
    }
}
