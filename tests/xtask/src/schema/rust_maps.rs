//! The Rust of messages, enumerations and maps.

use super::model::Schema;
use super::wire::{Absent, Enum, Field, Map, Type};
use super::words::{flowing, pascal, rust_doc, snake};

/// `Kind`: the first element of a body.
pub fn kinds(schema: &Schema) -> String {
    let kinds = || schema.messages.iter().map(|message| (pascal(message.name.get_ref()), message));
    let mut text = String::from(
        "//! The kinds of messages (SPEC 3).\n\n/// First element of a body.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]\n#[non_exhaustive]\n#[repr(u8)]\npub enum Kind {\n",
    );
    for (variant, message) in kinds() {
        text += &rust_doc(message.doc.get_ref(), 4);
        text += &format!("{variant} = {:#04x},\n", message.number.get_ref());
    }
    text += "}\n\nimpl Kind {\n/// Every kind.\npub const ALL: &'static [Self] = &[\n";
    text.extend(kinds().map(|(variant, _)| format!("Self::{variant},\n")));
    text +=
        "];\n\n/// The kind of that number.\npub const fn from_number(number: u8) -> Option<Self> {\nmatch number {\n";
    text.extend(
        kinds().map(|(variant, message)| format!("{:#04x} => Some(Self::{variant}),\n", message.number.get_ref())),
    );
    let effects: Vec<_> =
        kinds().filter(|(_, message)| message.effects).map(|(variant, _)| format!("Self::{variant}")).collect();
    text += &format!(
        "_ => None,\n}}\n}}\n\n\
         /// Whether a request of this kind that failed, nobody knows where, may have changed something: it must not be sent\n\
         /// again then.\n\
         pub const fn has_effects(self) -> bool {{\nmatches!(self, {})\n}}\n}}\n",
        effects.join(" | ")
    );
    text
}

/// The enumerations, of which each value is a word on the wire.
pub fn words(schema: &Schema) -> String {
    let mut text = String::from(
        "//! Words of which a field has one. Any other is malformed.\n\n\
         use serde::de::Error;\nuse serde::{Deserialize, Deserializer, Serialize, Serializer};\n\nuse crate::strict;\n",
    );
    for words in &schema.enums {
        let name = words.name.get_ref();
        text += &declared(words, "");
        text += &format!(
            "\nimpl {name} {{\n/// The name on the wire.\npub const fn as_str(self) -> &'static str {{\nmatch self {{\n"
        );
        text.extend(variants(words).map(|(variant, word)| format!("Self::{variant} => {word:?},\n")));
        text += &format!(
            "}}\n}}\n}}\n\nimpl Serialize for {name} {{\n\
             fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {{\n\
             serializer.serialize_str(self.as_str())\n}}\n}}\n\n\
             impl<'de> Deserialize<'de> for {name} {{\n\
             fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {{\n\
             match strict::text(deserializer)? {{\n"
        );
        text.extend(variants(words).map(|(variant, word)| format!("{word:?} => Ok(Self::{variant}),\n")));
        let known: Vec<_> = variants(words).map(|(_, word)| format!("{word:?}")).collect();
        text += &format!("other => Err(D::Error::unknown_variant(other, &[{}])),\n}}\n}}\n}}\n", known.join(", "));
    }
    text
}

/// The same as types of the Rust client.
pub fn words_of_client(schema: &Schema) -> String {
    let mut text = String::from(
        "//! Words of which something is one, as this crate's own types: the wire's may grow without the programs that use this\n\
         //! crate.\n\nuse nexus_protocol::message;\n",
    );
    for words in &schema.enums {
        let name = words.name.get_ref();
        text += &declared(words, "#[non_exhaustive]\n");
        let arms = |from: &str, to: &str| -> String {
            variants(words).map(|(variant, _)| format!("{from}::{variant} => {to}::{variant},\n")).collect()
        };
        let wire = format!("message::{name}");
        let all: String = variants(words).map(|(variant, _)| format!("Self::{variant},\n")).collect();
        text += &format!(
            "\nimpl {name} {{\n/// Each of them.\npub const ALL: &'static [Self] = &[{all}];\n\n\
             /// Its name, as in other clients and on the wire.\n\
             pub const fn as_str(self) -> &'static str {{\nself.wire().as_str()\n}}\n\n\
             pub(crate) const fn wire(self) -> {wire} {{\nmatch self {{\n{}}}\n}}\n\n\
             pub(crate) const fn of(told: {wire}) -> Self {{\nmatch told {{\n{}}}\n}}\n}}\n",
            arms("Self", &wire),
            arms(&wire, "Self"),
        );
    }
    text
}

fn variants(words: &Enum) -> impl Iterator<Item = (String, &str)> {
    words.words.iter().map(|word| (pascal(word.name.get_ref()), word.name.get_ref().as_str()))
}

fn declared(words: &Enum, more: &str) -> String {
    let mut text = format!("\n{}", rust_doc(words.doc.get_ref(), 0));
    text +=
        &format!("#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]\n{more}pub enum {} {{\n", words.name.get_ref());
    for word in &words.words {
        text += &rust_doc(word.doc.get_ref(), 4);
        text += &format!("{},\n", pascal(word.name.get_ref()));
    }
    text + "}\n"
}

/// Every map as a struct.
pub fn maps(schema: &Schema) -> String {
    let mut text = String::from(
        "//! The fields of messages, and the maps in them. Every str and bin borrows: from the frame where a message was read,\n\
         //! from its owner where it is written.\n\nuse serde::{Deserialize, Serialize};\n\n\
         use crate::error::WireError;\nuse crate::message::{CallLimits, ExecutionState, Status, SuspendMode, region};\n\
         use crate::strict::{self, bins};\nuse crate::version::ProtocolVersion;\n",
    );
    for map in &schema.maps {
        text += &format!("\n{}", rust_doc(map.doc.get_ref(), 0));
        let copy = if is_copy(schema, map) { ", Copy" } else { "" };
        let default = if map.default { ", Default" } else { "" };
        text += &format!("#[derive(Clone{copy}, Debug{default}, PartialEq, Eq, Serialize, Deserialize)]\n");
        if map.fields.iter().any(|field| snake(field.name.get_ref()) != *field.name.get_ref()) {
            text += "#[serde(rename_all = \"camelCase\")]\n";
        }
        let (seen, life) = (if map.inner { "pub(super)" } else { "pub" }, lifetime(schema, map));
        text += &format!("{seen} struct {}{life} {{\n", map.name.get_ref());
        for field in &map.fields {
            let (attributes, type_name) = member(schema, field);
            text += &rust_doc(field.doc.get_ref(), 4);
            text += &attributes;
            text += &format!("{seen} {}: {type_name},\n", snake(field.name.get_ref()));
        }
        text += "}\n";
    }
    text
}

fn lifetime(schema: &Schema, map: &Map) -> &'static str {
    if borrows(schema, map) { "<'a>" } else { "" }
}

fn borrows(schema: &Schema, map: &Map) -> bool {
    map.fields.iter().any(|field| match schema.type_of(field) {
        Some(Type::Str | Type::Bin | Type::Strs | Type::Counts | Type::Lists | Type::CallLimits) => true,
        Some(Type::Map(inner) | Type::Maps(inner)) => borrows(schema, inner),
        _ => false,
    })
}

fn is_copy(schema: &Schema, map: &Map) -> bool {
    map.fields.iter().all(|field| match schema.type_of(field) {
        Some(Type::Strs | Type::Counts | Type::Lists | Type::Maps(_) | Type::Error) => false,
        Some(Type::Map(inner)) => is_copy(schema, inner),
        _ => true,
    })
}

/// The attributes and the type of a field.
fn member(schema: &Schema, field: &Field) -> (String, String) {
    let of = |map: &Map| format!("{}{}", map.name.get_ref(), lifetime(schema, map));
    let Some(kind) = schema.type_of(field) else { return Default::default() };
    let plain = match kind {
        Type::Bool => "bool".to_owned(),
        Type::U32 => "u32".to_owned(),
        Type::U64 => "u64".to_owned(),
        Type::Str => "&'a str".to_owned(),
        Type::Bin => "&'a [u8]".to_owned(),
        Type::Version => "ProtocolVersion".to_owned(),
        Type::Strs => "Vec<&'a str>".to_owned(),
        Type::Counts => "Vec<(&'a str, u64)>".to_owned(),
        Type::Lists => "Vec<(&'a str, Vec<&'a str>)>".to_owned(),
        Type::Error => "WireError".to_owned(),
        Type::Regions => "Regions".to_owned(),
        Type::CallLimits => "CallLimits<'a>".to_owned(),
        Type::Enum(words) => words.name.get_ref().clone(),
        Type::Map(map) => of(map),
        Type::Maps(map) => format!("Vec<{}>", of(map)),
    };
    let mut parts = Vec::new();
    let borrowed = match kind {
        Type::Map(map) | Type::Maps(map) => borrows(schema, map),
        Type::Str | Type::Bin | Type::Strs | Type::Counts | Type::Lists | Type::CallLimits => true,
        _ => false,
    };
    if borrowed {
        parts.push("borrow");
    }
    let absent = field.absent();
    if absent.is_some() {
        parts.push("default");
    }
    parts.extend(match (absent, kind) {
        (Some(Absent::None), Type::Regions) => Some("skip_serializing_if = \"Regions::is_empty\""),
        (Some(Absent::None), _) => Some("skip_serializing_if = \"Option::is_none\""),
        (Some(Absent::Empty), _) => Some("skip_serializing_if = \"Vec::is_empty\""),
        (Some(Absent::False), _) => Some("skip_serializing_if = \"std::ops::Not::not\""),
        (Some(Absent::Zero) | None, _) => None,
    });
    let none = absent == Some(Absent::None);
    parts.extend(match kind {
        Type::Str if none => Some("deserialize_with = \"strict::opt_text\""),
        Type::Str => Some("deserialize_with = \"strict::text\""),
        Type::Bin if none => Some("with = \"bins\""),
        Type::Bin => Some("deserialize_with = \"strict::bin\", serialize_with = \"serde_bytes::serialize\""),
        Type::Strs if none => Some("deserialize_with = \"strict::opt_texts\""),
        Type::Strs => Some("deserialize_with = \"strict::texts\""),
        Type::Counts => Some("deserialize_with = \"strict::counts\", serialize_with = \"strict::write_pairs\""),
        Type::Lists => {
            Some("deserialize_with = \"strict::opt_extensions\", serialize_with = \"strict::write_opt_pairs\"")
        }
        Type::Map(_) | Type::Error if none => Some("deserialize_with = \"strict::opt_map\""),
        Type::Map(_) => Some("deserialize_with = \"strict::map\""),
        Type::Maps(_) => Some("deserialize_with = \"strict::maps\""),
        Type::Regions => Some("deserialize_with = \"region::optional\""),
        Type::Bool if absent == Some(Absent::False) => Some("deserialize_with = \"strict::flag\""),
        _ => None,
    });
    let attributes = if parts.is_empty() { String::new() } else { format!("#[serde({})]\n", parts.join(", ")) };
    let wrapped = none && !matches!(kind, Type::Regions);
    (attributes, if wrapped { format!("Option<{plain}>") } else { plain })
}

/// The Rust client's types of maps of plain figures.
pub fn maps_of_client(schema: &Schema) -> String {
    let mut text = String::from(
        "//! What is told in figures, as this crate's own types: the wire's may grow without the programs that use this crate.\n\n\
         use nexus_protocol::message;\n",
    );
    for (map, name) in schema.maps.iter().filter_map(|map| Some((map, map.client_rust.as_ref()?))) {
        text += &format!("\n{}", rust_doc(&flowing(map.doc.get_ref()), 0));
        text += "#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]\n#[non_exhaustive]\n";
        text += &format!("pub struct {name} {{\n");
        for field in &map.fields {
            text += &rust_doc(field.doc.get_ref(), 4);
            text += &format!("pub {}: {},\n", snake(field.name.get_ref()), member(schema, field).1);
        }
        text += &format!(
            "}}\n\nimpl {name} {{\npub(crate) fn of(told: &message::{}) -> Self {{\nSelf {{\n",
            map.name.get_ref()
        );
        text.extend(map.fields.iter().map(|field| {
            let name = snake(field.name.get_ref());
            format!("{name}: told.{name},\n")
        }));
        text += "}\n}\n}\n";
    }
    text
}
