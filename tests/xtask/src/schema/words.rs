//! Names in the forms of each language, numbers with their units, and comments that fit a line.

/// Comments are filled up to here, as code is.
const WIDTH: usize = 120;

/// `maxInstances`, `MAX_INSTANCES` or `enableAOT` as words.
fn split(name: &str) -> Vec<String> {
    if name.contains('_') || name.chars().all(|letter| letter.is_ascii_uppercase()) {
        return name.split('_').map(str::to_ascii_lowercase).collect();
    }
    let mut words = vec![String::new()];
    let mut after_small = false;
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && after_small {
            words.push(String::new());
        }
        after_small = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        words.last_mut().expect("there is one").push(letter.to_ascii_lowercase());
    }
    words
}

/// `max_instances`
pub fn snake(name: &str) -> String {
    split(name).join("_")
}

/// `max-instances`
pub fn kebab(name: &str) -> String {
    split(name).join("-")
}

/// `MaxInstances`
pub fn pascal(name: &str) -> String {
    split(name).iter().map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect()
}

/// A doc as prose that is no Rust: a link to something else of the file is its name.
pub fn without_links(text: &str) -> String {
    flowing(text).replace("[`", "`").replace("`]", "`")
}

/// A text of one paragraph, whatever its line breaks were.
pub fn flowing(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The words of a paragraph in lines of a comment. `indent` is what stands before the mark of the comment in each line.
fn filled(text: &str, mark: &str, indent: usize) -> Vec<String> {
    let mut lines = vec![mark.to_owned()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one");
        if line.len() > mark.len() && indent + line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(format!("{mark} {word}"));
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.into_iter().map(|line| " ".repeat(indent) + &line).collect()
}

/// `/// text`, in as many lines as it takes.
pub fn rust_doc(text: &str, indent: usize) -> String {
    filled(text, "///", indent).iter().map(|line| format!("{line}\n")).collect()
}

/// `/** text */`, in as many lines as it takes.
pub fn typescript_doc(text: &str, indent: usize) -> String {
    let pad = " ".repeat(indent);
    let text = without_links(text);
    if indent + text.chars().count() + 7 <= WIDTH {
        return format!("{pad}/** {text} */\n");
    }
    let lines: String = filled(&text, " *", indent).iter().map(|line| format!("{line}\n")).collect();
    format!("{pad}/**\n{lines}{pad} */\n")
}

/// `10_000`
pub fn grouped(number: u64) -> String {
    separated(number, '_')
}

fn separated(number: u64, separator: char) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(separator);
        }
        text.push(digit);
    }
    text
}

/// A number for people, by the last word of its name: `64 MiB`, `5 s`, `10,000`.
pub fn amount(name: &str, number: u64) -> String {
    let plain = separated(number, ',');
    let words = split(name);
    let is = |unit: &str| words.iter().any(|word| word == unit);
    if is("bytes") {
        return match in_units(number) {
            Some((count, unit)) => format!("{count} {unit}"),
            None if number < 2 => ["0", "1 byte"][number as usize].to_owned(),
            None => format!("{plain} bytes"),
        };
    }
    if is("ms") {
        return match number {
            0 => "0".to_owned(),
            _ if number.is_multiple_of(86_400_000) => format!("{} days", number / 86_400_000),
            _ if number.is_multiple_of(1_000) => format!("{} s", number / 1_000),
            _ => format!("{plain} ms"),
        };
    }
    plain
}

/// As many of the largest unit as it is, from a KiB on.
pub fn in_units(number: u64) -> Option<(u64, &'static str)> {
    [(30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| number > 0 && number.is_multiple_of(1 << shift))
        .map(|(shift, unit)| (number >> shift, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_take_the_form_of_each_language() {
        assert_eq!((snake("maxInstances"), kebab("enableAOT")), ("max_instances".into(), "enable-aot".into()));
        assert_eq!((pascal("PROTOCOL_ERROR"), pascal("helloAnswer")), ("ProtocolError".into(), "HelloAnswer".into()));
        assert_eq!(
            (snake("p50ExecutionTimeUs"), pascal("CANCELLED")),
            ("p50_execution_time_us".into(), "Cancelled".into())
        );
        assert_eq!(snake("crc32"), "crc32");
    }

    #[test]
    fn comments_fit_their_lines() {
        let text = "word ".repeat(60);
        for line in (rust_doc(&text, 4) + &typescript_doc(&text, 2)).lines() {
            assert!(line.len() <= WIDTH, "{line}");
        }
        assert_eq!(rust_doc("one\n two", 0), "/// one two\n");
        assert_eq!(typescript_doc("one\n two", 2), "  /** one two */\n");
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(amount("MAX_FRAME_BYTES", 64 << 20), "64 MiB");
        assert_eq!(amount("MAX_LABEL_BYTES", 300), "300 bytes");
        assert_eq!(amount("RETRY_AFTER_MS", 50), "50 ms");
        assert_eq!(amount("timeoutMs", 5_000), "5 s");
        assert_eq!(amount("MAX_CONTROL_VALUES", 65_536), "65,536");
        assert_eq!(grouped(1_000_000), "1_000_000");
    }
}
