//! Which declaration a name means: a local `$state` is not the global.
//!
//! Invariant: looking a name up costs the same at any depth; entering a scope costs as many steps as it declares names.
//! What it does not do: the temporal dead zone, and `with`.

use std::collections::HashMap;

use oxc_ast::ast::*;
use oxc_ast_visit::{Visit, walk};
use oxc_syntax::scope::ScopeFlags;

use super::pace::Pace;
use super::path::{Path, is_root};

/// One declared name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Binding(u32);

impl Binding {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The scopes around the place that is being looked at.
#[derive(Default)]
pub(super) struct Scopes<'a> {
    visible: HashMap<&'a str, Vec<Binding>>,
    open: Vec<Vec<&'a str>>,
    declared: u32,
    aliases: HashMap<Binding, Path<'a>>,
}

impl<'a> Scopes<'a> {
    pub(super) fn lookup(&self, name: &str) -> Option<Binding> {
        self.visible.get(name)?.last().copied()
    }

    /// What the name means around the scope that declares it last.
    pub(super) fn lookup_around(&self, name: &str) -> Option<Binding> {
        self.visible.get(name)?.iter().rev().nth(1).copied()
    }

    /// The extension, or part of one, that a constant stands for.
    pub(super) fn alias(&self, binding: Binding) -> Option<&Path<'a>> {
        self.aliases.get(&binding)
    }

    pub(super) fn set_alias(&mut self, binding: Binding, path: Path<'a>) {
        self.aliases.insert(binding, path);
    }

    pub(super) fn enter(&mut self, mut names: Vec<&'a str>) {
        names.sort_unstable();
        names.dedup();
        for name in &names {
            self.visible.entry(name).or_default().push(Binding(self.declared));
            self.declared += 1;
        }
        self.open.push(names);
    }

    pub(super) fn leave(&mut self) {
        for name in self.open.pop().unwrap_or_default() {
            if let Some(bindings) = self.visible.get_mut(name) {
                bindings.pop();
            }
        }
    }
}

/// Names that a block declares for itself.
pub(super) fn block_names<'a>(statements: &[Statement<'a>]) -> Vec<&'a str> {
    let mut names = Vec::new();
    for statement in statements {
        match statement {
            Statement::VariableDeclaration(it) if !it.declare && it.kind != VariableDeclarationKind::Var => {
                declared_names(it, &mut names);
            }
            Statement::FunctionDeclaration(it) if it.body.is_some() && !it.declare => names.extend(it.name_str()),
            Statement::ClassDeclaration(it) if !it.declare => names.extend(it.id.as_ref().map(|id| id.name.as_str())),
            _ => {}
        }
    }
    names
}

/// Names that a function body declares: its block's, and every `var` in it; in sloppy code also functions in blocks.
/// And whether one of those functions has the name of a global of handlers, which is left out: before it is declared, and
/// where something else has its name, it is not what the name means.
pub(super) fn function_names<'a>(
    statements: &[Statement<'a>],
    sloppy: bool,
    pace: &mut Pace<'_>,
) -> (Vec<&'a str>, bool) {
    let mut hoisted = Hoisted { names: block_names(statements), sloppy, doubtful: false, depth: 0, pace };
    hoisted.visit_body(statements);
    (hoisted.names, hoisted.doubtful)
}

pub(super) fn parameter_names<'a>(params: &FormalParameters<'a>, names: &mut Vec<&'a str>) {
    for param in &params.items {
        pattern_names(&param.pattern, names);
    }
    if let Some(rest) = &params.rest {
        pattern_names(&rest.rest.argument, names);
    }
}

pub(super) fn declared_names<'a>(declaration: &VariableDeclaration<'a>, names: &mut Vec<&'a str>) {
    for declarator in &declaration.declarations {
        pattern_names(&declarator.id, names);
    }
}

pub(super) fn pattern_names<'a>(pattern: &BindingPattern<'a>, names: &mut Vec<&'a str>) {
    match pattern {
        BindingPattern::BindingIdentifier(it) => names.push(it.name.as_str()),
        BindingPattern::AssignmentPattern(it) => pattern_names(&it.left, names),
        BindingPattern::ObjectPattern(it) => {
            for property in &it.properties {
                pattern_names(&property.value, names);
            }
            if let Some(rest) = &it.rest {
                pattern_names(&rest.argument, names);
            }
        }
        BindingPattern::ArrayPattern(it) => {
            for element in it.elements.iter().flatten() {
                pattern_names(element, names);
            }
            if let Some(rest) = &it.rest {
                pattern_names(&rest.argument, names);
            }
        }
    }
}

trait FunctionName<'a> {
    fn name_str(&self) -> Option<&'a str>;
}

impl<'a> FunctionName<'a> for Function<'a> {
    fn name_str(&self) -> Option<&'a str> {
        self.id.as_ref().map(|id| id.name.as_str())
    }
}

/// Neither `var` nor functions in blocks cross a function or stand in an expression.
struct Hoisted<'a, 'p, 't> {
    names: Vec<&'a str>,
    sloppy: bool,
    doubtful: bool,
    /// Statements around the one that is looked at.
    depth: u32,
    pace: &'p mut Pace<'t>,
}

impl<'a> Hoisted<'a, '_, '_> {
    fn visit_body(&mut self, statements: &[Statement<'a>]) {
        statements.iter().for_each(|statement| self.visit_statement(statement));
    }
}

impl<'a> Visit<'a> for Hoisted<'a, '_, '_> {
    fn visit_variable_declaration(&mut self, it: &VariableDeclaration<'a>) {
        if it.kind == VariableDeclarationKind::Var && !it.declare {
            declared_names(it, &mut self.names);
        }
    }
    fn visit_function(&mut self, it: &Function<'a>, _: ScopeFlags) {
        // async functions and generators stay in their blocks; those of the body itself are known
        let hoisted = self.sloppy && !it.r#async && !it.generator && self.depth > 1;
        let Some(name) = it.name_str().filter(|_| hoisted && it.body.is_some() && !it.declare) else { return };
        if is_root(name) {
            self.doubtful = true;
        } else {
            self.names.push(name);
        }
    }
    fn visit_class(&mut self, _: &Class<'a>) {}
    fn visit_expression(&mut self, _: &Expression<'a>) {}
    fn visit_statement(&mut self, it: &Statement<'a>) {
        if self.pace.goes_on() && !matches!(it, Statement::ExpressionStatement(_)) {
            self.depth += 1;
            walk::walk_statement(self, it);
            self.depth -= 1;
        }
    }
}
