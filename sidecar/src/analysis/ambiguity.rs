//! `f(a < b, c > (d))`: type arguments to TypeScript, two comparisons to JavaScript.
//!
//! Only a list of two or more can be meant as comparisons (`a < b > (c)` compares a truth value). It is, if all in it are
//! values: literals, names that the handler declares, or globals of handlers.

use std::collections::HashSet;

use oxc_ast::ast::*;
use oxc_ast_visit::{Visit, walk};

use super::pace::Pace;
use crate::token::{StopCause, StopToken};

/// Whether some list of type arguments is meant as comparisons, in a handler with no other TypeScript.
pub(super) fn means_comparisons(body: &FunctionBody<'_>, token: &StopToken) -> Result<bool, StopCause> {
    let mut names = Declared(HashSet::new(), Pace::new(token));
    names.visit_function_body(body);
    let declared = names.1.finish(names.0)?;
    let mut arguments = Arguments { declared, found: false, pace: Pace::new(token) };
    arguments.visit_function_body(body);
    arguments.pace.finish(arguments.found)
}

struct Declared<'a, 't>(HashSet<&'a str>, Pace<'t>);

impl<'a> Visit<'a> for Declared<'a, '_> {
    fn visit_statement(&mut self, it: &Statement<'a>) {
        if self.1.goes_on() {
            walk::walk_statement(self, it);
        }
    }
    fn visit_expression(&mut self, it: &Expression<'a>) {
        if self.1.goes_on() {
            walk::walk_expression(self, it);
        }
    }
    fn visit_binding_identifier(&mut self, it: &BindingIdentifier<'a>) {
        self.0.insert(it.name.as_str());
    }
}

struct Arguments<'a, 't> {
    declared: HashSet<&'a str>,
    found: bool,
    pace: Pace<'t>,
}

impl<'a> Visit<'a> for Arguments<'a, '_> {
    fn visit_statement(&mut self, it: &Statement<'a>) {
        if self.pace.goes_on() {
            walk::walk_statement(self, it);
        }
    }
    fn visit_expression(&mut self, it: &Expression<'a>) {
        if self.pace.goes_on() {
            walk::walk_expression(self, it);
        }
    }
    fn visit_ts_type_parameter_instantiation(&mut self, it: &TSTypeParameterInstantiation<'a>) {
        self.found |= it.params.len() > 1 && it.params.iter().all(|param| self.is_value(param));
    }
}

impl Arguments<'_, '_> {
    fn is_value(&self, it: &TSType<'_>) -> bool {
        match it {
            TSType::TSLiteralType(_) | TSType::TSNullKeyword(_) | TSType::TSUndefinedKeyword(_) => true,
            TSType::TSTypeReference(it) if it.type_arguments.is_none() => {
                let mut name = &it.type_name;
                loop {
                    name = match name {
                        TSTypeName::QualifiedName(it) => &it.left,
                        TSTypeName::ThisExpression(_) => return true,
                        TSTypeName::IdentifierReference(it) => {
                            let name = it.name.as_str();
                            return name.starts_with('$') || self.declared.contains(name);
                        }
                    };
                }
            }
            _ => false,
        }
    }
}
