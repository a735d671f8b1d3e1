//! What is known of the language's own names: which calls make new objects, which write, which only look.

use oxc_ast::ast::*;

use super::path::{Link, Root, link, path_of, peel};
use super::scope::Scopes;

/// Whether an expression gives an object that nobody else has. What is in it may be known elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fresh {
    /// For certain.
    Made,
    /// If a method does what the built-in one of its name does.
    ByMethod,
    /// Not that it could be seen.
    Old,
}

impl Fresh {
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Old, _) | (_, Self::Old) => Self::Old,
            (Self::ByMethod, _) | (_, Self::ByMethod) => Self::ByMethod,
            (Self::Made, Self::Made) => Self::Made,
        }
    }
}

/// Expressions within one another that are looked at, and alternatives; what is beyond is old.
const MAX_LOOKS: u32 = 16;

pub(super) fn fresh<'a>(expression: &Expression<'a>, scopes: &Scopes<'a>) -> Fresh {
    of(expression, scopes, &mut { MAX_LOOKS })
}

fn of<'a>(expression: &Expression<'a>, scopes: &Scopes<'a>, looks: &mut u32) -> Fresh {
    let Some(left) = looks.checked_sub(1) else { return Fresh::Old };
    *looks = left;
    match peel(expression) {
        Expression::Identifier(_)
        | Expression::ThisExpression(_)
        | Expression::StaticMemberExpression(_)
        | Expression::ComputedMemberExpression(_)
        | Expression::PrivateFieldExpression(_)
        | Expression::YieldExpression(_)
        | Expression::TaggedTemplateExpression(_)
        | Expression::Super(_)
        | Expression::ImportExpression(_) => Fresh::Old,
        Expression::AwaitExpression(it) => of(&it.argument, scopes, looks),
        Expression::AssignmentExpression(it) => match it.operator {
            AssignmentOperator::Assign => of(&it.right, scopes, looks),
            operator if operator.is_logical() => Fresh::Old,
            _ => Fresh::Made,
        },
        Expression::ConditionalExpression(it) => {
            of(&it.consequent, scopes, looks).and(of(&it.alternate, scopes, looks))
        }
        Expression::LogicalExpression(it) => of(&it.left, scopes, looks).and(of(&it.right, scopes, looks)),
        Expression::SequenceExpression(it) => it.expressions.last().map_or(Fresh::Old, |e| of(e, scopes, looks)),
        Expression::NewExpression(it) => match peel(&it.callee) {
            Expression::Identifier(id) if makes(id.name.as_str()) && scopes.lookup(id.name.as_str()).is_none() => {
                Fresh::Made
            }
            _ => Fresh::Old,
        },
        Expression::CallExpression(it) => call(it, scopes, looks),
        Expression::ChainExpression(it) => match &it.expression {
            ChainElement::CallExpression(it) => call(it, scopes, looks),
            _ => Fresh::Old,
        },
        // literals, functions, classes, and operators, which give plain values
        _ => Fresh::Made,
    }
}

fn call<'a>(it: &CallExpression<'a>, scopes: &Scopes<'a>, looks: &mut u32) -> Fresh {
    let callee = peel(&it.callee);
    let path = path_of(callee, scopes);
    if let Some(path) = &path {
        match path.root {
            // what comes from outside
            Root::Extensions | Root::Emit | Root::View | Root::Crypto => return Fresh::Made,
            Root::State if path.len() == 1 => return Fresh::Old,
            _ => {}
        }
    }
    match link(callee) {
        Link::Identifier(id) if scopes.lookup(id.name.as_str()).is_none() && consumes(id.name.as_str(), None) => {
            Fresh::Made
        }
        Link::Property(object, name) => match peel(object) {
            Expression::Identifier(id) if scopes.lookup(id.name.as_str()).is_none() => match (id.name.as_str(), name) {
                ("Object", "assign") => match it.arguments.first().and_then(Argument::as_expression) {
                    Some(first) => of(first, scopes, looks),
                    None => Fresh::Old,
                },
                ("Object", "keys" | "values" | "entries" | "fromEntries" | "groupBy" | "getOwnPropertyNames")
                | ("Array", "from" | "of")
                | ("Promise", "all" | "allSettled") => Fresh::Made,
                (object, name) if consumes(object, Some(name)) => Fresh::Made,
                _ if gives_new(name) => Fresh::ByMethod,
                _ => Fresh::Old,
            },
            _ if gives_new(name) => Fresh::ByMethod,
            _ => Fresh::Old,
        },
        _ => Fresh::Old,
    }
}

/// Built-in constructors whose objects are no views of other ones.
fn makes(name: &str) -> bool {
    matches!(name, "Map" | "Set" | "WeakMap" | "WeakSet" | "Array" | "Date" | "RegExp" | "Promise" | "URL")
        || is_error(name)
}

/// Built-in errors.
fn is_error(name: &str) -> bool {
    is_error_of_text(name) || matches!(name, "AggregateError" | "SuppressedError" | "InternalError")
}

/// Built-in errors that are made of a text, and keep no more of their first argument. An `AggregateError` keeps a list.
pub(super) fn is_error_of_text(name: &str) -> bool {
    matches!(name, "Error" | "EvalError" | "RangeError" | "ReferenceError" | "SyntaxError" | "TypeError" | "URIError")
}

/// Built-in functions that look at their arguments and keep nothing of them, nor give it back.
pub(super) fn consumes(name: &str, method: Option<&str>) -> bool {
    match method {
        None => matches!(
            name,
            "$log"
                | "String"
                | "Number"
                | "Boolean"
                | "BigInt"
                | "parseInt"
                | "parseFloat"
                | "isNaN"
                | "isFinite"
                | "encodeURIComponent"
                | "decodeURIComponent"
                | "encodeURI"
                | "decodeURI"
                | "structuredClone"
                | "atob"
                | "btoa"
        ),
        Some(method) => match name {
            "$log" | "console" | "Math" | "Number" | "String" | "BigInt" | "Date" | "$time" => true,
            "JSON" => method == "stringify",
            "Array" => method == "isArray",
            "Object" => matches!(method, "is" | "keys" | "hasOwn" | "isFrozen" | "isSealed"),
            _ => false,
        },
    }
}

/// Methods that give a plain value or a new object, and write nothing.
pub(super) fn gives_new(name: &str) -> bool {
    matches!(
        name,
        "map"
            | "filter"
            | "slice"
            | "concat"
            | "flat"
            | "flatMap"
            | "toSorted"
            | "toReversed"
            | "toSpliced"
            | "with"
            | "split"
            | "join"
            | "trim"
            | "toString"
            | "toUpperCase"
            | "toLowerCase"
            | "toFixed"
            | "toISOString"
            | "replace"
            | "replaceAll"
            | "substring"
            | "padStart"
            | "padEnd"
            | "repeat"
            | "charAt"
            | "keys"
            | "values"
            | "entries"
            | "includes"
            | "indexOf"
            | "some"
            | "every"
            | "findIndex"
            | "match"
            | "matchAll"
            | "test"
            | "getTime"
    )
}

/// Methods of arrays, texts, numbers, dates and bytes, as far as handlers call them: what is called by such a name is as a rule that.
pub(super) fn is_method_of_data(name: &str) -> bool {
    gives_new(name)
        || writes_receiver(name)
        || name.strip_prefix("get").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
        || matches!(
            name,
            "forEach"
                | "find"
                | "findLast"
                | "findLastIndex"
                | "lastIndexOf"
                | "reduce"
                | "reduceRight"
                | "at"
                | "charCodeAt"
                | "codePointAt"
                | "startsWith"
                | "endsWith"
                | "search"
                | "substr"
                | "trimStart"
                | "trimEnd"
                | "normalize"
                | "localeCompare"
                | "toLocaleString"
                | "toLocaleDateString"
                | "toLocaleTimeString"
                | "toLocaleUpperCase"
                | "toLocaleLowerCase"
                | "toPrecision"
                | "toExponential"
                | "toJSON"
                | "valueOf"
                | "hasOwnProperty"
                | "isPrototypeOf"
                | "propertyIsEnumerable"
                | "subarray"
                | "exec"
                | "get"
                | "has"
                | "next"
                | "then"
                | "catch"
                | "finally"
        )
}

/// Methods that write to what they are called on. State values are data: nothing else has methods that do.
pub(super) fn writes_receiver(name: &str) -> bool {
    matches!(
        name,
        "push"
            | "pop"
            | "shift"
            | "unshift"
            | "splice"
            | "sort"
            | "reverse"
            | "fill"
            | "copyWithin"
            | "add"
            | "delete"
            | "clear"
            | "resize"
            | "transfer"
            | "transferToFixedLength"
            | "__defineGetter__"
            | "__defineSetter__"
    ) || is_setter(name)
}

/// Those of them that arrays, dates and bytes have, which is what values of the state are.
pub(super) fn writes_state_values(name: &str) -> bool {
    writes_receiver(name) && !matches!(name, "add" | "delete" | "clear" | "resize")
}

/// `set`, `setTime`, `setUint8`.
fn is_setter(name: &str) -> bool {
    name.strip_prefix("set").is_some_and(|rest| rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// Functions that write to their first argument: of `Object` and `Reflect`, and `crypto.getRandomValues`.
pub(super) fn writes_argument(name: &str) -> bool {
    matches!(
        name,
        "assign"
            | "defineProperty"
            | "defineProperties"
            | "setPrototypeOf"
            | "freeze"
            | "seal"
            | "preventExtensions"
            | "deleteProperty"
            | "set"
            | "getRandomValues"
    )
}

/// The language's own globals, and those of handlers that are no capabilities: to mention one moves no value.
pub(super) fn is_builtin(name: &str) -> bool {
    matches!(
        name,
        "undefined"
            | "NaN"
            | "Infinity"
            | "$time"
            | "console"
            | "Object"
            | "Array"
            | "Symbol"
            | "Function"
            | "Math"
            | "JSON"
            | "Date"
            | "RegExp"
            | "Map"
            | "Set"
            | "WeakMap"
            | "WeakSet"
            | "WeakRef"
            | "FinalizationRegistry"
            | "Promise"
            | "Proxy"
            | "Reflect"
            | "Iterator"
            | "Intl"
            | "crypto"
            | "escape"
            | "unescape"
            | "queueMicrotask"
            | "setTimeout"
            | "setInterval"
            | "clearTimeout"
            | "clearInterval"
            | "performance"
            | "TextEncoder"
            | "TextDecoder"
            | "URL"
            | "URLSearchParams"
            | "AbortController"
            | "AbortSignal"
            | "Event"
            | "EventTarget"
            | "ArrayBuffer"
            | "DataView"
            | "$state"
            | "$emit"
            | "$view"
            | "$ext"
    ) || consumes(name, None)
        || is_error(name)
        || is_typed_array(name)
}

fn is_typed_array(name: &str) -> bool {
    matches!(
        name,
        "Int8Array"
            | "Uint8Array"
            | "Uint8ClampedArray"
            | "Int16Array"
            | "Uint16Array"
            | "Int32Array"
            | "Uint32Array"
            | "BigInt64Array"
            | "BigUint64Array"
            | "Float16Array"
            | "Float32Array"
            | "Float64Array"
    )
}

/// Names of the global object.
pub(super) fn is_global_object(name: &str) -> bool {
    matches!(name, "globalThis" | "self" | "global")
}
