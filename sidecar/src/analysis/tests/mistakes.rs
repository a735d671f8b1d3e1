//! What people are told of the mistakes that they make.

use super::super::beyond_parser;
use super::{analyze, understood};

const IMPORT: &str =
    "a handler cannot import modules: put the code into the handler, or call an extension, `$ext.name.method()`";
const EXPORT: &str = "a handler cannot export: leave `export` out, and `return` the result";
const AWAIT: &str = "`await` is only for async functions: write `async` before the function that it stands in";
const NAMED_AWAIT: &str = "`await` cannot be a name in a handler, which waits with it: give this another name";
const SEPARATOR: &str = "a `_` in a number stands between two of its digits";
const SEMICOLON: &str =
    "Expected a semicolon or an implicit semicolon after a statement, but found none; Try inserting a semicolon here";

/// The words, and the place.
fn told(source: &str) -> (String, u32, u32) {
    let mistake = match analyze(source) {
        Err(error) => error,
        Ok(analysis) => analysis.mistake.unwrap_or_else(|| panic!("{source}: nothing is wrong")),
    };
    (mistake.message, mistake.line, mistake.column)
}

#[test]
fn mistakes_are_told_in_the_parsers_words_with_advice() {
    let table: &[(&str, &str, u32, u32)] = &[
        ("import x from 'y'\nreturn x", IMPORT, 1, 1),
        ("import { a } from 'y'", IMPORT, 1, 1),
        ("const a = 1\nimport b from 'b'", IMPORT, 2, 1),
        ("let x: number = 1\nimport { type A } from 'a'", IMPORT, 2, 1),
        ("export default () => 1", EXPORT, 1, 1),
        ("export const a = 1", EXPORT, 1, 1),
        ("export function f() {}", EXPORT, 1, 1),
        ("const a = 1;\nexport { a }", EXPORT, 2, 1),
        ("export * from 'a'", EXPORT, 1, 1),
        ("export interface A {}", EXPORT, 1, 1),
        ("function f() { await g() }", AWAIT, 1, 16),
        ("const f = () => await g()", AWAIT, 1, 17),
        ("[1].map(x => { const y = await g(x) })", AWAIT, 1, 26),
        ("class A { m() { await this.n() } }", AWAIT, 1, 17),
        ("function f() { for await (const a of b) ; }", AWAIT, 1, 20),
        ("if (a) {", "Expected `}` but the handler ends", 1, 9),
        ("f(1, 2", "Expected `,` or `)` but the handler ends", 1, 7),
        ("x = ", "Unexpected end of the handler", 1, 5),
        ("let y = x +\n", "Unexpected end of the handler", 2, 1),
        ("await", "Unexpected end of the handler", 1, 6),
        ("#", "Unexpected end of the handler", 1, 2),
        ("let a = 1; #", "Unexpected end of the handler", 1, 13),
        ("let await = 1", NAMED_AWAIT, 1, 5),
        ("const await = 1, b = 2", NAMED_AWAIT, 1, 7),
        ("function await() {}", NAMED_AWAIT, 1, 10),
        ("async function f(await) {}", NAMED_AWAIT, 1, 18),
        ("function f() { return }}", "this `}` closes nothing", 1, 24),
        ("if (a) { b } }\n", "this `}` closes nothing", 1, 14),
        ("const a = ;", "Unexpected token", 1, 11),
        ("return {a: 1,, b: 2}", "Unexpected token", 1, 14),
        ("let x = 'abc", "Unterminated string", 1, 9),
        ("if (a = 1 {", "Expected `)` but found `{`", 1, 11),
        ("const x", "Missing initializer in const declaration; Add an initializer (e.g. ` = undefined`) here", 1, 7),
        ("return a b", SEMICOLON, 1, 9),
        ("let 1a = 2", "Invalid characters after number", 1, 6),
        ("return 1_000_", SEPARATOR, 1, 13),
        ("1_000_", SEPARATOR, 1, 6),
        ("f(1__0)", SEPARATOR, 1, 4),
        (
            "#x in {}",
            "no class around `#x` declares it: declare it as a field of the class, or leave out the `#`",
            1,
            1,
        ),
        (
            "class A { #x }\nreturn o.#x",
            "no class around `#x` declares it: declare it as a field of the class, or leave out the `#`",
            2,
            10,
        ),
        (
            "class A { #x; m() { class B { #y; n(o) { return o.#z + this.#x + this.#y } } } }",
            "no class around `#z` declares it: declare it as a field of the class, or leave out the `#`",
            1,
            51,
        ),
        (
            "enum A { B }",
            "a TypeScript enum needs generated code, and types in a handler are only erased; write an object, `const A = { B: 0 }`",
            1,
            1,
        ),
        (
            "class A { constructor(private x: string) {} }",
            "a parameter property needs generated code, and types in a handler are only erased; declare the field, and assign it in the constructor",
            1,
            23,
        ),
        (
            "namespace A { export const b = 1 }",
            "a TypeScript namespace needs generated code, and types in a handler are only erased; write an object with its functions",
            1,
            1,
        ),
        (
            "@d class A {}",
            "a decorator needs generated code, and types in a handler are only erased; call its function yourself",
            1,
            1,
        ),
    ];
    let wrong: Vec<String> = table
        .iter()
        .filter(|(source, message, line, column)| told(source) != ((*message).to_owned(), *line, *column))
        .map(|(source, ..)| format!("{source:?} is {:?}", told(source)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_place_lies_in_the_source() {
    for source in
        ["return (", "`", "'a", "/a", "f(\n\n", "let", "if (", "{", "(\u{1f600}", "import", "a\n  .", "class A {", "/*"]
    {
        let (_, line, column) = told(source);
        let text = source.split('\n').nth(line as usize - 1);
        let last = text.map(|text| text.encode_utf16().count() as u32 + 1);
        assert!(last.is_some_and(|last| (1..=last).contains(&column)), "{source:?}: {line}:{column}");
    }
}

#[test]
fn what_only_quickjs_refuses_has_its_words_or_better_ones() {
    for (source, message, line, column, told) in [
        (
            "let a = 1; let a = 2",
            "invalid redefinition of lexical identifier",
            1,
            18,
            Some(("`a` is declared twice", 1, 16)),
        ),
        (
            "class A {} class A {}",
            "invalid redefinition of lexical identifier",
            1,
            22,
            Some(("`A` is declared twice", 1, 18)),
        ),
        (
            "\nf(a => { let a = 1 })",
            "invalid redefinition of parameter name",
            2,
            16,
            Some(("`a` is declared twice", 2, 14)),
        ),
        ("'use strict'; with (a) b", "invalid keyword: with", 1, 15, Some(("`with` is not for strict code", 1, 15))),
        ("function f(a, a) { 'use strict' }", "Duplicate parameter name", 1, 20, Some(("two parameters", 1, 20))),
        (
            "class A { constructor() {} constructor() {} }",
            "property constructor appears more than once",
            1,
            39,
            Some(("a class has one `constructor`", 1, 28)),
        ),
        (
            "'use strict'\nlet x; delete x",
            "cannot delete a direct reference in strict mode",
            2,
            16,
            Some(("strict code cannot delete a variable", 2, 8)),
        ),
        ("break", "break must be inside loop or switch", 1, 6, Some(("`break` is only for loops and `switch`", 1, 1))),
        ("if (a) { continue; }", "continue must be inside loop", 1, 18, Some(("`continue` is only for loops", 1, 10))),
        ("f(() => { x.break; break })", "break must be inside loop or switch", 1, 26, Some(("`break` is", 1, 20))),
        (
            "a: for (;;) { break b }",
            "break/continue label not found",
            1,
            21,
            Some(("nothing around this has the label `b`", 1, 21)),
        ),
        (
            "a: for (;;) { break b }",
            "break/continue label not found",
            1,
            23,
            Some(("nothing around this has the label `b`", 1, 21)),
        ),
        ("break", "break must be inside loop or switch", 1, 1, None),
        ("", "invalid redefinition", 9, 9, None),
        ("}", "invalid redefinition", 1, 2, None),
    ] {
        let found = beyond_parser(source, message, line, column);
        let found = found.as_ref().map(|e| (e.message.as_str(), e.line, e.column));
        match (found, told) {
            (Some(found), Some(told)) => {
                assert!(found.0.starts_with(told.0), "{source}: {found:?}");
                assert_eq!((found.1, found.2), (told.1, told.2), "{source}");
            }
            (found, told) => assert_eq!(found, told, "{source}"),
        }
    }
}

#[test]
fn what_compiles_and_does_something_else_is_warned_about() {
    for (source, word, column) in [
        ("return eval('1')", "`eval` throws here", 8),
        ("const f = new Function('return 1')", "`Function` throws here", 15),
        ("return Function('a')", "`Function` throws here", 8),
        ("function f() { return await (g()) }", "`await` is only for async functions", 23),
        ("return f<T>(x)", "this is two comparisons", 8),
    ] {
        let found = understood(source).warnings;
        assert_eq!(found.len(), 1, "{source}");
        assert!(found[0].message.starts_with(word), "{source}: {}", found[0].message);
        assert_eq!((found[0].line, found[0].column), (1, column), "{source}");
    }
    for source in ["const eval = x => x; return eval(1)", "return x instanceof Function", "await (g())", "x.eval(1)"] {
        assert_eq!(understood(source).warnings, [], "{source}");
    }
}
