//! Types out, all else in its place; and what is said when that cannot be.

use std::borrow::Cow;

use super::{analyze, refused, understood};

/// Sources, and what must be left of them, white space aside.
fn check(table: &[(&str, &str)]) {
    for (source, expected) in table {
        let code = understood(source).code;
        assert_eq!(squeezed(&code), squeezed(expected), "{source}\nbecame\n{code}");
        assert_eq!(code.len(), source.len(), "{source}");
        assert_eq!(code.encode_utf16().count(), source.encode_utf16().count(), "{source}");
        for (line, (old, new)) in source.lines().zip(code.lines()).enumerate() {
            assert_eq!(old.encode_utf16().count(), new.encode_utf16().count(), "line {line} of {source}");
        }
        assert!(matches!(understood(&code).code, Cow::Borrowed(_)), "types are left in {code}");
    }
}

fn squeezed(code: &str) -> String {
    code.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace(" ;", ";")
        .replace("( ", "(")
        .replace(" )", ")")
        .replace(" ,", ",")
        .replace(" (", "(")
}

#[test]
fn types_are_blanked_in_place() {
    assert_eq!(
        understood("const a: number = 1;\nreturn (a as any).b!.c<string>(1)").code,
        "const a         = 1;\nreturn (a       ).b .c        (1)"
    );
}

#[test]
fn javascript_is_borrowed() {
    for source in [
        "return 1",
        "const a = b ? (c) : d => e",
        "a ? (b, c) : d",
        "type = 1; interface = 2; declare = 3; namespace = 4; abstract = 5; readonly = 6",
        "type\nFoo = 3",
        "x = a < b; y = c > d",
        "label: for (;;) break label",
        "with ($args) { x }",
        "var x = 010; return '\\07'",
        "await 1; return 2",
        "return new.target, arguments[0], this",
        "'use strict'; return 1",
        "a = <!-- comment\nb",
        "return async () => { for await (const x of y) ; }",
        "const b = 1, c = 2; return f($state.a < b, c > (4))",
        "return f($state.a < 1, $args > ($state.b))",
        "x\n!y",
        "a\nas\nb",
        "let as = 1, is = 2, satisfies = 3, of = 4, keyof = 5; return as + is",
        "class A { static x = 1; #y = 2; static { this.z = 3 } get a() { return this.#y } *g() {} async m() {} }",
        "return a?.b ?? c?.[d] ?.e",
        "({ async: 1, get: 2, set: 3, static: 4, type: 5 })",
        "if (a) function f() {}",
        "/[/\\]()]+/.test(x) && `${a}${`${b}`}`",
        "using x = y",
        "return 1 // end",
        "/* a */ return /b/g",
        "yield = 1",
    ] {
        let analysis = analyze(source).unwrap();
        assert!(matches!(analysis.code, Cow::Borrowed(_)), "{source}");
        assert_eq!(analysis.unparsed, None, "{source}");
    }
}

#[test]
fn annotations_and_parameters() {
    check(&[
        ("let x: number", "let x;"),
        ("let x: number = 1, y: string", "let x = 1, y;"),
        ("let x!: number", "let x ;"),
        ("const {a, b}: {a: number; b: string} = $args", "const {a, b} = $args"),
        ("function f(a: number, b?: string, ...c: any[]): void {}", "function f(a, b, ...c) {}"),
        ("function f(this: Foo, a: number) {}", "function f(a) {}"),
        ("function f(this: Foo) {}", "function f() {}"),
        ("const f = (a: number, b = 1 as any): number => a", "const f = (a, b = 1) => a"),
        ("const f = async <T,>(a: T): Promise<T> => a", "const f = async(a) => a"),
        ("const f = <T extends {a: () => void}>(a: T) => a", "const f = (a) => a"),
        ("function f<T = string>(a: T): a is string { return true }", "function f(a) { return true }"),
        ("function f(x: unknown): asserts x is string {}", "function f(x) {}"),
        ("try {} catch (e: unknown) {}", "try {} catch(e) {}"),
        ("for (const x of y as number[]) ;", "for(const x of y) ;"),
        ("for (let i: number = 0; i < 3; i++) ;", "for(let i = 0; i < 3; i++) ;"),
        ("const f = ({a}: {a: number}, [b]: [number]) => a", "const f = ({a}, [b]) => a"),
        ("let f: (a: number) => (b: string) => void = g", "let f = g"),
        ("let x: `a${string}` | keyof typeof y | (new () => A)[] = z", "let x = z"),
    ]);
}

#[test]
fn expressions() {
    check(&[
        ("return x as any", "return x;"),
        ("return x as const", "return x;"),
        ("return (x as any as string).y", "return (x).y"),
        ("return x satisfies Foo", "return x;"),
        ("return x!", "return x;"),
        ("return x!.y!.z![0]!()", "return x .y .z [0]()"),
        ("x! = 1", "x = 1"),
        ("x!++", "x ++"),
        ("(x as any) = 1", "(x) = 1"),
        ("(x as any).y = 1", "(x).y = 1"),
        ("return new Map<string, Map<string, number>>()", "return new Map()"),
        ("return f<T>`x` as T", "return f `x`;"),
        ("const g = f<string>; return g", "const g = f; return g"),
        ("return a?.b!.c", "return a?.b .c"),
        ("return a < (b as number)", "return a < (b)"),
        ("return [a as number, b!]", "return [a, b ]"),
        ("return {a: b as number, c: d!}", "return {a: b, c: d }"),
        ("return a as number + 1", "return a + 1"),
        ("await $ext.a.b<Foo>('x' as string)", "await $ext.a.b('x')"),
        ("return f<string>(x as T)", "return f(x)"),
        ("return x as unknown as { a: string;\n b: number }", "return x;"),
    ]);
}

#[test]
fn declarations_leave_an_empty_statement() {
    check(&[
        ("interface A { a: number }\nreturn 1", "; return 1"),
        ("type A = number; return 1", "; return 1"),
        ("type A<T> = { [K in keyof T]?: T[K] }\nreturn 1", "; return 1"),
        ("declare const x: number; return x", "; return x"),
        ("declare function f(): void; return f", "; return f"),
        ("declare class A { x: number } return 1", "; return 1"),
        ("declare enum A { B } return 1", "; return 1"),
        ("declare namespace A { const b: number } return 1", "; return 1"),
        ("declare global { interface A {} } return 1", "; return 1"),
        ("function f(a: string): void\nfunction f(a: number): void\nfunction f(a: any) {}", "; ; function f(a) {}"),
        ("{ type A = 1 }", "{; }"),
    ]);
}

#[test]
fn imports_of_types_at_the_head() {
    check(&[
        ("import type { A } from './a'\nreturn 1 as A", "return 1;"),
        ("// c\nimport type A from 'a';\nimport type * as B from \"b\";\nreturn 1", "// c\nreturn 1"),
    ]);
    for other in
        ["import { a } from 'a'\nreturn 1", "import a, { type b } from 'a'", "return 1\nimport type a from 'a'"]
    {
        assert!(refused(other).message.contains("import"), "{other}");
    }
    assert_eq!(understood("importance = 1").code, "importance = 1");
}

#[test]
fn classes() {
    check(&[
        ("class A<T> extends B<T> implements C, D<T> { }", "class A extends B { }"),
        ("class A implements C { }", "class A { }"),
        ("abstract class A { abstract m(): void; n() {} }", "class A {; n() {} }"),
        ("class A { x: number; y?: string = 'a'; z!: number }", "class A { x; y = 'a'; z; }"),
        (
            "class A { private x = 1; static readonly y = 2; protected static async m() {} }",
            "class A {; x = 1; static y = 2; ; static async m() {} }",
        ),
        ("class A { declare x: number; [k: string]: any; y = 1 }", "class A {; ; y = 1 }"),
        ("class A { m(): void; m(a?: number) {} }", "class A {; m(a) {} }"),
        ("class A { override m?(): void }", "class A {; }"),
        (
            "class A { get x(): number { return 1 } set x(v: number) {} }",
            "class A { get x() { return 1 } set x(v) {} }",
        ),
        ("class A { constructor(a: number) { super() } }", "class A { constructor(a) { super() } }"),
        ("class A { readonly = 1; private = 2; declare() {} }", "class A { readonly = 1; private = 2; declare() {} }"),
        ("class A { #x: number = 1; static #y?: string }", "class A { #x = 1; static #y; }"),
        ("const A = class<T> { x!: T }", "const A = class { x ; }"),
    ]);
}

#[test]
fn lines_that_a_type_kept_apart_stay_apart() {
    check(&[
        ("let a = b as T\n(c)()", "let a = b;\n(c)()"),
        ("let a: T\n(c)()", "let a;\n(c)()"),
        ("a as T\n[b].c()", "a;\n[b].c()"),
        ("f()\ntype A = 1\n(g)()", "f()\n; \n(g)()"),
        ("f()\ninterface A {}\n`x`", "f()\n;\n`x`"),
        ("class A { x = 1\nreadonly [k] = 2 }", "class A { x = 1\n; [k] = 2 }"),
        ("class A { x: T\n[k]() {} }", "class A { x;\n[k]() {} }"),
        ("class A { x?: T\n*g() {} }", "class A { x;\n*g() {} }"),
        ("if (a) b as T\nelse c", "if(a) b;\nelse c"),
        ("const f = (a): {\n b: number\n} => a", "const f = (a\n\n) => a"),
        ("const f = async <\nT>(a: T) => a", "const f = async(\n a) => a"),
        ("return <\nT,>(a: T) => a", "return(\n a) => a"),
        ("abstract class A {}\n(b)()", "class A {}\n(b)()"),
    ]);
}

#[test]
fn characters_beyond_ascii_keep_their_width() {
    check(&[
        ("let x: { 'é': 1, '日': 2, '\u{1f600}': 3 } = y, z", "let x = y, z"),
        ("const f = (a): {\n b: 日 } => a", "const f = (a\n) => a"),
        ("let x = y as 'é\u{1f600}'\n(z)", "let x = y;\n(z)"),
    ]);
}

#[test]
fn what_needs_generated_code_is_named_where_it_stands() {
    for (source, word, line, column) in [
        ("let a = 1\nenum A { B }", "enum", 2, 1),
        ("const enum A { B }", "enum", 1, 1),
        ("namespace A { export const b = 1 }", "namespace", 1, 1),
        ("if (a) { namespace A { type B = 1 } }", "namespace", 1, 10),
        ("class A {\n  constructor(private x: number) {}\n}", "parameter property", 2, 15),
        ("class A { constructor(readonly x) {} }", "parameter property", 1, 23),
        ("@a class A {}", "decorator", 1, 1),
        ("class A { @a m() {} }", "decorator", 1, 11),
        ("return <any>x", "type assertion", 1, 8),
    ] {
        let error = refused(source);
        assert!(error.message.contains(word), "{source}: {}", error.message);
        assert_eq!((error.line, error.column), (line, column), "{source}: {}", error.message);
    }
}

#[test]
fn erasure_that_would_change_the_program_is_refused() {
    for source in ["return a + b as T * c", "return -x as number ** 2", "return !a as T ** b"] {
        let refusal = match analyze(source) {
            Err(error) => error.message,
            Ok(analysis) => {
                analysis.unparsed.map(|e| e.message).unwrap_or_else(|| panic!("{source}: {}", analysis.code))
            }
        };
        assert!(!refusal.is_empty());
    }
}

#[test]
fn wrong_types_are_reported_where_they_stand() {
    for (source, line, column) in [
        ("let x: = 1", 1, 8),
        ("let y: number = 1;\nlet x: Map<string = 1", 2, 19),
        ("interface A { b: }", 1, 18),
        ("type A = ;", 1, 10),
        ("const f = (a: ) => a", 1, 15),
        ("let x: number = ;", 1, 17),
    ] {
        let error = refused(source);
        assert_eq!((error.line, error.column), (line, column), "{source}: {}", error.message);
    }
}

#[test]
fn wrong_javascript_is_left_to_quickjs() {
    for source in ["return (", "let = = 1", "} foo() {", "}", "} async function x() {", "a b", "'abc", "`abc", "/abc"] {
        let analysis = analyze(source).unwrap();
        assert!(analysis.unparsed.is_some() && analysis.mistake == analysis.unparsed, "{source}");
        assert!(matches!(analysis.code, Cow::Borrowed(code) if code == source));
    }
}

#[test]
fn what_is_javascript_is_taken_as_that() {
    for source in [
        "return f(a<b, c>(d))",
        "return f<a>(b)",
        "return i<lo>(hi)",
        "return f(a < Math.PI, Math.E > (0))",
        "let string = 1; return f<string>(b)",
        "number = 1; return f(a < number, c > (d))",
        "({ any } = o); return f<any>(b)",
        "return a < string",
        "return f(a < b[0], b[0] > (0))",
        "return f(a < this, NaN > (0))",
        "return f(a < typeof b, c > (0))",
        "return f(a < [b], {c} > (0))",
        "return f(a < (b | b), c > (0))",
        "let global = 1\nglobal\n{ return 5 }",
        "let type = 1, T = 2; type\nT\n= 3",
        "let declare, x; declare\nx",
        "let abstract; abstract\nclass A {}",
        "let a, as, b; a\nas\nb",
    ] {
        assert!(matches!(understood(source).code, Cow::Borrowed(code) if code == source), "{source}");
    }
    // where there are types, they are types
    check(&[
        ("let x: T; return f(a<b, c>(d))", "let x; return f(a(d))"),
        ("let x: T; return f<a>(b)", "let x; return f(b)"),
        ("return new Map<string, number>()", "return new Map()"),
    ]);
    // and where there would be a comparison with what is called like a type, and is no variable
    check(&[
        ("return [...new Set<string>(a)]", "return [...new Set(a)]"),
        ("return new Map<string, Array<Map<A, number>>>([[a, b]]).size", "return new Map([[a, b]]).size"),
        ("return f<any>(b)", "return f(b)"),
        ("return f<A, unknown>(b)", "return f(b)"),
        ("const string2 = 1; return f< string >(b)", "const string2 = 1; return f(b)"),
    ]);
    assert!(refused("let x: T\nglobal\n{ return 5 }").message.contains("declare"));
}

#[test]
fn what_looks_like_type_arguments_is_warned_about() {
    let found = understood("return  f<T>(x)").warnings;
    assert_eq!((found[0].line, found[0].column, found[0].message.contains("two comparisons")), (1, 9, true));
    for source in ["return a < b && c > (d)", "return a < b > c", "return (a < b) > (c)", "let x: T; return f<T>(x)"] {
        assert_eq!(understood(source).warnings, [], "{source}");
    }
}

#[test]
fn imports_of_types_may_stand_before_sloppy_code() {
    check(&[
        ("import type { A } from './a'\nwith (x) { y }", "with (x) { y }"),
        ("import { type A, type B as C } from './a'; return 1", "return 1"),
        ("import type A from 'a' /* c */; // d\nimport type B from 'b'\nreturn 010", "// d\n\nreturn 010"),
    ]);
}
