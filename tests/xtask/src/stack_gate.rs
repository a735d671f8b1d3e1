//! The stack gate: no recursion of the guest may escape QuickJS's stack check.
//!
//! Native code has no stack check of its own: an overflow of the native stack is a fault, which the sidecar turns into the loss
//! of that instance. A handler shall not come so far. QuickJS checks the pointer of the *shadow* stack, in linear memory, so a
//! recursion ends in an error if every round of it lowers that pointer. This gate lists the cycles of calls none of which is
//! surely made with a lowered pointer (`frames.rs`), and fails on one that is not in the list of the examined.
//!
//! Indirect calls are taken to reach every function of the tables that has the right type. Host functions never call back,
//! so imports end a path.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use wasmparser::{ElementItems, FuncType, KnownCustom, Name, Operator, Parser, Payload, TypeRef};

use crate::frames::{self, FramelessCalls};
use crate::stages::note;

/// The cycles that have been examined, with the reason why each is harmless.
pub const ALLOWED: &str = include_str!("../frameless_cycles.txt");

const STACK_POINTER: &str = "__stack_pointer";

/// The names of the functions of a cycle.
type Cycle = BTreeSet<String>;

struct Allowed {
    functions: Cycle,
    reason: String,
}

/// Fails on a cycle that nobody has examined.
pub fn check(wasm: &[u8]) -> Result<()> {
    let allowed = parse_allowed(ALLOWED)?;
    let found = frameless_cycles(wasm)?;
    let unknown: Vec<&Cycle> =
        found.iter().filter(|cycle| !allowed.iter().any(|entry| cycle.is_subset(&entry.functions))).collect();
    if unknown.is_empty() {
        note(format!("stack gate: {} frameless cycles, all of them known", found.len()));
        return Ok(());
    }
    let listed: Vec<String> =
        unknown.iter().map(|cycle| cycle.iter().map(String::as_str).collect::<Vec<_>>().join(" ")).collect();
    bail!(
        "the guest has recursions that QuickJS's stack check does not see:\n  {}\n\
         What to do: show that the depth of each is bounded, or force a shadow frame by a patch in sidecar/guest/patches \
         (see 01-proxy-get-prototype-of.patch); only a bounded one may be added to tests/xtask/frameless_cycles.txt, with \
         the reason",
        listed.join("\n  ")
    )
}

/// For looking at a module by hand.
pub fn print_cycles(path: &Path) -> Result<()> {
    let wasm = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let allowed = parse_allowed(ALLOWED)?;
    let module = Module::read(&wasm)?;
    for cycle in frameless_cycles(&wasm)? {
        let reason = allowed.iter().find(|entry| cycle.is_subset(&entry.functions)).map(|entry| entry.reason.as_str());
        println!("{}", cycle.iter().map(String::as_str).collect::<Vec<_>>().join(" "));
        println!("    {}", reason.unwrap_or("NEW"));
        for (index, function) in module.functions.iter().enumerate() {
            let of_cycle = |index: &usize| cycle.contains(&module.name(*index));
            let callees: Vec<String> =
                module.callees(function).into_iter().filter(of_cycle).map(|index| module.name(index)).collect();
            if of_cycle(&index) && !callees.is_empty() {
                println!("    {} calls {}", module.name(index), callees.join(" "));
            }
        }
    }
    Ok(())
}

/// A line of names, then indented lines with the reason. `#` begins a comment.
fn parse_allowed(text: &str) -> Result<Vec<Allowed>> {
    let mut entries: Vec<Allowed> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if line.starts_with(' ') {
            let entry = entries.last_mut().context("frameless_cycles.txt begins with a reason")?;
            entry.reason = [&entry.reason, line.trim()].map(str::trim).join(" ").trim().to_owned();
        } else {
            let functions = line.split_whitespace().map(str::to_owned).collect();
            entries.push(Allowed { functions, reason: String::new() });
        }
    }
    if let Some(entry) = entries.iter().find(|entry| entry.reason.is_empty()) {
        bail!("frameless_cycles.txt gives no reason for {:?}", entry.functions);
    }
    Ok(entries)
}

/// The cycles of frameless calls, each as the largest set of functions that reach one another.
fn frameless_cycles(wasm: &[u8]) -> Result<Vec<Cycle>> {
    let module = Module::read(wasm)?;
    let edges: Vec<Vec<usize>> = module.functions.iter().map(|function| module.callees(function)).collect();
    let mut cycles = Vec::new();
    for component in components(&edges) {
        if component.len() > 1 || edges[component[0]].contains(&component[0]) {
            cycles.push(component.iter().map(|index| module.name(*index)).collect());
        }
    }
    cycles.sort();
    Ok(cycles)
}

/// What the gate needs to know of a module.
#[derive(Default)]
struct Module {
    types: Vec<FuncType>,
    imported: usize,
    /// The type of every function, imports first.
    signatures: Vec<u32>,
    /// The calls of every function that is not imported, with the pointer not surely lowered.
    functions: Vec<FramelessCalls>,
    in_tables: BTreeSet<u32>,
    names: BTreeMap<u32, String>,
}

impl Module {
    fn read(wasm: &[u8]) -> Result<Self> {
        let mut module = Self::default();
        let mut bodies = Vec::new();
        let mut stack_pointer = None;
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::TypeSection(section) => {
                    for ty in section.into_iter_err_on_gc_types() {
                        module.types.push(ty?);
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        if let TypeRef::Func(ty) = import?.ty {
                            module.signatures.push(ty);
                            module.imported += 1;
                        }
                    }
                }
                Payload::FunctionSection(section) => {
                    for ty in section {
                        module.signatures.push(ty?);
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        if export.name == STACK_POINTER {
                            stack_pointer = Some(export.index);
                        }
                    }
                }
                Payload::ElementSection(section) => {
                    for element in section {
                        module.add_element(element?.items)?;
                    }
                }
                Payload::CodeSectionEntry(body) => bodies.push(body),
                Payload::CustomSection(section) => {
                    if let KnownCustom::Name(names) = section.as_known() {
                        for name in names {
                            module.add_names(name?)?;
                        }
                    }
                }
                _ => {}
            }
        }
        let stack_pointer = stack_pointer.with_context(|| format!("the module does not export {STACK_POINTER}"))?;
        if module.names.is_empty() {
            bail!("the module has no names");
        }
        for body in bodies {
            let operators = body.get_operators_reader()?.into_iter().collect::<Result<Vec<_>, _>>()?;
            module.functions.push(frames::frameless_calls(&operators, stack_pointer)?);
        }
        Ok(module)
    }

    fn add_element(&mut self, items: ElementItems) -> Result<()> {
        match items {
            ElementItems::Functions(functions) => {
                for function in functions {
                    self.in_tables.insert(function?);
                }
            }
            ElementItems::Expressions(_, expressions) => {
                for expression in expressions {
                    for operator in expression?.get_operators_reader() {
                        if let Operator::RefFunc { function_index } = operator? {
                            self.in_tables.insert(function_index);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn add_names(&mut self, name: Name) -> Result<()> {
        if let Name::Function(map) = name {
            for naming in map {
                let naming = naming?;
                self.names.insert(naming.index, normalised(naming.name));
            }
        }
        Ok(())
    }

    fn callees(&self, function: &FramelessCalls) -> Vec<usize> {
        let mut callees = function.direct.clone();
        for wanted in &function.indirect {
            let wanted = &self.types[*wanted as usize];
            let fits = |index: &&u32| self.types[self.signatures[**index as usize] as usize] == *wanted;
            callees.extend(self.in_tables.iter().filter(fits));
        }
        callees.into_iter().filter_map(|index| (index as usize).checked_sub(self.imported)).collect()
    }

    fn name(&self, defined: usize) -> String {
        let index = defined + self.imported;
        let unnamed = || format!("function-{index}");
        u32::try_from(index).ok().and_then(|index| self.names.get(&index).cloned()).unwrap_or_else(unnamed)
    }
}

/// Compilers mark copies of a function by numbers behind its name, which differ from build to build.
fn normalised(name: &str) -> String {
    let mut rest = name;
    while let Some((front, end)) = rest.rsplit_once('.') {
        if end.is_empty() || !end.bytes().all(|byte| byte.is_ascii_digit()) {
            break;
        }
        rest = front;
    }
    rest.to_owned()
}

/// Strongly connected components (Tarjan), without recursion: the graphs are deep.
fn components(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let mut order = vec![UNSEEN; edges.len()];
    let mut low = vec![0; edges.len()];
    let mut open = vec![false; edges.len()];
    let (mut stack, mut found, mut count) = (Vec::new(), Vec::new(), 0);
    for root in 0..edges.len() {
        if order[root] != UNSEEN {
            continue;
        }
        let mut path = vec![(root, 0)];
        while let Some((node, next)) = path.last_mut() {
            let node = *node;
            if *next == 0 {
                order[node] = count;
                low[node] = count;
                count += 1;
                stack.push(node);
                open[node] = true;
            }
            if let Some(&callee) = edges[node].get(*next) {
                *next += 1;
                if order[callee] == UNSEEN {
                    path.push((callee, 0));
                } else if open[callee] {
                    low[node] = low[node].min(order[callee]);
                }
                continue;
            }
            path.pop();
            if let Some((caller, _)) = path.last() {
                low[*caller] = low[*caller].min(low[node]);
            }
            if low[node] == order[node] {
                let start = stack.iter().rposition(|member| *member == node).unwrap_or(0);
                let component = stack.split_off(start);
                component.iter().for_each(|member| open[*member] = false);
                found.push(component);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_the_cycles() {
        let edges = vec![vec![1], vec![2], vec![0, 3], vec![4], vec![4], vec![]];
        let mut found = components(&edges);
        found.iter_mut().for_each(|component| component.sort_unstable());
        found.sort();
        assert_eq!(found, vec![vec![0, 1, 2], vec![3], vec![4], vec![5]]);
    }

    #[test]
    fn numbers_behind_a_name_do_not_count() {
        assert_eq!(normalised("js_free.12"), "js_free");
        assert_eq!(normalised("js_free.12.3"), "js_free");
        assert_eq!(normalised("js_free.part"), "js_free.part");
    }

    #[test]
    fn every_allowed_cycle_has_a_reason() {
        assert!(parse_allowed(ALLOWED).is_ok());
        assert!(parse_allowed("a b\n    because\nc\n").is_err());
    }
}
