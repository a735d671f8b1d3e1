//! The hostile handlers of `handlers/hostile`, and how one is run.
//!
//! The head of a file says what it attacks and what may come of it:
//!
//! ```text
//! // row: H7                                 the row of the test table
//! // expect: TIMEOUT | EXECUTION_ERROR RangeError | success
//! // expect-stack: ...                        the same where `suspendMode` is "stack"; and expect-await
//! // grant: ext:* state:read:*               capabilities; absent = none
//! // answer: {"x": 1}                        what each of its extension calls is answered with; absent = null
//! // value: 1                                what it returns when it succeeds; absent = anything
//! // limits: maxHostCalls=50                 narrower limits
//! // wrap: 60000 ( )                         the body, with that many of the first before it and of the second behind it
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nexus_protocol::message::{CallLimits, Status, SuspendMode};
use serde_json::Value;

use crate::{Client, Run, Segment, Waiting};

/// Rows of the table that files belong to.
pub const ROWS: [&str; 10] = ["H1", "H2", "H3", "H4", "H5", "H6", "H7", "H8", "H9", "H10"];
/// Files that each row has at least, and all together.
const MIN_FILES_PER_ROW: usize = 8;
const MIN_FILES: usize = 250;

/// Of handlers that are to be stopped by it.
pub const TIMEOUT_MS: u64 = 150;
/// Of handlers that end in another way, which takes as long as it takes.
pub const LONG_TIMEOUT_MS: u64 = 60_000;
/// Of the deadline, on a machine that does other things too; the bench measures it. Where it is late it is tried again: a machine
/// that was busy is late once, a handler that is not stopped is late always.
const OVERRUN: Duration = Duration::from_millis(1500);
const TRIES: usize = 6;
/// Answers that a handler gets before it is given up.
const MAX_ANSWERS: usize = 20_000;

/// One file.
#[derive(Clone, Debug)]
pub struct Hostile {
    pub name: String,
    pub row: String,
    source: String,
    expected: Vec<String>,
    expected_in: [(SuspendMode, Vec<String>); 2],
    grants: Vec<String>,
    answer: Value,
    value: Option<Value>,
    limits: CallLimits<'static>,
}

/// All files, by name. Panics when a row has too few.
pub fn corpus() -> Vec<Hostile> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("handlers/hostile");
    let mut all: Vec<Hostile> =
        fs::read_dir(&dir).expect("handlers/hostile").map(|entry| read(&entry.expect("an entry").path())).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let mut rows: BTreeMap<&str, usize> = ROWS.into_iter().map(|row| (row, 0)).collect();
    for hostile in &all {
        *rows
            .get_mut(&*hostile.row)
            .unwrap_or_else(|| panic!("{}: there is no row {:?}", hostile.name, hostile.row)) += 1;
    }
    assert!(rows.values().all(|n| *n >= MIN_FILES_PER_ROW) && all.len() >= MIN_FILES, "{}: {rows:?}", all.len());
    all
}

fn read(path: &Path) -> Hostile {
    let text = fs::read_to_string(path).expect("a readable file");
    let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
    let head =
        |key: &str| text.lines().find_map(|line| line.strip_prefix("// ")?.strip_prefix(key)?.strip_prefix(": "));
    let json =
        |key: &str| head(key).map(|json| serde_json::from_str(json).unwrap_or_else(|e| panic!("{name}: {key}: {e}")));
    let words = |key: &str, separator: char| -> Vec<String> {
        let words = head(key).unwrap_or_default().split(separator).map(str::trim);
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let mut limits = CallLimits::default();
    for word in words("limits", ' ') {
        let (key, number) = word.split_once('=').expect("limit=number");
        let number = Some(number.parse().expect("a number"));
        match key {
            "maxHostCalls" => limits.max_host_calls = number,
            "maxResultBytes" => limits.max_result_bytes = number,
            "memoryLimitBytes" => limits.memory_limit_bytes = number,
            _ => panic!("{name}: limit {key}"),
        }
    }
    let expected = words("expect", '|');
    assert!(!expected.is_empty(), "{name} does not say what is expected");
    let source = match words("wrap", ' ') {
        none if none.is_empty() => text.clone(),
        wrap => {
            let n: usize = wrap[0].parse().expect("a number");
            let body: String = text.lines().filter(|line| !line.starts_with("//")).collect();
            let around = |at: usize| format!("{} ", wrap.get(at).map_or("", String::as_str)).repeat(n);
            format!("{}{body}{}", around(1), around(2))
        }
    };
    Hostile {
        row: head("row").unwrap_or_default().to_owned(),
        expected,
        expected_in: [
            (SuspendMode::Await, words("expect-await", '|')),
            (SuspendMode::Stack, words("expect-stack", '|')),
        ],
        grants: words("grant", ' '),
        answer: json("answer").unwrap_or_default(),
        value: json("value"),
        limits,
        source,
        name,
    }
}

impl Hostile {
    pub fn timeout_ms(&self) -> u64 {
        if self.expected.iter().any(|e| e == "TIMEOUT") { TIMEOUT_MS } else { LONG_TIMEOUT_MS }
    }

    pub fn run(&self) -> Run {
        let grants: Vec<&str> = self.grants.iter().map(String::as_str).collect();
        let limits = self.limits;
        Run::source(&*self.source).grant(&grants).timeout_ms(self.timeout_ms()).limits(move |l| *l = limits)
    }

    /// Runs it to its end, answering its calls. A word when something is not as it should be.
    pub fn attack(&self, client: &mut Client) -> Option<String> {
        self.attack_expecting(client, self.run(), &self.expected)
    }

    /// As `attack`, in this style whatever the source looks like.
    pub fn attack_in(&self, client: &mut Client, mode: SuspendMode) -> Option<String> {
        let own = self.expected_in.iter().find(|(of, expected)| *of == mode && !expected.is_empty());
        let expected = own.map_or(&self.expected, |(_, expected)| expected);
        let wrong = self.attack_expecting(client, self.run().suspend_mode(mode), expected)?;
        Some(format!("{mode:?}: {wrong}"))
    }

    fn attack_expecting(&self, client: &mut Client, run: Run, expected: &[String]) -> Option<String> {
        // shown when the test fails: the last one is the one that did it
        println!("{}", self.name);
        client.set_patience(Duration::from_millis(2 * LONG_TIMEOUT_MS));
        let mut late = Vec::new();
        while late.len() < TRIES {
            match self.attack_once(client, run.clone(), expected) {
                Ok(took) if took <= Duration::from_millis(self.timeout_ms()) + OVERRUN => return None,
                Ok(took) => late.push(took),
                Err(wrong) => return Some(wrong),
            }
        }
        Some(format!("{}: took {late:?}", self.name))
    }

    /// How long it took, or what came of it that was not expected.
    fn attack_once(&self, client: &mut Client, run: Run, expected: &[String]) -> Result<Duration, String> {
        let started = Instant::now();
        let (mut segment, mut waiting) = (client.run(run), Waiting::default());
        for _ in 0..MAX_ANSWERS {
            if segment.status != Status::Suspended {
                break;
            }
            segment = client.resume(&waiting.next(&segment).id, &self.answer);
        }
        let took = started.elapsed();
        let (code, named) = outcome(&segment);
        if !expected.iter().any(|e| *e == code || *e == named) {
            return Err(format!("{}: expected {expected:?}, got {code}: {:?}", self.name, segment.error));
        }
        if let (Some(value), Status::Success) = (&self.value, &segment.status)
            && segment.value() != *value
        {
            return Err(format!("{}: expected {value}, got {}", self.name, segment.value()));
        }
        Ok(took)
    }
}

/// What came of it, in the words of the files.
fn outcome(segment: &Segment) -> (String, String) {
    match (&segment.status, &segment.error) {
        (Status::Success, _) => ("success".into(), String::new()),
        (Status::Suspended, _) => ("suspended".into(), String::new()),
        (_, Some(error)) => (
            error.code.as_str().into(),
            format!("{} {}", error.code.as_str(), error.name.as_deref().unwrap_or_default()),
        ),
        (_, None) => panic!("{segment:?}"),
    }
}
