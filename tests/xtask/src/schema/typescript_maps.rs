//! The TypeScript of messages, enumerations and maps.

use super::model::Schema;
use super::wire::{Absent, Field, Map, Type};
use super::words::typescript_doc;

/// `Kind`, and the keys of requests that are written key by key.
pub fn kinds(schema: &Schema) -> String {
    let mut text = typescript_doc("First element of a body (SPEC 3).", 0) + "export const Kind = {\n";
    for message in &schema.messages {
        text += &typescript_doc(message.doc.get_ref(), 2);
        text += &format!("  {}: {:#04x},\n", message.name.get_ref(), message.number.get_ref());
    }
    text += "} as const;\n";
    for (map, name) in schema.maps.iter().filter_map(|map| Some((map, map.node_keys.as_ref()?))) {
        text += &format!(
            "\n{}export const {name} = [\n",
            typescript_doc("Keys of that request, in the order of the wire.", 0)
        );
        let keys = map.fields.iter().filter(|field| !matches!(schema.type_of(field), Some(Type::Regions)));
        text.extend(keys.map(|field| format!("  '{}',\n", field.name.get_ref())));
        text += "] as const;\n";
    }
    text
}

/// The enumerations, and each map that the client hands out, with what reads it.
pub fn maps(schema: &Schema) -> String {
    let mut text = String::from(
        "import { boolean, list, map, oneOf, string, strings, uint, uints } from './typed.js';\n\n\
         type Fields = Record<string, unknown>;\n",
    );
    for words in &schema.enums {
        let names: Vec<_> = words.words.iter().map(|word| format!("'{}'", word.name.get_ref())).collect();
        let name = words.name.get_ref();
        text += &format!("\n{}export type {name} = {};\n", typescript_doc(words.doc.get_ref(), 0), names.join(" | "));
        text += &format!("export const {} = [{}] as const;\n", constant(name), names.join(", "));
    }
    for (map, name) in schema.maps.iter().filter_map(|map| Some((map, map.node.as_ref()?))) {
        text += &interface(schema, map, name);
        text += &reader(schema, map, name);
    }
    text
}

/// `SUSPEND_MODE` of `SuspendMode`.
fn constant(name: &str) -> String {
    super::words::snake(name).to_ascii_uppercase()
}

fn interface(schema: &Schema, map: &Map, name: &str) -> String {
    let mut text = format!("\n{}export interface {name} {{\n", typescript_doc(map.doc.get_ref(), 0));
    for field in &map.fields {
        let mark = if field.absent() == Some(Absent::None) { "?" } else { "" };
        text += &typescript_doc(field.doc.get_ref(), 2);
        text += &format!("  {}{mark}: {};\n", field.name.get_ref(), type_of(schema, field));
    }
    text + "}\n"
}

fn type_of(schema: &Schema, field: &Field) -> String {
    match schema.type_of(field) {
        Some(Type::Bool) => "boolean".to_owned(),
        Some(Type::U32 | Type::U64 | Type::Version) => "number".to_owned(),
        Some(Type::Str) => "string".to_owned(),
        Some(Type::Strs) => "string[]".to_owned(),
        Some(Type::Counts) => "Record<string, number>".to_owned(),
        Some(Type::Enum(words)) => words.name.get_ref().clone(),
        Some(Type::Map(map)) => of(map).to_owned(),
        Some(Type::Maps(map)) => format!("{}[]", of(map)),
        _ => "unknown".to_owned(),
    }
}

fn of(map: &Map) -> &str {
    map.node.as_deref().unwrap_or_else(|| map.name.get_ref())
}

/// A function that reads it out of fields. One literal for what has to be there: objects that are spread together are slow.
fn reader(schema: &Schema, map: &Map, name: &str) -> String {
    let mut required = String::new();
    let mut optional = String::new();
    for field in &map.fields {
        let key = field.name.get_ref();
        let read = match schema.type_of(field) {
            Some(Type::Bool) => format!("boolean(fields, '{key}')"),
            Some(Type::U32 | Type::U64 | Type::Version) => format!("uint(fields, '{key}')"),
            Some(Type::Str) => format!("string(fields, '{key}')"),
            Some(Type::Strs) => format!("strings(fields, '{key}')"),
            Some(Type::Counts) => format!("uints(fields, '{key}')"),
            Some(Type::Enum(words)) => format!("oneOf(fields, '{key}', {})", constant(words.name.get_ref())),
            Some(Type::Map(inner)) => format!("read{}(map(fields['{key}'], '{key}'))", of(inner)),
            Some(Type::Maps(inner)) => format!("list(fields, '{key}', read{})", of(inner)),
            _ => format!("fields['{key}']"),
        };
        match field.absent() {
            None => required += &format!("    {key}: {read},\n"),
            Some(Absent::None) => optional += &format!("  if (fields['{key}'] !== undefined) value.{key} = {read};\n"),
            Some(absent) => {
                let otherwise = match absent {
                    Absent::Empty => "[]",
                    Absent::False => "false",
                    Absent::Zero | Absent::None => "0",
                };
                required += &format!("    {key}: fields['{key}'] === undefined ? {otherwise} : {read},\n");
            }
        }
    }
    let head = format!("\nexport function read{name}(fields: Fields): {name} {{\n");
    if optional.is_empty() {
        return format!("{head}  return {{\n{required}  }};\n}}\n");
    }
    format!("{head}  const value: {name} = {{\n{required}  }};\n{optional}  return value;\n}}\n")
}
