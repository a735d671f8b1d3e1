//! Links the sidecar with the WasmEdge that `cargo xtask setup` prepared, and tells the source where the guest is.
//!
//! Writes `guests.rs` for the source, which includes the guests, and sets `NEXUS_SOURCE_REVISION`, which differs when anything
//! differs that this crate is built from. With `NEXUS_PACKAGE` set, the program finds its libraries beside itself and nowhere else.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs, io, process};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..");
    println!("cargo:rerun-if-changed=build.rs");
    link_wasmedge(&root.join(".nexus/wasmedge"));
    println!("cargo:rerun-if-env-changed=NEXUS_GUEST_DIR");
    let guests = env::var_os("NEXUS_GUEST_DIR").map_or_else(|| root.join(".nexus/guest"), PathBuf::from);
    embed_guests(&guests);
    name_revision(&[root.join("sidecar/src"), root.join("Cargo.lock"), guests.join("SHA256SUMS")]);
}

fn link_wasmedge(wasmedge: &Path) {
    println!("cargo:rerun-if-changed={}", wasmedge.join("runtime").display());
    println!("cargo:rerun-if-env-changed=NEXUS_PACKAGE");
    let argument = |argument: &str| println!("cargo:rustc-link-arg={argument}");
    // A loader beside the libraries means that they need a newer libc than the system's. What we link has to run on that
    // one, and the linker, which sees the system's, must not look for the new one's symbols in it.
    let loader = wasmedge.join("loader");
    if loader.exists() {
        argument("-Wl,--allow-shlib-undefined");
    }
    // DT_RPATH rather than DT_RUNPATH: it also counts for the libraries of the libraries, and before LD_LIBRARY_PATH.
    argument("-Wl,--disable-new-dtags");
    // In a tree of bin and lib; the launcher there starts what stands beside it.
    argument("-Wl,-rpath,$ORIGIN/../lib");
    if env::var_os("NEXUS_PACKAGE").is_none() {
        argument(&format!("-Wl,-rpath,{}", resolve(&wasmedge.join("lib")).display()));
        if loader.exists() {
            argument(&format!("-Wl,--dynamic-linker={}", resolve(&loader).display()));
        }
    }
}

/// Writes `guests.rs`: the modules, and of each the native code that the directory has, the most demanding first. Native code that is
/// packed has its module in it.
fn embed_guests(guests: &Path) {
    let sums = guests.join("SHA256SUMS");
    println!("cargo:rerun-if-changed={}", sums.display());
    let text = fs::read_to_string(&sums).unwrap_or_else(|error| give_up(&sums, &error));
    let sum_of = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once("  "));
        lines.filter(|(_, file)| *file == name).map(|(sum, _)| sum).next()
    };
    let mut source = String::new();
    for (stem, name) in [("nexus-guest", "DIRECT"), ("nexus-guest-stack", "STACK")] {
        let module = format!("{stem}.wasm");
        let Some(digest) = sum_of(&module) else { give_up(&sums, &format!("it does not name {module}")) };
        let included = |file: &str| format!("include_bytes!({:?})", resolve(&guests.join(file)));
        let levels = [("V3", ".x86-64-v3"), ("V2", ".x86-64-v2"), ("OfTheBuild", "")];
        let mut natives = String::new();
        // What is packed is the difference from what came first.
        let mut first: Option<String> = None;
        for (level, part) in levels {
            let (plain, packed) = (format!("{stem}{part}.so"), format!("{stem}{part}.so.zst"));
            let code = if sum_of(&packed).is_some() {
                let frame = included(&packed);
                match &first {
                    None => format!("Stored::Packed({frame})"),
                    Some(first) => format!("Stored::Difference {{ frame: {frame}, from: &{first} }}"),
                }
            } else if sum_of(&plain).is_some() {
                format!("Stored::Plain({})", included(&plain))
            } else {
                continue;
            };
            let item = format!("{name}_{}", level.to_uppercase());
            source.push_str(&format!("static {item}: Stored = {code};\n"));
            natives.push_str(&format!("Native {{ level: Level::{level}, code: &{item} }}, "));
            if code.starts_with("Stored::Packed") {
                first = Some(item);
            }
        }
        if natives.is_empty() {
            give_up(&sums, &format!("it names no native code of {stem}"));
        }
        let pairs = digest.as_bytes().chunks(2).map(|pair| format!("0x{}, ", String::from_utf8_lossy(pair)));
        let digest = format!("[{}]", pairs.collect::<String>());
        let wasm = match first {
            None => format!("Stored::Plain({})", included(&module)),
            Some(code) => {
                let file = guests.join(&module);
                let len = fs::metadata(&file).unwrap_or_else(|error| give_up(&file, &error)).len();
                format!("Stored::Within {{ code: &{code}, len: {len}, digest: {digest} }}")
            }
        };
        let fields = format!("natives: &[{natives}], wasm: {wasm}, digest: {digest}");
        source.push_str(&format!("static {name}: BuiltIn = BuiltIn {{ {fields} }};\n"));
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("guests.rs");
    fs::write(&out, source).unwrap_or_else(|error| give_up(&out, &error));
}

/// Compiled handlers on disk are a build's own: what is kept of a handler, and how it is derived, is anywhere in the source.
fn name_revision(sources: &[PathBuf]) {
    let mut hasher = DefaultHasher::new();
    for path in sources {
        println!("cargo:rerun-if-changed={}", path.display());
        hash_tree(path, &mut hasher).unwrap_or_else(|error| give_up(path, &error));
    }
    println!("cargo:rustc-env=NEXUS_SOURCE_REVISION={:016x}", hasher.finish());
}

fn hash_tree(path: &Path, hasher: &mut DefaultHasher) -> io::Result<()> {
    path.file_name().hash(hasher);
    if !path.is_dir() {
        fs::read(path)?.hash(hasher);
        return Ok(());
    }
    let mut children = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    children.sort();
    children.iter().try_for_each(|child| hash_tree(child, hasher))
}

fn resolve(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|error| give_up(path, &error))
}

fn give_up(path: &Path, error: &dyn std::fmt::Display) -> ! {
    println!("cargo:warning={}: {error}", path.display());
    println!("cargo:warning=This checkout is not set up. Run `cargo xtask setup` first.");
    process::exit(1)
}
