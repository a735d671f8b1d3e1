//! Words that name types and, in most handlers, nothing else: `new Set<string>(items)` is JavaScript too, two comparisons, of which
//! one is with a variable `string`. Where nothing declares that, the comparison could only fail, and a type was meant.

use oxc_ast::ast::*;
use oxc_ast_visit::{Visit, walk};
use oxc_syntax::operator::BinaryOperator;

use super::pace::Pace;
use super::path::peel;
use crate::token::{StopCause, StopToken};

const WORDS: [&str; 9] = ["any", "bigint", "boolean", "never", "number", "object", "string", "symbol", "unknown"];

/// Whether the handler compares something with such a word, as JavaScript, that it does not declare.
pub(super) fn are_compared(body: &FunctionBody<'_>, text: &str, token: &StopToken) -> Result<bool, StopCause> {
    if !stand_in_brackets(text) {
        return Ok(false);
    }
    let mut search = Search { compared: 0, declared: 0, pace: Pace::new(token) };
    search.visit_function_body(body);
    let found = search.compared & !search.declared != 0;
    search.pace.finish(found)
}

/// Most texts have nothing of the kind, and need no walk.
fn stand_in_brackets(text: &str) -> bool {
    let behind = |at: usize| {
        let rest = text.get(at + 1..).unwrap_or_default().trim_start();
        let end = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
        bit(rest.get(..end).unwrap_or_default()).is_some()
    };
    let before = |at: usize| {
        let rest = text.get(..at).unwrap_or_default().trim_end();
        let start = rest.rfind(|c: char| !c.is_ascii_lowercase()).map_or(0, |at| at + 1);
        bit(rest.get(start..).unwrap_or_default()).is_some()
    };
    text.match_indices('<').any(|(at, _)| behind(at)) || text.match_indices('>').any(|(at, _)| before(at))
}

/// One bit for each of the words.
fn bit(name: &str) -> Option<u32> {
    WORDS.iter().position(|word| *word == name).map(|at| 1 << at)
}

struct Search<'t> {
    compared: u32,
    /// Or assigned to, which declares a global.
    declared: u32,
    pace: Pace<'t>,
}

impl<'a> Visit<'a> for Search<'_> {
    fn visit_binary_expression(&mut self, it: &BinaryExpression<'a>) {
        if matches!(
            it.operator,
            BinaryOperator::LessThan
                | BinaryOperator::GreaterThan
                | BinaryOperator::ShiftRight
                | BinaryOperator::ShiftRightZeroFill
        ) {
            for side in [&it.left, &it.right] {
                if let Expression::Identifier(name) = peel(side) {
                    self.compared |= bit(name.name.as_str()).unwrap_or_default();
                }
            }
        }
        walk::walk_binary_expression(self, it);
    }

    fn visit_binding_identifier(&mut self, it: &BindingIdentifier<'a>) {
        self.declared |= bit(it.name.as_str()).unwrap_or_default();
    }

    fn visit_simple_assignment_target(&mut self, it: &SimpleAssignmentTarget<'a>) {
        if let SimpleAssignmentTarget::AssignmentTargetIdentifier(name) = it {
            self.declared |= bit(name.name.as_str()).unwrap_or_default();
        }
        walk::walk_simple_assignment_target(self, it);
    }

    fn visit_assignment_target_property_identifier(&mut self, it: &AssignmentTargetPropertyIdentifier<'a>) {
        self.declared |= bit(it.binding.name.as_str()).unwrap_or_default();
        walk::walk_assignment_target_property_identifier(self, it);
    }

    fn visit_expression(&mut self, it: &Expression<'a>) {
        if self.pace.goes_on() {
            walk::walk_expression(self, it);
        }
    }
    fn visit_statement(&mut self, it: &Statement<'a>) {
        if self.pace.goes_on() {
            walk::walk_statement(self, it);
        }
    }
}
