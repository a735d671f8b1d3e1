//! The guest: QuickJS-ng and our shim, from C to a native library.
//!
//! ```text
//!  quickjs + patches, sidecar/guest --clang--> wasm --wasm-opt--> wasm with names --gate--> stripped --WasmEdge--> .so
//!                                                                       \--(stack style)--> asyncified ---^
//! ```
//!
//! One entry of [`VARIANTS`] is one artifact. The result stands in the cache under the digest of everything that it is made
//! from: sources, patches, the recipe below, the versions of the tools, and the processor, because the native code is made
//! for the processor that compiles it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, anyhow};
use serde_json::json;

use crate::binaryen::{self, Binaryen};
use crate::digest::{self, Inputs};
use crate::patches::{self, Patch};
use crate::places::{Workshop, point, remove, write_if_changed};
use crate::process::quiet;
use crate::recorded::{self, Module, Modules};
use crate::stages::note;
use crate::wasmedge::{self, WasmEdge};
use crate::{quickjs, stack_gate, toolchain};

/// The guest's memory, initial and maximum at once: the allocator then owns one arena and a reset is only bytes. Pages
/// that nothing touches cost nothing.
const MEMORY_BYTES: u32 = 256 << 20;

/// The shadow stack. QuickJS's own limit is set at run time and is lower; the difference is for C code that does not ask.
const STACK_BYTES: u32 = 4 << 20;

/// EMSCRIPTEN makes QuickJS leave out threads and atomics; wasi-libc's fenv.h lacks the two rounding modes.
const COMPILE: &[&str] =
    &["--target=wasm32-wasi", "-O3", "-DEMSCRIPTEN=1", "-DFE_DOWNWARD=0", "-DFE_UPWARD=0", "-D_GNU_SOURCE", "-DNDEBUG"];

/// For our own sources. QuickJS is read as a system header, whose warnings are not shown.
const WARNINGS: &[&str] = &[
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wno-sign-compare",
    "-Wno-missing-field-initializers",
    "-Wno-cast-function-type",
];

/// The stack stands first, so that an overflow traps instead of running into data. No -O here: it would make clang run
/// whatever wasm-opt it finds on the search path.
const LINK: &[&str] =
    &["--target=wasm32-wasi", "-mexec-model=reactor", "-Wl,--stack-first", "-Wl,--export=__stack_pointer"];

const FEATURES: &[&str] = &[
    "--enable-bulk-memory",
    "--enable-sign-ext",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-multivalue",
];

pub const AOT: &[&str] = &["compile", "--optimize", "3"];

/// QuickJS's other translation units; those that this version does not have are passed over.
const QUICKJS_UNITS: &[&str] = &["libregexp.c", "libunicode.c", "dtoa.c", "cutils.c"];

/// How many artifacts of each variant the cache keeps.
const KEPT: usize = 8;

/// One guest that is built from the source.
#[derive(Debug)]
struct Variant {
    name: &'static str,
    /// The artifacts' file name, without its ending.
    stem: &'static str,
    defines: &'static [&'static str],
    /// What wasm-opt does with the linked module. The stack gate examines what comes of this.
    optimize: &'static [&'static str],
    /// What wasm-opt does after that. It neither adds calls nor takes shadow frames away, but hides the latter.
    transform: &'static [&'static str],
}

const VARIANTS: &[Variant] = &[
    Variant { name: "direct", stem: "nexus-guest", defines: &[], optimize: &["-O3"], transform: &[] },
    // Asyncify tells apart by function what it takes away and puts back: what is named nx_ni_ must not be inlined.
    Variant {
        name: "stack",
        stem: "nexus-guest-stack",
        defines: &["-DNX_STACK_STYLE"],
        optimize: &["--no-inline", "--pass-arg=no-inline@nx_ni_*", "-O3"],
        transform: &[
            "--no-inline",
            "--pass-arg=no-inline@nx_ni_*",
            "--asyncify",
            "--pass-arg=asyncify-ignore-imports",
            "-O3",
        ],
    },
];

/// The first of these, made in a hurry: what is linked is interpreted as it is.
const HASTY: Variant = Variant { name: "hasty", stem: "nexus-guest", defines: &["-O1"], optimize: &[], transform: &[] };

/// Everything that the artifact is made from, read once.
struct Sources {
    ours: Vec<(String, Vec<u8>)>,
    quickjs: BTreeMap<String, String>,
    patches: Vec<Patch>,
}

/// The tools that the artifact is made with.
pub struct Tools<'a> {
    pub binaryen: &'a Binaryen,
    pub wasmedge: &'a WasmEdge,
}

/// Builds what is not in the cache, and leaves `.nexus/guest`.
pub fn ensure(shop: &Workshop, tools: &Tools) -> Result<()> {
    let sources = Sources::read(&shop.places.root, None)?;
    let mut described = serde_json::Map::new();
    let mut modules = Modules { tools: module_tools(), modules: BTreeMap::new() };
    let mut sums = String::new();
    let here = shop.places.links.join("guest");
    fs::create_dir_all(&here)?;
    // The native code of each is made by one thread: they are built beside one another.
    let built: Vec<Result<(String, PathBuf)>> = std::thread::scope(|scope| {
        let builders: Vec<_> =
            VARIANTS.iter().map(|variant| scope.spawn(|| variant.ensure(shop, tools, &sources))).collect();
        builders
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread that builds a guest panicked"))?)
            .collect()
    });
    for (variant, built) in VARIANTS.iter().zip(built) {
        let (digest, directory) = built?;
        gate(&directory, variant)?;
        // Its age is that of its last use.
        File::open(&directory)?.set_modified(SystemTime::now())?;
        let sum = |ending: &str| digest::of_file(&directory.join(format!("{}.{ending}", variant.stem)));
        let (wasm, so) = (sum("wasm")?, sum("so")?);
        sums.push_str(&format!("{wasm}  {0}.wasm\n{so}  {0}.so\n", variant.stem));
        for ending in ["wasm", "so", "names.wasm"] {
            let file = format!("{}.{ending}", variant.stem);
            point(&here.join(&file), &directory.join(&file))?;
        }
        described.insert(
            variant.name.to_owned(),
            json!({
                "library": format!("{}.so", variant.stem), "library_sha256": so,
                "module": format!("{}.wasm", variant.stem), "module_sha256": &wasm,
                "inputs_sha256": digest, "memory_bytes": MEMORY_BYTES, "stack_bytes": STACK_BYTES,
                "wasmedge": wasmedge::VERSION,
            }),
        );
        let module = Module { sources_sha256: variant.sources_digest(&sources), sha256: wasm.clone() };
        modules.modules.insert(format!("{}.wasm", variant.stem), module);
        note(format!("{}: {}", variant.name, directory.display()));
        prune(&shop.places.cache.join("guest"), variant)?;
    }
    recorded::leave(shop.places, &modules)?;
    write_if_changed(&here.join("guest.json"), &(serde_json::to_string_pretty(&described)? + "\n"))?;
    // The last to be written: build.rs watches it.
    write_if_changed(&here.join("SHA256SUMS"), &sums)
}

/// What the modules depend on beside their sources.
fn module_tools() -> BTreeMap<String, String> {
    let mut tools = toolchain::versions();
    tools.insert("binaryen".into(), binaryen::VERSION.into());
    tools
}

/// The file names of the artifacts, without their endings.
pub fn stems() -> impl Iterator<Item = &'static str> {
    VARIANTS.iter().map(|variant| variant.stem)
}

/// A module of all patches but this one, to be interpreted. It stands until the next one is made.
pub fn interpreted(shop: &Workshop, left_out: Option<&str>) -> Result<PathBuf> {
    let sources = Sources::read(&shop.places.root, left_out)?;
    let work = shop.scratch(if left_out.is_some() { "guest-without" } else { "guest-whole" })?;
    HASTY.compile(&work, &sources)
}

impl Sources {
    fn read(root: &Path, left_out: Option<&str>) -> Result<Self> {
        let directory = root.join("sidecar/guest");
        let mut ours = Vec::new();
        for entry in fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ["c", "h", "s", "js"].iter().any(|known| ending == *known)) {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                ours.push((name, fs::read(&path)?));
            }
        }
        ours.sort();
        let mut quickjs = quickjs::read(&quickjs::locate(root)?)?;
        let mut patches = patches::read(&directory.join("patches"))?;
        patches.retain(|patch| left_out != Some(patch.name.as_str()));
        for patch in &patches {
            patch.apply(&mut quickjs)?;
        }
        Ok(Self { ours, quickjs, patches })
    }
}

impl Variant {
    /// Of all that the module is made from, and not the tools.
    fn sources_digest(&self, sources: &Sources) -> String {
        let mut inputs = Inputs::new("nexus guest module, form 1");
        self.add_sources(&mut inputs, sources, &[COMPILE, WARNINGS, LINK, FEATURES, QUICKJS_UNITS]);
        inputs.hex()
    }

    fn add_sources(&self, inputs: &mut Inputs, sources: &Sources, recipe: &[&[&str]]) {
        for (name, bytes) in &sources.ours {
            inputs.add(name, bytes);
        }
        for (name, text) in &sources.quickjs {
            inputs.add(name, text.as_bytes());
        }
        for patch in &sources.patches {
            inputs.add(&patch.name, patch.text.as_bytes());
        }
        inputs.add("recipe", format!("{self:?} {recipe:?} {MEMORY_BYTES} {STACK_BYTES}").as_bytes());
    }

    fn digest(&self, sources: &Sources) -> String {
        let mut inputs = Inputs::new("nexus guest, form 1");
        self.add_sources(&mut inputs, sources, &[COMPILE, WARNINGS, LINK, FEATURES, AOT, QUICKJS_UNITS]);
        inputs.add("compiler", toolchain::fingerprint().as_bytes());
        inputs.add("binaryen", binaryen::VERSION.as_bytes());
        inputs.add("wasmedge", wasmedge::VERSION.as_bytes());
        inputs.add("processor", processor().as_bytes());
        inputs.hex()
    }

    /// Its digest, and where it stands in the cache.
    fn ensure(&self, shop: &Workshop, tools: &Tools, sources: &Sources) -> Result<(String, PathBuf)> {
        let digest = self.digest(sources);
        let name = format!("guest/{}-{}", self.name, &digest[..16]);
        let directory = match cached(&shop.places.cache.join(&name), self) {
            Some(directory) => directory,
            None => self.build(shop, tools, sources, &name)?,
        };
        Ok((digest, directory))
    }

    fn build(&self, shop: &Workshop, tools: &Tools, sources: &Sources, name: &str) -> Result<PathBuf> {
        let work = shop.scratch(&format!("guest-{}", self.name))?;
        let linked = self.timed("compiling QuickJS and the shim", || self.compile(&work, sources))?;

        let out = work.join("out");
        fs::create_dir_all(&out)?;
        let named = out.join(format!("{}.names.wasm", self.stem));
        self.timed("optimizing the module", || {
            let mut optimize = tools.binaryen.command();
            optimize.args(FEATURES).args(self.optimize).arg("-g").arg(&linked).arg("-o").arg(&named);
            quiet("optimizing the module", &mut optimize)
        })?;
        gate(&out, self)?;

        let module = out.join(format!("{}.wasm", self.stem));
        let doing = if self.transform.is_empty() { "stripping the module" } else { "asyncifying the module" };
        self.timed(doing, || {
            let mut strip = tools.binaryen.command();
            strip.args(FEATURES).args(self.transform).args(["--strip-debug", "--strip-producers"]);
            quiet("stripping the module", strip.arg(&named).arg("-o").arg(&module))
        })?;

        let library = out.join(format!("{}.so", self.stem));
        self.timed("compiling it to native code", || {
            let mut compile = tools.wasmedge.command();
            compile.args(AOT).arg(&module).arg(&library);
            quiet("compiling it to native code", &mut compile)
        })?;
        let sum = |path: &Path| digest::of_file(path);
        fs::write(
            out.join("SHA256SUMS"),
            format!("{}  {1}.wasm\n{2}  {1}.so\n", sum(&module)?, self.stem, sum(&library)?),
        )?;
        let directory = shop.finish(&out, name)?;
        remove(&work)?;
        Ok(directory)
    }

    /// Returns the linked module, before any optimization of Binaryen's.
    fn compile(&self, work: &Path, sources: &Sources) -> Result<PathBuf> {
        let (ours, theirs) = (work.join("guest"), work.join("quickjs"));
        fs::create_dir_all(&ours)?;
        fs::create_dir_all(&theirs)?;
        for (name, bytes) in &sources.ours {
            fs::write(ours.join(name), bytes)?;
        }
        for (name, text) in &sources.quickjs {
            fs::write(theirs.join(name), text)?;
        }
        // Every other C file of ours is included by the first.
        let mut units = vec![ours.join("nexus_guest.c")];
        if !units[0].is_file() {
            return Err(anyhow!("sidecar/guest has no nexus_guest.c"));
        }
        units.extend(sources.ours.iter().filter(|(name, _)| name.ends_with(".s")).map(|(name, _)| ours.join(name)));
        units.extend(QUICKJS_UNITS.iter().map(|name| theirs.join(name)).filter(|unit| unit.is_file()));

        let objects: Result<Vec<PathBuf>> = std::thread::scope(|scope| {
            let compilers: Vec<_> = units
                .iter()
                .map(|unit| {
                    let (ours, theirs) = (&ours, &theirs);
                    scope.spawn(move || self.compile_unit(unit, ours, theirs))
                })
                .collect();
            compilers
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow!("a compiler thread panicked"))?)
                .collect()
        });
        let objects = objects.context("the guest does not compile")?;

        let linked = work.join("linked.wasm");
        let mut link = Command::new(toolchain::CLANG);
        link.args(LINK).args(&objects).arg("-o").arg(&linked).args([
            format!("-Wl,-z,stack-size={STACK_BYTES}"),
            format!("-Wl,--initial-memory={MEMORY_BYTES}"),
            format!("-Wl,--max-memory={MEMORY_BYTES}"),
        ]);
        quiet("linking", &mut link)?;
        Ok(linked)
    }

    fn compile_unit(&self, unit: &Path, ours: &Path, theirs: &Path) -> Result<PathBuf> {
        let object = unit.with_extension("o");
        let mut compile = Command::new(toolchain::CLANG);
        compile.args(COMPILE).args(self.defines).arg("-I").arg(ours).arg("-isystem").arg(theirs);
        compile.args(if unit.starts_with(ours) { WARNINGS } else { &["-w"] });
        compile.arg("-c").arg(unit).arg("-o").arg(&object);
        let name = unit.file_name().unwrap_or_default().to_string_lossy().into_owned();
        quiet(&format!("compiling {name}"), &mut compile)?;
        Ok(object)
    }

    fn timed<T>(&self, doing: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let result = work()?;
        note(format!("{}: {doing}, {:.1} s", self.name, started.elapsed().as_secs_f64()));
        Ok(result)
    }
}

/// Runs the stack gate, unless this module has passed it with these very rules.
fn gate(directory: &Path, variant: &Variant) -> Result<()> {
    let mut rules = Inputs::new("stack gate, form 1");
    rules.add("allowed", stack_gate::ALLOWED.as_bytes());
    let (rules, passed) = (rules.hex(), directory.join("gate"));
    if fs::read_to_string(&passed).is_ok_and(|with| with == rules) {
        return Ok(());
    }
    let named = directory.join(format!("{}.names.wasm", variant.stem));
    stack_gate::check(&fs::read(&named).with_context(|| format!("cannot read {}", named.display()))?)?;
    Ok(fs::write(passed, rules)?)
}

/// The artifact's directory, if it is whole: a damaged one is built anew rather than run.
fn cached(directory: &Path, variant: &Variant) -> Option<PathBuf> {
    let sums = fs::read_to_string(directory.join("SHA256SUMS")).ok()?;
    let whole = sums.lines().all(|line| {
        line.split_once("  ")
            .is_some_and(|(sum, file)| digest::of_file(&directory.join(file)).is_ok_and(|now| now == sum))
    });
    if !whole || sums.lines().count() != 2 {
        note(format!("{}: the one in the cache is damaged; building it anew", variant.name));
        return None;
    }
    Some(directory.to_owned())
}

/// Removes the artifacts that have not been used for longest.
fn prune(directory: &Path, variant: &Variant) -> Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&format!("{}-", variant.name)) {
            found.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    found.sort();
    let superfluous = found.len().saturating_sub(KEPT);
    found.iter().take(superfluous).try_for_each(|(_, path)| remove(path))
}

/// What the native code may depend on.
fn processor() -> String {
    let told = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = told.split("\n\n").next().unwrap_or_default();
    let wanted = ["vendor_id", "cpu family", "model\t", "flags", "CPU implementer", "CPU part", "Features"];
    let lines = first.lines().filter(|line| wanted.iter().any(|start| line.starts_with(start)));
    std::iter::once(std::env::consts::ARCH).chain(lines).collect::<Vec<_>>().join("\n")
}
