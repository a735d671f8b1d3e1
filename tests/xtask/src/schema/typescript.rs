//! The files of the Node client.

use super::model::{Figure, Schema, Setting, SettingKind, Value, size};
use super::words::{amount, flowing, grouped, in_units, typescript_doc};
use super::{Output, typescript_maps};

const HEAD: &str = "// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.\n\n";

pub fn files(schema: &Schema) -> Vec<Output> {
    let texts = [
        ("client-node/src/codes.ts", codes(schema)),
        ("client-node/src/kinds.ts", typescript_maps::kinds(schema)),
        ("client-node/src/limits.ts", limits(schema)),
        ("client-node/src/maps.ts", typescript_maps::maps(schema)),
        ("client-node/src/settings.ts", settings(schema)),
        ("client-node/src/statistics.ts", statistics(schema)),
    ];
    texts.into_iter().map(|(path, text)| Output { path, text: HEAD.to_owned() + &text }).collect()
}

fn codes(schema: &Schema) -> String {
    let mut text = typescript_doc("What went wrong, as one of the codes of SPEC 4.", 0) + "export type ErrorCode =\n";
    for (at, code) in schema.codes.iter().enumerate() {
        let end = if at + 1 == schema.codes.len() { ";" } else { "" };
        text += &typescript_doc(code.doc.get_ref(), 2);
        text += &format!("  | '{}'{end}\n", code.name.get_ref());
    }
    let about = "Whether the same request may succeed later, as far as the code alone can tell.";
    text += &format!("\n{}", typescript_doc(about, 0));
    text += "export const RETRYABLE_BY_CODE: Readonly<Record<ErrorCode, boolean>> = {\n";
    text.extend(schema.codes.iter().map(|code| format!("  {}: {},\n", code.name.get_ref(), code.retryable)));
    text + "};\n"
}

fn limits(schema: &Schema) -> String {
    let about =
        "Bounds that the client applies itself, with the unit in the name. The sidecar's hello names those in force.";
    let mut text = typescript_doc(about, 0);
    let mut heading = None;
    for limit in &schema.limits {
        heading = limit.heading.as_ref().or(heading);
        let Some(name) = limit.node_name() else { continue };
        if let Some(heading) = heading.take() {
            text += &format!("\n// {heading}\n\n");
        }
        text += &typescript_doc(limit.doc.get_ref(), 0);
        text += &format!("export const {name} = {};\n", value(schema, limit.value.get_ref()));
    }
    text
}

fn value(schema: &Schema, value: &Value) -> String {
    if let Value::Text(text) = value
        && let Some(name) = schema.limit(text).and_then(|limit| limit.node_name())
    {
        return name.to_owned();
    }
    let Some(number) = schema.number(value) else { return word(value) };
    let sized = matches!(value, Value::Text(text) if size(text).is_some());
    match in_units(number).filter(|_| sized) {
        Some((count, unit)) => {
            let factors = ["KiB", "MiB", "GiB"].iter().position(|known| *known == unit).map_or(0, |at| at + 1);
            let count = (count > 1).then(|| count.to_string());
            count.into_iter().chain(vec!["1024".to_owned(); factors]).collect::<Vec<_>>().join(" * ")
        }
        None => grouped(number),
    }
}

/// What the sidecar is started with, and how each value is checked.
fn settings(schema: &Schema) -> String {
    let settings = || schema.settings.iter().filter(|setting| setting.clients);
    let about = "Passed on as flags. Absent: the sidecar's own environment, file and defaults decide.";
    let mut text = typescript_doc(about, 0) + "export interface SidecarConfig {\n";
    for setting in settings() {
        text += &typescript_doc(&described(schema, setting), 2);
        text += &format!("  {}?: {};\n", setting.key.get_ref(), type_of(setting.kind));
    }
    text += "}\n\n/** What each of them has to be. Bounds are the sidecar's to check. */\n";
    text += "export const SIDECAR_KEYS = {\n";
    for setting in settings() {
        let check = if setting.kind.is_number() { "count" } else { type_of(setting.kind) };
        text += &format!("  {}: '{check}',\n", setting.key.get_ref());
    }
    text + "} as const satisfies Record<keyof SidecarConfig, 'count' | 'boolean' | 'string'>;\n"
}

fn type_of(kind: SettingKind) -> &'static str {
    match kind {
        SettingKind::Count | SettingKind::Bytes | SettingKind::Millis => "number",
        SettingKind::Switch => "boolean",
        SettingKind::Path | SettingKind::Uids | SettingKind::Endpoint | SettingKind::Level | SettingKind::Isolation => {
            "string"
        }
    }
}

/// Its doc, its note and its default.
fn described(schema: &Schema, setting: &Setting) -> String {
    let note = setting.note.as_deref().map(|note| format!(" {}", flowing(note))).unwrap_or_default();
    let default = match setting.default.as_ref().map(|value| value.get_ref()) {
        None => setting.default_words.as_ref().map(|words| format!(" Default {words}.")).unwrap_or_default(),
        Some(value) => match schema.number(value) {
            Some(number) => format!(" Default {}.", amount(setting.key.get_ref(), number)),
            None => format!(" Default {}.", word(value)),
        },
    };
    format!("{}.{note}{default}", flowing(setting.doc.get_ref()))
}

fn statistics(schema: &Schema) -> String {
    let mut text = typescript_doc("The sidecar's figures.", 0) + "export interface RuntimeStats {\n";
    for statistic in &schema.statistics {
        text += &typescript_doc(statistic.doc.get_ref(), 2);
        text += &format!("  {}: number;\n", statistic.name.get_ref());
    }
    let about = "Of which type each is on the wire, and whether a sidecar may leave it out, which is 0.";
    text += "}\n\n";
    text += &typescript_doc(about, 0);
    text += "export const STATISTICS = {\n";
    for statistic in &schema.statistics {
        let kind = match (statistic.kind, statistic.optional) {
            (Figure::U64, false) => "uint",
            (Figure::U64, true) => "uint?",
            (Figure::F64, false) => "float",
            (Figure::F64, true) => "float?",
        };
        text += &format!("  {}: '{kind}',\n", statistic.name.get_ref());
    }
    text + "} as const satisfies Record<keyof RuntimeStats, 'uint' | 'uint?' | 'float' | 'float?'>;\n"
}

fn word(value: &Value) -> String {
    match value {
        Value::Switch(on) => on.to_string(),
        Value::Number(number) => grouped(*number),
        Value::Text(text) => text.clone(),
    }
}
