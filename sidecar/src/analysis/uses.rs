//! What becomes of a path that is not called: read, written, deleted, taken apart, handed on.

use oxc_ast::ast::*;
use oxc_ast_visit::Visit;

use super::needs::{Kind, Need};
use super::path::{Path, Root, Step, path_of, peel, property_key};
use super::suspend::Want;
use super::walk::Walker;

/// Properties of `$state` that are methods, not keys.
pub(super) fn is_state_method(name: &str) -> bool {
    matches!(name, "get" | "set" | "delete" | "has" | "keys" | "update")
}

/// Properties of `$ext` that are questions about extensions, not extensions.
pub(super) fn is_extension_query(name: &str) -> bool {
    matches!(name, "exists" | "methods" | "list")
}

pub(super) fn certainly(position: u32) -> Need {
    Need { position, certain: true }
}

pub(super) fn perhaps(position: u32) -> Need {
    Need { position, certain: false }
}

impl<'a> Walker<'a, '_> {
    // ---- a value ----

    /// A path whose value is used.
    pub(super) fn path_value(&mut self, path: &Path<'a>, want: Want) {
        // `if ($ext.http)`, `typeof $state`: looks at the thing, not into it
        let only_looked_at = matches!(want, Want::Test | Want::Unused);
        let maybe = perhaps(path.position);
        match path.root {
            Root::State => match path.first() {
                None if only_looked_at => {}
                None => {
                    self.needs.all(Kind::StateRead, maybe);
                    self.needs.all(Kind::StateWrite, maybe);
                }
                Some(step) if path.len() == 1 && step.name().is_some_and(is_state_method) => {
                    self.state_method_escapes(path, only_looked_at);
                }
                Some(step) => self.read(step, path.position),
            },
            Root::Emit if !only_looked_at => match path.step(0) {
                Some("toast") => self.needs.name(Kind::Emit, "toast", maybe),
                _ => self.needs.all(Kind::Emit, maybe),
            },
            Root::View if !only_looked_at => self.needs.all(Kind::View, maybe),
            Root::Extensions if !only_looked_at => self.extension_value(path, want),
            Root::Crypto if !only_looked_at && matches!(path.step(0), None | Some("getRandomValues")) => {
                self.needs.random(maybe);
            }
            _ => {}
        }
    }

    fn state_method_escapes(&mut self, path: &Path<'a>, only_looked_at: bool) {
        let maybe = perhaps(path.position);
        let name = path.step(0);
        if !only_looked_at && matches!(name, Some("get" | "has" | "keys" | "update")) {
            self.needs.all(Kind::StateRead, maybe);
        }
        if !only_looked_at && matches!(name, Some("set" | "delete" | "update")) {
            self.needs.all(Kind::StateWrite, maybe);
        }
    }

    /// `$ext`, `$ext.http` or `$ext.http.get` as a value.
    fn extension_value(&mut self, path: &Path<'a>, want: Want) {
        if path.step(0).is_some_and(is_extension_query) {
            return;
        }
        self.extension_need(path, false);
        // as the elements' callback of a list, see `calls`
        match want {
            Want::Element(_) | Want::Promise if path.len() == 2 => self.standing.extension_call(want),
            _ => self.standing.extension_escapes(),
        }
    }

    /// The token for a path into `$ext`.
    pub(super) fn extension_need(&mut self, path: &Path<'a>, called: bool) {
        let position = path.position;
        match (path.first().map(Step::name), path.get(1).map(Step::name)) {
            (Some(Some(name)), Some(Some(method))) => {
                self.needs.method(name, method, Need { position, certain: called });
            }
            (Some(Some(name)), _) if !name.contains('.') => self.needs.name(Kind::Extension, name, perhaps(position)),
            _ => self.needs.all(Kind::Extension, perhaps(position)),
        }
    }

    /// A value of which only keys and own properties are enumerated: `{...x}`, `for (k in x)`.
    pub(super) fn enumerated(&mut self, expression: &Expression<'a>) {
        match self.path(expression) {
            Some(path) if path.root == Root::State && path.is_root() => {
                self.needs.all(Kind::StateRead, certainly(path.position));
            }
            _ => self.expression(expression, Want::Value),
        }
    }

    // ---- keys of the state ----

    pub(super) fn read(&mut self, key: &Step<'a>, position: u32) {
        match key.name() {
            Some(name) => self.needs.name(Kind::StateRead, name, certainly(position)),
            None => self.needs.all(Kind::StateRead, perhaps(position)),
        }
    }

    pub(super) fn write(&mut self, key: &Step<'a>, position: u32) {
        match key.name() {
            Some(name) => self.needs.name(Kind::StateWrite, name, certainly(position)),
            None => self.needs.all(Kind::StateWrite, perhaps(position)),
        }
    }

    pub(super) fn has(&mut self, key: &Step<'a>, position: u32) {
        self.read(key, position);
    }

    // ---- writing ----

    /// A path that is assigned to or deleted; `reads` if its old value counts too.
    fn written(&mut self, path: &Path<'a>, reads: bool) {
        let Some(key) = path.first().filter(|_| path.root == Root::State) else { return };
        let nested = path.len() > 1;
        if !nested && key.name().is_some_and(is_state_method) {
            return; // a TypeError
        }
        if reads || nested {
            self.read(key, path.position);
        }
        self.write(key, path.position);
    }

    pub(super) fn delete(&mut self, argument: &Expression<'a>) {
        match self.path(argument) {
            Some(path) if path.root == Root::State && !path.is_root() => {
                self.keys(argument);
                self.written(&path, false);
            }
            _ => self.expression(argument, Want::Test),
        }
    }

    pub(super) fn assignment(&mut self, it: &AssignmentExpression<'a>) {
        let reads = it.operator != AssignmentOperator::Assign;
        match &it.left {
            AssignmentTarget::ObjectAssignmentTarget(pattern) => {
                match self.path(&it.right) {
                    Some(path) if path.root == Root::State || path.root == Root::Extensions => {
                        self.keys(&it.right);
                        self.assigned_apart(pattern, &path);
                    }
                    _ => self.expression(&it.right, Want::Value),
                }
                self.target(&it.left);
            }
            left => {
                match left.as_simple_assignment_target() {
                    Some(left) => self.simple_target(left, reads),
                    None => self.target(left),
                }
                self.expression(&it.right, Want::Value);
            }
        }
    }

    pub(super) fn update(&mut self, argument: &SimpleAssignmentTarget<'a>) {
        self.simple_target(argument, true);
    }

    fn simple_target(&mut self, target: &SimpleAssignmentTarget<'a>, reads: bool) {
        match target {
            SimpleAssignmentTarget::AssignmentTargetIdentifier(it) => {
                if let Some(binding) = self.scopes.lookup(it.name.as_str()) {
                    self.standing.variable(binding, Want::Value);
                }
            }
            SimpleAssignmentTarget::TSAsExpression(it) => self.expression_target(&it.expression, reads),
            SimpleAssignmentTarget::TSSatisfiesExpression(it) => self.expression_target(&it.expression, reads),
            SimpleAssignmentTarget::TSNonNullExpression(it) => self.expression_target(&it.expression, reads),
            SimpleAssignmentTarget::TSTypeAssertion(it) => self.expression_target(&it.expression, reads),
            SimpleAssignmentTarget::StaticMemberExpression(it) => {
                let step = Step::Name(it.property.name.as_str().into());
                self.member_target(&it.object, step, reads);
            }
            SimpleAssignmentTarget::ComputedMemberExpression(it) => {
                self.expression(&it.expression, Want::Value);
                self.member_target(&it.object, super::path::key_of(&it.expression), reads);
            }
            SimpleAssignmentTarget::PrivateFieldExpression(it) => self.expression(&it.object, Want::Value),
        }
    }

    fn member_target(&mut self, object: &Expression<'a>, step: Step<'a>, reads: bool) {
        match self.path(object) {
            Some(path) if path.root == Root::State => {
                self.keys(object);
                self.written(&path.then(step), reads);
            }
            _ => self.expression(object, Want::Value),
        }
    }

    fn expression_target(&mut self, expression: &Expression<'a>, reads: bool) {
        match self.path(expression) {
            Some(path) if path.root == Root::State && !path.is_root() => {
                self.keys(expression);
                self.written(&path, reads);
            }
            _ => self.expression(expression, Want::Value),
        }
    }

    /// The places that a pattern assigns to.
    pub(super) fn target(&mut self, target: &AssignmentTarget<'a>) {
        match target {
            AssignmentTarget::ArrayAssignmentTarget(it) => {
                for element in it.elements.iter().flatten() {
                    self.target_or_default(element);
                }
                it.rest.iter().for_each(|rest| self.target(&rest.target));
            }
            AssignmentTarget::ObjectAssignmentTarget(it) => {
                for property in &it.properties {
                    match property {
                        AssignmentTargetProperty::AssignmentTargetPropertyIdentifier(it) => {
                            it.init.iter().for_each(|init| self.expression(init, Want::Value));
                        }
                        AssignmentTargetProperty::AssignmentTargetPropertyProperty(it) => {
                            self.visit_property_key(&it.name);
                            self.target_or_default(&it.binding);
                        }
                    }
                }
                it.rest.iter().for_each(|rest| self.target(&rest.target));
            }
            target => target.as_simple_assignment_target().into_iter().for_each(|it| self.simple_target(it, false)),
        }
    }

    fn target_or_default(&mut self, target: &AssignmentTargetMaybeDefault<'a>) {
        match target {
            AssignmentTargetMaybeDefault::AssignmentTargetWithDefault(it) => {
                self.expression(&it.init, Want::Value);
                self.target(&it.binding);
            }
            target => target.as_assignment_target().into_iter().for_each(|it| self.target(it)),
        }
    }

    fn assigned_apart(&mut self, pattern: &ObjectAssignmentTarget<'a>, path: &Path<'a>) {
        for property in &pattern.properties {
            let step = match property {
                AssignmentTargetProperty::AssignmentTargetPropertyIdentifier(it) => {
                    Step::Name(it.binding.name.as_str().into())
                }
                AssignmentTargetProperty::AssignmentTargetPropertyProperty(it) => property_key(&it.name),
            };
            self.path_value(&path.then(step), Want::Value);
        }
        if pattern.rest.is_some() {
            self.rest_of(path);
        }
    }

    // ---- declarations ----

    pub(super) fn declarator(&mut self, it: &VariableDeclarator<'a>) {
        // defaults and computed keys
        self.visit_binding_pattern(&it.id);
        let Some(init) = &it.init else { return };
        let BindingPattern::BindingIdentifier(id) = &it.id else { return self.taken_apart(&it.id, init) };
        let Some(binding) = self.scopes.lookup(id.name.as_str()) else { return self.expression(init, Want::Value) };
        if self.scopes.alias(binding).is_some() {
            self.keys(init);
            return;
        }
        if !self.function_literal(init, Want::Returned(binding)) {
            self.expression(init, Want::Kept(binding));
        }
    }

    /// `const { a, b: { c }, ...rest } = init`.
    pub(super) fn taken_apart(&mut self, pattern: &BindingPattern<'a>, init: &Expression<'a>) {
        match self.path(init) {
            Some(path) => {
                self.keys(init);
                self.pattern_of(pattern, &path);
            }
            None => {
                // `const { $ext } = this`
                if let BindingPattern::ObjectPattern(pattern) = pattern
                    && self.is_global_object(init)
                {
                    for property in &pattern.properties {
                        if let Step::Name(name) = property_key(&property.key) {
                            self.hidden_global(&name, property.span.start);
                        }
                    }
                }
                if !self.function_literal(init, Want::Promise) {
                    self.expression(init, Want::Value);
                }
            }
        }
    }

    fn is_global_object(&self, expression: &Expression<'a>) -> bool {
        match peel(expression) {
            Expression::ThisExpression(_) => true,
            Expression::Identifier(it) => it.name == "globalThis" && self.scopes.lookup("globalThis").is_none(),
            _ => false,
        }
    }

    fn pattern_of(&mut self, pattern: &BindingPattern<'a>, path: &Path<'a>) {
        match pattern {
            BindingPattern::BindingIdentifier(it) => {
                let alias = self.scopes.lookup(it.name.as_str()).is_some_and(|b| self.scopes.alias(b).is_some());
                if !alias {
                    self.path_value(path, Want::Value);
                }
            }
            BindingPattern::AssignmentPattern(it) => self.pattern_of(&it.left, path),
            BindingPattern::ObjectPattern(it) => {
                for property in &it.properties {
                    self.pattern_of(&property.value, &path.then(property_key(&property.key)));
                }
                if it.rest.is_some() {
                    self.rest_of(path);
                }
            }
            BindingPattern::ArrayPattern(_) => self.path_value(path, Want::Value),
        }
    }

    fn rest_of(&mut self, path: &Path<'a>) {
        if path.root == Root::State && path.is_root() {
            self.needs.all(Kind::StateRead, certainly(path.position));
        } else {
            self.path_value(path, Want::Value);
        }
    }

    /// Constants of a block that name `$ext` or a part of it stand for that part wherever the block uses them.
    pub(super) fn declare_aliases(&mut self, statements: &[Statement<'a>]) {
        for statement in statements {
            let Statement::VariableDeclaration(declaration) = statement else { continue };
            if declaration.kind != VariableDeclarationKind::Const || declaration.declare {
                continue;
            }
            for declarator in &declaration.declarations {
                let Some(init) = &declarator.init else { continue };
                if let Some(path) = path_of(peel(init), &self.scopes).filter(|path| path.root == Root::Extensions) {
                    self.alias(&declarator.id, &path);
                }
            }
        }
    }

    fn alias(&mut self, pattern: &BindingPattern<'a>, path: &Path<'a>) {
        match pattern {
            BindingPattern::BindingIdentifier(it) => {
                if path.len() <= 2
                    && let Some(binding) = self.scopes.lookup(it.name.as_str())
                {
                    self.scopes.set_alias(binding, path.clone());
                }
            }
            BindingPattern::ObjectPattern(it) => {
                for property in &it.properties {
                    self.alias(&property.value, &path.then(property_key(&property.key)));
                }
            }
            _ => {}
        }
    }
}
