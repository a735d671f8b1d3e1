//! The engine without its compiler: stand-ins for libLLVM and for what packs its output, and the directory that the sidecar finds its
//! libraries in.
//!
//! libwasmedge links all of LLVM, 139 MB that are loaded, relocated and never called: guests are compiled when they are built.
//! A stand-in has each symbol that this very libwasmedge asks for, in the version that it asks for. Calling one of them writes
//! its name to standard error and ends the process with the exit code of an engine that cannot be brought up.
//!
//! ```text
//!  wasmedge-0.17.1/lib (whole, for `wasmedge compile`) --symbols--> runtime-DIGEST/ (stand-ins, and what else is wanted)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::digest::{self, Inputs};
use crate::elf::Elf;
use crate::places::{Workshop, remove};
use crate::process::quiet;
use crate::stages::note;

/// What the process ends with; `ExitCode::EngineInit` of the sidecar.
const EXIT_CODE: u8 = 5;

/// The library that the sidecar links.
pub const ENGINE: &str = "libwasmedge.so.0";

const COMPILER: &str = "libLLVM";

/// What only the linker within libwasmedge uses: it packs sections for debuggers.
const OF_THE_COMPILER: &[&str] = &["libz.so.", "libzstd.so."];

/// Where symbols are that are asked for in no version.
const UNVERSIONED: &str = "NEXUS_STANDIN";

/// One symbol of the stand-in.
#[derive(Debug, PartialEq, Eq)]
enum Symbol {
    Code,
    /// A table of so many bytes, of pointers perhaps.
    Data(u64),
}

/// The directory with everything that a program has to load, and nothing else. `loader`: the libc stands in `lib` as well.
pub fn ensure(shop: &Workshop, lib: &Path, loader: Option<&Path>) -> Result<PathBuf> {
    let engine = lib.join(ENGINE);
    let mut left_out = Elf::read(&engine)?.needed()?;
    left_out.retain(|name| is_stand_in(name));
    if !left_out.iter().any(|name| name.starts_with(COMPILER)) {
        note("it has no library of a compiler to leave out");
        return Ok(lib.to_owned());
    }
    let mut inputs = Inputs::new("runtime, form 2");
    inputs.add("source", include_bytes!("standin.rs"));
    inputs.add("engine", digest::of_file(&engine)?.as_bytes());
    inputs.add("libraries", format!("{} {loader:?}", lib.display()).as_bytes());
    let name = format!("runtime-{}", &inputs.hex()[..16]);
    let directory = shop.places.cache.join(&name);
    if !directory.join("libwasmedge.so").exists() {
        let work = shop.scratch("runtime")?;
        let out = work.join("out");
        fs::create_dir_all(&out)?;
        gather(lib, &left_out, &out)?;
        let mut made = Vec::new();
        for name in &left_out {
            let symbols = wanted(&engine, &locate(lib, &engine, name)?)?;
            build(&work, name, &symbols, &out.join(name))?;
            made.push((name, symbols));
        }
        for (name, symbols) in &made {
            check(&work, &out, loader, name, symbols)?;
        }
        symlink(ENGINE, out.join("libwasmedge.so"))?;
        shop.finish(&out, &name)?;
        remove(&work)?;
    }
    for name in &left_out {
        let bytes = fs::metadata(directory.join(name))?.len();
        note(format!("{name}: a stand-in of {} KB in its place", bytes.div_ceil(1000)));
    }
    Ok(directory)
}

/// Whether a stand-in takes the place of the library of this name.
pub fn is_stand_in(name: &str) -> bool {
    name.starts_with(COMPILER) || OF_THE_COMPILER.iter().any(|start| name.starts_with(start))
}

/// Copies what the engine loads but for what is left out and what only that loads.
fn gather(lib: &Path, left_out: &[String], out: &Path) -> Result<()> {
    let mut waiting = vec![ENGINE.to_owned()];
    let mut seen: BTreeSet<String> = left_out.iter().chain(&waiting).cloned().collect();
    while let Some(name) = waiting.pop() {
        let from = lib.join(&name);
        if !from.exists() {
            continue; // the system's
        }
        let mut elf = Elf::read(&from)?;
        for needed in elf.needed()? {
            if seen.insert(needed.clone()) {
                waiting.push(needed);
            }
        }
        let to = out.join(&name);
        fs::copy(&from, &to)?;
        elf.prefer_own_search_path()?;
        fs::write(&to, elf.into_bytes())?;
    }
    Ok(())
}

/// The compiler's library: beside the engine, or where the system's loader finds it.
fn locate(lib: &Path, engine: &Path, compiler: &str) -> Result<PathBuf> {
    let beside = lib.join(compiler);
    if beside.exists() {
        return Ok(beside);
    }
    let listed = quiet("asking the loader", Command::new("ldd").arg(engine))?;
    let place = listed.lines().find_map(|line| line.trim().strip_prefix(compiler)?.trim().strip_prefix("=> /"));
    let place =
        place.and_then(|rest| rest.split_whitespace().next()).with_context(|| format!("{compiler} is nowhere"))?;
    Ok(Path::new("/").join(place))
}

/// The symbols that the engine wants of a library, by version and name.
fn wanted(engine: &Path, library: &Path) -> Result<BTreeMap<String, BTreeMap<String, Symbol>>> {
    let nm =
        |which: &str, file: &Path| quiet("reading symbols", Command::new("nm").args(["-D", "-S", which]).arg(file));
    let (asked, has) = (nm("--undefined-only", engine)?, nm("--defined-only", library)?);
    // NAME, NAME@VERSION or NAME@@VERSION
    let apart = |word: &str| -> (String, String) {
        let (name, version) = word.split_once('@').unwrap_or((word, ""));
        (name.to_owned(), version.trim_start_matches('@').to_owned())
    };
    let mut kinds = BTreeMap::new();
    for line in has.lines() {
        // ADDRESS SIZE KIND NAME
        if let [_, size, kind, word] = line.split_whitespace().collect::<Vec<_>>()[..] {
            let is_code = kind.eq_ignore_ascii_case("t") || kind.eq_ignore_ascii_case("w") || kind == "i";
            kinds
                .insert(apart(word), if is_code { Symbol::Code } else { Symbol::Data(u64::from_str_radix(size, 16)?) });
        }
    }
    let mut symbols: BTreeMap<String, BTreeMap<String, Symbol>> = BTreeMap::new();
    for (name, version) in asked.lines().filter_map(|line| line.split_whitespace().last().map(apart)) {
        let found = if version.is_empty() {
            // Whichever version it has there.
            let key = kinds.keys().find(|(known, _)| *known == name).cloned();
            key.and_then(|key| kinds.remove(&key))
        } else {
            kinds.remove(&(name.clone(), version.clone()))
        };
        match found {
            Some(kind) => {
                let version = if version.is_empty() { UNVERSIONED.to_owned() } else { version };
                symbols.entry(version).or_default().insert(name, kind);
            }
            // What is wanted only if it is there has to be there as well: it was when the engine was tried out.
            None if version.starts_with("LLVM") && is_compiler(library) => {
                bail!("{} does not have {name}", library.display())
            }
            None => {}
        }
    }
    if symbols.is_empty() {
        bail!("{} asks {} for nothing", engine.display(), library.display());
    }
    Ok(symbols)
}

fn is_compiler(library: &Path) -> bool {
    library.file_name().is_some_and(|name| name.to_string_lossy().starts_with(COMPILER))
}

/// Assembles and links it.
fn build(work: &Path, name: &str, symbols: &BTreeMap<String, BTreeMap<String, Symbol>>, out: &Path) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the stand-in for {name} is written for x86-64");
    }
    let (source, versions) = (work.join("standin.s"), work.join("standin.map"));
    fs::write(&source, assembly(symbols)?)?;
    let mut map = String::new();
    let listed =
        |names: &BTreeMap<String, Symbol>| names.keys().map(|name| format!("\"{name}\"; ")).collect::<String>();
    for (version, names) in symbols.iter().filter(|(version, _)| *version != UNVERSIONED) {
        writeln!(map, "{version} {{ global: {} }};", listed(names))?;
    }
    let global = symbols.get(UNVERSIONED).map(|names| format!("global: {}", listed(names))).unwrap_or_default();
    writeln!(map, "{UNVERSIONED} {{ {global} local: *; }};")?;
    fs::write(&versions, map)?;
    let mut link = Command::new("cc");
    link.args([
        "-shared",
        "-nostdlib",
        "-Wl,-z,noexecstack",
        "-Wl,-z,relro",
        "-Wl,-z,now",
        "-Wl,--build-id=none",
        "-s",
    ]);
    link.arg(format!("-Wl,-soname,{name}")).arg(format!("-Wl,--version-script={}", versions.display()));
    quiet("linking the stand-in", link.arg(&source).arg("-o").arg(out)).map(drop)
}

/// Each function hands its name to one routine, and each table is full of pointers to it.
fn assembly(symbols: &BTreeMap<String, BTreeMap<String, Symbol>>) -> Result<String> {
    let mut text = format!(
        r#"# rsi and rdx: the symbol's name and its length. Needs neither a stack that is aligned nor a libc.
.section .rodata
.Lhead: .ascii "nexus-sidecar: libwasmedge called its compiler ("
.Lhead_end:
.Ltail: .ascii "), which is left out here: guests are compiled when the sidecar is built\n"
.Ltail_end:
.Ltable: .ascii "by a table of its"
.Ltable_end:
.text
.Lnexus_from_table:
 lea .Ltable(%rip), %rsi
 mov $.Ltable_end - .Ltable, %edx
.Lnexus_no_compiler:
 mov %rsi, %r12
 mov %rdx, %r13
 lea .Lhead(%rip), %rsi
 mov $.Lhead_end - .Lhead, %edx
 call .Lnexus_say
 mov %r12, %rsi
 mov %r13, %rdx
 call .Lnexus_say
 lea .Ltail(%rip), %rsi
 mov $.Ltail_end - .Ltail, %edx
 call .Lnexus_say
 mov $231, %eax # exit_group
 mov ${EXIT_CODE}, %edi
 syscall
 ud2
.Lnexus_say:
 mov $1, %eax # write
 mov $2, %edi
 syscall
 ret
"#
    );
    for (number, (name, symbol)) in symbols.values().flatten().enumerate() {
        writeln!(text, ".globl \"{name}\"")?;
        match symbol {
            Symbol::Code => {
                writeln!(
                    text,
                    ".section .rodata\n.Lname{number}: .ascii \"{name}\"\n.text\n.type \"{name}\",@function"
                )?;
                writeln!(text, "\"{name}\":\n lea .Lname{number}(%rip), %rsi\n mov ${}, %edx", name.len())?;
                writeln!(text, " jmp .Lnexus_no_compiler\n.size \"{name}\", . - \"{name}\"")?;
            }
            Symbol::Data(bytes) => {
                writeln!(text, ".section .data.rel.ro,\"aw\"\n.balign 16\n.type \"{name}\",@object")?;
                writeln!(text, "\"{name}\":\n .rept {}\n .quad .Lnexus_from_table\n .endr", bytes.div_ceil(8).max(1))?;
                writeln!(text, ".size \"{name}\", {bytes}")?;
            }
        }
    }
    Ok(text)
}

/// The loader finds every symbol at once, and a program that calls one ends as it should.
fn check(
    work: &Path,
    out: &Path,
    loader: Option<&Path>,
    name: &str,
    symbols: &BTreeMap<String, BTreeMap<String, Symbol>>,
) -> Result<()> {
    let mut list = match loader {
        Some(loader) => Command::new(loader),
        None => Command::new("ldd"),
    };
    // With this, `--list` also resolves each symbol and tells those that it does not find.
    list.env("LD_BIND_NOW", "1").env("LD_WARN", "1");
    match loader {
        Some(_) => list.arg("--list"),
        None => list.arg("-r"),
    };
    let output = list.arg(out.join(ENGINE)).output().context("cannot start the loader")?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if !output.status.success() || said.contains("undefined symbol") || said.contains("not found") {
        bail!("the engine does not load with the stand-in for its compiler:\n{said}");
    }
    let code = symbols.values().flatten().find(|(_, symbol)| **symbol == Symbol::Code);
    let (symbol, _) = code.context("the stand-in has no code")?;
    let said = called(work, &out.join(name), symbol)?;
    if !said.contains(&format!("({symbol})")) {
        bail!("a call of {symbol} in the stand-in says {said:?}");
    }
    Ok(())
}

/// What a program says that calls this function of a library.
fn called(work: &Path, library: &Path, symbol: &str) -> Result<String> {
    let (source, program) = (work.join("call.s"), work.join("call"));
    fs::write(&source, format!(".globl _start\n_start:\n call *\"{symbol}\"@GOTPCREL(%rip)\n ud2\n"))?;
    let mut link = Command::new("cc");
    link.args(["-nostdlib", "-pie", "-Wl,-z,noexecstack", "-Wl,--dynamic-linker=/lib64/ld-linux-x86-64.so.2"]);
    let directory = library.parent().unwrap_or(Path::new("/"));
    quiet(
        "linking a caller",
        link.arg(format!("-Wl,-rpath,{}", directory.display())).arg(&source).arg(library).arg("-o").arg(&program),
    )?;
    let output = Command::new(&program).output().context("cannot start the caller")?;
    if output.status.code() != Some(EXIT_CODE.into()) {
        bail!("a call of {symbol} in the stand-in ends with {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("nexus-standin-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn symbols(list: [(&str, Symbol); 3]) -> BTreeMap<String, BTreeMap<String, Symbol>> {
        let names = list.map(|(name, symbol)| (name.to_owned(), symbol));
        BTreeMap::from([("LLVM_1".to_owned(), BTreeMap::from(names))])
    }

    #[test]
    fn a_call_of_any_function_names_it_and_ends_with_the_engines_exit_code() {
        let work = scratch("call");
        let symbols = symbols([("first", Symbol::Code), ("_ZN4llvm3addE", Symbol::Code), ("table", Symbol::Data(40))]);
        let library = work.join("libLLVM.so.1");
        build(&work, "libLLVM.so.1", &symbols, &library).unwrap();
        for symbol in ["first", "_ZN4llvm3addE"] {
            let said = called(&work, &library, symbol).unwrap();
            let expected = format!(
                "nexus-sidecar: libwasmedge called its compiler ({symbol}), which is left out here: guests are compiled \
                 when the sidecar is built\n"
            );
            assert_eq!(said, expected);
        }
        // A call through a table, which the caller above makes when the table is what it is given.
        assert!(called(&work, &library, "table").is_err(), "a table is not code");
        fs::remove_dir_all(work).unwrap();
    }

    #[test]
    fn what_is_asked_for_in_no_version_is_found_whatever_version_it_has() {
        let work = scratch("unversioned");
        let (whole, engine) = (work.join("libz.so.1"), work.join("libengine.so"));
        let both = BTreeMap::from([
            ("Z_1".to_owned(), BTreeMap::from([("combine".to_owned(), Symbol::Code)])),
            (UNVERSIONED.to_owned(), BTreeMap::from([("deflate".to_owned(), Symbol::Code)])),
        ]);
        build(&work, "libz.so.1", &both, &whole).unwrap();
        let source = work.join("engine.s");
        fs::write(&source, ".data\n .quad \"combine\"\n .quad \"deflate\"\n .quad \"of_another\"\n").unwrap();
        let mut link = Command::new("cc");
        // As a library that was linked without the versions of this one.
        link.args(["-shared", "-nostdlib"]).arg(&source).arg("-o").arg(&engine);
        quiet("linking", &mut link).unwrap();
        let asked = wanted(&engine, &whole).unwrap();
        assert_eq!(asked[UNVERSIONED].keys().collect::<Vec<_>>(), ["combine", "deflate"]);
        for symbol in ["combine", "deflate"] {
            assert!(called(&work, &whole, symbol).unwrap().contains(&format!("({symbol})")));
        }
        fs::remove_dir_all(work).unwrap();
    }

    #[test]
    fn the_versions_and_kinds_of_symbols_are_those_that_are_asked_for() {
        let work = scratch("kinds");
        let (whole, engine) = (work.join("libLLVM.so.1"), work.join("libengine.so"));
        let symbols = symbols([("plain", Symbol::Code), ("other", Symbol::Code), ("table", Symbol::Data(40))]);
        build(&work, "libLLVM.so.1", &symbols, &whole).unwrap();
        let source = work.join("engine.s");
        fs::write(&source, ".data\n .quad \"plain\"\n .quad \"table\"\n").unwrap();
        let mut link = Command::new("cc");
        link.args(["-shared", "-nostdlib"]).arg(&source).arg(&whole).arg("-o").arg(&engine);
        quiet("linking", &mut link).unwrap();
        let asked = wanted(&engine, &whole).unwrap();
        let kinds: Vec<_> = asked["LLVM_1"].iter().map(|(name, kind)| (name.as_str(), kind)).collect();
        assert_eq!(kinds, [("plain", &Symbol::Code), ("table", &Symbol::Data(40))]);
        fs::remove_dir_all(work).unwrap();
    }
}
