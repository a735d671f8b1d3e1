//! Whether two trees are the same program but for its types.
//!
//! Erasing in place can go wrong silently: `a + b as T * c` groups differently without the `as`. So the erased text is
//! parsed again as JavaScript, and both trees are hashed node by node, types, parentheses and empty statements left out.

use std::hash::{DefaultHasher, Hash, Hasher};

use oxc_ast::AstKind;
use oxc_ast::ast::*;
use oxc_ast_visit::{Visit, walk};
use oxc_span::GetSpan;

use super::erase::{is_type_only, is_type_only_member};
use super::pace::Pace;
use crate::token::{StopCause, StopToken};

/// Whether `erased` is `typed` without its types.
pub(super) fn same_program(
    typed: &FunctionBody<'_>,
    erased: &FunctionBody<'_>,
    token: &StopToken,
) -> Result<bool, StopCause> {
    Ok(fingerprint(typed, token)? == fingerprint(erased, token)?)
}

fn fingerprint(body: &FunctionBody<'_>, token: &StopToken) -> Result<u64, StopCause> {
    let mut printer = Printer(DefaultHasher::new(), Pace::new(token));
    printer.visit_function_body(body);
    printer.1.finish(printer.0.finish())
}

struct Printer<'t>(DefaultHasher, Pace<'t>);

impl<'a> Visit<'a> for Printer<'_> {
    fn enter_node(&mut self, kind: AstKind<'a>) {
        if matches!(kind, AstKind::ParenthesizedExpression(_)) {
            return;
        }
        (kind.ty() as u8).hash(&mut self.0);
        match kind {
            AstKind::BinaryExpression(it) => (it.operator as u8).hash(&mut self.0),
            AstKind::LogicalExpression(it) => (it.operator as u8).hash(&mut self.0),
            AstKind::UnaryExpression(it) => (it.operator as u8).hash(&mut self.0),
            AstKind::AssignmentExpression(it) => (it.operator as u8).hash(&mut self.0),
            AstKind::UpdateExpression(it) => (it.operator as u8, it.prefix).hash(&mut self.0),
            AstKind::VariableDeclaration(it) => (it.kind as u8).hash(&mut self.0),
            AstKind::IdentifierReference(_)
            | AstKind::BindingIdentifier(_)
            | AstKind::IdentifierName(_)
            | AstKind::StringLiteral(_)
            | AstKind::NumericLiteral(_)
            | AstKind::TemplateElement(_)
            | AstKind::RegExpLiteral(_) => (kind.span().start, kind.span().end).hash(&mut self.0),
            _ => {}
        }
    }

    fn leave_node(&mut self, kind: AstKind<'a>) {
        if !matches!(kind, AstKind::ParenthesizedExpression(_)) {
            u8::MAX.hash(&mut self.0);
        }
    }

    fn visit_expression(&mut self, it: &Expression<'a>) {
        if self.1.goes_on() {
            walk::walk_expression(self, it);
        }
    }
    fn visit_statement(&mut self, it: &Statement<'a>) {
        if self.1.goes_on() && !(is_type_only(it) || matches!(it, Statement::EmptyStatement(_))) {
            walk::walk_statement(self, it);
        }
    }
    fn visit_class_element(&mut self, it: &ClassElement<'a>) {
        if !is_type_only_member(it) {
            walk::walk_class_element(self, it);
        }
    }

    fn visit_ts_as_expression(&mut self, it: &TSAsExpression<'a>) {
        self.visit_expression(&it.expression);
    }
    fn visit_ts_satisfies_expression(&mut self, it: &TSSatisfiesExpression<'a>) {
        self.visit_expression(&it.expression);
    }
    fn visit_ts_non_null_expression(&mut self, it: &TSNonNullExpression<'a>) {
        self.visit_expression(&it.expression);
    }
    fn visit_ts_instantiation_expression(&mut self, it: &TSInstantiationExpression<'a>) {
        self.visit_expression(&it.expression);
    }
    fn visit_ts_type_annotation(&mut self, _: &TSTypeAnnotation<'a>) {}
    fn visit_ts_type_parameter_declaration(&mut self, _: &TSTypeParameterDeclaration<'a>) {}
    fn visit_ts_type_parameter_instantiation(&mut self, _: &TSTypeParameterInstantiation<'a>) {}
    fn visit_ts_this_parameter(&mut self, _: &TSThisParameter<'a>) {}
    fn visit_ts_class_implements(&mut self, _: &TSClassImplements<'a>) {}
}
