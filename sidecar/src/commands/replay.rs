//! Who answers the extension calls of a handler that is run alone: the fixtures, each after its delay.
//!
//! Calls that are outstanding together wait together, as they would for real extensions: the one whose delay ends first is
//! answered first. A call that the fixtures have no answer for fails at once, with a message that names it.
//!
//! Invariant: a call takes its fixture when it is told of, in the order in which the handler made the calls; what was told and
//! not answered is kept here.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use rmpv::Value;
use serde_json::{Value as Json, json};

use super::fixtures::{Answer, Failure, Fixtures, Lack, Method, Unused};
use super::input::InputError;
use super::notation::{notation, to_json};
use crate::analysis::analyze;
use crate::token::StopToken;

/// Arguments of a message are cut here; [`Missing::to_add`] has all of them.
const SHOWN_ARGS_CHARS: usize = 200;

#[derive(Debug)]
pub(super) struct Replay {
    fixtures: Fixtures,
    /// Calls that stand in the handler's text: they get as far as here, to be told about with their arguments.
    called: BTreeSet<Method>,
    /// Calls that wait, by when their answer comes, the oldest first of those that come together.
    due: BTreeMap<(Instant, u64), (Pending, Answer)>,
    /// Calls so far.
    calls: u64,
    missing: Vec<Missing>,
}

/// A call that is outstanding.
#[derive(Debug)]
pub(super) struct Pending {
    pub id: String,
    pub method: Method,
    pub args: Vec<Value>,
}

/// A call that had no answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Missing {
    pub method: Method,
    pub args: Vec<Value>,
    pub lack: Lack,
}

impl Replay {
    pub(super) fn new(fixtures: Fixtures, source: &str, suspension_timeout_ms: u64) -> Result<Self, InputError> {
        if let Some((delay, place)) = fixtures.longest_delay()
            && suspension_timeout_ms > 0
            && delay > Duration::from_millis(suspension_timeout_ms)
        {
            let problem =
                format!("is longer than suspensionTimeoutMs ({suspension_timeout_ms}), no answer may take longer");
            return Err(InputError::BadFixture { place, problem });
        }
        // what is no handler is told by the sidecar
        let tokens = analyze(source, None, &StopToken::new()).map(|analysis| analysis.capabilities).unwrap_or_default();
        let called = tokens.iter().filter_map(|need| Method::parse(need.token.strip_prefix("ext:")?));
        let called = called.filter(|method| !method.method.contains('*') && !fixtures.is_absent(&method.extension));
        Ok(Self { called: called.collect(), fixtures, due: BTreeMap::new(), calls: 0, missing: Vec::new() })
    }

    /// Every extension with its methods: those of the fixtures, and those that the handler's text calls.
    pub(super) fn names(&self) -> Vec<(&str, Vec<&str>)> {
        let mut names = self.fixtures.names();
        for Method { extension, method } in &self.called {
            names.entry(extension).or_default().insert(method);
        }
        names.into_iter().map(|(extension, methods)| (extension, methods.into_iter().collect())).collect()
    }

    /// Takes the calls that are new, and waits until one of all that wait has its answer. None: there is none.
    pub(super) fn wait(&mut self, new: Vec<Pending>) -> Option<(Pending, Answer)> {
        let now = Instant::now();
        for call in new {
            let (answer, delay) = self.answer(&call);
            self.calls += 1;
            self.due.insert((now + delay, self.calls), (call, answer));
        }
        let ((when, _), answered) = self.due.pop_first()?;
        thread::sleep(when.saturating_duration_since(now));
        Some(answered)
    }

    /// What was missing and what was left over.
    pub(super) fn finish(&mut self) -> (Vec<Missing>, Vec<Unused>) {
        (std::mem::take(&mut self.missing), self.fixtures.unused())
    }

    fn answer(&mut self, call: &Pending) -> (Answer, Duration) {
        self.fixtures.take(&call.method, &call.args).unwrap_or_else(|lack| {
            let missing = Missing { method: call.method.clone(), args: call.args.clone(), lack };
            let failure = Failure { message: missing.message(), ..Failure::default() };
            self.missing.push(missing);
            (Answer::Error(failure), Duration::ZERO)
        })
    }
}

impl Missing {
    /// What the handler is told.
    pub(super) fn message(&self) -> String {
        let further = if self.lack == Lack::UsedUp { "further answer" } else { "answer" };
        let args = self.args.iter().map(|arg| notation(arg, 0)).collect::<Vec<_>>().join(", ");
        let mut shown: String = args.chars().take(SHOWN_ARGS_CHARS).collect();
        if shown.len() < args.len() {
            shown.push_str("...");
        }
        format!("--ext has no {further} for {}({shown})", self.method)
    }

    pub(super) fn reason(&self) -> &'static str {
        match self.lack {
            Lack::Method => "it has none for this method",
            Lack::UsedUp => "all of this method were taken by earlier calls",
            Lack::OtherArguments => "those of this method that are left are for other arguments",
        }
    }

    /// The fixture that would have answered.
    pub(super) fn to_add(&self) -> Json {
        let args: Json = self.args.iter().map(to_json).collect();
        json!({ self.method.to_string(): [{"args": args, "value": null}] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(source: &str, fixtures: Json) -> Replay {
        Replay::new(Fixtures::from_json(fixtures).unwrap(), source, 30_000).unwrap()
    }

    fn call(id: &str, name: &str) -> Pending {
        Pending { id: id.to_owned(), method: Method::parse(name).unwrap(), args: vec![Value::from(id)] }
    }

    #[test]
    fn what_the_text_calls_exists_unless_the_file_says_otherwise() {
        let source = "await $ext.http.get(1); await $ext.mail.send(2); await $ext.db[$args.m]()";
        let names = |fixtures| format!("{:?}", replay(source, fixtures).names());
        assert_eq!(names(json!({"http.put": []})), r#"[("http", ["get", "put"]), ("mail", ["send"])]"#);
        assert_eq!(names(json!({"mail": false})), r#"[("http", ["get"])]"#);
    }

    #[test]
    fn the_shorter_delay_is_answered_first_and_a_missing_one_before_all() {
        let fixtures = json!({"a.b": [{"value": 1, "delayMs": 40}, {"value": 2, "delayMs": 1}]});
        let mut replay = replay("", fixtures);
        let began = Instant::now();
        let answered = |replay: &mut Replay, ids: &[&str]| {
            let new = ids.iter().map(|id| call(id, if *id == "z" { "a.z" } else { "a.b" })).collect();
            replay.wait(new).map(|(call, _)| call.id)
        };
        assert_eq!(answered(&mut replay, &["x", "y", "z"]).as_deref(), Some("z"));
        assert_eq!(answered(&mut replay, &[]).as_deref(), Some("y"));
        assert_eq!(answered(&mut replay, &[]).as_deref(), Some("x"));
        assert_eq!(answered(&mut replay, &[]), None);
        assert!(began.elapsed() >= Duration::from_millis(40));
        let (missing, unused) = replay.finish();
        assert_eq!((missing.len(), unused.len()), (1, 0));
        assert_eq!(missing[0].message(), "--ext has no answer for a.z(\"z\")");
        assert_eq!(missing[0].to_add(), json!({"a.z": [{"args": ["z"], "value": null}]}));
    }

    #[test]
    fn a_delay_that_no_suspension_may_last_is_refused() {
        let fixtures = Fixtures::from_json(json!({"a.b": [1, {"value": 1, "delayMs": 31}]})).unwrap();
        let error = Replay::new(fixtures, "", 30).unwrap_err();
        assert!(error.to_string().starts_with("--ext: \"a.b\"[1].delayMs is longer than suspensionTimeoutMs (30)"));
    }
}
