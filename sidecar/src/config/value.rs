//! One value of one setting: how it is written, what bounds it, and where it is kept in [`Config`](super::Config).

use std::fmt;
use std::path::PathBuf;

use log::LevelFilter;

use super::endpoint::Endpoint;
use super::isolation::Isolation;

const KIB: u64 = 1024;
const UNITS: [(&str, u64); 3] = [("KiB", KIB), ("MiB", KIB * KIB), ("GiB", KIB * KIB * KIB)];

/// The type and bound of a setting. Bounds are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Count {
        min: u64,
        max: u64,
    },
    /// Plain bytes, or a number with KiB, MiB or GiB.
    Bytes {
        min: u64,
        max: u64,
    },
    Millis {
        min: u64,
        max: u64,
    },
    Switch,
    /// A path, or the word `absent`, which means that there is none.
    Path {
        absent: &'static str,
    },
    /// Numbers of users with commas between them, or `none`.
    Uids,
    /// See [`Endpoint`]; or `none`.
    Endpoint,
    Level,
    Isolation,
}

/// What stands for an empty list of users, and for no endpoint.
const NONE: &str = "none";
/// A list of users that is longer is a mistake.
const MAX_UIDS: usize = 64;

/// Where a setting lives in a `Config`. The variant goes with the setting's [`Kind`].
#[derive(Debug)]
pub(super) enum Place<'a> {
    Number(&'a mut u64),
    Switch(&'a mut bool),
    Path(&'a mut Option<PathBuf>),
    Uids(&'a mut Vec<u32>),
    Endpoint(&'a mut Option<Endpoint>),
    Level(&'a mut LevelFilter),
    Isolation(&'a mut Isolation),
}

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    #[error("must be a whole number, {min} to {max}")]
    NotANumber { min: u64, max: u64 },
    #[error("must be a number of bytes, such as 1048576 or \"1 MiB\" (units: KiB, MiB, GiB), {min} to {max}")]
    NotASize { min: Amount, max: Amount },
    #[error("must be {min} or more")]
    TooSmall { min: Amount },
    #[error("must be {max} or less")]
    TooLarge { max: Amount },
    #[error("must be true or false")]
    NotASwitch,
    #[error("must be a path, or {absent:?}")]
    NotAPath { absent: &'static str },
    #[error("must be numbers of users, such as 1000 or \"1000,1001\", at most {MAX_UIDS}, or {NONE:?}")]
    NotUids,
    #[error("must be an address with its port, such as 127.0.0.1:9090, an absolute path of a socket, or {NONE:?}")]
    NotAnEndpoint,
    #[error("must be one of off, error, warn, info, debug, trace")]
    NotALevel,
    #[error("must be one of {}", Isolation::words(", "))]
    NotAnIsolation,
    #[error("must be text in UTF-8")]
    NotText,
}

/// A number with the unit of its setting, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    value: u64,
    kind: Kind,
}

impl Kind {
    /// What stands for the value in the help text.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Count { .. } => "N",
            Self::Bytes { .. } => "BYTES",
            Self::Millis { .. } => "MS",
            Self::Switch => "true|false",
            Self::Path { .. } => "PATH",
            Self::Uids => "UIDS",
            Self::Endpoint => "ADDRESS|PATH",
            Self::Level => "LEVEL",
            Self::Isolation => "none|shared|connection",
        }
    }

    fn range(self) -> Option<(u64, u64)> {
        match self {
            Self::Count { min, max } | Self::Bytes { min, max } | Self::Millis { min, max } => Some((min, max)),
            Self::Switch | Self::Path { .. } | Self::Uids | Self::Endpoint | Self::Level | Self::Isolation => None,
        }
    }

    /// The bound in words, where there is one.
    pub fn bound(self) -> Option<String> {
        let (min, max) = self.range()?;
        Some(format!("{} to {}", self.amount(min), self.amount(max)))
    }

    pub(super) fn amount(self, value: u64) -> Amount {
        Amount { value, kind: self }
    }

    fn check(self, number: u64) -> Result<u64, Problem> {
        match self.range() {
            Some((min, _)) if number < min => Err(Problem::TooSmall { min: self.amount(min) }),
            Some((_, max)) if number > max => Err(Problem::TooLarge { max: self.amount(max) }),
            _ => Ok(number),
        }
    }

    /// The same setting as a number of MiB.
    pub(super) fn in_mebibytes(self) -> Self {
        let (min, max) = self.range().unwrap_or((0, u64::MAX));
        Self::Count { min: min.div_ceil(KIB * KIB), max: max / (KIB * KIB) }
    }

    /// What is wrong with a value that is no number.
    pub(super) fn no_number(self) -> Problem {
        let (min, max) = self.range().unwrap_or((0, u64::MAX));
        match self {
            Self::Bytes { .. } => Problem::NotASize { min: self.amount(min), max: self.amount(max) },
            _ => Problem::NotANumber { min, max },
        }
    }

    fn parse_number(self, text: &str) -> Result<u64, Problem> {
        let number = match self {
            Self::Bytes { .. } => parse_size(text),
            _ => parse_digits(text),
        };
        match (number, self) {
            (Some(number), _) => self.check(number),
            (None, _) => Err(self.no_number()),
        }
    }
}

impl Place<'_> {
    /// Reads `text` as a value of `kind`. The place is unchanged when the text is refused.
    pub(super) fn set_text(&mut self, kind: Kind, text: &str) -> Result<(), Problem> {
        let text = text.trim();
        match self {
            Self::Number(place) => **place = kind.parse_number(text)?,
            Self::Switch(place) => {
                **place = match text {
                    "true" => true,
                    "false" => false,
                    _ => return Err(Problem::NotASwitch),
                }
            }
            Self::Path(place) => {
                let Kind::Path { absent } = kind else {
                    return Err(Problem::NotText);
                };
                **place = match text {
                    "" => return Err(Problem::NotAPath { absent }),
                    word if word == absent => None,
                    path => Some(PathBuf::from(path)),
                }
            }
            Self::Uids(place) => **place = parse_uids(text).ok_or(Problem::NotUids)?,
            Self::Endpoint(place) => {
                **place = match text {
                    NONE => None,
                    _ => Some(Endpoint::parse(text).ok_or(Problem::NotAnEndpoint)?),
                }
            }
            Self::Level(place) => **place = text.parse().map_err(|_| Problem::NotALevel)?,
            Self::Isolation(place) => **place = Isolation::parse(text).ok_or(Problem::NotAnIsolation)?,
        }
        Ok(())
    }

    pub(super) fn set_number(&mut self, kind: Kind, number: u64) -> Result<(), Problem> {
        match self {
            Self::Number(place) => **place = kind.check(number)?,
            Self::Switch(_) => return Err(Problem::NotASwitch),
            Self::Uids(place) => **place = vec![u32::try_from(number).map_err(|_| Problem::NotUids)?],
            Self::Path(_) | Self::Endpoint(_) => return Err(wrong_type(kind)),
            Self::Level(_) => return Err(Problem::NotALevel),
            Self::Isolation(_) => return Err(Problem::NotAnIsolation),
        }
        Ok(())
    }

    pub(super) fn set_bool(&mut self, kind: Kind, value: bool) -> Result<(), Problem> {
        match self {
            Self::Switch(place) => **place = value,
            Self::Number(_)
            | Self::Path(_)
            | Self::Uids(_)
            | Self::Endpoint(_)
            | Self::Level(_)
            | Self::Isolation(_) => {
                return Err(wrong_type(kind));
            }
        }
        Ok(())
    }

    /// Exchanges the values of two places of one setting.
    pub(super) fn swap(&mut self, other: &mut Place<'_>) {
        match (self, other) {
            (Self::Number(a), Place::Number(b)) => std::mem::swap(*a, *b),
            (Self::Switch(a), Place::Switch(b)) => std::mem::swap(*a, *b),
            (Self::Path(a), Place::Path(b)) => std::mem::swap(*a, *b),
            (Self::Uids(a), Place::Uids(b)) => std::mem::swap(*a, *b),
            (Self::Endpoint(a), Place::Endpoint(b)) => std::mem::swap(*a, *b),
            (Self::Level(a), Place::Level(b)) => std::mem::swap(*a, *b),
            (Self::Isolation(a), Place::Isolation(b)) => std::mem::swap(*a, *b),
            // one setting has one kind of place
            _ => {}
        }
    }

    /// The value as the configuration file writes it.
    pub(super) fn to_toml(&self, kind: Kind) -> String {
        match (self, kind) {
            (Self::Number(number), _) => number.to_string(),
            (Self::Switch(value), _) => value.to_string(),
            (Self::Path(Some(path)), _) => toml_string(&path.to_string_lossy()),
            (Self::Path(None), Kind::Path { absent }) => toml_string(absent),
            (Self::Path(None), _) => toml_string(""),
            (Self::Uids(uids), _) if uids.is_empty() => toml_string(NONE),
            (Self::Uids(uids), _) => toml_string(&uids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
            (Self::Endpoint(None), _) => toml_string(NONE),
            (Self::Endpoint(Some(endpoint)), _) => toml_string(&endpoint.to_string()),
            (Self::Isolation(isolation), _) => toml_string(isolation.word()),
            (Self::Level(level), _) => toml_string(&level.as_str().to_ascii_lowercase()),
        }
    }

    /// The value as the help text writes it.
    pub(super) fn to_words(&self, kind: Kind) -> String {
        match (self, kind) {
            (Self::Number(number), _) => kind.amount(**number).to_string(),
            (Self::Path(None), Kind::Path { absent }) => absent.to_owned(),
            _ => self.to_toml(kind).trim_matches('"').to_owned(),
        }
    }
}

/// The problem of a value whose type does not fit the setting at all.
pub(super) fn wrong_type(kind: Kind) -> Problem {
    match kind {
        Kind::Count { .. } | Kind::Millis { .. } | Kind::Bytes { .. } => kind.no_number(),
        Kind::Switch => Problem::NotASwitch,
        Kind::Path { absent } => Problem::NotAPath { absent },
        Kind::Uids => Problem::NotUids,
        Kind::Endpoint => Problem::NotAnEndpoint,
        Kind::Level => Problem::NotALevel,
        Kind::Isolation => Problem::NotAnIsolation,
    }
}

/// Bytes that are a whole number of MiB, from a number of MiB.
pub(super) fn mebibytes(text: &str) -> Option<u64> {
    parse_digits(text.trim())?.checked_mul(KIB * KIB)
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Bytes { .. } => {
                match UNITS.iter().rev().find(|(_, unit)| self.value >= *unit && self.value.is_multiple_of(*unit)) {
                    Some((name, unit)) => write!(f, "{} {name}", self.value / unit),
                    None => write!(f, "{} bytes", self.value),
                }
            }
            Kind::Millis { .. } => write!(f, "{} ms", self.value),
            _ => self.value.fmt(f),
        }
    }
}

fn parse_uids(text: &str) -> Option<Vec<u32>> {
    if text == NONE {
        return Some(Vec::new());
    }
    let uids: Option<Vec<u32>> = text.split(',').map(|uid| u32::try_from(parse_digits(uid.trim())?).ok()).collect();
    uids.filter(|uids| uids.len() <= MAX_UIDS)
}

/// Digits only: `u64::from_str` alone would take a leading `+`.
fn parse_digits(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn parse_size(text: &str) -> Option<u64> {
    let unit = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?.trim_end(), *unit)));
    let (digits, unit) = unit.unwrap_or((text, 1));
    parse_digits(digits)?.checked_mul(unit)
}

fn toml_string(text: &str) -> String {
    let mut out = String::from('"');
    for ch in text.chars() {
        match ch {
            '"' | '\\' => out.extend(['\\', ch]),
            ch if ch.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(ch))),
            ch => out.push(ch),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Kind = Kind::Bytes { min: KIB, max: 1 << 40 };
    const COUNT: Kind = Kind::Count { min: 1, max: 10 };

    fn number(kind: Kind, text: &str) -> Result<u64, Problem> {
        let mut value = 0;
        Place::Number(&mut value).set_text(kind, text).map(|()| value)
    }

    #[test]
    fn sizes_are_bytes_or_carry_a_binary_unit() {
        assert_eq!(number(SIZE, "2048"), Ok(2048));
        assert_eq!(number(SIZE, "2KiB"), Ok(2048));
        assert_eq!(number(SIZE, " 32 MiB "), Ok(32 << 20));
        assert_eq!(number(SIZE, "1 GiB"), Ok(1 << 30));
    }

    #[test]
    fn other_spellings_of_a_size_are_refused() {
        for text in [
            "",
            "MiB",
            "1.5 MiB",
            "32MB",
            "32M",
            "32mib",
            "-1",
            "+1",
            "0x10",
            "1e6",
            "99999999999999999999",
            "17179869184 GiB",
        ] {
            assert_eq!(number(SIZE, text), Err(SIZE.no_number()), "{text}");
        }
    }

    #[test]
    fn bounds_are_inclusive_and_named_with_their_unit() {
        assert_eq!(number(COUNT, "1"), Ok(1));
        assert_eq!(number(COUNT, "10"), Ok(10));
        assert_eq!(number(COUNT, "0").unwrap_err().to_string(), "must be 1 or more");
        assert_eq!(number(COUNT, "11").unwrap_err().to_string(), "must be 10 or less");
        assert_eq!(number(SIZE, "1").unwrap_err().to_string(), "must be 1 KiB or more");
        assert_eq!(number(COUNT, "four").unwrap_err().to_string(), "must be a whole number, 1 to 10");
        assert_eq!(number(COUNT, "4 KiB"), Err(COUNT.no_number()));
    }

    #[test]
    fn a_refused_value_leaves_the_place_as_it_was() {
        let mut value = 7;
        assert!(Place::Number(&mut value).set_text(COUNT, "11").is_err());
        assert_eq!(value, 7);
    }

    #[test]
    fn switches_are_true_or_false_and_nothing_else() {
        let mut value = false;
        assert_eq!(Place::Switch(&mut value).set_text(Kind::Switch, "true"), Ok(()));
        assert!(value);
        for text in ["1", "yes", "on", "TRUE", ""] {
            assert_eq!(Place::Switch(&mut value).set_text(Kind::Switch, text), Err(Problem::NotASwitch));
        }
    }

    #[test]
    fn the_absent_word_of_a_path_means_none() {
        let kind = Kind::Path { absent: "none" };
        let mut value = Some(PathBuf::from("/x"));
        Place::Path(&mut value).set_text(kind, "none").unwrap();
        assert_eq!(value, None);
        assert_eq!(Place::Path(&mut value).to_toml(kind), "\"none\"");
        Place::Path(&mut value).set_text(kind, "./none").unwrap();
        assert_eq!(value, Some(PathBuf::from("./none")));
    }

    #[test]
    fn users_are_numbers_with_commas_between_them() {
        let uids = |text: &str| {
            let mut value = vec![9];
            Place::Uids(&mut value).set_text(Kind::Uids, text).map(|()| value)
        };
        assert_eq!(uids("none"), Ok(vec![]));
        assert_eq!(uids("0, 1000"), Ok(vec![0, 1000]));
        for text in ["", ",", "root", "-1", "4294967296", "1,,2", &"1,".repeat(64)] {
            assert_eq!(uids(text), Err(Problem::NotUids), "{text}");
        }
    }

    #[test]
    fn toml_strings_escape_quotes_and_control_characters() {
        assert_eq!(toml_string("a\"b\\c\nd"), r#""a\"b\\c\u000Ad""#);
    }
}
