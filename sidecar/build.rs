//! Links the sidecar with the WasmEdge that `cargo xtask setup` prepared, and tells the source where the guest is.
//!
//! Sets for the source: `NEXUS_GUEST_SO` and `NEXUS_GUEST_WASM` (absolute paths) and `NEXUS_GUEST_SHA256` (of the former), the
//! same with `NEXUS_GUEST_STACK_` for the guest in stack style, and `NEXUS_SOURCE_REVISION`, which differs when anything differs
//! that this crate is built from.

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
    let lib = resolve(&wasmedge.join("lib"));
    let argument = |argument: &str| println!("cargo:rustc-link-arg={argument}");
    // DT_RPATH rather than DT_RUNPATH: it also counts for the libraries of the libraries.
    argument(&format!("-Wl,--disable-new-dtags,-rpath,{}", lib.display()));
    // A loader beside the libraries means that they need a newer libc than the system's. What we link has to run on that
    // one, and the linker, which sees the system's, must not look for the new one's symbols in it.
    let loader = wasmedge.join("loader");
    if loader.exists() {
        argument(&format!("-Wl,--dynamic-linker={}", resolve(&loader).display()));
        argument("-Wl,--allow-shlib-undefined");
    }
}

fn embed_guests(guests: &Path) {
    let sums = guests.join("SHA256SUMS");
    println!("cargo:rerun-if-changed={}", sums.display());
    let text = fs::read_to_string(&sums).unwrap_or_else(|error| give_up(&sums, &error));
    for (stem, name) in [("nexus-guest", "NEXUS_GUEST"), ("nexus-guest-stack", "NEXUS_GUEST_STACK")] {
        let library = format!("{stem}.so");
        let sum = text.lines().filter_map(|line| line.split_once("  ")).find(|(_, file)| *file == library);
        let Some((sum, _)) = sum else { give_up(&sums, &format!("it does not name {library}")) };
        println!("cargo:rustc-env={name}_SHA256={sum}");
        println!("cargo:rustc-env={name}_SO={}", resolve(&guests.join(library)).display());
        println!("cargo:rustc-env={name}_WASM={}", resolve(&guests.join(format!("{stem}.wasm"))).display());
    }
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
