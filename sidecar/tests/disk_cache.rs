//! The disk tier of the compile cache as its users see it: whole processes that share a directory, one after another.

use std::fs::{self, DirBuilder};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nexus_protocol::message::{ClientHello, Code, Execute, Precompile};
use nexus_protocol::{
    ClientMessage, ErrorCode, FrameDecoder, MAGIC, RequestId, SidecarMessage, VersionRange, decode_sidecar,
};
use serde_json::Value as Json;

const MAX_FRAME_BYTES: usize = 1 << 20;
/// Longer than any start on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A private directory, gone when dropped.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("nexus-disk-cache-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn cache(&self) -> PathBuf {
        self.0.join("cache")
    }

    /// What serving sidecars said.
    fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    fn entries(&self) -> Vec<PathBuf> {
        let Ok(files) = fs::read_dir(self.cache()) else { return Vec::new() };
        files.map(|f| f.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "qjsc")).collect()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Without any setting of whoever runs the tests.
fn sidecar(cache: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexus-sidecar"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NEXUS_")) {
        command.env_remove(name);
    }
    command.env("NEXUS_CACHE_DIR", cache).stdin(Stdio::null());
    command
}

/// What `run --json` says, and what the log says.
fn run(file: &Path, cache: &Path) -> (Json, String) {
    let output = sidecar(cache).arg("run").arg(file).arg("--json").output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    (serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {log}")), log)
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::yield_now();
    }
}

const THROWS_ON_LINE_3: &str = "const a = 1;\nconst f = () => {\n  throw new Error('three');\n};\nawait null; f();";

#[test]
fn the_second_process_finds_the_handler_and_the_same_place_of_its_error() {
    let dir = TempDir::new();
    let file = dir.file("h.js", THROWS_ON_LINE_3);
    let (first, log) = run(&file, &dir.cache());
    assert_eq!((&first["metrics"]["cacheHit"], log.as_str()), (&Json::Bool(false), ""));
    assert_eq!(first["error"]["location"]["line"], 3, "{first}");
    let (second, log) = run(&file, &dir.cache());
    assert_eq!((&second["metrics"]["cacheHit"], log.as_str()), (&Json::Bool(true), ""));
    assert_eq!(second["error"], first["error"]);
    assert!(second["metrics"].get("compilationTimeUs").is_none_or(Json::is_null), "{second}");
}

#[test]
fn check_and_run_share_the_cache() {
    let dir = TempDir::new();
    let file = dir.file("h.js", "return 1");
    assert!(sidecar(&dir.cache()).arg("check").arg(&file).stdout(Stdio::null()).status().unwrap().success());
    assert_eq!(run(&file, &dir.cache()).0["metrics"]["cacheHit"], true);
}

#[test]
fn a_handler_that_does_not_compile_leaves_nothing() {
    let dir = TempDir::new();
    let file = dir.file("h.js", "let = ;");
    for _ in 0..2 {
        assert_eq!(run(&file, &dir.cache()).0["error"]["code"], "COMPILATION_ERROR");
    }
    assert!(dir.entries().is_empty());
}

#[test]
fn bytecode_that_somebody_changed_does_not_run() {
    let dir = TempDir::new();
    let file = dir.file("h.js", "return 'genuine handler'");
    run(&file, &dir.cache());
    let entry = dir.entries().remove(0);
    let genuine = fs::read(&entry).unwrap();
    // the string constant in the bytecode: changed, it would be the value; the source behind it, for messages; and that of the handler
    let places: Vec<usize> = (0..genuine.len()).filter(|at| genuine[*at..].starts_with(b"genuine")).collect();
    assert_eq!(places.len(), 3);
    for at in places {
        let mut changed = genuine.clone();
        changed[at..at + 7].copy_from_slice(b"forgery");
        fs::write(&entry, changed).unwrap();
        let (ran, log) = run(&file, &dir.cache());
        assert_eq!((&ran["value"], &ran["metrics"]["cacheHit"]), (&"genuine handler".into(), &Json::Bool(false)));
        assert!(log.contains("is removed: its tag is wrong"), "{log}");
        // what was compiled instead is whole
        let (again, log) = run(&file, &dir.cache());
        assert_eq!((&again["value"], &again["metrics"]["cacheHit"]), (&"genuine handler".into(), &Json::Bool(true)));
        assert!(!log.contains("is removed"), "{log}");
    }
}

#[test]
fn without_a_usable_directory_there_is_one_warning_and_a_result() {
    let dir = TempDir::new();
    let file = dir.file("h.js", "return 7");
    for cache in ["/proc/none/cache", file.to_str().unwrap()] {
        let (ran, log) = run(&file, Path::new(cache));
        assert_eq!((&ran["value"], &ran["metrics"]["cacheHit"]), (&7.into(), &Json::Bool(false)));
        assert_eq!(log.matches("kept in memory only").count(), 1, "{log}");
        assert_eq!(log.lines().count(), 1, "{log}");
    }
    let (ran, log) = run(&file, Path::new("none"));
    assert_eq!((&ran["value"], log.as_str()), (&7.into(), ""));
}

/// A sidecar that serves, and one connection to it. Killed when dropped, as a crash would.
struct Serving {
    child: Child,
    stream: UnixStream,
    decoder: FrameDecoder,
    last_id: u32,
    socket: PathBuf,
}

impl Serving {
    fn start(dir: &TempDir) -> Self {
        let socket = dir.0.join("s");
        let log = fs::File::options().create(true).append(true).open(dir.log()).unwrap();
        let child = sidecar(&dir.cache()).arg("serve").arg("--listen").arg(&socket).stderr(log).spawn().unwrap();
        let mut stream = None;
        wait_until("start", || {
            stream = UnixStream::connect(&socket).ok();
            stream.is_some()
        });
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut serving = Self { child, stream, decoder: FrameDecoder::new(MAX_FRAME_BYTES), last_id: 0, socket };
        let VersionRange { min, max } = VersionRange::SUPPORTED;
        let hello = ClientMessage::Hello(ClientHello { magic: MAGIC, min, max, client: "test" });
        serving.ask(RequestId::CONNECTION, &hello, |answer| assert!(matches!(answer, SidecarMessage::Hello(_))));
        serving
    }

    fn ask<T>(&mut self, id: RequestId, message: &ClientMessage<'_>, read: impl FnOnce(SidecarMessage<'_>) -> T) -> T {
        let mut frame = Vec::new();
        message.encode(id, MAX_FRAME_BYTES, &mut frame).unwrap();
        self.stream.write_all(&frame).unwrap();
        loop {
            if let Some(body) = self.decoder.next_frame().unwrap() {
                return read(decode_sidecar(body).unwrap().message);
            }
            let read_bytes = self.stream.read(self.decoder.spare()).unwrap();
            assert_ne!(read_bytes, 0, "the sidecar has closed the connection");
            self.decoder.advance(read_bytes);
        }
    }

    fn request<T>(&mut self, message: &ClientMessage<'_>, read: impl FnOnce(SidecarMessage<'_>) -> T) -> T {
        self.last_id += 1;
        self.ask(RequestId(self.last_id), message, read)
    }

    /// The handle, and whether the handler was found compiled.
    fn precompile(&mut self, source: &str) -> (Vec<u8>, bool) {
        self.request(
            &ClientMessage::Precompile(Precompile { source, handler_name: None, suspend_mode: None }),
            |answer| match answer {
                SidecarMessage::Compiled(compiled) => (compiled.handler.to_vec(), compiled.cache_hit),
                other => panic!("{other:?}"),
            },
        )
    }

    /// The value as MessagePack, or the code of the error.
    fn execute(&mut self, handle: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        self.request(&ClientMessage::Execute(Execute::new(Code::Handler(handle))), |answer| match answer {
            SidecarMessage::Result(result) => match result.error {
                None => Ok(result.value.unwrap_or_default().to_vec()),
                Some(error) => Err(error.code),
            },
            other => panic!("{other:?}"),
        })
    }

    /// As the sidecar counts them: a client is not told what others have compiled.
    fn hits_and_rejected(&self) -> (String, String) {
        (self.metric("nexus_cache_hits_total"), self.metric("nexus_cache_rejected_total"))
    }

    fn metric(&self, name: &str) -> String {
        let mut command = sidecar(Path::new("none"));
        let output = command.arg("metrics").arg("--connect").arg(&self.socket).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_handle_outlives_the_sidecar_that_gave_it_out() {
    let dir = TempDir::new();
    let handle = {
        let mut first = Serving::start(&dir);
        let (handle, cache_hit) = first.precompile("return 42");
        assert!(!cache_hit);
        wait_until("the write", || dir.entries().len() == 1);
        handle
    };
    let mut second = Serving::start(&dir);
    assert_eq!(second.execute(&handle), Ok(vec![42]));
    assert_eq!(second.metric("nexus_cache_misses_total"), "0");
    assert_eq!(second.precompile("return 42"), (handle.clone(), true));
    // the entry may go while a sidecar has the handler, and then the handle of a later one names nothing
    fs::remove_file(&dir.entries()[0]).unwrap();
    assert_eq!(second.execute(&handle), Ok(vec![42]));
    drop(second);
    let mut third = Serving::start(&dir);
    assert_eq!(third.execute(&handle), Err(ErrorCode::InvalidHandler));
    assert_eq!(third.precompile("return 42"), (handle.clone(), false));
    assert_eq!(third.execute(&handle), Ok(vec![42]));
}

#[test]
fn a_refused_entry_is_counted() {
    let dir = TempDir::new();
    {
        let mut first = Serving::start(&dir);
        first.precompile("return 1");
        wait_until("the write", || dir.entries().len() == 1);
    }
    let entry = dir.entries().remove(0);
    fs::File::options().write(true).open(&entry).unwrap().set_len(99).unwrap();
    let mut second = Serving::start(&dir);
    assert!(!second.precompile("return 1").1);
    assert_eq!(second.metric("nexus_cache_rejected_total"), "1");
}

#[test]
fn a_sidecar_that_is_killed_while_it_writes_leaves_no_torn_entry() {
    let dir = TempDir::new();
    for round in 0..5 {
        let mut serving = Serving::start(&dir);
        for n in 0..20 + round {
            serving.precompile(&format!("return {n} // {round} {}", "x".repeat(100_000)));
        }
    }
    let written = dir.entries().len();
    assert!(written > 0);
    let mut last = Serving::start(&dir);
    for round in 0..5 {
        for n in 0..20 + round {
            last.precompile(&format!("return {n} // {round} {}", "x".repeat(100_000)));
        }
    }
    assert_eq!(last.hits_and_rejected(), (written.to_string(), "0".into()));
}

/// A file system of its own in place of the cache's directory. Unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// None, said aloud, where this process may not mount.
    fn new(dir: &TempDir, options: &str) -> Option<Self> {
        DirBuilder::new().mode(0o700).create(dir.cache()).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(dir.cache()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(dir.cache())),
            other => {
                eprintln!("not tested, for this process cannot mount a file system: {other:?}");
                None
            }
        }
    }

    fn make_read_only(&self) {
        assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Handlers with constants of their own: each entry takes a few pages.
fn large(n: usize) -> String {
    format!("return {n} // {}", "x".repeat(20_000))
}

/// All run, in memory, and of the disk there is one word.
fn runs_from_memory_with_one_warning(dir: &TempDir, serving: &mut Serving, warning: &str) {
    for n in 0..20 {
        let (handle, cache_hit) = serving.precompile(&large(n));
        assert!(!cache_hit);
        assert_eq!(serving.execute(&handle), Ok(vec![u8::try_from(n).unwrap()]));
        assert_eq!(serving.precompile(&large(n)), (handle, true));
    }
    let log = || fs::read_to_string(dir.log()).unwrap();
    wait_until("the warning", || log().contains(warning));
    assert_eq!(log().matches("the cache in").count(), 1, "{}", log());
    assert_eq!(serving.metric("nexus_cache_rejected_total"), "0");
}

#[test]
fn on_a_full_disk_handlers_are_kept_in_memory() {
    let dir = TempDir::new();
    let Some(_mounted) = Mounted::new(&dir, "size=64k,mode=0700") else { return };
    let written = {
        let mut serving = Serving::start(&dir);
        runs_from_memory_with_one_warning(&dir, &mut serving, "cannot write the cache in");
        dir.entries().len()
    };
    assert!((1..4).contains(&written), "{written} entries in 64 KiB");
    assert!(fs::read_dir(dir.cache()).unwrap().all(|f| !f.unwrap().file_name().to_string_lossy().ends_with(".tmp")));
    // what was written is whole, and the next sidecar has use of it
    let mut next = Serving::start(&dir);
    (0..20).for_each(|n| drop(next.precompile(&large(n))));
    assert_eq!(next.hits_and_rejected(), (written.to_string(), "0".into()));
}

#[test]
fn a_disk_without_room_for_the_key_is_no_cache() {
    let dir = TempDir::new();
    let Some(mounted) = Mounted::new(&dir, "size=4k,mode=0700") else { return };
    fs::write(mounted.0.join("other"), [1; 4096]).unwrap();
    let file = dir.file("h.js", "return 7");
    let (ran, log) = run(&file, &dir.cache());
    assert_eq!(ran["value"], 7);
    assert_eq!((log.matches("kept in memory only").count(), log.lines().count()), (1, 1), "{log}");
}

#[test]
fn a_read_only_directory_is_read_and_never_written() {
    let dir = TempDir::new();
    let Some(mounted) = Mounted::new(&dir, "size=1m,mode=0700") else { return };
    let file = dir.file("h.js", "return 7");
    assert_eq!(run(&file, &dir.cache()).1, "");
    mounted.make_read_only();
    assert_eq!(run(&file, &dir.cache()).0["metrics"]["cacheHit"], true);
    let mut serving = Serving::start(&dir);
    runs_from_memory_with_one_warning(&dir, &mut serving, "cannot write the cache in");
    assert_eq!(dir.entries().len(), 1);
    drop(serving);
    // and without a key there, nothing is believed
    let empty = TempDir::new();
    let Some(mounted) = Mounted::new(&empty, "size=1m,mode=0700") else { return };
    mounted.make_read_only();
    let (ran, log) = run(&file, &empty.cache());
    assert_eq!(
        (&ran["value"], log.matches("kept in memory only").count(), log.lines().count()),
        (&7.into(), 1, 1),
        "{log}"
    );
}
