//! Answers for extension calls, from `--ext`: `{"http.get": [answer, answer, {"error": "message"}]}`.
//!
//! Each call of a method takes the next answer of its list. `{"error": "message"}`, with nothing beside it, makes the call
//! fail with that message; every other JSON value is what the call returns.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value as Json;

use super::input::InputError;

#[derive(Debug, Default)]
pub struct Fixtures {
    /// By extension, then by method.
    answers: BTreeMap<String, BTreeMap<String, VecDeque<Json>>>,
}

/// What one extension call gets.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// A payload.
    Value(Vec<u8>),
    Error(String),
    /// The list of this method is used up, or there never was one.
    Missing,
}

impl Fixtures {
    pub fn from_json(value: Json) -> Result<Self, InputError> {
        let Json::Object(lists) = value else {
            return Err(InputError::NotAnObject { what: "--ext" });
        };
        let mut fixtures = Self::default();
        for (name, list) in lists {
            let Some((extension, method)) = name.split_once('.').filter(|(a, b)| !a.is_empty() && !b.is_empty()) else {
                return Err(InputError::NotAMethod { name });
            };
            let Json::Array(list) = list else {
                return Err(InputError::NotAnswers { name });
            };
            let methods = fixtures.answers.entry(extension.to_owned()).or_default();
            methods.insert(method.to_owned(), list.into());
        }
        Ok(fixtures)
    }

    /// Every extension with its methods.
    pub fn names(&self) -> impl Iterator<Item = (&str, Vec<&str>)> {
        self.answers
            .iter()
            .map(|(extension, methods)| (extension.as_str(), methods.keys().map(String::as_str).collect()))
    }

    pub fn next(&mut self, extension: &str, method: &str) -> Result<Answer, InputError> {
        let list = self.answers.get_mut(extension).and_then(|methods| methods.get_mut(method));
        let Some(answer) = list.and_then(VecDeque::pop_front) else {
            return Ok(Answer::Missing);
        };
        if let Some(message) = error_message(&answer) {
            return Ok(Answer::Error(message.to_owned()));
        }
        let payload =
            rmp_serde::to_vec(&answer).map_err(|source| InputError::NotMessagePack { what: "--ext", source })?;
        Ok(Answer::Value(payload))
    }
}

fn error_message(answer: &Json) -> Option<&str> {
    let object = answer.as_object().filter(|object| object.len() == 1)?;
    object.get("error")?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_used_up_in_order() {
        let mut fixtures =
            Fixtures::from_json(json!({"http.get": [1, {"error": "down"}, {"error": "x", "n": 1}], "db.a.b": []}))
                .unwrap();
        assert_eq!(fixtures.next("http", "get").unwrap(), Answer::Value(vec![1]));
        assert_eq!(fixtures.next("http", "get").unwrap(), Answer::Error("down".to_owned()));
        assert!(matches!(fixtures.next("http", "get").unwrap(), Answer::Value(_)));
        assert_eq!(fixtures.next("http", "get").unwrap(), Answer::Missing);
        assert_eq!(fixtures.next("db", "a.b").unwrap(), Answer::Missing);
        assert_eq!(fixtures.next("none", "x").unwrap(), Answer::Missing);
    }

    #[test]
    fn the_names_are_grouped_by_extension() {
        let fixtures = Fixtures::from_json(json!({"http.get": [], "http.post": [], "db.find": []})).unwrap();
        let names: Vec<_> = fixtures.names().collect();
        assert_eq!(names, [("db", vec!["find"]), ("http", vec!["get", "post"])]);
    }

    #[test]
    fn other_shapes_are_refused_by_name() {
        for (value, message) in [
            (json!([]), "--ext must be a JSON object"),
            (json!({"http": []}), "--ext: \"http\" is not the name of an extension method, such as \"http.get\""),
            (json!({"http.": []}), "--ext: \"http.\" is not the name of an extension method, such as \"http.get\""),
            (json!({"http.get": 1}), "--ext: the answers of \"http.get\" must be an array"),
        ] {
            assert_eq!(Fixtures::from_json(value).unwrap_err().to_string(), message);
        }
    }
}
