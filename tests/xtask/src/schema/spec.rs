//! The tables of SPEC.md. Each stands between two marks, which say which one it is; the text around them is written by hand.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::Output;
use super::model::{Code, Figure, ISOLATIONS, LEVELS, Schema, Setting, SettingKind, Value};
use super::wire::{Absent, Enum, Map, Type};
use super::words::{amount, flowing, without_links};

const SPEC: &str = "protocol/SPEC.md";
const END: &str = "<!-- end -->";

pub fn file(schema: &Schema, root: &Path) -> Result<Output> {
    let text = fs::read_to_string(root.join(SPEC)).with_context(|| format!("cannot read {SPEC}"))?;
    let mut tables = vec![
        ("codes", codes(schema)),
        ("limits", limits(schema)),
        ("messages", messages(schema)),
        ("settings", settings(schema)),
        ("statistics", statistics(schema)),
    ];
    let maps = schema.maps.iter().filter(|map| map.spec);
    tables.extend(maps.map(|map| (map.name.get_ref().trim_end_matches("Fields"), fields(schema, map))));
    Ok(Output { path: SPEC, text: filled(&text, &tables)? })
}

/// The text with each table in its place. Each place has to be there once, and to belong to a table.
fn filled(text: &str, tables: &[(&str, String)]) -> Result<String> {
    let mut out = String::new();
    let mut done = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        let Some(name) = line.strip_prefix("<!-- generated: ").and_then(|rest| rest.strip_suffix(" -->")) else {
            continue;
        };
        let Some((_, table)) = tables.iter().find(|(known, _)| *known == name) else {
            bail!("{SPEC}: there is no table `{name}`");
        };
        ensure!(!done.contains(&name), "{SPEC}: the table `{name}` is there twice");
        ensure!(lines.any(|line| line == END), "{SPEC}: the table `{name}` has no `{END}`");
        out.push_str(&format!("\n{table}\n{END}\n"));
        done.push(name);
    }
    match tables.iter().find(|(name, _)| !done.contains(name)) {
        Some((missing, _)) => bail!("{SPEC}: there is no place for the table `{missing}`"),
        None => Ok(out),
    }
}

fn codes(schema: &Schema) -> String {
    let mut text = String::from("| code | number | retryable | when |\n| --- | --- | --- | --- |\n");
    for code in &schema.codes {
        let retry = code.retry.as_deref().map(flowing);
        let retry = retry.unwrap_or_else(|| if code.retryable { "yes" } else { "no" }.to_owned());
        text += &format!("| {} | {} | {retry} | {} |\n", code.name.get_ref(), code.number.get_ref(), when(code));
    }
    text
}

/// Its doc, as part of a table.
fn when(code: &Code) -> String {
    code.when.as_deref().map_or_else(|| uncapped(code.doc.get_ref()), flowing)
}

/// A sentence as an entry of a table.
fn uncapped(sentence: &str) -> String {
    let sentence = without_links(sentence);
    let sentence = sentence.trim_end_matches('.');
    // SPEC, CRC-32
    if sentence.chars().nth(1).is_some_and(char::is_uppercase) {
        return sentence.to_owned();
    }
    let mut letters = sentence.chars();
    letters.next().map(|first| first.to_lowercase().collect::<String>() + letters.as_str()).unwrap_or_default()
}

fn limits(schema: &Schema) -> String {
    let mut text = String::from("| name | | what it bounds |\n| --- | --- | --- |\n");
    for limit in schema.limits.iter().filter(|limit| limit.spec) {
        let name = limit.name.get_ref();
        let number = schema.number(limit.value.get_ref()).unwrap_or_default();
        text += &format!("| {name} | {} | {} |\n", amount(name, number), uncapped(limit.doc.get_ref()));
    }
    text
}

fn settings(schema: &Schema) -> String {
    let mut text = String::from("| key | default | bounds | reload | |\n| --- | --- | --- | --- | --- |\n");
    for setting in &schema.settings {
        let in_words = |value: &toml::Spanned<Value>| match (schema.number(value.get_ref()), value.get_ref()) {
            (Some(number), _) => amount(setting.key.get_ref(), number),
            (None, Value::Switch(on)) => on.to_string(),
            (None, Value::Number(number)) => number.to_string(),
            (None, Value::Text(text)) => text.clone(),
        };
        let bounds = match (&setting.min, &setting.max) {
            (Some(min), Some(max)) => format!("{} to {}", in_words(min), in_words(max)),
            _ => form(setting),
        };
        let default = match (&setting.default_words, &setting.default) {
            (Some(words), _) => words.clone(),
            (None, Some(default)) => in_words(default),
            (None, None) => setting.absent.clone().unwrap_or_else(|| "none".to_owned()),
        };
        let live = if setting.live { "yes" } else { "no" };
        let doc = uncapped(setting.doc.get_ref());
        text += &format!("| {} | {default} | {bounds} | {live} | {doc} |\n", setting.key.get_ref());
    }
    text
}

/// What a value that is no number looks like.
fn form(setting: &Setting) -> String {
    let words = match setting.kind {
        SettingKind::Count | SettingKind::Bytes | SettingKind::Millis => "a number",
        SettingKind::Switch => "true or false",
        SettingKind::Path => "a path",
        SettingKind::Uids => "numbers with commas between them",
        SettingKind::Endpoint => "an address or a path",
        SettingKind::Level => return LEVELS.join(", "),
        SettingKind::Isolation => return ISOLATIONS.join(", "),
    };
    words.to_owned()
}

fn statistics(schema: &Schema) -> String {
    let mut text = String::from("| key | type | |\n| --- | --- | --- |\n");
    for statistic in &schema.statistics {
        let kind = match statistic.kind {
            Figure::U64 => "u64",
            Figure::F64 => "f64",
        };
        let optional = if statistic.optional { ", may be missing, which is 0" } else { "" };
        let doc = uncapped(statistic.doc.get_ref());
        text += &format!("| {} | {kind}{optional} | {doc} |\n", statistic.name.get_ref());
    }
    text
}

fn messages(schema: &Schema) -> String {
    let mut text = String::from("| kind | request | answer |\n| --- | --- | --- |\n");
    for message in &schema.messages {
        let Some(answer) = &message.answer else { continue };
        let answer = schema.messages.iter().find(|other| other.name.get_ref() == answer.get_ref());
        let Some(answer) = answer else { continue };
        // the kinds of both directions are one enumeration, in which an answer cannot be called like its request
        let word = answer.name.get_ref().trim_end_matches("Answer");
        let (number, of_answer) = (message.number.get_ref(), answer.number.get_ref());
        text += &format!("| {number:#04x} | {} | {of_answer:#04x} {word} |\n", message.name.get_ref());
    }
    text
}

fn fields(schema: &Schema, map: &Map) -> String {
    let mut text = String::from("| key | type | |\n| --- | --- | --- |\n");
    for field in &map.fields {
        let of = |words: &Enum| {
            let words: Vec<_> = words.words.iter().map(|word| format!("\"{}\"", word.name.get_ref())).collect();
            format!("`{}`", words.join(" \\| "))
        };
        let kind = match schema.type_of(field) {
            Some(Type::Bool) => "bool".to_owned(),
            Some(Type::U32) => "u32".to_owned(),
            Some(Type::U64) => "u64".to_owned(),
            Some(Type::Version) => "u16".to_owned(),
            Some(Type::Str) => "str".to_owned(),
            Some(Type::Bin) => "bin".to_owned(),
            Some(Type::Strs) => "array of str".to_owned(),
            Some(Type::Counts | Type::CallLimits) => "map str -> u64".to_owned(),
            Some(Type::Lists) => "map str -> array of str".to_owned(),
            Some(Type::Enum(words)) => of(words),
            Some(Type::Maps(_)) => "array of maps".to_owned(),
            Some(Type::Map(_) | Type::Error | Type::Regions) | None => "map".to_owned(),
        };
        let optional = match field.absent() {
            None => "",
            Some(Absent::Zero) => ", may be missing, which is 0",
            Some(Absent::Empty) => ", absent = empty",
            Some(Absent::None | Absent::False) => ", optional",
        };
        let doc = uncapped(field.doc.get_ref()).replace(" | ", " \\| ");
        text += &format!("| {} | {kind}{optional} | {doc} |\n", field.name.get_ref());
    }
    text
}
