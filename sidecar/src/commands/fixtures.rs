//! The fixture file of `run --ext`: answers for extension calls, so that a handler runs without the program that has them.
//!
//! ```json
//! { "http.get": [ "body", {"args": ["/b"], "value": {"n": 1}, "delayMs": 20}, {"error": "down"} ], "mail": false }
//! ```
//! Each call takes the first answer of its method's list that nobody took and that is for its arguments; an answer without
//! `args` is for all. An object with one of the keys `args`, `value`, `error` and `delayMs` is a description of an answer
//! and may have no other key; every other value is what the call returns. `"name": false` says that there is no such
//! extension.
//!
//! Invariant: a file that is not understood to its last key is refused, with the place. What it does not do: wait, see
//! `replay`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rmpv::Value;
use serde_json::{Map, Value as Json};

use super::input::InputError;
use super::notation::to_json;

const KEYS: [&str; 4] = ["args", "value", "error", "delayMs"];
const ERROR_KEYS: [&str; 3] = ["message", "name", "code"];
/// A longer wait is a mistake in the unit.
const MAX_DELAY_MS: u64 = 3_600_000;

#[derive(Debug, Default)]
pub struct Fixtures {
    methods: BTreeMap<Method, Vec<Fixture>>,
    /// Extensions that are said not to exist.
    absent: BTreeSet<String>,
}

/// An extension and one of its methods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Method {
    pub extension: String,
    pub method: String,
}

#[derive(Debug)]
struct Fixture {
    /// `None` is for any.
    args: Option<Vec<Json>>,
    answer: Answer,
    delay: Duration,
    used: bool,
}

/// What one extension call gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A payload.
    Value(Vec<u8>),
    Error(Failure),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    pub message: String,
    pub name: Option<String>,
    pub code: Option<String>,
}

/// An answer that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unused {
    pub method: Method,
    /// Its place in the list of the method.
    pub index: usize,
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The method is not in the file.
    Method,
    /// All answers of the method were taken.
    UsedUp,
    /// Those that are left are for other arguments.
    OtherArguments,
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.extension, self.method)
    }
}

impl Method {
    /// The first dot ends the name of the extension.
    pub fn parse(name: &str) -> Option<Self> {
        let (extension, method) = name.split_once('.').filter(|(a, b)| !a.is_empty() && !b.is_empty())?;
        Some(Self { extension: extension.to_owned(), method: method.to_owned() })
    }
}

impl Fixtures {
    pub fn from_json(value: Json) -> Result<Self, InputError> {
        let Json::Object(lists) = value else {
            return Err(InputError::NotAnObject { what: "--ext" });
        };
        let mut fixtures = Self::default();
        for (name, list) in lists {
            if list == Json::Bool(false) && !name.contains('.') {
                fixtures.absent.insert(name);
                continue;
            }
            let Some(method) = Method::parse(&name) else {
                return Err(InputError::NotAMethod { name });
            };
            let Json::Array(list) = list else {
                return Err(InputError::NotAnswers { name });
            };
            let place = |index: usize| format!("{name:?}[{index}]");
            let list = list.into_iter().enumerate().map(|(index, answer)| Fixture::read(answer, &place(index)));
            fixtures.methods.insert(method, list.collect::<Result<_, _>>()?);
        }
        match fixtures.methods.keys().find(|method| fixtures.absent.contains(&method.extension)) {
            Some(method) => Err(wrong(
                &format!("{:?}", method.to_string()),
                format!("has answers, but {:?} is false, which says that there is no such extension", method.extension),
            )),
            None => Ok(fixtures),
        }
    }

    /// Every extension with its methods.
    pub fn names(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut names: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for Method { extension, method } in self.methods.keys() {
            names.entry(extension).or_default().insert(method);
        }
        names
    }

    /// Whether the file says that there is no such extension.
    pub fn is_absent(&self, extension: &str) -> bool {
        self.absent.contains(extension)
    }

    /// The longest delay and its place.
    pub fn longest_delay(&self) -> Option<(Duration, String)> {
        let all = self.methods.iter().flat_map(|(method, list)| {
            list.iter().enumerate().map(move |(index, fixture)| (fixture.delay, method, index))
        });
        let (delay, method, index) = all.max_by_key(|(delay, ..)| *delay)?;
        Some((delay, format!("{:?}[{index}].delayMs", method.to_string())))
    }

    /// Takes the answer for a call, and how long it takes to come.
    pub fn take(&mut self, method: &Method, args: &[Value]) -> Result<(Answer, Duration), Lack> {
        let list = self.methods.get_mut(method).ok_or(Lack::Method)?;
        let args: Vec<Json> = args.iter().map(to_json).collect();
        let mut lack = Lack::UsedUp;
        for fixture in list.iter_mut().filter(|fixture| !fixture.used) {
            if fixture.args.as_ref().is_none_or(|wanted| equal_lists(wanted, &args)) {
                fixture.used = true;
                return Ok((fixture.answer.clone(), fixture.delay));
            }
            lack = Lack::OtherArguments;
        }
        Err(lack)
    }

    /// What was never taken.
    pub fn unused(&self) -> Vec<Unused> {
        let all = self.methods.iter().flat_map(|(method, list)| list.iter().enumerate().map(move |of| (method, of)));
        all.filter(|(_, (_, fixture))| !fixture.used)
            .map(|(method, (index, _))| Unused { method: method.clone(), index })
            .collect()
    }
}

impl Fixture {
    fn read(answer: Json, place: &str) -> Result<Self, InputError> {
        let described = answer.as_object().is_some_and(|object| KEYS.iter().any(|key| object.contains_key(*key)));
        match answer {
            Json::Object(object) if described => Self::described(object, place),
            value => Ok(Self { args: None, answer: value_of(&value)?, delay: Duration::ZERO, used: false }),
        }
    }

    fn described(mut object: Map<String, Json>, place: &str) -> Result<Self, InputError> {
        if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let whole = "to return this object as it is, write it as the \"value\" of another";
            return Err(wrong(place, format!("has the key {key:?} beside {}; {whole}", KEYS.join(", "))));
        }
        let args = match object.remove("args") {
            None => None,
            Some(Json::Array(args)) => Some(args),
            Some(_) => return Err(wrong(&format!("{place}.args"), "must be an array, the arguments of the call")),
        };
        let delay = match object.remove("delayMs") {
            None => Duration::ZERO,
            Some(delay) => match delay.as_u64().filter(|ms| *ms <= MAX_DELAY_MS) {
                Some(ms) => Duration::from_millis(ms),
                None => {
                    let problem = format!("must be a whole number from 0 to {MAX_DELAY_MS}, not {delay}");
                    return Err(wrong(&format!("{place}.delayMs"), problem));
                }
            },
        };
        let answer = match (object.remove("value"), object.remove("error")) {
            (Some(value), None) => value_of(&value)?,
            (None, Some(error)) => Answer::Error(failure(error, &format!("{place}.error"))?),
            (None, None) => return Err(wrong(place, "must have a \"value\" or an \"error\"")),
            (Some(_), Some(_)) => return Err(wrong(place, "has a \"value\" and an \"error\"; a call has one end")),
        };
        Ok(Self { args, answer, delay, used: false })
    }
}

fn value_of(value: &Json) -> Result<Answer, InputError> {
    let payload = rmp_serde::to_vec(value).map_err(|source| InputError::NotMessagePack { what: "--ext", source })?;
    Ok(Answer::Value(payload))
}

/// `"message"`, or an object of texts.
fn failure(error: Json, place: &str) -> Result<Failure, InputError> {
    let mut object = match error {
        Json::String(message) => return Ok(Failure { message, ..Failure::default() }),
        Json::Object(object) => object,
        _ => return Err(wrong(place, "must be a message, or an object with message, name, code")),
    };
    if let Some(key) = object.keys().find(|key| !ERROR_KEYS.contains(&key.as_str())) {
        return Err(wrong(place, format!("has the key {key:?}; it may have message, name, code")));
    }
    let mut text = |key: &str| match object.remove(key) {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(&format!("{place}.{key}"), "must be a text")),
    };
    let (message, name, code) = (text("message")?, text("name")?, text("code")?);
    let message = message.ok_or_else(|| wrong(place, "must have a \"message\""))?;
    Ok(Failure { message, name, code })
}

fn wrong(place: &str, problem: impl Into<String>) -> InputError {
    InputError::BadFixture { place: place.to_owned(), problem: problem.into() }
}

fn equal_lists(a: &[Json], b: &[Json]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
}

/// Equality of JavaScript's numbers: 1 and 1.0 are one.
fn equal(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(x), Json::Number(y)) => x == y || (x.is_f64() != y.is_f64() && x.as_f64() == y.as_f64()),
        (Json::Array(x), Json::Array(y)) => equal_lists(x, y),
        (Json::Object(x), Json::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, value)| y.get(key).is_some_and(|other| equal(value, other)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn method(name: &str) -> Method {
        Method::parse(name).unwrap()
    }

    fn taken(fixtures: &mut Fixtures, name: &str, args: &[Value]) -> Json {
        match fixtures.take(&method(name), args) {
            Ok((Answer::Value(payload), _)) => rmp_serde::from_slice(&payload).unwrap(),
            Ok((Answer::Error(failure), _)) => json!({"fails": failure.message}),
            Err(lack) => json!({"lack": format!("{lack:?}")}),
        }
    }

    #[test]
    fn answers_are_used_up_in_order() {
        let file = json!({"http.get": [1, {"error": "down"}, {"n": 1}, {"value": {"error": "x"}}], "db.a.b": []});
        let mut fixtures = Fixtures::from_json(file).unwrap();
        let five: Vec<Json> = (0..5).map(|_| taken(&mut fixtures, "http.get", &[])).collect();
        let expected =
            [json!(1), json!({"fails": "down"}), json!({"n": 1}), json!({"error": "x"}), json!({"lack": "UsedUp"})];
        assert_eq!(five, expected);
        assert_eq!(taken(&mut fixtures, "db.a.b", &[]), json!({"lack": "UsedUp"}));
        assert_eq!(taken(&mut fixtures, "none.x", &[]), json!({"lack": "Method"}));
    }

    #[test]
    fn an_answer_with_arguments_is_for_equal_ones() {
        let file = json!({"a.b": [{"args": ["/x", {"p": [1, null]}], "value": "x"}, {"args": [2], "value": "two"}, "any", {"args": [], "value": "none"}]});
        let mut fixtures = Fixtures::from_json(file).unwrap();
        assert_eq!(taken(&mut fixtures, "a.b", &[Value::F64(2.0)]), "two");
        let map = Value::Map(vec![("p".into(), Value::Array(vec![1.into(), Value::Nil]))]);
        assert_eq!(taken(&mut fixtures, "a.b", &["/x".into(), map]), "x");
        assert_eq!(taken(&mut fixtures, "a.b", &["/y".into()]), "any");
        assert_eq!(taken(&mut fixtures, "a.b", &["/y".into()]), json!({"lack": "OtherArguments"}));
        assert_eq!(fixtures.unused(), [Unused { method: method("a.b"), index: 3 }]);
        assert_eq!(taken(&mut fixtures, "a.b", &[]), "none");
    }

    #[test]
    fn large_integers_that_differ_are_not_equal() {
        assert!(!equal(&json!(9_007_199_254_740_993_u64), &json!(9_007_199_254_740_992_u64)));
        assert!(
            equal(&json!(1), &json!(1.0)) && !equal(&json!(1), &json!("1")) && !equal(&json!({"a": 1}), &json!({}))
        );
    }

    #[test]
    fn an_error_may_have_a_name_and_a_code_and_any_answer_a_delay() {
        let file = json!({"a.b": [{"error": {"message": "m", "name": "RangeError", "code": "E1"}, "delayMs": 20}]});
        let mut fixtures = Fixtures::from_json(file).unwrap();
        assert_eq!(fixtures.longest_delay().unwrap(), (Duration::from_millis(20), "\"a.b\"[0].delayMs".to_owned()));
        let failure = Failure { message: "m".into(), name: Some("RangeError".into()), code: Some("E1".into()) };
        assert_eq!(fixtures.take(&method("a.b"), &[]).unwrap(), (Answer::Error(failure), Duration::from_millis(20)));
    }

    #[test]
    fn the_names_are_grouped_by_extension() {
        let fixtures =
            Fixtures::from_json(json!({"http.get": [], "http.post": [], "db.find": [], "x": false})).unwrap();
        let names: Vec<_> = fixtures.names().into_iter().map(|(name, methods)| (name, methods.len())).collect();
        assert_eq!(names, [("db", 1), ("http", 2)]);
        assert!(fixtures.is_absent("x") && !fixtures.is_absent("y"));
    }

    #[test]
    fn other_shapes_are_refused_with_their_place() {
        for (value, message) in [
            (json!([]), "--ext must be a JSON object"),
            (json!({"http": []}), "--ext: \"http\" is not the name of an extension method, such as \"http.get\""),
            (json!({"http.": []}), "--ext: \"http.\" is not the name of an extension method, such as \"http.get\""),
            (json!({"a.b": 1}), "--ext: the answers of \"a.b\" must be an array"),
            (json!({"a.b": false}), "--ext: the answers of \"a.b\" must be an array"),
            (
                json!({"a.b": [], "a": false}),
                "--ext: \"a.b\" has answers, but \"a\" is false, which says that there is no such extension",
            ),
            (json!({"a.b": [1, {"args": []}]}), "--ext: \"a.b\"[1] must have a \"value\" or an \"error\""),
            (
                json!({"a.b": [{"args": {}, "value": 1}]}),
                "--ext: \"a.b\"[0].args must be an array, the arguments of the call",
            ),
            (
                json!({"a.b": [{"value": 1, "error": "x"}]}),
                "--ext: \"a.b\"[0] has a \"value\" and an \"error\"; a call has one end",
            ),
            (
                json!({"a.b": [{"value": 1, "delayMs": -1}]}),
                "--ext: \"a.b\"[0].delayMs must be a whole number from 0 to 3600000, not -1",
            ),
            (
                json!({"a.b": [{"value": 1, "delay": 1}]}),
                "--ext: \"a.b\"[0] has the key \"delay\" beside args, value, error, delayMs; to return this object as it \
                 is, write it as the \"value\" of another",
            ),
            (
                json!({"a.b": [{"error": 4}]}),
                "--ext: \"a.b\"[0].error must be a message, or an object with message, name, code",
            ),
            (json!({"a.b": [{"error": {"message": 4}}]}), "--ext: \"a.b\"[0].error.message must be a text"),
            (json!({"a.b": [{"error": {"name": "x"}}]}), "--ext: \"a.b\"[0].error must have a \"message\""),
        ] {
            assert_eq!(Fixtures::from_json(value).unwrap_err().to_string(), message);
        }
    }
}
