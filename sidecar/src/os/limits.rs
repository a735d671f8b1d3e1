//! Limits of this process that others have set and that may be why it cannot start: the kernel says of a failure that there is no memory,
//! no thread or no file, and never which limit it ran into. Only for errors that end the process.

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, Signal};

/// One kind: its name, how it is set, and from where on nobody runs into it at a start.
struct Kind {
    resource: Resource,
    name: &'static str,
    set_by: &'static str,
    enough: u64,
    /// With less, an engine fails somewhere in its start, and not always with a word.
    least: u64,
    unit: Unit,
}

enum Unit {
    Bytes,
    Pieces,
}

const KINDS: [Kind; 5] = [
    // An instance reserves 12 GiB, and there are ten and more.
    Kind {
        resource: Resource::RLIMIT_AS,
        name: "address space",
        set_by: "ulimit -v, LimitAS=",
        enough: 1 << 40,
        least: 12 << 30,
        unit: Unit::Bytes,
    },
    // Each thread's stack counts, and the whole memory of a guest.
    Kind {
        resource: Resource::RLIMIT_DATA,
        name: "data",
        set_by: "ulimit -d, LimitDATA=",
        enough: 16 << 30,
        least: 640 << 20,
        unit: Unit::Bytes,
    },
    // Native code and the memory of guests are files without a name.
    Kind {
        resource: Resource::RLIMIT_FSIZE,
        name: "size of files",
        set_by: "ulimit -f, LimitFSIZE=",
        enough: 1 << 30,
        least: 0,
        unit: Unit::Bytes,
    },
    Kind {
        resource: Resource::RLIMIT_NOFILE,
        name: "open files",
        set_by: "ulimit -n, LimitNOFILE=",
        enough: 256,
        least: 0,
        unit: Unit::Pieces,
    },
    // The threads of all processes of a user together.
    Kind {
        resource: Resource::RLIMIT_NPROC,
        name: "threads of this user",
        set_by: "ulimit -u, LimitNPROC=",
        enough: 1024,
        least: 0,
        unit: Unit::Pieces,
    },
];

/// What is limited here to less than anybody needs, in words that follow an error; nothing if nothing is.
pub fn in_words() -> String {
    told(in_force)
}

/// Whether an engine can be started at all.
pub fn allow_an_engine() -> bool {
    KINDS.iter().all(|kind| in_force(kind) >= kind.least)
}

fn in_force(kind: &Kind) -> u64 {
    getrlimit(kind.resource).map_or(u64::MAX, |(limit, _)| limit)
}

fn told(limit_of: impl Fn(&Kind) -> u64) -> String {
    let mut words = String::new();
    for kind in &KINDS {
        let limit = limit_of(kind);
        if limit < kind.enough {
            let limit = match kind.unit {
                Unit::Bytes => format!("{} KiB", limit >> 10),
                Unit::Pieces => limit.to_string(),
            };
            let before = if words.is_empty() { "; limited here, and perhaps too low: " } else { ", " };
            words.push_str(&format!("{before}{} to {limit} ({})", kind.name, kind.set_by));
        }
    }
    words
}

/// Has a write that the limit of the size of files forbids fail like any other, rather than end the process without a word. For
/// the first thread, before there are others.
pub fn let_writes_fail() {
    if let Err(e) = SigSet::from(Signal::SIGXFSZ).thread_block() {
        log::debug!("a limit of the size of files will end the process: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_what_anybody_needs_is_told_with_how_it_is_set() {
        assert_eq!(told(|_| u64::MAX), "");
        assert_eq!(told(|kind| kind.enough), "");
        let low = |resource: Resource, limit: u64| {
            told(move |kind| if kind.resource as i32 == resource as i32 { limit } else { u64::MAX })
        };
        assert_eq!(
            low(Resource::RLIMIT_FSIZE, 0),
            "; limited here, and perhaps too low: size of files to 0 KiB (ulimit -f, LimitFSIZE=)"
        );
        assert_eq!(
            low(Resource::RLIMIT_NOFILE, 4),
            "; limited here, and perhaps too low: open files to 4 (ulimit -n, LimitNOFILE=)"
        );
        assert_eq!(told(|_| 0).matches("ulimit").count(), KINDS.len());
    }
}
