//! Walks a handler once, and notes what it needs and how its extension calls stand.
//!
//! Every expression is visited with what becomes of its value (`Want`). Chains that start at a global go to `uses` and
//! `calls` as a whole, so that `$state.user.name = x` is one write, not a read and an assignment to something.
//!
//! Invariant: each expression is visited once, and a chain of properties is looked along at most three times.
//! What it does not do: follow values. What leaves through a variable, an argument or a property is taken to be used in
//! every way; only constants that name a part of `$ext` are followed. A property with the name of a global is taken for it.

use std::borrow::Cow;

use oxc_ast::ast::*;
use oxc_ast_visit::{Visit, walk};
use oxc_span::GetSpan;
use oxc_syntax::operator::{BinaryOperator, LogicalOperator, UnaryOperator};
use oxc_syntax::scope::ScopeFlags;

use super::needs::Needs;
use super::pace::Pace;
use super::path::{Link, Path, Root, Step, key_of, link, path_of, peel};
use super::scope::{Scopes, block_names, declared_names, function_names, parameter_names, pattern_names};
use super::suspend::{Standing, Want, is_called_for_its_value};
use crate::token::{StopCause, StopToken};

/// The state of the walk.
pub(super) struct Walker<'a, 't> {
    pub(super) needs: Needs,
    pub(super) standing: Standing,
    pub(super) scopes: Scopes<'a>,
    /// What becomes of what the current function returns, and yields.
    returns: Want,
    yields: Want,
    /// The next object literal holds the traps of a Proxy.
    pub(super) traps: bool,
    pace: Pace<'t>,
}

/// What a handler needs, and how its calls stand.
pub(super) fn walk(body: &FunctionBody<'_>, token: &StopToken) -> Result<(Needs, Standing), StopCause> {
    let mut walker = Walker {
        needs: Needs::default(),
        standing: Standing::default(),
        scopes: Scopes::default(),
        returns: Want::Promise,
        yields: Want::Value,
        traps: false,
        pace: Pace::new(token),
    };
    walker.function(None, body, Flavour { is_async: true, is_generator: false }, Want::Promise);
    walker.pace.finish((walker.needs, walker.standing))
}

/// What kind of function.
#[derive(Clone, Copy)]
pub(super) struct Flavour {
    is_async: bool,
    is_generator: bool,
}

impl<'a> Walker<'a, '_> {
    pub(super) fn path(&self, expression: &Expression<'a>) -> Option<Path<'a>> {
        path_of(expression, &self.scopes)
    }

    // ---- functions ----

    fn function(
        &mut self,
        params: Option<&FormalParameters<'a>>,
        body: &FunctionBody<'a>,
        kind: Flavour,
        result: Want,
    ) {
        let mut names = function_names(body, &mut self.pace);
        if let Some(params) = params {
            parameter_names(params, &mut names);
        }
        self.scopes.enter(names);
        let outer = self.enter_function(kind, result);
        if let Some(params) = params {
            self.visit_formal_parameters(params);
        }
        self.declare_aliases(&body.statements);
        self.visit_statements(&body.statements);
        (self.returns, self.yields) = outer;
        self.scopes.leave();
    }

    fn enter_function(&mut self, kind: Flavour, result: Want) -> (Want, Want) {
        let (returns, yields) = match (kind.is_async, kind.is_generator) {
            (true, true) => (Want::Promise, Want::Promise),
            (true, false) => (Want::Promise, Want::Value),
            (false, true) => (Want::Value, Want::Value),
            (false, false) => (result, Want::Value),
        };
        let outer = (self.returns, self.yields);
        (self.returns, self.yields) = (returns, yields);
        outer
    }

    /// A function literal or declaration; `result` is what becomes of what it returns.
    pub(super) fn any_function(&mut self, it: &Function<'a>, result: Want) {
        let Some(body) = &it.body else { return };
        let kind = Flavour { is_async: it.r#async, is_generator: it.generator };
        let own_name = it.id.iter().filter(|_| it.is_expression()).map(|id| id.name.as_str()).collect();
        self.scopes.enter(own_name);
        self.function(Some(&it.params), body, kind, result);
        self.scopes.leave();
    }

    pub(super) fn arrow(&mut self, it: &ArrowFunctionExpression<'a>, result: Want) {
        let kind = Flavour { is_async: it.r#async, is_generator: false };
        match &it.body {
            ArrowFunctionBody::FunctionBody(body) => self.function(Some(&it.params), body, kind, result),
            body => {
                let mut names = Vec::new();
                parameter_names(&it.params, &mut names);
                self.scopes.enter(names);
                let outer = self.enter_function(kind, result);
                self.visit_formal_parameters(&it.params);
                if let Some(value) = body.as_expression() {
                    self.expression(value, self.returns);
                }
                (self.returns, self.yields) = outer;
                self.scopes.leave();
            }
        }
    }

    /// A function literal; false if the expression is none.
    pub(super) fn function_literal(&mut self, expression: &Expression<'a>, result: Want) -> bool {
        match peel(expression) {
            Expression::ArrowFunctionExpression(it) => self.arrow(it, result),
            Expression::FunctionExpression(it) => self.any_function(it, result),
            _ => return false,
        }
        true
    }

    // ---- expressions ----

    pub(super) fn expression(&mut self, expression: &Expression<'a>, want: Want) {
        if !self.pace.goes_on() {
            return;
        }
        match expression {
            Expression::AwaitExpression(it) => self.expression(&it.argument, Want::Promise),
            Expression::ConditionalExpression(it) => {
                self.expression(&it.test, Want::Test);
                self.expression(&it.consequent, want);
                self.expression(&it.alternate, want);
            }
            Expression::LogicalExpression(it) => {
                let left = if it.operator == LogicalOperator::And { Want::Test } else { Want::Value };
                self.expression(&it.left, left);
                self.expression(&it.right, want);
            }
            Expression::SequenceExpression(it) => {
                let last = it.expressions.len().saturating_sub(1);
                for (index, part) in it.expressions.iter().enumerate() {
                    self.expression(part, if index == last { want } else { Want::Unused });
                }
            }
            Expression::UnaryExpression(it) => match it.operator {
                UnaryOperator::Void => self.expression(&it.argument, Want::Promise),
                UnaryOperator::Typeof | UnaryOperator::LogicalNot => self.expression(&it.argument, Want::Test),
                UnaryOperator::Delete => self.delete(&it.argument),
                _ => self.expression(&it.argument, Want::Value),
            },
            Expression::BinaryExpression(it) => self.binary(it),
            Expression::YieldExpression(it) => {
                if let Some(argument) = &it.argument {
                    self.expression(argument, if it.delegate { Want::Value } else { self.yields });
                }
            }
            Expression::ArrowFunctionExpression(it) => self.arrow(it, Want::Promise),
            Expression::FunctionExpression(it) => self.any_function(it, Want::Promise),
            Expression::ArrayExpression(it) => self.array(it, want),
            Expression::ObjectExpression(it) => self.object(it),
            Expression::CallExpression(it) => self.call(it, want),
            Expression::NewExpression(it) => self.construct(it),
            Expression::TaggedTemplateExpression(it) => self.tagged(it, want),
            Expression::AssignmentExpression(it) => self.assignment(it),
            Expression::UpdateExpression(it) => self.update(&it.argument),
            Expression::ChainExpression(it) => match &it.expression {
                ChainElement::CallExpression(it) => self.call(it, want),
                _ => self.chain(expression, want),
            },
            _ => self.chain(expression, want),
        }
    }

    /// Names, properties, and what is written around them; the rest has no part in this.
    fn chain(&mut self, expression: &Expression<'a>, want: Want) {
        match link(expression) {
            Link::Same(inner) => self.expression(inner, want),
            Link::Identifier(it) => self.identifier(it, want),
            Link::Property(..) | Link::Index(..) => match self.path(expression) {
                Some(path) => {
                    self.keys(expression);
                    self.path_value(&path, want);
                }
                None => self.plain_chain(expression),
            },
            Link::Other => walk::walk_expression(self, expression),
        }
    }

    /// A chain of properties that does not start at a global.
    fn plain_chain(&mut self, expression: &Expression<'a>) {
        self.hidden_globals(expression);
        let start = self.keys(expression);
        self.expression(start, Want::Value);
    }

    /// `this.$ext`, or `g.$state` where `g` may be anything: what is done with it cannot be seen.
    fn hidden_globals(&mut self, mut expression: &Expression<'a>) {
        loop {
            let (inner, name) = match link(expression) {
                Link::Same(inner) => (inner, None),
                Link::Property(inner, name) => (inner, Some(Cow::Borrowed(name))),
                Link::Index(inner, key) => match key_of(key) {
                    Step::Name(name) => (inner, Some(name)),
                    Step::Dynamic => (inner, None),
                },
                Link::Identifier(_) | Link::Other => return,
            };
            if let Some(name) = name {
                self.hidden_global(&name, expression.span().start);
            }
            expression = inner;
        }
    }

    pub(super) fn hidden_global(&mut self, name: &str, position: u32) {
        if let Some(path) = super::path::path_of_property(name, position) {
            self.path_value(&path, Want::Value);
        }
    }

    /// The computed keys of a chain. Returns what it starts at.
    pub(super) fn keys<'e>(&mut self, mut expression: &'e Expression<'a>) -> &'e Expression<'a> {
        loop {
            expression = match link(expression) {
                Link::Same(inner) | Link::Property(inner, _) => inner,
                Link::Index(inner, key) => {
                    self.expression(key, Want::Value);
                    inner
                }
                Link::Identifier(_) | Link::Other => return expression,
            };
        }
    }

    fn identifier(&mut self, it: &IdentifierReference<'a>, want: Want) {
        match self.scopes.lookup(it.name.as_str()) {
            Some(binding) => {
                self.standing.variable(binding, want);
                if let Some(path) = self.scopes.alias(binding) {
                    let path = path.at(it.span.start);
                    self.path_value(&path, want);
                }
            }
            None => {
                if let Some(path) = super::path::path_of_name(it) {
                    self.path_value(&path, want);
                }
            }
        }
    }

    fn binary(&mut self, it: &BinaryExpression<'a>) {
        use BinaryOperator::{Equality, In, Inequality, StrictEquality, StrictInequality};
        match it.operator {
            In => {
                self.expression(&it.left, Want::Value);
                match self.path(&it.right) {
                    Some(path) if path.root == Root::State && path.is_root() => {
                        self.has(&super::path::key_of(&it.left), path.position);
                    }
                    _ => self.expression(&it.right, Want::Value),
                }
            }
            Equality | Inequality | StrictEquality | StrictInequality => {
                self.expression(&it.left, Want::Test);
                self.expression(&it.right, Want::Test);
            }
            _ => {
                self.expression(&it.left, Want::Value);
                self.expression(&it.right, Want::Value);
            }
        }
    }

    fn array(&mut self, it: &ArrayExpression<'a>, want: Want) {
        let element = if want == Want::List { Want::Promise } else { Want::Value };
        let spread = if want == Want::List { Want::List } else { Want::Value };
        for item in &it.elements {
            match item {
                ArrayExpressionElement::SpreadElement(it) => self.expression(&it.argument, spread),
                item => {
                    if let Some(value) = item.as_expression() {
                        self.expression(value, element);
                    }
                }
            }
        }
    }

    fn object(&mut self, it: &ObjectExpression<'a>) {
        let method = if std::mem::take(&mut self.traps) { Want::Value } else { Want::Promise };
        for property in &it.properties {
            match property {
                ObjectPropertyKind::SpreadProperty(it) => self.enumerated(&it.argument),
                ObjectPropertyKind::ObjectProperty(it) => {
                    self.visit_property_key(&it.key);
                    let by_language = it.kind != PropertyKind::Init || self.is_for_its_value(&it.key, it.computed);
                    let result = if by_language { Want::Value } else { method };
                    if !self.function_literal(&it.value, result) {
                        self.expression(&it.value, Want::Value);
                    }
                }
            }
        }
    }

    fn is_for_its_value(&self, key: &PropertyKey<'a>, computed: bool) -> bool {
        // `[Symbol.toPrimitive]`, `[Symbol.iterator]`
        computed || key.static_name().is_some_and(|name| is_called_for_its_value(&name))
    }
}

impl<'a> Visit<'a> for Walker<'a, '_> {
    fn visit_expression(&mut self, it: &Expression<'a>) {
        self.expression(it, Want::Value);
    }
    fn visit_identifier_reference(&mut self, it: &IdentifierReference<'a>) {
        self.identifier(it, Want::Value);
    }

    // ---- types say nothing ----

    fn visit_ts_type_annotation(&mut self, _: &TSTypeAnnotation<'a>) {}
    fn visit_ts_type_parameter_declaration(&mut self, _: &TSTypeParameterDeclaration<'a>) {}
    fn visit_ts_type_parameter_instantiation(&mut self, _: &TSTypeParameterInstantiation<'a>) {}
    fn visit_ts_class_implements(&mut self, _: &TSClassImplements<'a>) {}

    // ---- statements ----

    fn visit_statement(&mut self, it: &Statement<'a>) {
        if !self.pace.goes_on() || super::erase::is_type_only(it) {
            return;
        }
        match it {
            Statement::ExpressionStatement(it) => self.expression(&it.expression, Want::Unused),
            Statement::ReturnStatement(it) => {
                if let Some(value) = &it.argument {
                    self.expression(value, self.returns);
                }
            }
            Statement::IfStatement(it) => {
                self.expression(&it.test, Want::Test);
                self.visit_statement(&it.consequent);
                if let Some(alternate) = &it.alternate {
                    self.visit_statement(alternate);
                }
            }
            Statement::WhileStatement(it) => {
                self.expression(&it.test, Want::Test);
                self.visit_statement(&it.body);
            }
            Statement::DoWhileStatement(it) => {
                self.visit_statement(&it.body);
                self.expression(&it.test, Want::Test);
            }
            Statement::FunctionDeclaration(it) => {
                let name = it.id.as_ref().and_then(|id| self.scopes.lookup(id.name.as_str()));
                self.any_function(it, name.map_or(Want::Promise, Want::Returned));
            }
            _ => walk::walk_statement(self, it),
        }
    }

    fn visit_block_statement(&mut self, it: &BlockStatement<'a>) {
        self.scopes.enter(block_names(&it.body));
        self.declare_aliases(&it.body);
        self.visit_statements(&it.body);
        self.scopes.leave();
    }

    fn visit_switch_statement(&mut self, it: &SwitchStatement<'a>) {
        self.expression(&it.discriminant, Want::Value);
        self.scopes.enter(it.cases.iter().flat_map(|case| block_names(&case.consequent)).collect());
        for case in &it.cases {
            if let Some(test) = &case.test {
                self.expression(test, Want::Value);
            }
            self.declare_aliases(&case.consequent);
            self.visit_statements(&case.consequent);
        }
        self.scopes.leave();
    }

    fn visit_catch_clause(&mut self, it: &CatchClause<'a>) {
        let mut names = Vec::new();
        if let Some(param) = &it.param {
            pattern_names(&param.pattern, &mut names);
        }
        self.scopes.enter(names);
        walk::walk_catch_clause(self, it);
        self.scopes.leave();
    }

    fn visit_for_statement(&mut self, it: &ForStatement<'a>) {
        let mut names = Vec::new();
        if let Some(ForStatementInit::VariableDeclaration(it)) = &it.init {
            declared_names(it, &mut names);
        }
        self.scopes.enter(names);
        match &it.init {
            Some(ForStatementInit::VariableDeclaration(it)) => self.visit_variable_declaration(it),
            Some(init) => init.as_expression().into_iter().for_each(|e| self.expression(e, Want::Unused)),
            None => {}
        }
        it.test.iter().for_each(|e| self.expression(e, Want::Test));
        it.update.iter().for_each(|e| self.expression(e, Want::Unused));
        self.visit_statement(&it.body);
        self.scopes.leave();
    }

    fn visit_for_in_statement(&mut self, it: &ForInStatement<'a>) {
        self.enumerated(&it.right);
        self.for_each(&it.left, &it.body);
    }

    fn visit_for_of_statement(&mut self, it: &ForOfStatement<'a>) {
        self.expression(&it.right, if it.r#await { Want::List } else { Want::Value });
        self.for_each(&it.left, &it.body);
    }

    fn visit_with_statement(&mut self, it: &WithStatement<'a>) {
        self.expression(&it.object, Want::Value);
        self.visit_statement(&it.body);
    }

    fn visit_variable_declarator(&mut self, it: &VariableDeclarator<'a>) {
        self.declarator(it);
    }

    fn visit_formal_parameter(&mut self, it: &FormalParameter<'a>) {
        self.visit_binding_pattern(&it.pattern);
        if let Some(default) = &it.initializer {
            self.taken_apart(&it.pattern, default);
        }
    }

    // ---- classes ----

    fn visit_function(&mut self, it: &Function<'a>, _: ScopeFlags) {
        self.any_function(it, Want::Promise);
    }

    fn visit_class(&mut self, it: &Class<'a>) {
        self.scopes.enter(it.id.iter().map(|id| id.name.as_str()).collect());
        if let Some(heritage) = &it.heritage {
            self.expression(&heritage.expression, Want::Value);
        }
        self.visit_class_body(&it.body);
        self.scopes.leave();
    }

    fn visit_class_element(&mut self, it: &ClassElement<'a>) {
        if super::erase::is_type_only_member(it) {
            return;
        }
        match it {
            ClassElement::MethodDefinition(it) => {
                self.visit_property_key(&it.key);
                let by_language = it.kind == MethodDefinitionKind::Get || self.is_for_its_value(&it.key, it.computed);
                self.any_function(&it.value, if by_language { Want::Value } else { Want::Promise });
            }
            ClassElement::StaticBlock(it) => {
                self.scopes.enter(block_names(&it.body));
                self.declare_aliases(&it.body);
                self.visit_statements(&it.body);
                self.scopes.leave();
            }
            _ => walk::walk_class_element(self, it),
        }
    }

    fn visit_update_expression(&mut self, it: &UpdateExpression<'a>) {
        self.update(&it.argument);
    }

    fn visit_spread_element(&mut self, it: &SpreadElement<'a>) {
        self.expression(&it.argument, Want::Value);
    }
}

impl<'a> Walker<'a, '_> {
    fn for_each(&mut self, left: &ForStatementLeft<'a>, body: &Statement<'a>) {
        let mut names = Vec::new();
        if let ForStatementLeft::VariableDeclaration(it) = left {
            declared_names(it, &mut names);
        }
        self.scopes.enter(names);
        match left {
            ForStatementLeft::VariableDeclaration(it) => self.visit_variable_declaration(it),
            left => left.as_assignment_target().into_iter().for_each(|target| self.target(target)),
        }
        self.visit_statement(body);
        self.scopes.leave();
    }
}
