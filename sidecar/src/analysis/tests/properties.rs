//! What holds for any text, and for any typed program.

use proptest::prelude::*;
use proptest::sample::select;

use super::super::place::place;
use super::{analyze, understood};

/// Pieces of programs, for soups and programs that nearly make sense.
const PIECES: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "`",
    "${",
    "a",
    "b",
    "1",
    "'s'",
    "\n",
    ";",
    ",",
    ":",
    "?",
    "?.",
    ".",
    "...",
    "=>",
    "=",
    "+=",
    "+",
    "-",
    "*",
    "**",
    "/",
    "%",
    "<",
    ">",
    "&&",
    "||",
    "??",
    "!",
    "++",
    "@",
    "#x",
    "if ",
    "else ",
    "for ",
    "while ",
    "do ",
    "with ",
    "try ",
    "catch ",
    "switch ",
    "case ",
    "return ",
    "throw ",
    "function ",
    "class ",
    "extends ",
    "new ",
    "typeof ",
    "void ",
    "delete ",
    "await ",
    "yield ",
    "async ",
    " in ",
    " of ",
    " as ",
    " satisfies ",
    " is ",
    "keyof ",
    "infer ",
    "readonly ",
    "type ",
    "interface ",
    "declare ",
    "namespace ",
    "enum ",
    "let ",
    "const ",
    "var ",
    "static ",
    "get ",
    "this ",
    "super ",
    "()",
    "[]",
    "{}",
    "(a)=>",
    "/a/",
    "//c\n",
    "/*c*/",
    "<T>",
    ": T",
    " as any",
    "a:",
    "$state",
    ".k",
    "$emit('e')",
    "$ext.n.m()",
    "$view.focus('v')",
    "Promise.all(",
    "Object.keys(",
    ".map(x => ",
    ".then(",
    "\u{e9}",
    "\u{1f600}",
    "\u{2028}",
    "import type A from 'a'\n",
    "<!--",
    "-->",
    "\\u0061",
    "private ",
    "abstract ",
    "implements ",
    "?: T",
    "!: T",
    "as const",
];

fn soup() -> impl Strategy<Value = String> {
    prop::collection::vec(select(PIECES), 0..60).prop_map(|pieces| pieces.concat())
}

/// Statements; what stands between « and » is type-only.
const STATEMENTS: &[&str] = &[
    "let a«: number» = 1",
    "let b«: { x: string;\n y?: (z: number) => void }» = { x: 's' }",
    "const c = a« as unknown as number»",
    "const d = (a« satisfies number»).e",
    "f«<string, Map<string, number[]>>»(a, b«!»)",
    "(function g(«this: Foo, »x«?: number», ...y«: any[]»)«: void» { return x })()",
    "const h = async «<T extends { a: 1 }>»(x«: T»)«: Promise<T>» => x",
    "const i = (x«: number», y = 2« as number»)«: x is number» => x",
    "class J«<T>» extends K«<T>»« implements L, M<T>» { x«: T» = 1; y«?: number»; static z«: string» = 's'; n«<U>»(u«: U»)«: void» {} get o()«: T» { return 1 } }",
    "$state.p = $state.q« as any»",
    "$state«!».r.s«!».push(1)",
    "await $ext.http.get«<Foo>»('u'« as string»)",
    "$emit('t', a«!»)",
    "for (const u of b« as number[]») $view.focus('v')",
    "for (let w«: number» = 0; w < 3; w++) a += w",
    "try { f() } catch (e«: unknown») { $log(e) }",
    "if (a« as boolean») b(); else c()",
    "const { k, l: [m] }«: { k: number; l: [string] }» = $state",
    "new Map«<string, number>»().set('x', 1)",
    "const n2 = «<T,>»(x«: T») => ({ x })",
    "return a« as T»",
    "a = b ? (c« as any») : d",
    "const o = { p«<T>»(q«: T»)«: T» { return q }, r: s« as t» }",
    "await Promise.all([1].map((x«: number»)«: Promise<any>» => $ext.a.b(x)))",
    "«interface N { a: number; b(c: string): void }»",
    "«type O<T> = { [K in keyof T]: T[K] extends infer U ? U : never }»",
    "«declare const $state: { [k: string]: any }»",
    "«declare function fn(a: string): void;»",
];

fn typed_program() -> impl Strategy<Value = String> {
    // without a `;` a declaration may be all that keeps two lines apart
    let separator = select(&[";\n", "; ", ";\n\n"][..]);
    prop::collection::vec((select(STATEMENTS), separator), 1..12)
        .prop_map(|parts| parts.into_iter().map(|(statement, end)| format!("{statement}{end}")).collect())
}

fn without_marks(program: &str) -> String {
    program.replace(['«', '»'], "")
}

fn without_types(program: &str) -> String {
    let mut plain = String::new();
    for part in program.split('«') {
        let kept = part.split_once('»').map_or(part, |(_, rest)| rest);
        plain.push_str(kept);
    }
    plain
}

/// The program's tokens, as far as white space and empty statements go.
fn squeezed(code: &str) -> String {
    code.chars().filter(|c| !c.is_whitespace() && *c != ';').collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_text_is_answered_without_a_panic(source in "\\PC{0,200}") {
        answered(&source)?;
    }

    #[test]
    fn any_soup_is_answered_without_a_panic(source in soup()) {
        answered(&source)?;
    }

    #[test]
    fn any_mutation_of_a_program_is_answered_without_a_panic(
        program in typed_program(), at in 0usize..2_000, piece in select(PIECES), cut in 0usize..6
    ) {
        let mut source: Vec<char> = without_marks(&program).chars().collect();
        let at = at % source.len();
        source.splice(at..(at + cut).min(source.len()), piece.chars());
        answered(&source.into_iter().collect::<String>())?;
    }

    #[test]
    fn a_typed_program_is_left_with_what_it_has_without_types(program in typed_program()) {
        let typed = without_marks(&program);
        let plain = without_types(&program);
        let found = understood(&typed);
        prop_assert_eq!(squeezed(&found.code), squeezed(&plain));
        prop_assert_eq!(found.code.len(), typed.len());
        let expected = understood(&plain);
        let names = |found: &super::Analysis<'_>| found.capabilities.iter().map(|c| (c.token.clone(), c.certain)).collect::<Vec<_>>();
        prop_assert_eq!(names(&found), names(&expected));
        prop_assert_eq!(found.suspend_mode, expected.suspend_mode);
    }

    #[test]
    fn what_erasing_leaves_is_plain_and_needs_the_same(source in soup()) {
        let Ok(first) = analyze(&source) else { return Ok(()) };
        let again = analyze(&first.code).unwrap();
        prop_assert_eq!(&again.code, &first.code);
        if first.unparsed.is_none() {
            prop_assert_eq!(again.capabilities, first.capabilities);
            prop_assert_eq!(again.suspend_mode, first.suspend_mode);
        }
    }
}

fn answered(source: &str) -> Result<(), TestCaseError> {
    let message = match analyze(source) {
        Ok(analysis) => {
            prop_assert_eq!(analysis.code.encode_utf16().count(), source.encode_utf16().count());
            prop_assert_eq!(analysis.code.len(), source.len());
            let last = place(source, source.len());
            for found in &analysis.capabilities {
                prop_assert!((found.line, found.column) <= last);
                prop_assert!(nexus_protocol::Capability::parse(&found.token).is_ok(), "{}", found.token);
            }
            prop_assert!(analysis.capabilities.is_sorted_by(|a, b| a.token < b.token));
            analysis.unparsed.map(|e| e.message).unwrap_or_default()
        }
        Err(error) => error.message,
    };
    prop_assert!(!message.contains("could not be analyzed"), "the parser panicked");
    Ok(())
}
