//! Statements, and what the walk does with the rest of the tree.

use oxc_ast::ast::*;
use oxc_ast_visit::{Visit, walk};
use oxc_span::GetSpan;

use super::flow::Place;
use super::fresh::{Fresh, is_error_of_text};
use super::path::{Step, peel, property_key};
use super::scope::{block_names, declared_names, pattern_names};
use super::walk::{Walker, Want};

impl<'a> Visit<'a> for Walker<'a, '_> {
    fn visit_expression(&mut self, it: &Expression<'a>) {
        let anywhere = self.flow.undeclared;
        self.expression(it, Want::Into(anywhere));
    }

    // ---- types say nothing ----

    fn visit_ts_type(&mut self, _: &TSType<'a>) {}
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
                    // the handler's own value is copied
                    let want = self.returns.map_or(Want::Plain, Want::Into);
                    self.awaited = Some(peel(value).span());
                    self.expression(value, want);
                }
                self.may_end();
            }
            Statement::ThrowStatement(it) => {
                let place = self.returns.unwrap_or(self.flow.thrown);
                if !is_plain_error(&it.argument, self) {
                    self.flow.join(place, self.flow.thrown);
                }
                self.expression(&it.argument, Want::Into(place));
                self.may_end();
            }
            // others end at the statement around them, whose body is doubted
            Statement::BreakStatement(it) if it.label.is_some() => self.may_end(),
            Statement::ContinueStatement(it) if it.label.is_some() => self.may_end(),
            Statement::IfStatement(it) => {
                self.plain_use(&it.test, it.test.span());
                self.expression(&it.test, Want::Test);
                self.perhaps(|is| {
                    is.visit_statement(&it.consequent);
                    it.alternate.iter().for_each(|alternate| is.visit_statement(alternate));
                });
            }
            Statement::WhileStatement(it) => {
                self.test(&it.test);
                self.perhaps(|is| is.visit_statement(&it.body));
            }
            Statement::DoWhileStatement(it) => {
                self.perhaps(|is| is.visit_statement(&it.body));
                self.perhaps(|is| is.test(&it.test));
            }
            Statement::FunctionDeclaration(it) => {
                let name = it.id.as_ref().map(|id| id.name.as_str()).unwrap_or_default();
                let place = match self.scopes.lookup(name) {
                    Some(binding) => self.flow.of(binding),
                    None => self.flow.place(),
                };
                // the function of a block may be the body's too
                if let Some(around) = self.scopes.lookup_around(name) {
                    let around = self.flow.of(around);
                    self.flow.join(place, around);
                }
                self.any_function(it, place);
            }
            Statement::ClassDeclaration(it) => {
                let binding = it.id.as_ref().and_then(|id| self.scopes.lookup(id.name.as_str()));
                let place = match binding {
                    Some(binding) => self.flow.of(binding),
                    None => self.flow.place(),
                };
                self.class(it, place);
            }
            Statement::TryStatement(it) => {
                self.perhaps(|is| walk::walk_try_statement(is, it));
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
        self.plain_use(&it.discriminant, it.discriminant.span());
        self.expression(&it.discriminant, Want::Test);
        self.scopes.enter(it.cases.iter().flat_map(|case| block_names(&case.consequent)).collect());
        self.perhaps(|is| {
            for case in &it.cases {
                if let Some(test) = &case.test {
                    is.expression(test, Want::Test);
                }
                is.declare_aliases(&case.consequent);
                is.visit_statements(&case.consequent);
            }
        });
        self.scopes.leave();
    }

    fn visit_catch_clause(&mut self, it: &CatchClause<'a>) {
        let mut names = Vec::new();
        if let Some(param) = &it.param {
            pattern_names(&param.pattern, &mut names);
        }
        self.scopes.enter(names.clone());
        names.iter().for_each(|name| self.joined(name, self.flow.thrown, Fresh::Old));
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
        match &it.test {
            Some(test) => self.test(test),
            None => self.may_end(),
        }
        self.perhaps(|is| {
            it.update.iter().for_each(|e| is.expression(e, Want::Unused));
            is.visit_statement(&it.body);
        });
        self.scopes.leave();
    }

    fn visit_for_in_statement(&mut self, it: &ForInStatement<'a>) {
        // its keys are texts
        self.plain_use(&it.right, it.right.span());
        self.enumerated(&it.right, Want::Plain);
        self.for_each(&it.left, &it.body, None);
    }

    fn visit_for_of_statement(&mut self, it: &ForOfStatement<'a>) {
        let place = self.flow.place();
        if it.r#await {
            self.flow.may_reject(place);
        } else {
            self.plain_use(&it.right, it.right.span());
        }
        self.expression(&it.right, Want::Into(place));
        self.for_each(&it.left, &it.body, Some(place));
    }

    fn visit_with_statement(&mut self, it: &WithStatement<'a>) {
        let place = self.flow.place();
        self.expression(&it.object, Want::Into(place));
        // any name in it may be one of its properties, and any assignment write one
        self.flow.write(place, Fresh::Old);
        let outer = self.within;
        if let Some(around) = outer {
            self.flow.join(place, around);
        }
        self.within = Some(place);
        self.perhaps(|is| is.visit_statement(&it.body));
        self.within = outer;
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

    // ---- patterns ----

    fn visit_binding_property(&mut self, it: &BindingProperty<'a>) {
        self.property_key(&it.key);
        if let Step::Name(name) = property_key(&it.key) {
            self.wild(&name);
        }
        self.visit_binding_pattern(&it.value);
    }

    fn visit_assignment_pattern(&mut self, it: &AssignmentPattern<'a>) {
        self.visit_binding_pattern(&it.left);
        self.perhaps(|is| is.taken_apart(&it.left, &it.right));
    }

    fn visit_identifier_reference(&mut self, it: &IdentifierReference<'a>) {
        let anywhere = self.flow.undeclared;
        self.identifier(it, Want::Into(anywhere));
    }
}

impl<'a> Walker<'a, '_> {
    /// The test of a loop: one that is always true may never let anything behind it run.
    fn test(&mut self, test: &Expression<'a>) {
        self.plain_use(test, test.span());
        self.expression(test, Want::Test);
        if peel(test).is_literal() {
            self.may_end();
        }
    }

    /// The body of a loop over what is at a place; None: over texts.
    fn for_each(&mut self, left: &ForStatementLeft<'a>, body: &Statement<'a>, place: Option<Place>) {
        let mut names = Vec::new();
        if let ForStatementLeft::VariableDeclaration(it) = left {
            declared_names(it, &mut names);
        }
        self.scopes.enter(names.clone());
        self.perhaps(|is| {
            match left {
                ForStatementLeft::VariableDeclaration(it) => {
                    if let Some(place) = place {
                        names.iter().for_each(|name| is.joined(name, place, Fresh::Old));
                    }
                    is.visit_variable_declaration(it);
                }
                left => {
                    let want = place.map_or(Want::Plain, Want::Into);
                    left.as_assignment_target().into_iter().for_each(|target| is.target(target, want));
                }
            }
            is.visit_statement(body);
        });
        self.scopes.leave();
    }
}

/// `new Error('text')`: nothing of the state is thrown with it.
fn is_plain_error(thrown: &Expression<'_>, walker: &Walker<'_, '_>) -> bool {
    let Expression::NewExpression(it) = peel(thrown) else { return false };
    let Expression::Identifier(id) = peel(&it.callee) else { return false };
    let name = id.name.as_str();
    let built_in = is_error_of_text(name) && walker.scopes.lookup(name).is_none() && walker.within.is_none();
    // a second argument, which a spread may hold, may name a cause
    built_in && it.arguments.len() < 2 && it.arguments.iter().all(|argument| argument.as_expression().is_some())
}
