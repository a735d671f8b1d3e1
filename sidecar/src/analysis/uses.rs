//! What becomes of a path that is not called: read, written, deleted, taken apart, handed on.

use oxc_ast::ast::*;
use oxc_ast_visit::Visit;
use oxc_span::GetSpan;

use super::calls::perhaps;
use super::flow::Place;
use super::fresh::{Fresh, writes_argument, writes_receiver};
use super::needs::{Kind, Need};
use super::path::{Link, Path, Root, Step, link, path_of, peel, property_key};
use super::scope::pattern_names;
use super::walk::{Walker, Want};

/// Properties of `$state` that are methods, not keys.
pub(super) fn is_state_method(name: &str) -> bool {
    matches!(name, "get" | "set" | "delete" | "has" | "keys" | "update")
}

/// Properties of `$ext` that are questions about extensions, not extensions.
pub(super) fn is_extension_query(name: &str) -> bool {
    matches!(name, "exists" | "methods" | "list")
}

/// Properties that every object has: to ask for one of these is no use of a key, unless there is one.
pub(super) fn is_language_lookup(name: &str) -> bool {
    matches!(
        name,
        "constructor"
            | "__defineGetter__"
            | "__defineSetter__"
            | "__lookupGetter__"
            | "__lookupSetter__"
            | "hasOwnProperty"
            | "isPrototypeOf"
            | "propertyIsEnumerable"
            | "toLocaleString"
            | "toString"
            | "valueOf"
            | "toJSON"
            | "then"
            | "__proto__"
    )
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
                    // as data that is copied it is only read
                    if let Want::Into(place) = want {
                        self.needs.all(Kind::StateWrite, maybe);
                        self.flow.value(place, Step::Dynamic, path.position);
                    }
                }
                Some(step) => {
                    let name = step.name().filter(|_| path.len() == 1);
                    if name.is_some_and(is_state_method) {
                        self.state_method_escapes(path, only_looked_at);
                        // a key of that name hides the method
                        self.read_perhaps(step, path.position);
                    } else if name.is_some_and(is_language_lookup) {
                        self.read_perhaps(step, path.position);
                    } else {
                        self.read(step, path.position);
                    }
                    if !only_looked_at && (1..path.len()).any(|at| path.step(at).is_some_and(writes_receiver)) {
                        self.write_perhaps(step, path.position);
                        if let Want::Into(place) = want {
                            self.flow.join(place, self.flow.inner);
                        }
                    }
                    if let Want::Into(place) = want {
                        self.flow.value(place, step.clone(), path.position);
                        if path.len() == 1 && step.name().is_none() {
                            self.flow.maybe_method(place, path.position);
                        }
                    }
                }
            },
            // called by another name: nobody knows on what
            Root::Object | Root::Reflect if !only_looked_at && path.step(0).is_none_or(writes_argument) => {
                self.flow.anything = true;
            }
            Root::Emit if !only_looked_at => match path.step(0) {
                Some("toast") => self.needs.name(Kind::Emit, "toast", maybe),
                _ => self.needs.all(Kind::Emit, maybe),
            },
            Root::View if !only_looked_at => self.needs.all(Kind::View, maybe),
            Root::Extensions if !only_looked_at && !path.step(0).is_some_and(is_extension_query) => {
                self.extension_need(path, false);
            }
            Root::Crypto
                if !only_looked_at
                    && (path.is_root()
                        || path.step(0).is_none_or(|name| matches!(name, "getRandomValues" | "randomUUID"))) =>
            {
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

    /// The token for a path into `$ext`.
    pub(super) fn extension_need(&mut self, path: &Path<'a>, surely: bool) {
        let position = path.position;
        let certain = surely && self.certainly(position).certain;
        match (path.first().map(Step::name), path.get(1).map(Step::name)) {
            (Some(Some(name)), Some(Some(method))) => {
                self.needs.method(name, method, Need { position, certain });
            }
            (Some(Some(name)), _) if !name.contains('.') => self.needs.name(Kind::Extension, name, perhaps(position)),
            _ => self.needs.all(Kind::Extension, perhaps(position)),
        }
    }

    /// A value of which only keys and own properties are enumerated: `{...x}`, `for (k in x)`.
    pub(super) fn enumerated(&mut self, expression: &Expression<'a>, want: Want) {
        match self.path(expression) {
            Some(path) if path.root == Root::State && path.is_root() => {
                let all = self.certainly(path.position);
                self.needs.all(Kind::StateRead, all);
                if let Want::Into(place) = want {
                    self.flow.value(place, Step::Dynamic, path.position);
                }
            }
            _ => self.expression(expression, want),
        }
    }

    // ---- keys of the state ----

    pub(super) fn read(&mut self, key: &Step<'a>, position: u32) {
        let need = self.certainly(position);
        self.needs.key(Kind::StateRead, key, need);
    }

    pub(super) fn read_perhaps(&mut self, key: &Step<'a>, position: u32) {
        self.needs.key(Kind::StateRead, key, perhaps(position));
    }

    pub(super) fn write(&mut self, key: &Step<'a>, position: u32) {
        let need = self.certainly(position);
        self.needs.key(Kind::StateWrite, key, need);
    }

    pub(super) fn has(&mut self, key: &Step<'a>, position: u32) {
        self.read(key, position);
    }

    // ---- writing ----

    /// A path that is assigned to or deleted; `reads` if its old value counts too.
    fn written(&mut self, path: &Path<'a>, reads: bool) {
        let Some(key) = path.first().filter(|_| path.root == Root::State) else { return };
        let nested = path.len() > 1;
        if reads || nested {
            self.read(key, path.position);
        }
        if nested {
            self.flow.write(self.flow.stored, Fresh::Old);
        }
        if path.len() > 2 {
            self.flow.write(self.flow.inner, Fresh::Old);
        }
        // a key may be called like a method
        if !nested && key.name().is_some_and(is_state_method) {
            return self.needs.key(Kind::StateWrite, key, perhaps(path.position));
        }
        if self.perhaps_written {
            return self.needs.key(Kind::StateWrite, key, perhaps(path.position));
        }
        self.write(key, path.position);
    }

    pub(super) fn delete(&mut self, argument: &Expression<'a>) {
        match self.path(argument) {
            Some(path) if path.root == Root::State && !path.is_root() => {
                self.keys(argument);
                self.written(&path, false);
            }
            _ => self.written_expression(argument, Want::Plain, false),
        }
    }

    pub(super) fn assignment(&mut self, it: &AssignmentExpression<'a>, want: Want) {
        let place = self.place_of(want);
        let own = Want::Into(place);
        match &it.left {
            AssignmentTarget::ObjectAssignmentTarget(pattern) => {
                match self.path(&it.right) {
                    Some(path) if path.root == Root::State || path.root == Root::Extensions => {
                        self.keys(&it.right);
                        self.assigned_apart(pattern, &path, place);
                    }
                    _ => {
                        self.plain_use(&it.right, it.span);
                        self.taken_from_global(&it.right, pattern.rest.is_some(), {
                            pattern.properties.iter().map(|property| (target_key(property), property.span().start))
                        });
                        self.value_taken_apart(&it.right, own);
                    }
                }
                self.target(&it.left, own);
            }
            AssignmentTarget::ArrayAssignmentTarget(_) => {
                self.plain_use(&it.right, it.span);
                self.expression(&it.right, own);
                self.target(&it.left, own);
            }
            left => {
                let Some(left) = left.as_simple_assignment_target() else { return };
                let (reads, skipped) = (it.operator != AssignmentOperator::Assign, it.operator.is_logical());
                if let (SimpleAssignmentTarget::AssignmentTargetIdentifier(id), None) = (left, self.within) {
                    return self.assigned_by_name(id, it, want);
                }
                // `a.b ??= c` writes only if there is nothing yet
                if skipped {
                    self.perhaps_written = true;
                    self.simple_target(left, true, own);
                    self.perhaps_written = false;
                    self.perhaps(|is| {
                        is.expression(&it.right, own);
                        is.simple_target_again(left, own);
                    });
                } else {
                    self.simple_target(left, reads, own);
                    let value = if reads { Want::Plain } else { own };
                    self.stored_method(left, &it.right);
                    self.expression(&it.right, value);
                }
            }
        }
    }

    fn assigned_by_name(&mut self, id: &IdentifierReference<'a>, it: &AssignmentExpression<'a>, want: Want) {
        let plain = it.operator != AssignmentOperator::Assign && !it.operator.is_logical();
        let fresh = if plain { Fresh::Made } else { self.fresh(&it.right) };
        let place = match self.scopes.lookup(id.name.as_str()) {
            Some(binding) => {
                self.flow.assigned(binding, fresh);
                self.flow.of(binding)
            }
            None => self.flow.undeclared,
        };
        if plain {
            self.plain_use(&it.right, it.span);
        }
        let value = if plain { Want::Plain } else { Want::Into(place) };
        if it.operator.is_logical() {
            self.perhaps(|is| is.expression(&it.right, value));
        } else {
            self.expression(&it.right, value);
        }
        self.give(place, want);
    }

    /// `o.map = f`.
    fn stored_method(&mut self, target: &SimpleAssignmentTarget<'a>, value: &Expression<'a>) {
        match target {
            SimpleAssignmentTarget::StaticMemberExpression(it) => {
                self.own_method(&Step::Name(it.property.name.as_str().into()), value);
            }
            SimpleAssignmentTarget::ComputedMemberExpression(it) => {
                self.own_method(&super::path::key_of(&it.expression), value);
            }
            _ => {}
        }
    }

    /// What is assigned to goes on being looked at as `written` has begun to: with the doubt of now.
    fn simple_target_again(&mut self, target: &SimpleAssignmentTarget<'a>, want: Want) {
        if let SimpleAssignmentTarget::AssignmentTargetIdentifier(it) = target
            && let Some(binding) = self.scopes.lookup(it.name.as_str())
        {
            let own = self.flow.of(binding);
            self.give(own, want);
        }
    }

    /// A place in an object or a variable that is written; `want` is where the value that it gets also is.
    pub(super) fn simple_target(&mut self, target: &SimpleAssignmentTarget<'a>, reads: bool, want: Want) {
        match target {
            SimpleAssignmentTarget::AssignmentTargetIdentifier(it) => {
                if let Some(within) = self.within {
                    self.give(within, want);
                }
                match self.scopes.lookup(it.name.as_str()) {
                    Some(binding) => {
                        let own = self.flow.of(binding);
                        self.give(own, want);
                        if want != Want::Plain {
                            self.flow.assigned(binding, Fresh::Old);
                        }
                    }
                    None => self.give(self.flow.undeclared, want),
                }
            }
            SimpleAssignmentTarget::TSAsExpression(it) => self.written_expression(&it.expression, want, reads),
            SimpleAssignmentTarget::TSSatisfiesExpression(it) => self.written_expression(&it.expression, want, reads),
            SimpleAssignmentTarget::TSNonNullExpression(it) => self.written_expression(&it.expression, want, reads),
            SimpleAssignmentTarget::TSTypeAssertion(it) => self.written_expression(&it.expression, want, reads),
            SimpleAssignmentTarget::StaticMemberExpression(it) => {
                let step = Step::Name(it.property.name.as_str().into());
                self.member_target(&it.object, step, reads, want);
            }
            SimpleAssignmentTarget::ComputedMemberExpression(it) => {
                self.plain_use(&it.expression, it.span);
                self.expression(&it.expression, Want::Plain);
                self.member_target(&it.object, super::path::key_of(&it.expression), reads, want);
            }
            SimpleAssignmentTarget::PrivateFieldExpression(it) => {
                let place = self.place_of(want);
                self.written_object(&it.object, place);
            }
        }
    }

    fn member_target(&mut self, object: &Expression<'a>, step: Step<'a>, reads: bool, want: Want) {
        match self.path(object) {
            Some(path) if path.root == Root::State => {
                self.keys(object);
                self.written(&path.then(step), reads);
                self.give(self.flow.stored, want);
            }
            _ => {
                self.read_from(object, step.name(), object.span());
                let place = self.place_of(want);
                self.written_object(object, place);
            }
        }
    }

    /// An expression that is written as a whole: a chain of properties, or a name.
    fn written_expression(&mut self, expression: &Expression<'a>, want: Want, reads: bool) {
        match self.path(expression) {
            Some(path) if path.root == Root::State && !path.is_root() => {
                self.keys(expression);
                return self.written(&path, reads);
            }
            _ => {}
        }
        match link(peel(expression)) {
            Link::Property(object, name) => self.member_target(object, Step::Name(name.into()), reads, want),
            Link::Index(object, key) => {
                self.expression(key, Want::Plain);
                self.member_target(object, super::path::key_of(key), reads, want);
            }
            _ => {
                let place = self.place_of(want);
                self.expression(expression, Want::Into(place));
            }
        }
    }

    /// The places that a pattern assigns to.
    pub(super) fn target(&mut self, target: &AssignmentTarget<'a>, want: Want) {
        match target {
            AssignmentTarget::ArrayAssignmentTarget(it) => {
                for element in it.elements.iter().flatten() {
                    self.target_or_default(element, want);
                }
                it.rest.iter().for_each(|rest| self.target(&rest.target, want));
            }
            AssignmentTarget::ObjectAssignmentTarget(it) => {
                for property in &it.properties {
                    match property {
                        AssignmentTargetProperty::AssignmentTargetPropertyIdentifier(it) => {
                            self.assigned_name(it.binding.name.as_str(), want);
                            if let Some(init) = &it.init {
                                let place = self.place_of(want);
                                self.perhaps(|is| is.expression(init, Want::Into(place)));
                            }
                        }
                        AssignmentTargetProperty::AssignmentTargetPropertyProperty(it) => {
                            self.property_key(&it.name);
                            self.target_or_default(&it.binding, want);
                        }
                    }
                }
                it.rest.iter().for_each(|rest| self.target(&rest.target, want));
            }
            target => {
                target.as_simple_assignment_target().into_iter().for_each(|it| self.simple_target(it, false, want));
            }
        }
    }

    fn assigned_name(&mut self, name: &str, want: Want) {
        match self.scopes.lookup(name) {
            Some(binding) => {
                let own = self.flow.of(binding);
                self.give(own, want);
                self.flow.assigned(binding, Fresh::Old);
            }
            None => self.give(self.flow.undeclared, want),
        }
    }

    fn target_or_default(&mut self, target: &AssignmentTargetMaybeDefault<'a>, want: Want) {
        match target {
            AssignmentTargetMaybeDefault::AssignmentTargetWithDefault(it) => {
                let place = self.place_of(want);
                self.perhaps(|is| is.expression(&it.init, Want::Into(place)));
                self.target(&it.binding, Want::Into(place));
            }
            target => target.as_assignment_target().into_iter().for_each(|it| self.target(it, want)),
        }
    }

    fn assigned_apart(&mut self, pattern: &ObjectAssignmentTarget<'a>, path: &Path<'a>, place: Place) {
        for property in &pattern.properties {
            self.path_value(&path.then(target_key(property)), Want::Into(place));
        }
        if pattern.rest.is_some() {
            self.rest_of(path, place);
        }
    }

    /// `({ $emit: e } = this)`: what is taken from the global object by name.
    fn taken_from_global(
        &mut self,
        from: &Expression<'a>,
        rest: bool,
        properties: impl Iterator<Item = (Step<'a>, u32)>,
    ) {
        if !self.is_global_object(from) {
            return;
        }
        let mut unknown = rest;
        for (key, position) in properties {
            match key {
                Step::Name(name) => self.hidden_global(&name, position),
                Step::Dynamic => unknown = true,
            }
        }
        if unknown {
            self.global_object(from.span().start, Want::Plain);
        }
    }

    /// The global object is known by what was taken from it.
    fn value_taken_apart(&mut self, value: &Expression<'a>, want: Want) {
        if self.is_global_object(value) {
            self.give_global(want);
        } else {
            self.expression(value, want);
        }
    }

    // ---- declarations ----

    pub(super) fn declarator(&mut self, it: &VariableDeclarator<'a>) {
        // defaults and computed keys
        self.visit_binding_pattern(&it.id);
        let Some(init) = &it.init else { return };
        let BindingPattern::BindingIdentifier(id) = &it.id else { return self.taken_apart(&it.id, init) };
        let Some(binding) = self.scopes.lookup(id.name.as_str()) else { return self.visit_expression(init) };
        if self.scopes.alias(binding).is_some() {
            self.keys(init);
            return;
        }
        let fresh = self.fresh(init);
        self.flow.assigned(binding, fresh);
        let place = self.flow.of(binding);
        self.expression(init, Want::Into(place));
        if let Some(within) = self.within {
            self.flow.join(place, within);
        }
    }

    /// `const { a, b: { c }, ...rest } = init`.
    pub(super) fn taken_apart(&mut self, pattern: &BindingPattern<'a>, init: &Expression<'a>) {
        let mut names = Vec::new();
        pattern_names(pattern, &mut names);
        let place = self.flow.place();
        for name in names {
            if let Some(binding) = self.scopes.lookup(name) {
                let own = self.flow.of(binding);
                self.flow.join(own, place);
                self.flow.assigned(binding, Fresh::Old);
            }
        }
        match self.path(init) {
            Some(path) => {
                self.keys(init);
                self.pattern_of(pattern, &path, place);
            }
            None => {
                self.taken_from(init, pattern);
                if let BindingPattern::ObjectPattern(pattern) = pattern {
                    let properties =
                        pattern.properties.iter().map(|property| (property_key(&property.key), property.span.start));
                    self.taken_from_global(init, pattern.rest.is_some(), properties);
                    self.value_taken_apart(init, Want::Into(place));
                } else {
                    self.expression(init, Want::Into(place));
                }
            }
        }
    }

    fn pattern_of(&mut self, pattern: &BindingPattern<'a>, path: &Path<'a>, place: Place) {
        match pattern {
            BindingPattern::BindingIdentifier(it) => {
                let alias = self.scopes.lookup(it.name.as_str()).is_some_and(|b| self.scopes.alias(b).is_some());
                if !alias {
                    self.path_value(path, Want::Into(place));
                }
            }
            BindingPattern::AssignmentPattern(it) => self.pattern_of(&it.left, path, place),
            BindingPattern::ObjectPattern(it) => {
                for property in &it.properties {
                    self.pattern_of(&property.value, &path.then(property_key(&property.key)), place);
                }
                if it.rest.is_some() {
                    self.rest_of(path, place);
                }
            }
            BindingPattern::ArrayPattern(_) => self.path_value(path, Want::Into(place)),
        }
    }

    fn rest_of(&mut self, path: &Path<'a>, place: Place) {
        if path.root == Root::State && path.is_root() {
            let all = self.certainly(path.position);
            self.needs.all(Kind::StateRead, all);
            self.flow.value(place, Step::Dynamic, path.position);
        } else {
            self.path_value(path, Want::Into(place));
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

fn target_key<'a>(property: &AssignmentTargetProperty<'a>) -> Step<'a> {
    match property {
        AssignmentTargetProperty::AssignmentTargetPropertyIdentifier(it) => Step::Name(it.binding.name.as_str().into()),
        AssignmentTargetProperty::AssignmentTargetPropertyProperty(it) => property_key(&it.name),
    }
}
