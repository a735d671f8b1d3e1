//! Messages, enumerations and maps of the schema: what stands in a frame.

use serde::Deserialize;
use toml::Spanned;

use super::model::{Fault, Schema, is_camel, is_pascal, is_sentence, unique};

/// A kind of message.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    pub name: Spanned<String>,
    pub number: Spanned<u8>,
    /// Of a request: what answers it.
    pub answer: Option<Spanned<String>>,
    /// One that failed, nobody knows where, may have changed something.
    #[serde(default)]
    pub effects: bool,
    pub doc: Spanned<String>,
}

/// Words of which a field has one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enum {
    pub name: Spanned<String>,
    pub doc: Spanned<String>,
    pub words: Vec<Word>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word {
    pub name: Spanned<String>,
    pub doc: Spanned<String>,
}

/// The fields of a message, or a map within them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Map {
    pub name: Spanned<String>,
    pub doc: Spanned<String>,
    pub fields: Vec<Field>,
    /// One with nothing in it can be made.
    #[serde(default)]
    pub default: bool,
    /// Kept within the crate `protocol`, which makes a checked type of it.
    #[serde(default)]
    pub inner: bool,
    /// SPEC has a table of it.
    #[serde(default)]
    pub spec: bool,
    /// The Node client's type of it.
    pub node: Option<String>,
    /// The Node client's list of its keys, but for regions.
    pub node_keys: Option<String>,
    /// The Rust client's type of it, for maps of plain figures.
    pub client_rust: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    pub name: Spanned<String>,
    #[serde(rename = "type")]
    pub type_name: Spanned<String>,
    /// What a key that is missing means. Without it, the key has to be there.
    pub absent: Option<Spanned<Absent>>,
    pub doc: Spanned<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Absent {
    /// That there is none.
    None,
    /// An empty list.
    Empty,
    False,
    /// 0, from an older peer; a newer one always writes it.
    Zero,
}

/// What a field holds.
#[derive(Clone, Copy)]
pub enum Type<'a> {
    Bool,
    U32,
    U64,
    Str,
    Bin,
    Version,
    Strs,
    Counts,
    Lists,
    Error,
    Regions,
    CallLimits,
    Enum(&'a Enum),
    Map(&'a Map),
    Maps(&'a Map),
}

impl Field {
    pub fn absent(&self) -> Option<Absent> {
        self.absent.as_ref().map(|absent| *absent.get_ref())
    }
}

impl Schema {
    /// What the type of a field means.
    pub fn type_of<'a>(&'a self, field: &'a Field) -> Option<Type<'a>> {
        let map = |name: &str| self.maps.iter().find(|map| map.name.get_ref() == name);
        Some(match field.type_name.get_ref().as_str() {
            "bool" => Type::Bool,
            "u32" => Type::U32,
            "u64" => Type::U64,
            "str" => Type::Str,
            "bin" => Type::Bin,
            "version" => Type::Version,
            "[str]" => Type::Strs,
            "{str: u64}" => Type::Counts,
            "{str: [str]}" => Type::Lists,
            "error" => Type::Error,
            "regions" => Type::Regions,
            "callLimits" => Type::CallLimits,
            name => match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
                Some(name) => Type::Maps(map(name)?),
                None => match self.enums.iter().find(|words| words.name.get_ref() == name) {
                    Some(words) => Type::Enum(words),
                    None => Type::Map(map(name)?),
                },
            },
        })
    }

    pub(super) fn check_wire(&self) -> Result<(), Fault> {
        self.check_messages()?;
        unique(self.enums.iter().map(|words| &words.name).chain(self.maps.iter().map(|map| &map.name)), is_pascal)?;
        for words in &self.enums {
            is_sentence(&words.doc)?;
            unique(words.words.iter().map(|word| &word.name), is_camel)?;
            words.words.iter().try_for_each(|word| is_sentence(&word.doc))?;
        }
        for map in &self.maps {
            is_sentence(&map.doc)?;
            unique(map.fields.iter().map(|field| &field.name), is_camel)?;
            map.fields.iter().try_for_each(|field| self.check_field(field))?;
        }
        Ok(())
    }

    fn check_messages(&self) -> Result<(), Fault> {
        unique(self.messages.iter().map(|message| &message.name), is_camel)?;
        let mut last = 0;
        for message in &self.messages {
            is_sentence(&message.doc)?;
            let number = *message.number.get_ref();
            if number <= last {
                return Err((message.number.span(), format!("kinds go up; {number:#04x} is behind {last:#04x}")));
            }
            last = number;
        }
        for message in &self.messages {
            let (number, Some(answer)) = (*message.number.get_ref(), &message.answer) else { continue };
            let known = self.messages.iter().find(|other| other.name.get_ref() == answer.get_ref());
            if number >= 0x80 || known.is_none_or(|known| *known.number.get_ref() < 0x80) {
                let what =
                    format!("a request (below 0x80) has an answer (from 0x80), and `{}` is none", answer.get_ref());
                return Err((answer.span(), what));
            }
        }
        Ok(())
    }

    fn check_field(&self, field: &Field) -> Result<(), Fault> {
        is_sentence(&field.doc)?;
        let Some(kind) = self.type_of(field) else {
            return Err((field.type_name.span(), format!("there is no type `{}`", field.type_name.get_ref())));
        };
        let fits = match (field.absent(), kind) {
            (None, Type::Error | Type::Regions | Type::CallLimits | Type::Lists) => false,
            (None | Some(Absent::None), _) => true,
            (Some(Absent::Empty), kind) => matches!(kind, Type::Strs | Type::Maps(_)),
            (Some(Absent::False), kind) => matches!(kind, Type::Bool),
            (Some(Absent::Zero), kind) => matches!(kind, Type::U64),
        };
        if fits {
            return Ok(());
        }
        let at = field.absent.as_ref().map_or_else(|| field.type_name.span(), |absent| absent.span());
        Err((at, format!("a `{}` cannot be absent like that", field.type_name.get_ref())))
    }
}
