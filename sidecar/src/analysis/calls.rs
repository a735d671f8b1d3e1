//! Calls: of globals' methods, of extensions, of the handler's own functions; and what callbacks return to.

use std::borrow::Cow;

use oxc_ast::ast::*;
use oxc_ast_visit::{Visit, walk};
use oxc_span::GetSpan;

use super::needs::Kind;
use super::path::{Link, Path, Root, Step, key_of, link, peel};
use super::suspend::{Want, callback_want};
use super::uses::{certainly, is_extension_query, is_state_method, perhaps};
use super::walk::Walker;

/// Methods that change the array they are called on. State values are data, so nothing else has methods that do.
fn changes_its_array(method: &str) -> bool {
    matches!(method, "push" | "pop" | "shift" | "unshift" | "splice" | "sort" | "reverse" | "fill" | "copyWithin")
}

impl<'a> Walker<'a, '_> {
    pub(super) fn call(&mut self, it: &CallExpression<'a>, want: Want) {
        let callee = peel(&it.callee);
        if let Some(path) = self.path(callee) {
            self.keys(callee);
            return self.path_call(&path, &it.arguments, want);
        }
        let method = match link(callee) {
            Link::Property(object, name) => {
                // `this.$emit(...)`
                self.hidden_global(name, callee.span().start);
                self.receiver(object, name, want);
                Some(Cow::Borrowed(name))
            }
            Link::Index(object, key) => {
                self.expression(key, Want::Value);
                match key_of(key) {
                    Step::Name(name) => {
                        self.receiver(object, &name, want);
                        Some(name)
                    }
                    Step::Dynamic => {
                        self.expression(object, Want::Value);
                        None
                    }
                }
            }
            Link::Identifier(it) => {
                if let Some(binding) = self.scopes.lookup(it.name.as_str()) {
                    self.standing.local_call(binding, want);
                    self.standing.variable(binding, Want::Value);
                }
                None
            }
            _ => {
                // `(() => $ext.a.b())()`
                if !self.function_literal(callee, want.of_result()) {
                    self.expression(callee, Want::Value);
                }
                None
            }
        };
        self.arguments(&it.arguments, method.as_deref(), want);
    }

    /// The object of a method call.
    fn receiver(&mut self, object: &Expression<'a>, method: &str, want: Want) {
        let wanted = match method {
            "then" | "catch" | "finally" => Want::Promise,
            "map" | "flatMap" | "concat" | "filter" | "slice" | "flat" if want == Want::List => Want::List,
            _ => Want::Value,
        };
        self.expression(object, wanted);
    }

    /// Arguments of a call. What callbacks among them return depends on who calls them.
    fn arguments(&mut self, arguments: &[Argument<'a>], method: Option<&str>, want: Want) {
        let result = callback_want(method.unwrap_or_default(), want);
        for argument in arguments {
            let Some(value) = argument.as_expression() else {
                walk::walk_argument(self, argument);
                continue;
            };
            if self.function_literal(value, result) {
                continue;
            }
            if let Expression::Identifier(it) = peel(value)
                && let Some(binding) = self.scopes.lookup(it.name.as_str())
                && self.scopes.alias(binding).is_none()
            {
                // as if it were called there; if it is no function, this says nothing
                self.standing.local_call(binding, result);
                self.standing.variable(binding, Want::Value);
                continue;
            }
            if want == Want::List && method == Some("concat") {
                self.expression(value, Want::List);
                continue;
            }
            // `Promise.all(urls.map($ext.http.get))`
            let handed_over = method.is_some_and(|m| matches!(m, "map" | "flatMap" | "from"));
            let as_callback = matches!(result, Want::Promise | Want::Element(_));
            match self.path(value) {
                Some(path) if handed_over && as_callback && path.root == Root::Extensions => {
                    self.keys(value);
                    self.path_value(&path, result);
                }
                _ => self.expression(value, Want::Value),
            }
        }
    }

    fn path_call(&mut self, path: &Path<'a>, arguments: &[Argument<'a>], want: Want) {
        let last = path.last().unwrap_or_default();
        match path.root {
            Root::State => self.state_call(path, arguments),
            Root::Emit => self.emit_call(path, arguments),
            Root::View => self.view_call(path, arguments),
            Root::Extensions => self.extension_call(path, want),
            Root::Crypto => match path.step(0) {
                Some("getRandomValues") => self.needs.random(certainly(path.position)),
                Some(_) => {}
                None => self.needs.random(perhaps(path.position)),
            },
            Root::Promise if path.len() == 1 => {
                let wanted = match last {
                    "all" | "allSettled" | "race" | "any" => Some(Want::List),
                    "resolve" => Some(Want::Promise),
                    _ => None,
                };
                if let (Some(wanted), [first, rest @ ..]) = (wanted, arguments) {
                    match first.as_expression() {
                        Some(list) => self.expression(list, wanted),
                        None => walk::walk_argument(self, first),
                    }
                    return self.arguments(rest, None, want);
                }
            }
            Root::Object | Root::Reflect | Root::Json
                if path.len() == 1 && self.reflection(path.root, last, arguments) =>
            {
                return self.arguments(arguments.get(1..).unwrap_or_default(), Some(last), want);
            }
            _ => {}
        }
        self.arguments(arguments, Some(last), want);
    }

    /// `Object.keys($state)` and its kind. True if the first argument needs no more attention.
    fn reflection(&mut self, root: Root, method: &str, arguments: &[Argument<'a>]) -> bool {
        let Some(first) = arguments.first().and_then(Argument::as_expression) else { return false };
        let Some(path) = self.path(first).filter(|path| path.root == Root::State) else { return false };
        let position = path.position;
        let key = arguments.get(1).and_then(Argument::as_expression).map_or(Step::Dynamic, key_of);
        if let Some(top) = path.first() {
            // a value in the state: only what changes it is special
            let changes = matches!(
                (root, method),
                (Root::Object, "assign" | "defineProperty" | "defineProperties" | "setPrototypeOf")
                    | (Root::Reflect, "set" | "deleteProperty" | "defineProperty")
            );
            if changes && !(path.len() == 1 && top.name().is_some_and(is_state_method)) {
                self.keys(first);
                self.read(top, position);
                self.write_perhaps(top, position);
            }
            return changes;
        }
        match (root, method) {
            (Root::Object, "keys" | "values" | "entries" | "getOwnPropertyNames" | "getOwnPropertyDescriptors")
            | (Root::Reflect, "ownKeys")
            | (Root::Json, "stringify") => self.needs.all(Kind::StateRead, certainly(position)),
            (Root::Object, "hasOwn" | "getOwnPropertyDescriptor") | (Root::Reflect, "has" | "get") => {
                self.read(&key, position)
            }
            (Root::Reflect, "set" | "deleteProperty") => self.write(&key, position),
            (Root::Object, "assign") => self.assigned_into_state(arguments, position),
            _ => return false,
        }
        true
    }

    /// `Object.assign($state, { a, b })`.
    fn assigned_into_state(&mut self, arguments: &[Argument<'a>], position: u32) {
        for source in arguments.iter().skip(1) {
            let Some(Expression::ObjectExpression(literal)) = source.as_expression().map(peel) else {
                self.needs.all(Kind::StateWrite, perhaps(position));
                continue;
            };
            for property in &literal.properties {
                match property {
                    ObjectPropertyKind::ObjectProperty(it) => self.write(&super::path::property_key(&it.key), position),
                    ObjectPropertyKind::SpreadProperty(_) => self.needs.all(Kind::StateWrite, perhaps(position)),
                }
            }
        }
    }

    fn state_call(&mut self, path: &Path<'a>, arguments: &[Argument<'a>]) {
        let position = path.position;
        let key = || match arguments.first() {
            Some(first) => first.as_expression().map_or(Step::Dynamic, key_of),
            None => Step::Dynamic,
        };
        let Some(step) = path.first() else { return };
        match (path.len(), step.name()) {
            (1, Some("get" | "has")) => self.read(&key(), position),
            (1, Some("set" | "delete")) => self.write(&key(), position),
            (1, Some("update")) => {
                self.read(&key(), position);
                self.write(&key(), position);
            }
            (1, Some("keys")) => self.needs.all(Kind::StateRead, certainly(position)),
            // `$state.get.call(...)`
            (2, Some(method)) if is_state_method(method) => {
                self.path_value(&path.head(), Want::Value);
            }
            (length, _) => {
                self.read(step, position);
                let method = path.last().unwrap_or_default();
                if length > 1 && changes_its_array(method) {
                    // `push` of something always changes the array; the others may find nothing to change
                    let grows = matches!(method, "push" | "unshift");
                    if grows && arguments.first().is_some_and(|a| a.as_expression().is_some()) {
                        self.write(step, position);
                    } else {
                        self.write_perhaps(step, position);
                    }
                }
            }
        }
    }

    fn write_perhaps(&mut self, key: &Step<'a>, position: u32) {
        match key.name() {
            Some(name) => self.needs.name(Kind::StateWrite, name, perhaps(position)),
            None => self.needs.all(Kind::StateWrite, perhaps(position)),
        }
    }

    fn emit_call(&mut self, path: &Path<'a>, arguments: &[Argument<'a>]) {
        match (path.len(), path.step(0)) {
            (0, _) => self.named(Kind::Emit, path, arguments),
            (1, Some("toast")) => self.needs.name(Kind::Emit, "toast", certainly(path.position)),
            _ => self.needs.all(Kind::Emit, perhaps(path.position)),
        }
    }

    fn view_call(&mut self, path: &Path<'a>, arguments: &[Argument<'a>]) {
        match (path.len(), path.step(0)) {
            (1, Some("setFilter" | "scrollTo" | "focus" | "command")) => self.named(Kind::View, path, arguments),
            (1, Some(_)) => {} // no such method: a TypeError
            _ => self.needs.all(Kind::View, perhaps(path.position)),
        }
    }

    /// A call whose first argument is the name that is needed.
    fn named(&mut self, kind: Kind, path: &Path<'a>, arguments: &[Argument<'a>]) {
        match arguments.first().and_then(Argument::as_expression).map(key_of) {
            Some(Step::Name(name)) => self.needs.name(kind, &name, certainly(path.position)),
            _ => self.needs.all(kind, perhaps(path.position)),
        }
    }

    fn extension_call(&mut self, path: &Path<'a>, want: Want) {
        if path.step(0).is_some_and(is_extension_query) {
            return;
        }
        match path.len() {
            0 | 1 if path.first().is_none_or(|step| step.name().is_some()) => {} // not callable: a TypeError
            0..=2 => {
                self.extension_need(path, true);
                self.standing.extension_call(want);
            }
            // `$ext.http.get.call(...)`, `.bind(...)`
            _ => {
                self.extension_need(path, false);
                match path.step(2) {
                    Some("call" | "apply") => self.standing.extension_call(want),
                    _ => self.standing.extension_escapes(),
                }
            }
        }
    }

    pub(super) fn construct(&mut self, it: &NewExpression<'a>) {
        let callee = peel(&it.callee);
        let proxy =
            matches!(callee, Expression::Identifier(id) if id.name == "Proxy" && self.scopes.lookup("Proxy").is_none());
        if !self.function_literal(callee, Want::Promise) {
            self.expression(callee, Want::Value);
        }
        for (index, argument) in it.arguments.iter().enumerate() {
            match argument.as_expression().map(peel) {
                Some(traps @ Expression::ObjectExpression(_)) if proxy && index == 1 => {
                    self.traps = true;
                    self.expression(traps, Want::Value);
                }
                _ => self.arguments(std::slice::from_ref(argument), None, Want::Value),
            }
        }
    }

    pub(super) fn tagged(&mut self, it: &TaggedTemplateExpression<'a>, want: Want) {
        match self.path(&it.tag) {
            Some(path) => {
                self.keys(&it.tag);
                self.path_call(&path, &[], want);
            }
            None => {
                if let Expression::Identifier(id) = peel(&it.tag)
                    && let Some(binding) = self.scopes.lookup(id.name.as_str())
                {
                    self.standing.local_call(binding, want);
                }
                self.expression(&it.tag, Want::Value);
            }
        }
        self.visit_template_literal(&it.quasi);
    }
}
