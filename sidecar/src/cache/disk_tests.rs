//! What the disk tier does with entries that are not what it wrote, with a bound, and with other sidecars.

use std::cell::Cell;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use nexus_protocol::message::SuspendMode;
use nix::sys::stat::Mode;

use super::super::scratch::Scratch;
use super::super::{Asker, Client, CompileCache, Need, Origin};
use super::*;
use crate::token::StopToken;

const ENGINE: [u8; 32] = [4; 32];
const BOUND: u64 = 1 << 20;

fn handler_of(source: &str, bytecode_bytes: usize) -> Handler {
    Handler {
        digest: HandlerDigest::new(&ENGINE, source),
        source: source.into(),
        bytecode: vec![7; bytecode_bytes].into(),
        capabilities: vec![Need { token: "state:read:k".into(), line: 3, column: 5, certain: true }],
        took: std::time::Duration::from_millis(1),
        suspend_mode: SuspendMode::Stack,
        why: "".into(),
        warnings: [].into(),
        unparsed: None,
    }
}

fn open(scratch: &Scratch) -> DiskTier {
    DiskTier::open(scratch.path(), ENGINE, BOUND).unwrap()
}

fn path(scratch: &Scratch, source: &str) -> PathBuf {
    scratch.path().join(file_name(&HandlerDigest::new(&ENGINE, source)))
}

/// Writes entries and waits until they are on disk.
fn fill(scratch: &Scratch, sources: &[&str]) {
    let tier = open(scratch);
    for source in sources {
        tier.write(&Arc::new(handler_of(source, 100)));
    }
}

/// Asserts that what is at the entry of `source` is refused: no handler, counted, gone.
fn refused(tier: &DiskTier, scratch: &Scratch, source: &str, what: &str) {
    let before = tier.rejected();
    assert!(tier.read(&HandlerDigest::new(&ENGINE, source)).is_none(), "{what}");
    assert_eq!(tier.rejected(), before + 1, "{what}");
    assert!(fs::symlink_metadata(path(scratch, source)).is_err(), "{what} is still there");
}

/// As the file system would have it from another program of ours.
fn put(path: &PathBuf, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn an_entry_is_read_by_the_next_sidecar() {
    let scratch = Scratch::new();
    fill(&scratch, &["a"]);
    let tier = open(&scratch);
    let (found, made) = (tier.read(&HandlerDigest::new(&ENGINE, "a")).unwrap(), handler_of("a", 100));
    assert_eq!((found.source, found.bytecode), (made.source, made.bytecode));
    assert_eq!((found.capabilities, found.suspend_mode), (made.capabilities, made.suspend_mode));
    assert!(tier.read(&HandlerDigest::new(&ENGINE, "b")).is_none());
    assert_eq!(tier.rejected(), 0);
    assert_eq!(fs::metadata(path(&scratch, "a")).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn every_flipped_byte_and_every_other_length_is_refused() {
    let scratch = Scratch::new();
    fill(&scratch, &["a"]);
    let file = path(&scratch, "a");
    let entry = fs::read(&file).unwrap();
    let tier = open(&scratch);
    for at in 0..entry.len() {
        let mut flipped = entry.clone();
        flipped[at] ^= 0x20;
        put(&file, &flipped);
        refused(&tier, &scratch, "a", &format!("flipped byte {at}"));
        put(&file, &entry[..at]);
        refused(&tier, &scratch, "a", &format!("length {at}"));
    }
    put(&file, &[entry.as_slice(), &[0]].concat());
    refused(&tier, &scratch, "a", "one byte more");
    put(&file, &entry.repeat(2));
    refused(&tier, &scratch, "a", "twice the entry");
    put(&file, &entry);
    assert!(tier.read(&HandlerDigest::new(&ENGINE, "a")).is_some());
}

#[test]
fn two_entries_in_each_others_place_are_refused() {
    let scratch = Scratch::new();
    fill(&scratch, &["a", "b"]);
    let (a, b, aside) = (path(&scratch, "a"), path(&scratch, "b"), scratch.path().join("aside"));
    fs::rename(&a, &aside).unwrap();
    fs::rename(&b, &a).unwrap();
    fs::rename(&aside, &b).unwrap();
    let tier = open(&scratch);
    refused(&tier, &scratch, "a", "the entry of b");
    refused(&tier, &scratch, "b", "the entry of a");
}

#[test]
fn what_is_no_regular_file_of_ours_alone_is_refused_and_never_waited_for() {
    let scratch = Scratch::new();
    let (file, aside) = (path(&scratch, "a"), scratch.path().join("aside"));
    let make = |how: &dyn Fn()| {
        let _ = fs::remove_file(&aside);
        fill(&scratch, &["a"]);
        how();
        refused(&open(&scratch), &scratch, "a", "it");
    };
    make(&|| {
        fs::rename(&file, &aside).unwrap();
        symlink(&aside, &file).unwrap();
    });
    make(&|| fs::hard_link(&file, &aside).unwrap());
    for mode in [0o644, 0o660, 0o400, 0o000, 0o700, 0o4600] {
        make(&|| fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap());
    }
    make(&|| {
        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    });
    make(&|| {
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
    });
    make(&|| {
        fs::remove_file(&file).unwrap();
        // a socket's path is short, the entry's is not
        let short = scratch.path().join("s");
        let _listener = UnixListener::bind(&short).unwrap();
        fs::rename(&short, &file).unwrap();
    });
    make(&|| {
        fs::remove_file(&file).unwrap();
        symlink("/dev/zero", &file).unwrap();
    });
}

#[test]
fn an_entry_of_another_user_is_refused() {
    let scratch = Scratch::new();
    fill(&scratch, &["a"]);
    // only root can give a file away; who cannot, cannot be given one either
    if std::os::unix::fs::chown(path(&scratch, "a"), Some(65534), None).is_ok() {
        refused(&open(&scratch), &scratch, "a", "nobody's file");
    }
}

#[test]
fn a_link_to_an_entry_does_not_harm_what_it_points_to() {
    let scratch = Scratch::new();
    fill(&scratch, &["a", "b"]);
    fs::remove_file(path(&scratch, "a")).unwrap();
    symlink(path(&scratch, "b"), path(&scratch, "a")).unwrap();
    let tier = open(&scratch);
    refused(&tier, &scratch, "a", "a link");
    assert!(tier.read(&HandlerDigest::new(&ENGINE, "b")).is_some());
}

#[test]
fn a_directory_with_content_is_refused_and_left_alone() {
    let scratch = Scratch::new();
    fs::create_dir(path(&scratch, "a")).unwrap();
    fs::write(path(&scratch, "a").join("x"), "x").unwrap();
    fill(&scratch, &["a"]);
    let tier = open(&scratch);
    assert!(tier.read(&HandlerDigest::new(&ENGINE, "a")).is_none());
    assert!(path(&scratch, "a").join("x").exists());
}

#[test]
fn of_a_huge_file_next_to_nothing_is_read() {
    let scratch = Scratch::new();
    fill(&scratch, &["a"]);
    let entry = fs::read(path(&scratch, "a")).unwrap();
    let tier = open(&scratch);
    // sparse; within the bound of an entry, just beyond it, and a gigabyte
    for len in [0, BOUND, BOUND + 1, 1 << 30] {
        put(&path(&scratch, "a"), &entry);
        File::options().write(true).open(path(&scratch, "a")).unwrap().set_len(len).unwrap();
        refused(&tier, &scratch, "a", &format!("{len} bytes"));
    }
}

#[test]
fn another_engine_does_not_use_the_entry() {
    let scratch = Scratch::new();
    fill(&scratch, &["a"]);
    let other = DiskTier::open(scratch.path(), [5; 32], BOUND).unwrap();
    // under its own digest there is nothing; under ours there is an entry that it did not make
    assert!(other.read(&HandlerDigest::new(&[5; 32], "a")).is_none());
    assert_eq!(other.rejected(), 0);
    refused(&other, &scratch, "a", "another engine's entry");
}

#[test]
fn under_a_new_key_nothing_old_counts() {
    let scratch = Scratch::new();
    fill(&scratch, &["a", "b", "c"]);
    fs::remove_file(scratch.path().join("key")).unwrap();
    refused(&open(&scratch), &scratch, "a", "under a key made anew");
    put(&scratch.path().join("key"), &[1; 32]);
    refused(&open(&scratch), &scratch, "b", "under a key put there");
    let running = open(&scratch);
    fs::remove_file(scratch.path().join("key")).unwrap();
    drop(open(&scratch));
    refused(&running, &scratch, "c", "under the key that it started with");
}

#[test]
fn the_bound_is_kept_and_what_was_used_last_stays() {
    let scratch = Scratch::new();
    let bound = 16 * BLOCK_BYTES;
    let used = || fs::read_dir(scratch.path()).unwrap().count() as u64 - 1;
    let names: Vec<String> = (0..16).map(|n| format!("h{n}")).collect();
    fill(&scratch, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    for (name, age) in names.iter().zip(0..) {
        let file = File::options().write(true).open(path(&scratch, name)).unwrap();
        file.set_modified(hour_ago + Duration::from_secs(age)).unwrap();
    }
    {
        let tier = DiskTier::open(scratch.path(), ENGINE, bound).unwrap();
        // the oldest of all, but used now
        assert!(tier.read(&HandlerDigest::new(&ENGINE, "h0")).is_some());
        for name in ["new 1", "new 2", "new 3"] {
            tier.write(&Arc::new(handler_of(name, 100)));
        }
    }
    assert!(used() <= 16, "{} entries", used());
    for name in ["h0", "h15", "new 1", "new 2", "new 3"] {
        assert!(path(&scratch, name).exists(), "{name}");
    }
    assert!(!path(&scratch, "h1").exists());
}

#[test]
fn what_is_too_much_at_start_goes_and_what_is_not_ours_stays() {
    let scratch = Scratch::new();
    let names: Vec<String> = (0..20).map(|n| format!("h{n}")).collect();
    fill(&scratch, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let strangers = ["notes.txt", "x.qjsc", &format!("{}.qjsc", "A".repeat(64)), &format!("{}.qjsc", "é".repeat(32))];
    for name in strangers {
        fs::write(scratch.path().join(name), vec![0; 1 << 20]).unwrap();
    }
    let tier = DiskTier::open(scratch.path(), ENGINE, 8 * BLOCK_BYTES).unwrap();
    wait_until(|| names.iter().filter(|n| path(&scratch, n).exists()).count() == 7);
    drop(tier);
    assert!(strangers.iter().all(|name| scratch.path().join(name).exists()));
}

/// Fails after a while: what is waited for happens on another thread.
fn wait_until(done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(20), "it did not happen");
        thread::yield_now();
    }
}

#[test]
fn an_entry_beyond_the_bound_is_not_written() {
    let scratch = Scratch::new();
    drop({
        let tier = DiskTier::open(scratch.path(), ENGINE, 8192).unwrap();
        tier.write(&Arc::new(handler_of("large", 9000)));
        tier.write(&Arc::new(handler_of("small", 10)));
        tier
    });
    assert!(!path(&scratch, "large").exists());
    assert!(path(&scratch, "small").exists());
}

#[test]
fn what_a_client_compiles_in_one_go_is_all_written() {
    let scratch = Scratch::new();
    let tier = DiskTier::open(scratch.path(), ENGINE, 64 << 20).unwrap();
    let names: Vec<String> = (0..1000).map(|n| format!("{n}")).collect();
    for name in &names {
        tier.write(&Arc::new(handler_of(name, 10)));
    }
    drop(tier);
    assert!(names.iter().all(|name| path(&scratch, name).exists()));
}

#[test]
fn a_queue_that_is_full_drops_and_does_not_wait() {
    let scratch = Scratch::new();
    let tier = open(&scratch);
    let huge = Arc::new(handler_of("huge", MAX_QUEUED_BYTES as usize));
    for _ in 0..1000 {
        tier.write(&huge);
    }
    assert!(tier.shared.queued_bytes.load(Relaxed) <= MAX_QUEUED_BYTES);
    for n in 0..10_000 {
        tier.write(&Arc::new(handler_of(&format!("{n}"), 10)));
    }
    let shared = tier.shared.clone();
    drop(tier);
    assert_eq!(shared.queued_bytes.load(Relaxed), 0);
}

#[test]
fn a_directory_that_cannot_be_used_is_no_tier_and_no_failure() {
    let scratch = Scratch::new();
    let file = scratch.path().join("file");
    fs::write(&file, "x").unwrap();
    let open_to_all = scratch.path().join("open");
    fs::create_dir(&open_to_all).unwrap();
    fs::set_permissions(&open_to_all, Permissions::from_mode(0o777)).unwrap();
    let key_in_the_way = scratch.path().join("key");
    fs::create_dir_all(key_in_the_way.join("x")).unwrap();
    for path in [file.join("below"), file, open_to_all, scratch.path().to_owned(), "/proc/none".into(), "".into()] {
        assert!(DiskTier::open(&path, ENGINE, BOUND).is_none(), "{}", path.display());
    }
    assert!(DiskTier::open(&scratch.path().join("good"), ENGINE, 0).is_none());
    assert!(DiskTier::open(&scratch.path().join("good"), ENGINE, BOUND).is_some());
}

#[test]
fn a_directory_that_goes_away_under_way_costs_only_the_cache() {
    let scratch = Scratch::new();
    let dir = scratch.path().join("cache");
    let tier = DiskTier::open(&dir, ENGINE, BOUND).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    tier.write(&Arc::new(handler_of("a", 10)));
    assert!(tier.read(&HandlerDigest::new(&ENGINE, "a")).is_none());
}

fn alone(token: &StopToken) -> Asker<'_> {
    Asker { client: Client::ALONE, memory_limit_bytes: 0, token }
}

#[test]
fn what_others_had_written_before_a_restart_is_new_to_a_client() {
    let scratch = Scratch::new();
    let token = StopToken::new();
    let ask = |client| {
        let cache = CompileCache::new(BOUND, Some(Box::new(open(&scratch))));
        let asker = Asker { client: Client(client), ..alone(&token) };
        let get = || cache.get_or_compile(HandlerDigest::new(&ENGINE, "a"), asker, || Ok(handler_of("a", 100)));
        [get().unwrap().origin, get().unwrap().origin]
    };
    assert_eq!(ask(1), [Origin::Compiled, Origin::Known]);
    assert_eq!(ask(2), [Origin::Others, Origin::Known]);
}

#[test]
fn sidecars_on_one_directory_see_whole_entries_only() {
    let scratch = Scratch::new();
    let names: Vec<String> = (0..8).map(|n| format!("h{n}")).collect();
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..20 {
                    let cache = CompileCache::new(BOUND, Some(Box::new(open(&scratch))));
                    for name in &names {
                        let made = || Ok(handler_of(name, 5000));
                        let digest = HandlerDigest::new(&ENGINE, name);
                        let found = cache.get_or_compile(digest, alone(&StopToken::new()), made).unwrap().handler;
                        assert_eq!((&*found.source, found.bytecode.len()), (name.as_str(), 5000));
                    }
                    assert_eq!(cache.counts().rejected, 0);
                }
            });
        }
    });
    let found: Vec<_> = names.iter().filter_map(|n| open(&scratch).read(&HandlerDigest::new(&ENGINE, n))).collect();
    assert_eq!(found.len(), names.len());
}

#[test]
fn a_handler_and_its_handle_survive_a_restart() {
    let scratch = Scratch::new();
    let digest = HandlerDigest::new(&ENGINE, "a");
    let start = || {
        let tier = open(&scratch);
        (tier.handle_key(), CompileCache::new(BOUND, Some(Box::new(tier))))
    };
    let compiled = Cell::new(0);
    let compile = || {
        compiled.set(compiled.get() + 1);
        Ok(handler_of("a", 10))
    };
    let token = StopToken::new();
    let handle = {
        let (key, cache) = start();
        assert_eq!(cache.get_or_compile(digest, alone(&token), compile).unwrap().origin, Origin::Compiled);
        key.sign(&digest)
    };
    let (key, cache) = start();
    let found = key.verify(&handle).and_then(|digest| cache.get(&digest, alone(&token)).unwrap()).unwrap();
    assert_eq!((&*found.handler.source, found.handler.took), ("a", handler_of("a", 10).took));
    assert_eq!(cache.get_or_compile(digest, alone(&token), compile).unwrap().origin, Origin::Known);
    let counts = cache.counts();
    assert_eq!((compiled.get(), counts.hits, counts.misses, counts.entries), (1, 2, 0, 1));
    // a sidecar without the directory's key takes nobody's handles
    assert_eq!(HandleKey::new([0; 32]).verify(&handle), None);
}

#[test]
fn a_refused_entry_is_compiled_again_and_written_again() {
    let scratch = Scratch::new();
    fill(&scratch, &["a"]);
    let entry = fs::read(path(&scratch, "a")).unwrap();
    put(&path(&scratch, "a"), &entry[..50]);
    {
        let cache = CompileCache::new(BOUND, Some(Box::new(open(&scratch))));
        let digest = HandlerDigest::new(&ENGINE, "a");
        let made = cache.get_or_compile(digest, alone(&StopToken::new()), || Ok(handler_of("a", 100)));
        assert_eq!(made.unwrap().origin, Origin::Compiled);
        assert_eq!((cache.counts().misses, cache.counts().rejected), (1, 1));
    }
    assert_eq!(fs::read(path(&scratch, "a")).unwrap(), entry);
}
