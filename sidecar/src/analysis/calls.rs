//! Calls: of globals' methods, of extensions, of the handler's own functions.
//!
//! Whatever a call works with is one place: what it is called on, its arguments, what its callbacks take and return, and what
//! it gives. Only where the language's own functions are known to use their arguments up, or to make new objects, less moves.

use std::borrow::Cow;

use nexus_protocol::message::SuspendMode;
use oxc_ast::ast::*;
use oxc_span::{GetSpan, Span};

use super::flow::Place;
use super::fresh::{
    Fresh, consumes, is_builtin, is_method_of_data, writes_argument, writes_receiver, writes_state_values,
};
use super::needs::{Kind, Need};
use super::path::{Link, Path, Root, Step, key_of, link, peel, property_key};
use super::uses::{is_extension_query, is_language_lookup, is_state_method};
use super::walk::{Walker, Want};

/// A call whose function is known by its path, and what becomes of it.
struct PathCall<'e, 'a> {
    path: Path<'a>,
    arguments: &'e [Argument<'a>],
    span: Span,
    want: Want,
}

impl<'a> Walker<'a, '_> {
    pub(super) fn call(&mut self, it: &CallExpression<'a>, want: Want) {
        let callee = peel(&it.callee);
        self.in_chain(it.span);
        self.plain_use(callee, it.span);
        if let Some(path) = self.path(callee) {
            self.keys(callee);
            let skipped = self.optional.is_some_and(|chain| chain.start == it.span.start);
            let call = PathCall { path, arguments: &it.arguments, span: it.span, want };
            return if skipped { self.perhaps(|is| is.path_call(&call)) } else { self.path_call(&call) };
        }
        let place = self.flow.place();
        let arguments = self.callee(callee, &it.arguments, place);
        match self.optional {
            Some(chain) if chain.start == it.span.start => self.perhaps(|is| is.arguments(&it.arguments, arguments)),
            _ => self.arguments(&it.arguments, arguments),
        }
        self.give(place, want);
    }

    /// What is called, at a place. Returns what becomes of its arguments.
    fn callee(&mut self, callee: &Expression<'a>, arguments: &[Argument<'a>], place: Place) -> Want {
        let (object, method) = match link(callee) {
            Link::Property(object, name) => (object, Some(Cow::Borrowed(name))),
            Link::Index(object, key) => {
                self.plain_use(key, callee.span());
                self.expression(key, Want::Plain);
                match key_of(key) {
                    Step::Name(name) => (object, Some(name)),
                    Step::Dynamic => (object, None),
                }
            }
            Link::Identifier(it) => return self.called_by_name(it, arguments, place),
            _ => {
                self.flow.call(place);
                self.expression(callee, Want::Into(place));
                return Want::Into(place);
            }
        };
        // which is no method of data: it may be one that was put there
        if method.as_deref().is_none_or(|name| !is_method_of_data(name)) {
            self.flow.call(place);
        }
        // of a generator: it throws what it is given
        if matches!(method.as_deref(), None | Some("throw")) {
            self.flow.join(place, self.flow.thrown);
        }
        self.read_from(object, method.as_deref(), callee.span());
        let Some(method) = method else {
            // any method
            if self.is_global_object(object) {
                self.global_object(callee.span().start, Want::Plain);
            }
            self.written_object(object, place);
            return Want::Into(place);
        };
        if let Expression::Identifier(it) = peel(object)
            && self.scopes.lookup(it.name.as_str()).is_none()
            && is_builtin(it.name.as_str())
        {
            if writes_argument(&method) || (it.name == "Reflect" && method == "apply") {
                self.written_argument(arguments.first(), place);
            }
            let used_up = consumes(it.name.as_str(), Some(&method));
            return if used_up { Want::Plain } else { Want::Into(place) };
        }
        if self.is_global_object(object) {
            // `this.$emit(...)`
            self.hidden_global(&method, callee.span().start);
            self.give_global(Want::Into(place));
            if writes_receiver(&method) {
                self.flow.write(place, Fresh::Old);
            }
        } else if writes_receiver(&method) {
            self.written_object(object, place);
        } else {
            self.expression(object, Want::Into(place));
        }
        // what is called this way may be any method
        if matches!(&*method, "call" | "apply" | "bind") && !is_arrow(object) {
            self.flow.write(place, Fresh::Old);
        }
        Want::Into(place)
    }

    fn called_by_name(&mut self, it: &IdentifierReference<'a>, arguments: &[Argument<'a>], place: Place) -> Want {
        let name = it.name.as_str();
        if let Some(within) = self.within {
            self.flow.join(place, within);
        }
        if let Some(binding) = self.scopes.lookup(name) {
            let function = self.flow.of(binding);
            self.flow.join(place, function);
            self.flow.call(place);
            // a method that was taken from somewhere, such as `const { getRandomValues } = crypto`
            if writes_state_values(name) || writes_argument(name) {
                self.written_argument(arguments.first(), place);
            }
            return Want::Into(place);
        }
        if consumes(name, None) {
            return Want::Plain;
        }
        self.odd_call(name, it.span.start);
        if !is_builtin(name) {
            self.unknown_name(name);
            self.flow.join(place, self.flow.undeclared);
        }
        Want::Into(place)
    }

    fn arguments(&mut self, arguments: &[Argument<'a>], want: Want) {
        for argument in arguments {
            match argument {
                Argument::SpreadElement(it) => self.spread(it, want),
                argument => {
                    if let Some(value) = argument.as_expression() {
                        self.expression(value, want);
                    }
                }
            }
        }
    }

    // ---- what is written ----

    /// An object whose property is written, or that a method changes; its value goes to `place`.
    pub(super) fn written_object(&mut self, object: &Expression<'a>, place: Place) {
        match peel(object) {
            Expression::Identifier(it) if self.within.is_none() => match self.scopes.lookup(it.name.as_str()) {
                Some(binding) if self.scopes.alias(binding).is_none() => {
                    self.flow.property_written(binding);
                    let own = self.flow.of(binding);
                    self.flow.join(own, place);
                    return;
                }
                None if is_builtin(it.name.as_str()) && self.path(object).is_none() => {
                    self.flow.anything = true;
                }
                _ => {}
            },
            other => self.flow.anything |= self.is_part_of_builtin(other),
        }
        let fresh = self.fresh(object);
        if self.is_global_object(object) {
            self.give_global(Want::Into(place));
        } else {
            self.expression(object, Want::Into(place));
        }
        self.flow.write(place, fresh);
    }

    /// `Array.prototype` and the like: to change one changes what every method of that name does.
    fn is_part_of_builtin(&self, mut object: &Expression<'a>) -> bool {
        loop {
            object = match link(object) {
                Link::Same(inner) | Link::Index(inner, _) => inner,
                Link::Property(_, "prototype" | "__proto__" | "constructor") => return true,
                Link::Property(inner, _) => inner,
                Link::Identifier(it) => {
                    let name = it.name.as_str();
                    return is_builtin(name) && self.scopes.lookup(name).is_none() && self.path(object).is_none();
                }
                Link::Other => return false,
            };
        }
    }

    /// The first argument of `Object.assign` and its kind, which the call itself looks at.
    fn written_argument(&mut self, argument: Option<&Argument<'a>>, place: Place) {
        let Some(value) = argument.and_then(Argument::as_expression) else {
            return self.flow.write(place, Fresh::Old);
        };
        match peel(value) {
            Expression::Identifier(it) => match self.scopes.lookup(it.name.as_str()) {
                Some(binding) => self.flow.property_written(binding),
                None => self.flow.anything |= is_builtin(it.name.as_str()) && self.path(value).is_none(),
            },
            other => {
                self.flow.anything |= self.is_part_of_builtin(other);
                let fresh = self.fresh(other);
                self.flow.write(place, fresh);
            }
        }
    }

    // ---- what starts at a global ----

    fn path_call(&mut self, call: &PathCall<'_, 'a>) {
        let place = self.flow.place();
        let last = call.path.last().unwrap_or_default();
        let mut want = Want::Into(place);
        let mut rest = call.arguments;
        match call.path.root {
            Root::State => want = self.state_call(call, place),
            Root::Emit => {
                self.emit_call(call);
                want = Want::Plain;
            }
            Root::View => {
                self.view_call(call);
                want = Want::Plain;
            }
            Root::Extensions => {
                self.extension_call(call);
                want = Want::Plain;
            }
            Root::Crypto => {
                let position = call.path.position;
                match call.path.step(0) {
                    Some("getRandomValues" | "randomUUID") => self.needs.random(self.certainly(position)),
                    Some(_) => {}
                    None => self.needs.random(perhaps(position)),
                }
                if matches!(call.path.step(0), Some("getRandomValues") | None) {
                    self.written_argument(call.arguments.first(), place);
                }
            }
            Root::Object | Root::Reflect | Root::Json => {
                if call.path.len() == 1 && self.reflection(call, place) {
                    rest = call.arguments.get(1..).unwrap_or_default();
                } else if writes_argument(last) || (call.path.root == Root::Reflect && last == "apply") {
                    self.written_argument(call.arguments.first(), place);
                }
                let name = match call.path.root {
                    Root::Json => "JSON",
                    Root::Object => "Object",
                    _ => "Reflect",
                };
                if call.path.len() == 1 && consumes(name, Some(last)) {
                    want = Want::Plain;
                }
                if call.path.len() > 1 || call.path.step(0).is_none() {
                    self.flow.write(place, Fresh::Old);
                }
            }
        }
        self.arguments(rest, want);
        self.give(place, call.want);
    }

    /// `Object.keys($state)` and its kind. True if the first argument needs no more attention.
    fn reflection(&mut self, call: &PathCall<'_, 'a>, place: Place) -> bool {
        let (root, method) = (call.path.root, call.path.last().unwrap_or_default());
        let Some(first) = call.arguments.first().and_then(Argument::as_expression) else { return false };
        let Some(path) = self.path(first).filter(|path| path.root == Root::State) else { return false };
        let position = path.position;
        let key = call.arguments.get(1).and_then(Argument::as_expression).map_or(Step::Dynamic, key_of);
        if let Some(top) = path.first() {
            // a value in the state: only what changes it is special
            let changes = matches!(
                (root, method),
                (Root::Object, "assign" | "defineProperty" | "defineProperties" | "setPrototypeOf")
                    | (Root::Reflect, "set" | "deleteProperty" | "defineProperty" | "setPrototypeOf")
            );
            if changes && !(path.len() == 1 && top.name().is_some_and(is_state_method)) {
                self.keys(first);
                self.read(top, position);
                self.write_perhaps(top, position);
                self.flow.value(place, top.clone(), position);
                self.flow.join(place, self.flow.inner);
                self.flow.write(self.flow.stored, Fresh::Old);
                if path.len() > 1 {
                    self.flow.write(self.flow.inner, Fresh::Old);
                }
            }
            return changes;
        }
        let all = self.certainly(position);
        match (root, method) {
            (Root::Object, "values" | "entries" | "getOwnPropertyDescriptors") => {
                self.needs.all(Kind::StateRead, all);
                self.flow.value(place, Step::Dynamic, position);
            }
            (Root::Object, "keys" | "getOwnPropertyNames") | (Root::Reflect, "ownKeys") | (Root::Json, "stringify") => {
                self.needs.all(Kind::StateRead, all);
            }
            (Root::Object, "hasOwn" | "getOwnPropertyDescriptor") | (Root::Reflect, "has" | "get") => {
                self.read(&key, position);
                self.flow.value(place, key, position);
            }
            (Root::Reflect, "set" | "deleteProperty") => {
                self.write(&key, position);
                self.flow.join(place, self.flow.stored);
            }
            (Root::Object, "assign") => {
                self.assigned_into_state(call.arguments, position, place);
                // it gives the state itself
                self.path_value(&path, call.want);
            }
            _ => return false,
        }
        true
    }

    /// `Object.assign($state, { a, b })`.
    fn assigned_into_state(&mut self, arguments: &[Argument<'a>], position: u32, place: Place) {
        self.flow.join(place, self.flow.stored);
        for source in arguments.iter().skip(1) {
            let Some(Expression::ObjectExpression(literal)) = source.as_expression().map(peel) else {
                self.needs.all(Kind::StateWrite, perhaps(position));
                continue;
            };
            for property in &literal.properties {
                match property {
                    ObjectPropertyKind::ObjectProperty(it) => self.write(&property_key(&it.key), position),
                    ObjectPropertyKind::SpreadProperty(_) => self.needs.all(Kind::StateWrite, perhaps(position)),
                }
            }
        }
    }

    /// Returns what becomes of the arguments.
    fn state_call(&mut self, call: &PathCall<'_, 'a>, place: Place) -> Want {
        let (path, position) = (&call.path, call.path.position);
        let key = || match call.arguments.first() {
            Some(first) => first.as_expression().map_or(Step::Dynamic, key_of),
            None => Step::Dynamic,
        };
        let Some(step) = path.first() else { return Want::Into(place) };
        match (path.len(), step.name()) {
            (1, Some("get")) => {
                self.read(&key(), position);
                self.flow.value(place, key(), position);
                return Want::Plain;
            }
            (1, Some("has")) => self.read(&key(), position),
            (1, Some("set" | "delete")) => {
                self.write(&key(), position);
                return Want::Into(self.flow.stored);
            }
            (1, Some("update")) => {
                self.read(&key(), position);
                self.write(&key(), position);
                self.flow.value(place, key(), position);
                self.flow.join(place, self.flow.stored);
            }
            (1, Some("keys")) => {
                let all = self.certainly(position);
                self.needs.all(Kind::StateRead, all);
            }
            (1, Some(name)) if is_language_lookup(name) => {
                self.read_perhaps(step, position);
                match name {
                    "hasOwnProperty" | "propertyIsEnumerable" | "__lookupGetter__" | "__lookupSetter__" => {
                        self.read_perhaps(&key(), position);
                    }
                    "__defineGetter__" | "__defineSetter__" => self.write_perhaps(&key(), position),
                    // calls the other
                    "toLocaleString" => self.read_perhaps(&Step::Name("toString".into()), position),
                    // gives the state itself
                    "valueOf" => self.path_value(&Path::of(Root::State, position), call.want),
                    _ => {}
                }
            }
            // `$state.get.call(...)`
            (2, Some(method)) if is_state_method(method) => {
                self.path_value(&path.head(), Want::Into(place));
            }
            (length, name) => {
                self.read(step, position);
                if length == 1 && name.is_none() {
                    // a method by a name that is not known
                    self.needs.all(Kind::StateWrite, perhaps(position));
                }
                // `$state.list.push.bind(...)`
                if (1..length).any(|at| path.step(at).is_some_and(writes_receiver)) {
                    self.write_perhaps(step, position);
                    self.flow.join(place, self.flow.inner);
                }
                self.flow.value(place, step.clone(), position);
                let method = path.last();
                if length > 1 && method.is_none_or(writes_receiver) {
                    self.flow.write(self.flow.stored, Fresh::Old);
                    self.flow.join(place, self.flow.inner);
                    if length > 2 {
                        self.flow.write(self.flow.inner, Fresh::Old);
                    }
                    // `push` of something always changes the array; the others may find nothing to change
                    let grows = matches!(method, Some("push" | "unshift"));
                    if grows && call.arguments.first().is_some_and(|a| a.as_expression().is_some()) {
                        self.write(step, position);
                    } else {
                        self.write_perhaps(step, position);
                    }
                }
            }
        }
        Want::Into(place)
    }

    pub(super) fn write_perhaps(&mut self, key: &Step<'a>, position: u32) {
        self.needs.key(Kind::StateWrite, key, perhaps(position));
    }

    fn emit_call(&mut self, call: &PathCall<'_, 'a>) {
        match (call.path.len(), call.path.step(0)) {
            (0, _) => self.named(Kind::Emit, call),
            (1, Some("toast")) => self.needs.name(Kind::Emit, "toast", self.certainly(call.path.position)),
            _ => self.needs.all(Kind::Emit, perhaps(call.path.position)),
        }
    }

    fn view_call(&mut self, call: &PathCall<'_, 'a>) {
        match (call.path.len(), call.path.step(0)) {
            (1, Some("setFilter" | "scrollTo" | "focus" | "command")) => self.named(Kind::View, call),
            (1, Some(_)) => {} // no such method: a TypeError
            _ => self.needs.all(Kind::View, perhaps(call.path.position)),
        }
    }

    /// A call whose first argument is the name that is needed.
    fn named(&mut self, kind: Kind, call: &PathCall<'_, 'a>) {
        let position = call.path.position;
        match call.arguments.first().and_then(Argument::as_expression).map(key_of) {
            Some(Step::Name(name)) => self.needs.name(kind, &name, self.certainly(position)),
            _ => self.needs.all(kind, perhaps(position)),
        }
    }

    fn extension_call(&mut self, call: &PathCall<'_, 'a>) {
        let path = &call.path;
        if path.step(0).is_some_and(is_extension_query) {
            return;
        }
        match path.len() {
            0 | 1 if path.first().is_none_or(|step| step.name().is_some()) => {} // not callable: a TypeError
            0..=2 => {
                // in promise style a refused call fails the handler only if somebody waits for it
                let waits = self.mode == SuspendMode::Stack || self.awaited == Some(call.span);
                self.extension_need(path, waits);
            }
            // `$ext.http.get.call(...)`, `.bind(...)`
            _ => self.extension_need(path, false),
        }
    }

    pub(super) fn construct(&mut self, it: &NewExpression<'a>, want: Want) {
        let place = self.flow.place();
        let callee = peel(&it.callee);
        self.plain_use(callee, it.span);
        match callee {
            Expression::Identifier(id) => {
                self.called_by_name(id, &[], place);
            }
            other => self.expression(other, Want::Into(place)),
        }
        self.arguments(&it.arguments, Want::Into(place));
        self.give(place, want);
    }

    pub(super) fn tagged(&mut self, it: &TaggedTemplateExpression<'a>, want: Want) {
        let tag = peel(&it.tag);
        let place = self.flow.place();
        self.in_chain(it.span);
        self.plain_use(tag, it.span);
        match self.path(tag) {
            Some(path) => {
                self.keys(tag);
                self.path_call(&PathCall { path, arguments: &[], span: it.span, want: Want::Into(place) });
            }
            None => {
                self.callee(tag, &[], place);
            }
        }
        for value in &it.quasi.expressions {
            self.expression(value, Want::Into(place));
        }
        self.give(place, want);
    }
}

/// Which has no `this` of its own.
fn is_arrow(expression: &Expression<'_>) -> bool {
    matches!(peel(expression), Expression::ArrowFunctionExpression(_))
}

pub(super) fn perhaps(position: u32) -> Need {
    Need { position, certain: false }
}
