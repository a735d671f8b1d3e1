//! The Rust files: each with a head, formatted by rustfmt as all others.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::model::{Figure, Integer, Limit, Schema, Setting, SettingKind, Value};
use super::words::{flowing, grouped, in_units, kebab, pascal, rust_doc, snake};
use super::{Output, rust_maps};

const HEAD: &str = "// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.\n\n";

pub fn files(schema: &Schema, root: &Path) -> Result<Vec<Output>> {
    let texts = [
        ("protocol/src/code.rs", codes(schema)),
        ("protocol/src/limits.rs", limits(schema)),
        ("protocol/src/message/kind.rs", rust_maps::kinds(schema)),
        ("protocol/src/message/maps.rs", rust_maps::maps(schema)),
        ("protocol/src/message/stats.rs", statistics(schema)),
        ("protocol/src/message/words.rs", rust_maps::words(schema)),
        ("sidecar/src/config/settings.rs", settings(schema)),
        ("client-rust/src/code.rs", codes_of_client(schema)),
        ("client-rust/src/limits.rs", rust_maps::maps_of_client(schema)),
        ("client-rust/src/settings.rs", settings_of_client(schema)),
        ("client-rust/src/stats.rs", statistics_of_client(schema)),
        ("client-rust/src/words.rs", rust_maps::words_of_client(schema)),
    ];
    texts
        .into_iter()
        .map(|(path, text)| Ok(Output { path, text: formatted(&(HEAD.to_owned() + &text), root)? }))
        .collect()
}

/// By rustfmt, with the settings of this repository.
fn formatted(text: &str, root: &Path) -> Result<String> {
    let mut command = Command::new("rustfmt");
    command.args(["--edition", "2024", "--config-path"]).arg(root.join(".rustfmt.toml"));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start rustfmt, which `rustup component add rustfmt` installs")?;
    // It reads all before it writes, so nobody waits for the other.
    child.stdin.take().context("rustfmt has no standard input")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "rustfmt does not take this:\n{text}");
    Ok(String::from_utf8(output.stdout)?)
}

fn codes(schema: &Schema) -> String {
    let mut text = String::from(
        "//! The error codes of SPEC 4, with their names, numbers and what they alone tell.\n\n\
         /// What went wrong, as one of the codes of SPEC 4.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]\n#[non_exhaustive]\n#[repr(u16)]\n\
         pub enum ErrorCode {\n",
    );
    let codes = || schema.codes.iter().map(|code| (pascal(code.name.get_ref()), code));
    for (variant, code) in codes() {
        text += &rust_doc(code.doc.get_ref(), 4);
        text += &format!("{variant} = {},\n", code.number.get_ref());
    }
    text += "}\n\nimpl ErrorCode {\n/// Every code, by number.\npub const ALL: &'static [Self] = &[\n";
    text.extend(codes().map(|(variant, _)| format!("Self::{variant},\n")));
    text += "];\n\n/// The name on the wire.\npub const fn as_str(self) -> &'static str {\nmatch self {\n";
    text.extend(codes().map(|(variant, code)| format!("Self::{variant} => \"{}\",\n", code.name.get_ref())));
    text += "}\n}\n\n/// The code of that name.\npub fn from_name(name: &str) -> Option<Self> {\nmatch name {\n";
    text.extend(codes().map(|(variant, code)| format!("\"{}\" => Some(Self::{variant}),\n", code.name.get_ref())));
    text += "_ => None,\n}\n}\n\n";
    text += &rust_doc(
        "Whether the same request may succeed later, as far as the code alone can tell (see `WireError::retryable`).",
        4,
    );
    let of = |predicate: fn(&super::model::Code) -> bool| {
        let variants: Vec<_> =
            codes().filter(|(_, code)| predicate(code)).map(|(variant, _)| format!("Self::{variant}")).collect();
        variants.join(" | ")
    };
    text += &format!("pub const fn retryable(self) -> bool {{\nmatches!(self, {})\n}}\n\n", of(|code| code.retryable));
    text += &format!(
        "/// Whether clients alone make it: it is never on the wire.\n\
         pub const fn is_of_clients(self) -> bool {{\nmatches!(self, {})\n}}\n}}\n",
        of(|code| code.of_clients)
    );
    text
}

fn codes_of_client(schema: &Schema) -> String {
    let mut text = String::from(
        "//! The error codes as this crate's own type: the wire's may grow without the programs that use this crate.\n\n\
         use nexus_protocol::error as wire;\n\n\
         /// What went wrong. More of each is in the specification of the protocol (SPEC 4).\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]\n#[non_exhaustive]\npub enum ErrorCode {\n",
    );
    let variants: Vec<_> = schema.codes.iter().map(|code| pascal(code.name.get_ref())).collect();
    for (variant, code) in variants.iter().zip(&schema.codes) {
        text += &rust_doc(code.doc.get_ref(), 4);
        text += &format!("{variant},\n");
    }
    text += "}\n\nimpl ErrorCode {\n/// Each of them.\npub const ALL: &'static [Self] = &[\n";
    text.extend(variants.iter().map(|variant| format!("Self::{variant},\n")));
    text += "];\n\npub(crate) const fn wire(self) -> wire::ErrorCode {\nmatch self {\n";
    text.extend(variants.iter().map(|variant| format!("Self::{variant} => wire::ErrorCode::{variant},\n")));
    text + "}\n}\n}\n"
}

/// A number as a person writes it.
fn literal(number: u64) -> String {
    match in_units(number) {
        Some((count, "KiB")) => format!("{count} << 10"),
        Some((count, "MiB")) => format!("{count} << 20"),
        Some((count, _)) => format!("{count} << 30"),
        None => grouped(number),
    }
}

fn limits(schema: &Schema) -> String {
    let mut text = String::from(
        "//! Every bound of the protocol and of the configuration, and every default, with the unit in the name and the reason.\n\
         //!\n\
         //! Invariant: no other file of the repository holds a number that bounds a peer's input.\n",
    );
    for limit in schema.limits.iter().filter(|limit| limit.rust) {
        if let Some(heading) = &limit.heading {
            text += &format!("\n// ---- {heading} {}\n\n", "-".repeat(110 - heading.chars().count()));
        }
        text += &rust_doc(limit.doc.get_ref(), 0);
        text +=
            &format!("pub const {}: {} = {};\n", limit.name.get_ref(), integer(limit), value(limit.value.get_ref()));
    }
    text
}

fn integer(limit: &Limit) -> &'static str {
    match limit.kind {
        Integer::U32 => "u32",
        Integer::U64 => "u64",
        Integer::Usize => "usize",
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::Number(number) => grouped(*number),
        Value::Text(text) => super::model::size(text).map_or_else(|| text.clone(), literal),
        Value::Switch(on) => on.to_string(),
    }
}

/// `Config`, its defaults, and the table of all settings.
fn settings(schema: &Schema) -> String {
    let mut text = String::from(
        "//! The configuration as the sidecar uses it, and every setting of it.\n\n\
         use std::path::PathBuf;\n\nuse log::LevelFilter;\nuse nexus_protocol::limits;\nuse serde::{Deserialize, Serialize};\n\n\
         use super::endpoint::Endpoint;\nuse super::isolation::Isolation;\nuse super::table::{Setting, bytes, count, live, millis, setting};\n\
         use super::value::{Kind, Place};\n\n\
         /// What is in force. Sizes are bytes, durations milliseconds; the unit is the last word of the name.\n///\n\
         /// A `Config` that came out of [`ConfigArgs::load`](super::ConfigArgs::load) has every value within its bound and\n\
         /// `min_instances <= max_instances`.\n///\n\
         /// What only the process that has the sockets needs to know is not told to a worker.\n\
         #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]\npub struct Config {\n",
    );
    for setting in &schema.settings {
        text += &rust_doc(&described(setting), 4);
        text += if setting.workers { "" } else { "#[serde(skip)]\n" };
        text += &format!("pub {}: {},\n", snake(setting.key.get_ref()), field_type(setting.kind));
    }
    text += "}\n\nimpl Default for Config {\n\
             /// The defaults, without a cache directory: that one depends on the environment, see\n\
             /// [`ConfigArgs::load`](super::ConfigArgs::load).\n\
             fn default() -> Self {\nSelf {\n";
    for setting in &schema.settings {
        text += &format!("{}: {},\n", snake(setting.key.get_ref()), default(schema, setting));
    }
    text += &format!("}}\n}}\n}}\n\npub static SETTINGS: [Setting; {}] = [\n", schema.settings.len());
    text.extend(schema.settings.iter().map(|setting| entry(schema, setting)));
    text + "];\n"
}

/// Its doc and its note, as sentences.
fn described(setting: &Setting) -> String {
    let note = setting.note.as_deref().map(|note| format!(" {}", flowing(note))).unwrap_or_default();
    format!("{}.{note}", flowing(setting.doc.get_ref()))
}

fn field_type(kind: SettingKind) -> &'static str {
    match kind {
        SettingKind::Count | SettingKind::Bytes | SettingKind::Millis => "u64",
        SettingKind::Switch => "bool",
        SettingKind::Path => "Option<PathBuf>",
        SettingKind::Uids => "Vec<u32>",
        SettingKind::Endpoint => "Option<Endpoint>",
        SettingKind::Level => "LevelFilter",
        SettingKind::Isolation => "Isolation",
    }
}

fn default(schema: &Schema, setting: &Setting) -> String {
    match (setting.kind, setting.default.as_ref().map(|value| value.get_ref())) {
        (SettingKind::Level, Some(Value::Text(level))) => format!("LevelFilter::{}", pascal(level)),
        (SettingKind::Isolation, Some(Value::Text(word))) => format!("Isolation::{}", pascal(word)),
        (SettingKind::Uids, _) => "Vec::new()".to_owned(),
        (_, None) => "None".to_owned(),
        (_, Some(value)) => wide(schema, value),
    }
}

/// A number as an u64, by the name of its limit where it has one.
fn wide(schema: &Schema, number: &Value) -> String {
    match number {
        Value::Text(name) => match schema.limit(name).map(|limit| limit.kind) {
            Some(Integer::U64) => format!("limits::{name}"),
            Some(_) => format!("limits::{name} as u64"),
            None => value(number),
        },
        _ => value(number),
    }
}

/// Its line in the table.
fn entry(schema: &Schema, setting: &Setting) -> String {
    let bound = |value: &Option<toml::Spanned<Value>>| value.as_ref().map(|value| wide(schema, value.get_ref()));
    let (min, max) = (bound(&setting.min).unwrap_or_default(), bound(&setting.max).unwrap_or_default());
    let (kind, place) = match setting.kind {
        SettingKind::Count => (format!("count({min}, {max})"), "Number"),
        SettingKind::Bytes => (format!("bytes({min}, {max})"), "Number"),
        SettingKind::Millis => (format!("millis({min}, {max})"), "Number"),
        SettingKind::Switch => ("Kind::Switch".to_owned(), "Switch"),
        SettingKind::Path => {
            (format!("Kind::Path {{ absent: {:?} }}", setting.absent.as_deref().unwrap_or_default()), "Path")
        }
        SettingKind::Uids => ("Kind::Uids".to_owned(), "Uids"),
        SettingKind::Endpoint => ("Kind::Endpoint".to_owned(), "Endpoint"),
        SettingKind::Level => ("Kind::Level".to_owned(), "Level"),
        SettingKind::Isolation => ("Kind::Isolation".to_owned(), "Isolation"),
    };
    let (key, doc) = (setting.key.get_ref(), flowing(setting.doc.get_ref()));
    let make = if setting.live { "live" } else { "setting" };
    let made = format!("{make}({key:?}, {kind}, {doc:?}, |c| Place::{place}(&mut c.{}))", snake(key));
    let more = [("env_mebibytes", &setting.env_mebibytes), ("default_words", &setting.default_words)];
    let more: String =
        more.iter().filter_map(|(field, text)| Some(format!("{field}: Some({:?}), ", text.as_ref()?))).collect();
    if more.is_empty() { format!("{made},\n") } else { format!("Setting {{ {more}..{made} }},\n") }
}

/// A method of the Rust client for each setting.
fn settings_of_client(schema: &Schema) -> String {
    let mut text = String::from(
        "//! The sidecar's settings, as methods of [`SpawnOptions`]. What is not set is as in its environment, file or defaults.\n\n\
         use std::ffi::OsString;\nuse std::path::PathBuf;\n\nuse crate::spawn::{LogLevel, SpawnOptions};\n\n\
         impl SpawnOptions {\n",
    );
    for setting in schema.settings.iter().filter(|setting| setting.clients) {
        let key = setting.key.get_ref();
        let (takes, gives) = match (&setting.rust_type, setting.kind) {
            (Some(takes), _) => (takes.as_str(), "value.to_string()"),
            (None, kind) if kind.is_number() => ("u64", "value.to_string()"),
            (None, SettingKind::Switch) => ("bool", "value.to_string()"),
            (None, SettingKind::Level) => ("LogLevel", "value.to_string()"),
            (None, SettingKind::Path) => ("impl Into<PathBuf>", "value.into()"),
            (None, _) => ("impl Into<OsString>", "value"),
        };
        let name = setting.rust_name.clone().unwrap_or_else(|| snake(key));
        text += &rust_doc(&described(setting), 4);
        text += &format!(
            "#[must_use]\npub fn {name}(self, value: {takes}) -> Self {{\nself.flag(\"--{}\", {gives})\n}}\n\n",
            kebab(key)
        );
    }
    text.truncate(text.trim_end().len());
    text + "\n}\n"
}

fn figure(kind: Figure) -> &'static str {
    match kind {
        Figure::U64 => "u64",
        Figure::F64 => "f64",
    }
}

/// The message `stats`.
fn statistics(schema: &Schema) -> String {
    let mut text = String::from(
        "//! The figures of a sidecar (SPEC 3, stats).\n\nuse serde::{Deserialize, Serialize};\n\n\
         /// Figures since the sidecar started.\n\
         #[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]\n#[serde(rename_all = \"camelCase\")]\n\
         pub struct Stats {\n",
    );
    for statistic in &schema.statistics {
        text += &rust_doc(statistic.doc.get_ref(), 4);
        text += if statistic.optional { "#[serde(default)]\n" } else { "" };
        text += &format!("pub {}: {},\n", snake(statistic.name.get_ref()), figure(statistic.kind));
    }
    text + "}\n"
}

fn statistics_of_client(schema: &Schema) -> String {
    let mut text = String::from(
        "//! The figures of a sidecar as this crate's own type: the wire's may grow without the programs that use this crate.\n\n\
         use nexus_protocol::message;\n\n\
         /// The sidecar's figures.\n#[derive(Clone, Copy, Debug, Default, PartialEq)]\n#[non_exhaustive]\npub struct Stats {\n",
    );
    for statistic in &schema.statistics {
        text += &rust_doc(statistic.doc.get_ref(), 4);
        text += &format!("pub {}: {},\n", snake(statistic.name.get_ref()), figure(statistic.kind));
    }
    text += "}\n\nimpl Stats {\npub(crate) fn of(told: &message::Stats) -> Self {\nSelf {\n";
    for statistic in &schema.statistics {
        let name = snake(statistic.name.get_ref());
        text += &format!("{name}: told.{name},\n");
    }
    text + "}\n}\n}\n"
}
