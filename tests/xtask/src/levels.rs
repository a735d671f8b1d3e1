//! The guests as native code for levels of processors rather than for the one that compiles them: what a package ships.
//!
//! WasmEdge asks LLVM which processor the host has and compiles for that one. A few bytes of a library, loaded before LLVM, answer in
//! its place: with a level of the x86-64 psABI, whose processors all have the same. The result depends on the module and the level
//! alone, not on the machine that made it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};

use crate::digest::{self, Inputs};
use crate::guest::{self, AOT};
use crate::places::{Workshop, remove, write_if_changed};
use crate::process::quiet;
use crate::stages::note;
use crate::wasmedge::{self, WasmEdge};

/// A level, and what LLVM calls the features of it. The names are those of the psABI, which `sidecar/src/engine/processor.rs` knows.
struct Level {
    name: &'static str,
    features: &'static str,
}

const LEVELS: &[Level] = &[
    Level {
        name: "x86-64-v3",
        features: "+cx8,+cmov,+mmx,+fxsr,+sse,+sse2,+cx16,+sahf,+popcnt,+sse3,+ssse3,+sse4.1,+sse4.2,+avx,+avx2,+bmi,+bmi2,+f16c,\
                   +fma,+lzcnt,+movbe,+xsave",
    },
    Level {
        name: "x86-64-v2",
        features: "+cx8,+cmov,+mmx,+fxsr,+sse,+sse2,+cx16,+sahf,+popcnt,+sse3,+ssse3,+sse4.1,+sse4.2",
    },
];

/// Looks whether a program has both guests for every level, as it tells it itself: one without runs only where it was made, and says so
/// nowhere else.
pub fn of_program(program: &Path) -> Result<()> {
    let told = quiet("asking the program", Command::new(program).args(["engine", "--json"]))?;
    let told: serde_json::Value = serde_json::from_str(&told)?;
    let has = told["levels"].as_str().unwrap_or_default();
    if let Some(without) = without(has) {
        bail!(
            "{} has native code for {has}, and none for {without}: it is not what `cargo xtask package` builds",
            program.display()
        );
    }
    note(format!("native code for {has}"));
    Ok(())
}

/// The first level that is not among these.
fn without(has: &str) -> Option<&'static str> {
    LEVELS.iter().map(|level| level.name).find(|name| has.split(", ").all(|one| one != *name))
}

/// How native code is packed. One thread: more of them pack less.
const PACKED: &[&str] = &["--quiet", "--ultra", "-22", "--long=27", "--single-thread"];

/// Fills a directory with each guest's module and its native code for each level, packed, and with their sums, as the sidecar's
/// build takes them. What is not in the cache is compiled.
pub fn gather(shop: &Workshop, wasmedge: &WasmEdge, out: &Path) -> Result<()> {
    fs::create_dir_all(out)?;
    let mut lines = Vec::new();
    for stem in guest::stems() {
        lines.push(put(&module_of(shop, stem), out, &format!("{stem}.wasm"))?);
    }
    let compiled = ensure(shop, wasmedge, &guest::stems().collect::<Vec<_>>())?;
    for stem in guest::stems() {
        let mut first = None;
        for guest in compiled.iter().filter(|guest| guest.stem == stem) {
            let frame = packed(shop, &guest.code, first)?;
            lines.push(put(&frame, out, &format!("{stem}.{}.so.zst", guest.level.name))?);
            first.get_or_insert(&guest.code);
        }
    }
    lines.sort_by(|one: &String, other| one.split("  ").last().cmp(&other.split("  ").last()));
    // The last to be written: the sidecar's build watches it.
    write_if_changed(&out.join("SHA256SUMS"), &lines.concat())
}

/// Native code of one guest for one level.
struct Compiled {
    stem: &'static str,
    level: &'static Level,
    code: PathBuf,
}

fn module_of(shop: &Workshop, stem: &str) -> PathBuf {
    shop.places.links.join("guest").join(format!("{stem}.wasm"))
}

/// Compiles what is not in the cache, all at once: each takes one core for a while. The most demanding level of a guest comes first.
fn ensure(shop: &Workshop, wasmedge: &WasmEdge, stems: &[&'static str]) -> Result<Vec<Compiled>> {
    let mut places = Vec::new();
    for (stem, level) in stems.iter().flat_map(|stem| LEVELS.iter().map(move |level| (*stem, level))) {
        let mut inputs = Inputs::new("guest for a level, form 1");
        inputs.add("module", digest::of_file(&module_of(shop, stem))?.as_bytes());
        inputs.add("recipe", format!("{AOT:?} {} {}", level.name, level.features).as_bytes());
        inputs.add("wasmedge", wasmedge::VERSION.as_bytes());
        places.push((stem, level, format!("levels/{stem}-{}-{}", level.name, &inputs.hex()[..16])));
    }
    let code = |place: &str| shop.places.cache.join(place).join("guest.so");
    let work = shop.scratch("levels")?;
    std::thread::scope(|scope| {
        let missing = places.iter().filter(|(.., place)| !code(place).exists());
        let threads: Vec<_> = missing
            .map(|(stem, level, place)| {
                let work = work.join(format!("{stem}-{}", level.name));
                scope.spawn(move || compile(shop, wasmedge, level, &module_of(shop, stem), &work, place))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a compiler thread panicked"))?)
    })?;
    remove(&work)?;
    Ok(places.iter().map(|(stem, level, place)| Compiled { stem, level, code: code(place) }).collect())
}

/// Where the native code of the guest for promises is for each level, as the bench is told: `LEVEL=PATH`, with colons between them.
pub fn of_direct(shop: &Workshop, wasmedge: &WasmEdge) -> Result<String> {
    let compiled = ensure(shop, wasmedge, &guest::stems().take(1).collect::<Vec<_>>())?;
    let entries = compiled.iter().map(|guest| format!("{}={}", guest.level.name, guest.code.display()));
    Ok(entries.collect::<Vec<_>>().join(":"))
}

/// Native code as a package has it: packed; what is not the first of a guest as the
/// difference from that.
fn packed(shop: &Workshop, code: &Path, from: Option<&PathBuf>) -> Result<PathBuf> {
    let mut inputs = Inputs::new("packed native code, form 1");
    inputs.add("code", digest::of_file(code)?.as_bytes());
    inputs.add("from", from.map(|from| digest::of_file(from)).transpose()?.unwrap_or_default().as_bytes());
    inputs.add("how", PACKED.concat().as_bytes());
    let place = format!("levels/packed-{}", &inputs.hex()[..16]);
    let frame = shop.places.cache.join(&place).join("guest.zst");
    if !frame.exists() {
        let work = shop.scratch("packed")?;
        let out = work.join("out");
        fs::create_dir_all(&out)?;
        let mut pack = Command::new("zstd");
        pack.args(PACKED).arg(code).arg("-o").arg(out.join("guest.zst"));
        if let Some(from) = from {
            pack.arg(format!("--patch-from={}", from.display()));
        }
        quiet("packing native code", &mut pack)?;
        shop.finish(&out, &place)?;
        remove(&work)?;
    }
    Ok(frame)
}

/// Copies a file unless it is there already, whose time would tell cargo that it has changed. Returns its line of sums.
fn put(from: &Path, out: &Path, name: &str) -> Result<String> {
    let (sum, to) = (digest::of_file(from)?, out.join(name));
    if digest::of_file(&to).ok().as_ref() != Some(&sum) {
        fs::copy(from, to)?;
    }
    Ok(format!("{sum}  {name}\n"))
}

fn compile(shop: &Workshop, wasmedge: &WasmEdge, level: &Level, module: &Path, work: &Path, place: &str) -> Result<()> {
    let started = Instant::now();
    let out = work.join("out");
    fs::create_dir_all(&out)?;
    let answers = answers(work, level)?;
    let mut compile = wasmedge.command();
    compile.env("LD_PRELOAD", answers).args(AOT).arg(module).arg(out.join("guest.so"));
    quiet(&format!("compiling a guest for {}", level.name), &mut compile)?;
    shop.finish(&out, place)?;
    note(format!("{place}: {:.0} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// A library that says of the host what the level says. LLVM frees what it is given, so LLVM makes it.
fn answers(work: &Path, level: &Level) -> Result<PathBuf> {
    let (source, library) = (work.join("answers.s"), work.join("answers.so"));
    let mut text = String::new();
    for (function, answer) in [("LLVMGetHostCPUName", level.name), ("LLVMGetHostCPUFeatures", level.features)] {
        text.push_str(&format!(
            ".section .rodata\n.L{function}: .asciz \"{answer}\"\n.text\n.globl {function}\n.type {function},@function\n\
             {function}:\n lea .L{function}(%rip), %rdi\n jmp LLVMCreateMessage@PLT\n"
        ));
    }
    fs::write(&source, text)?;
    let mut link = Command::new("cc");
    link.args(["-shared", "-nostdlib", "-Wl,-z,noexecstack"]).arg(&source).arg("-o").arg(&library);
    quiet("linking the answers to LLVM", &mut link).context("the compiler's questions cannot be answered")?;
    Ok(library)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_for_the_processor_that_built_it_has_none_of_the_levels() {
        assert_eq!(without("x86-64-v3, x86-64-v2"), None);
        for (has, missing) in [
            ("the processor of the build", "x86-64-v3"),
            ("x86-64-v3", "x86-64-v2"),
            ("x86-64-v2", "x86-64-v3"),
            ("", "x86-64-v3"),
        ] {
            assert_eq!(without(has), Some(missing), "{has}");
        }
    }
}
