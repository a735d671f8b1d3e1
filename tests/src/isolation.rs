//! The channels of `handlers/isolation`: how an execution may try to leave something behind.

/// One of them: the body of a handler.
#[derive(Debug)]
pub struct Channel {
    pub name: String,
    pub source: String,
}

/// All of them, in the order of the file.
pub fn channels() -> Vec<Channel> {
    let text = include_str!("../handlers/isolation/channels.js");
    let channel = |part: &str| {
        let (name, source) = part.split_once('\n').expect("a name, then a handler");
        Channel { name: name.trim().to_owned(), source: source.to_owned() }
    };
    text.split("// channel:").skip(1).map(channel).collect()
}
