//! The schema as data, read from its file and checked: what else stands in the file, or stands there twice, is refused with
//! the number of its line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::wire::{Enum, Map, Message};

/// Everything that is said once.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    pub codes: Vec<Code>,
    pub limits: Vec<Limit>,
    pub settings: Vec<Setting>,
    pub statistics: Vec<Statistic>,
    pub messages: Vec<Message>,
    pub enums: Vec<Enum>,
    pub maps: Vec<Map>,
}

/// An error code.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    pub name: Spanned<String>,
    pub number: Spanned<u16>,
    pub retryable: bool,
    /// Never on the wire.
    #[serde(default)]
    pub of_clients: bool,
    pub doc: Spanned<String>,
    /// SPEC's column "when", where that says more than `doc`.
    pub when: Option<String>,
    /// SPEC's column "retryable", where that is no plain yes or no.
    pub retry: Option<String>,
}

/// A number that bounds something.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The section that begins here.
    pub heading: Option<String>,
    pub name: Spanned<String>,
    #[serde(rename = "type")]
    pub kind: Integer,
    pub value: Spanned<Value>,
    pub doc: Spanned<String>,
    /// Whether the Node client knows it, and by which name if by another one.
    pub node: Option<NodeName>,
    /// Whether the Rust crates know it.
    #[serde(default = "yes")]
    pub rust: bool,
    /// In SPEC's table of bounds: what a client meets.
    #[serde(default)]
    pub spec: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Integer {
    U32,
    U64,
    Usize,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum NodeName {
    Same(bool),
    Other(String),
}

/// What a limit is, or a setting by default: a number, a size such as `64 MiB`, the name of a limit, another word, or a switch.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Value {
    Switch(bool),
    Number(u64),
    Text(String),
}

/// A setting of the sidecar.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    pub key: Spanned<String>,
    pub kind: SettingKind,
    pub min: Option<Spanned<Value>>,
    pub max: Option<Spanned<Value>>,
    pub default: Option<Spanned<Value>>,
    /// The default in words, where the environment decides.
    pub default_words: Option<String>,
    /// The word that means that there is no path.
    pub absent: Option<String>,
    /// A reload changes it.
    #[serde(default)]
    pub live: bool,
    /// Whether a worker is told of it; what only the process that has the sockets needs is not.
    #[serde(default = "yes")]
    pub workers: bool,
    pub env_mebibytes: Option<String>,
    /// One sentence without its full stop: the help text puts default and bounds behind it.
    pub doc: Spanned<String>,
    /// More, for whoever reads the field.
    pub note: Option<String>,
    /// Whether a client that starts a sidecar can set it.
    #[serde(default = "yes")]
    pub clients: bool,
    /// The method of the Rust client, if it is called otherwise.
    pub rust_name: Option<String>,
    /// What that method takes, if it is no u64.
    pub rust_type: Option<String>,
}

/// What a setting of the kind `level` may be.
pub const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// And one of the kind `isolation`.
pub const ISOLATIONS: [&str; 3] = ["none", "shared", "connection"];

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SettingKind {
    Count,
    Bytes,
    Millis,
    Switch,
    Path,
    Uids,
    Endpoint,
    Level,
    /// Where guests run.
    Isolation,
}

impl SettingKind {
    pub fn is_number(self) -> bool {
        matches!(self, Self::Count | Self::Bytes | Self::Millis)
    }
}

/// One figure of `stats`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistic {
    pub name: Spanned<String>,
    #[serde(rename = "type")]
    pub kind: Figure,
    /// A sidecar may leave it out, which is 0.
    #[serde(default)]
    pub optional: bool,
    pub doc: Spanned<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Figure {
    U64,
    F64,
}

fn yes() -> bool {
    true
}

/// What is wrong with the schema, and in which line.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    line: usize,
    what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

/// What is wrong, and where in the text.
pub type Fault = (Range<usize>, String);

impl Schema {
    /// Reads and checks the text of the schema.
    pub fn read(text: &str) -> Result<Self, Problem> {
        let problem = |(span, what): Fault| Problem { line: 1 + text[..span.start].matches('\n').count(), what };
        let schema: Self = toml::from_str(text)
            .map_err(|error| problem((error.span().unwrap_or_default(), error.message().trim_end().to_owned())))?;
        schema.check().map_err(problem)?;
        Ok(schema)
    }

    /// A limit by its name.
    pub fn limit(&self, name: &str) -> Option<&Limit> {
        self.limits.iter().find(|limit| limit.name.get_ref() == name)
    }

    /// The number that a value stands for; none for a word.
    pub fn number(&self, value: &Value) -> Option<u64> {
        match value {
            Value::Number(number) => Some(*number),
            Value::Switch(_) => None,
            Value::Text(text) => size(text).or_else(|| self.number(self.limit(text)?.value.get_ref())),
        }
    }

    fn check(&self) -> Result<(), Fault> {
        self.check_codes()?;
        self.check_limits()?;
        self.check_settings()?;
        unique(self.statistics.iter().map(|statistic| &statistic.name), is_camel)?;
        self.statistics.iter().try_for_each(|statistic| is_sentence(&statistic.doc))?;
        self.check_wire()
    }

    fn check_codes(&self) -> Result<(), Fault> {
        unique(self.codes.iter().map(|code| &code.name), is_upper)?;
        let mut last = 99;
        for code in &self.codes {
            is_sentence(&code.doc)?;
            let number = *code.number.get_ref();
            if number <= last || number > 599 {
                return Err((code.number.span(), format!("codes go up from 100 to 599; {number} is behind {last}")));
            }
            last = number;
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), Fault> {
        unique(self.limits.iter().map(|limit| &limit.name), is_upper)?;
        let mut earlier = BTreeMap::new();
        let mut of_node = BTreeSet::new();
        for limit in &self.limits {
            is_sentence(&limit.doc)?;
            let known = match limit.value.get_ref() {
                Value::Number(number) => Some(*number),
                Value::Text(text) => size(text).or_else(|| earlier.get(text).copied()),
                Value::Switch(_) => None,
            };
            let Some(number) = known else {
                let what = "a limit is a number, a size such as \"64 MiB\", or the name of a limit above it";
                return Err((limit.value.span(), what.to_owned()));
            };
            if limit.kind == Integer::U32 && number > u64::from(u32::MAX) {
                return Err((limit.value.span(), format!("{number} is no u32")));
            }
            earlier.insert(limit.name.get_ref().clone(), number);
            if let Some(name) = limit.node_name()
                && !of_node.insert(name)
            {
                return Err((limit.name.span(), format!("the Node client has two limits `{name}`")));
            }
        }
        Ok(())
    }

    fn check_settings(&self) -> Result<(), Fault> {
        unique(self.settings.iter().map(|setting| &setting.key), is_camel)?;
        for setting in &self.settings {
            let at = |what: String| (setting.key.span(), format!("`{}`: {what}", setting.key.get_ref()));
            if setting.doc.get_ref().trim().is_empty() || setting.doc.get_ref().ends_with('.') {
                return Err((setting.doc.span(), "one sentence, without its full stop".to_owned()));
            }
            let bounds = (self.bound(setting.min.as_ref())?, self.bound(setting.max.as_ref())?);
            match (setting.kind.is_number(), bounds) {
                (true, (Some(min), Some(max))) if min <= max => {
                    let default = self.bound(setting.default.as_ref())?;
                    if !default.is_some_and(|default| (min..=max).contains(&default)) {
                        return Err(at("needs a default between min and max".to_owned()));
                    }
                }
                (true, _) => return Err(at("needs min and max, and min not above max".to_owned())),
                (false, (None, None)) => self.check_default(setting).map_err(at)?,
                (false, _) => return Err(at(format!("has no min and max, being {:?}", setting.kind))),
            }
            if setting.absent.is_some() != (setting.kind == SettingKind::Path) {
                return Err(at("`absent` is the word for no path; a path needs it, nothing else has it".to_owned()));
            }
        }
        Ok(())
    }

    fn bound(&self, value: Option<&Spanned<Value>>) -> Result<Option<u64>, Fault> {
        let Some(value) = value else { return Ok(None) };
        match self.number(value.get_ref()) {
            Some(number) => Ok(Some(number)),
            None => Err((value.span(), "no number, no size, and no name of a limit".to_owned())),
        }
    }

    fn check_default(&self, setting: &Setting) -> Result<(), String> {
        let default = setting.default.as_ref().map(|value| value.get_ref());
        match (setting.kind, default) {
            (SettingKind::Switch, Some(Value::Switch(_))) => Ok(()),
            (SettingKind::Switch, _) => Err("needs a default, true or false".to_owned()),
            (SettingKind::Level, Some(Value::Text(level))) if LEVELS.contains(&level.as_str()) => Ok(()),
            (SettingKind::Level, _) => Err("needs a level as its default".to_owned()),
            (SettingKind::Isolation, Some(Value::Text(word))) if ISOLATIONS.contains(&word.as_str()) => Ok(()),
            (SettingKind::Isolation, _) => Err(format!("needs one of {} as its default", ISOLATIONS.join(", "))),
            (_, None) => Ok(()),
            (_, Some(_)) => Err("is absent by default, so it has no default".to_owned()),
        }
    }
}

impl Limit {
    /// Its name in the Node client, if that has it.
    pub fn node_name(&self) -> Option<&str> {
        match self.node.as_ref()? {
            NodeName::Same(true) => Some(self.name.get_ref()),
            NodeName::Same(false) => None,
            NodeName::Other(name) => Some(name),
        }
    }
}

/// `64 MiB` as bytes.
pub fn size(text: &str) -> Option<u64> {
    let (count, unit) = text.split_once(' ')?;
    let shift = match unit {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    count.parse::<u64>().ok()?.checked_shl(shift)
}

pub fn unique<'a>(
    names: impl Iterator<Item = &'a Spanned<String>>,
    is_well_formed: fn(&str) -> bool,
) -> Result<(), Fault> {
    let mut seen = BTreeSet::new();
    for name in names {
        let text = name.get_ref();
        if !is_well_formed(text) {
            return Err((name.span(), format!("`{text}` is not written as its like are")));
        }
        if !seen.insert(text) {
            return Err((name.span(), format!("`{text}` is there twice")));
        }
    }
    Ok(())
}

fn is_upper(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.chars().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_')
}

pub fn is_camel(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric())
}

pub fn is_pascal(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric())
}

pub fn is_sentence(doc: &Spanned<String>) -> Result<(), Fault> {
    if doc.get_ref().trim().ends_with('.') {
        Ok(())
    } else {
        Err((doc.span(), "a sentence ends with a full stop".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
[[codes]]
name = "PROTOCOL_ERROR"
number = 100
retryable = false
doc = "A frame."

[[limits]]
name = "MAX_LABEL_BYTES"
type = "usize"
value = "1 KiB"
doc = "A label."

[[settings]]
key = "maxLabels"
kind = "count"
min = 1
max = "MAX_LABEL_BYTES"
default = 10
doc = "Labels"

[[statistics]]
name = "labels"
type = "u64"
doc = "Labels."

[[messages]]
name = "ping"
number = 0x01
answer = "pong"
doc = "Are you there."

[[messages]]
name = "pong"
number = 0x81
doc = "Yes."

[[enums]]
name = "Mood"
doc = "How."
words = [{ name = "good", doc = "Good." }]

[[maps]]
name = "Pong"
doc = "Yes."
fields = [
  { name = "mood", type = "Mood", doc = "How." },
]
"#;

    /// What is said of the schema with one text in the place of another, and the number of the line that is named.
    fn refused(from: &str, to: &str) -> (usize, String) {
        assert!(WHOLE.contains(from), "{from}");
        let problem = Schema::read(&WHOLE.replacen(from, to, 1)).expect_err(to);
        (problem.line, problem.what)
    }

    #[test]
    fn a_schema_is_read_and_its_numbers_are_known() {
        let schema = Schema::read(WHOLE).unwrap();
        assert_eq!(schema.number(&Value::Text("MAX_LABEL_BYTES".into())), Some(1024));
        assert_eq!(schema.number(&Value::Text("2 MiB".into())), Some(2 << 20));
        assert_eq!(schema.number(&Value::Text("MAX_OTHERS".into())), None);
    }

    #[test]
    fn what_is_wrong_is_refused_by_its_line() {
        let cases = [
            ("doc = \"A frame.\"", "doc = \"A frame.\"\nwhy = \"\"", 7, "unknown field `why`"),
            ("type = \"usize\"", "type = \"i32\"", 10, "unknown variant `i32`"),
            ("kind = \"count\"", "kind = \"size\"", 16, "unknown variant `size`"),
            ("number = 100", "number = 99", 4, "codes go up from 100"),
            ("doc = \"A label.\"", "doc = \"A label\"", 12, "full stop"),
            ("value = \"1 KiB\"", "value = \"1 kB\"", 11, "a limit is a number"),
            ("max = \"MAX_LABEL_BYTES\"", "max = \"MAX_OTHERS\"", 18, "no name of a limit"),
            ("default = 10", "default = 1_025", 15, "between min and max"),
            ("default = 10", "absent = \"none\"\ndefault = 10", 15, "a path needs it"),
            ("answer = \"pong\"", "answer = \"peng\"", 30, "`peng` is none"),
            ("number = 0x81", "number = 0x01", 35, "kinds go up"),
            ("type = \"Mood\"", "type = \"Moon\"", 47, "no type `Moon`"),
            ("type = \"Mood\"", "type = \"Mood\", absent = \"empty\"", 47, "cannot be absent like that"),
            ("type = \"Mood\"", "type = \"Mood\", absent = \"nil\"", 47, "unknown variant `nil`"),
            ("key = \"maxLabels\"", "key = \"MaxLabels\"", 15, "not written as its like are"),
            (
                "[[statistics]]",
                "[[statistics]]\nname = \"labels\"\ntype = \"u64\"\ndoc = \"L.\"\n[[statistics]]",
                27,
                "twice",
            ),
        ];
        for (from, to, line, what) in cases {
            let (found, said) = refused(from, to);
            assert!(said.contains(what), "{to}: {said}");
            assert_eq!(found, line, "{to}: {said}");
        }
    }
}
