//! The configuration file: one flat TOML table whose keys are those of the settings.
//!
//! Bounded read, then one pass that keeps the line of every value, so that an error can name it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::effective::Origin;
use super::error::ConfigError;
use super::settings::SETTINGS;
use super::table::Setting;
use super::value::{Place, Problem, wrong_type};

/// The longest sensible file is a few KiB; more is a wrong path.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Reads the whole file, at most [`MAX_FILE_BYTES`].
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::TooLong { path: path.to_owned(), max_bytes: MAX_FILE_BYTES });
    }
    Ok(text)
}

/// Hands every entry of `text` to `apply`, with the setting that it names; what is wrong goes to `errors`.
pub(super) fn entries(
    path: &Path,
    text: &str,
    errors: &mut Vec<ConfigError>,
    mut apply: impl FnMut(&'static Setting, Origin, &dyn Fn(&mut Place<'_>) -> Result<(), Problem>) -> Result<(), Problem>,
) {
    let line_of = |offset: usize| text.get(..offset).unwrap_or(text).matches('\n').count() + 1;
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            let line = line_of(error.span().map_or(0, |span| span.start));
            let message = error.message().replace('\n', "; ");
            errors.push(ConfigError::Syntax { path: path.to_owned(), line, message });
            return;
        }
    };
    let mut found: Vec<_> = table.iter().collect();
    found.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in found {
        let origin = Origin::File { path: path.to_owned(), line: line_of(key.span().start) };
        let name = key.get_ref();
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == name) else {
            let suggestion = nearest(name);
            errors.push(ConfigError::UnknownKey { key: name.clone().into_owned(), origin, suggestion });
            continue;
        };
        let written = text.get(value.span()).unwrap_or_default().trim_matches('"').to_owned();
        let set = |place: &mut Place<'_>| set(place, setting, value.get_ref());
        if let Err(problem) = apply(setting, origin.clone(), &set) {
            errors.push(ConfigError::Value { key: setting.key, value: written, origin, problem });
        }
    }
}

fn set(place: &mut Place<'_>, setting: &Setting, value: &DeValue<'_>) -> Result<(), Problem> {
    let kind = setting.kind;
    match value {
        DeValue::String(text) => match place {
            Place::Switch(_) => Err(wrong_type(kind)),
            Place::Number(_) if !matches!(kind, super::Kind::Bytes { .. }) => Err(wrong_type(kind)),
            Place::Number(_)
            | Place::Path(_)
            | Place::Uids(_)
            | Place::Endpoint(_)
            | Place::Level(_)
            | Place::Isolation(_) => place.set_text(kind, text),
        },
        DeValue::Integer(number) => match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => place.set_number(kind, number),
            Err(_) => Err(wrong_type(kind)),
        },
        DeValue::Boolean(value) => place.set_bool(kind, *value),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => Err(wrong_type(kind)),
    }
}

/// The setting that an unknown key was probably meant to be: the same letters in another style, or nearly the same.
pub(super) fn nearest(key: &str) -> Option<&'static str> {
    let letters = |name: &str| name.replace(['-', '_'], "").to_ascii_lowercase();
    let wanted = letters(key);
    let score = |setting: &Setting| strsim::normalized_damerau_levenshtein(&letters(setting.key), &wanted);
    let best = SETTINGS.iter().max_by(|a, b| score(a).total_cmp(&score(b)))?;
    (score(best) > 0.7).then_some(best.key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::random::Random;

    #[test]
    fn no_text_makes_the_reader_panic_and_none_gets_past_the_bounds() {
        const SEED_TEXT: &str = "maxInstances = 4\nminInstances = 1\ncacheDir = \"/a\\u0041\"\n[x]\ny = [1, 2.5e3]\n\
                                 debug = true # \u{e9}\nmemoryLimitBytes = '8 MiB'\nlog = \"info\"\n\"a\".b = 1979-05-27\n";
        const PIECES: [&str; 12] =
            ["\"", "'", "\n", "=", "[", "]", "\u{0}", "\u{feff}", "99999999999999999999", "-", ".", "\u{1f600}"];
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..20_000 {
            let mut chars: Vec<char> = SEED_TEXT.chars().collect();
            for _ in 0..=random.below(4) {
                if chars.is_empty() {
                    break;
                }
                let at = random.below(chars.len());
                match random.below(3) {
                    0 => drop(chars.remove(at)),
                    1 => chars.splice(at..at, PIECES[random.below(PIECES.len())].chars()).for_each(drop),
                    _ => chars.truncate(at.max(1)),
                }
            }
            let text: String = chars.into_iter().collect();
            let (mut config, mut errors) = (Config::default(), Vec::new());
            entries(Path::new("x"), &text, &mut errors, |setting, _, set| set(&mut (setting.place)(&mut config)));
            assert!((1..=2000).contains(&config.max_instances) && config.memory_limit_bytes >= 1 << 20, "{text:?}");
        }
    }
}
