//! Text that is meant to bring the analysis down.

use nexus_protocol::message::SuspendMode;

use super::super::Why;
use super::super::nesting::{MAX_HEIGHT, MAX_TOKENS, Refusal};
use super::{analyze, extent, refused, understood};

/// What nests, or chains: opening, middle, closing.
const NESTS: &[(&str, &str, &str)] = &[
    ("(", "1", ")"),
    ("[", "1", "]"),
    ("({a:", "1", "})"),
    ("{", "1", "}"),
    ("`${", "1", "}`"),
    ("a`${", "1", "}`"),
    ("a?b:", "1", ""),
    ("a?", "1", ":b"),
    ("!", "1", ""),
    ("- ", "1", ""),
    ("++", "a", ""),
    ("typeof ", "1", ""),
    ("await ", "1", ""),
    ("await\n", "1", ""),
    ("void ", "1", ""),
    ("yield ", "1", ""),
    ("a=>", "1", ""),
    ("(a)=>", "1", ""),
    ("async(a)=>", "1", ""),
    ("f((a)=>{", "1", "})"),
    ("a?(b)=>{", "1", "}:c"),
    ("a ? (b) : c => ", "1", ""),
    ("a?((b)=>", "1", "):c"),
    ("(a=", "1", ")=>1"),
    ("({a=", "1", "})=>1"),
    ("({a:", "b", "})=>1"),
    ("<T>(", "1", ")"),
    ("<T,>(a)=>", "1", ""),
    ("f<T>(", "1", ")"),
    ("f<", "T", ">(1)"),
    ("a<", "1", ""),
    ("a>>", "1", ""),
    ("new ", "a", ""),
    ("new new ", "a", "()()"),
    ("new (", "a", ")"),
    ("if(a)", "1", ""),
    ("if(a)\n", "1", ""),
    ("if(a);else ", "1", ""),
    ("if(a)b\nelse ", "1", ""),
    ("if(a){}else ", "1", ""),
    ("if(a){", "1", "}else{}"),
    ("for(;;)", "1", ""),
    ("for(a of ", "b", ");"),
    ("while(1)", "1", ""),
    ("with(a)", "1", ""),
    ("do ", "1;", " while(1);"),
    ("do ", "1", "\nwhile(1)"),
    ("a:", "1", ""),
    ("a:\n", "1", ""),
    ("try{", "1", "}catch{}"),
    ("switch(a){case 1:", "1", "}"),
    ("function f(){", "1", "}"),
    ("(function(){", "1", "})"),
    ("function f(a=", "1", "){}"),
    ("(class{m(){", "1", "}})"),
    ("(class{p=", "1", "})"),
    ("class a extends ", "b", "{}"),
    ("class A{static{", "1", "}}"),
    ("({get a(){", "1", "}})"),
    ("1+", "1", ""),
    ("2**", "1", ""),
    ("a&&", "1", ""),
    ("a&&\n", "1", ""),
    ("a??", "1", ""),
    ("a in ", "1", ""),
    ("a=", "1", ""),
    ("", "a", ".a"),
    ("", "a", "?.a"),
    ("", "a", "[1]"),
    ("", "a", "()"),
    ("", "a", "``"),
    ("", "a", "!"),
    ("", "a", " as any"),
    ("", "a", " satisfies T"),
    ("", "1.", ".a"),
    ("(", "a", " as any)"),
    ("a[", "1", "]"),
    ("f(", "1", ")"),
    ("$ext.a.b(", "1", ")"),
    ("a.map(x=>", "1", ")"),
    ("(()=>{return ", "1", "})()"),
    ("[...", "a", "]"),
    ("[", "a", "]=1"),
    ("import(", "a", ")"),
    ("@a ", "class A{}", ""),
    ("super(", "1", ")"),
    ("1,", "1", ""),
    (" static \n", "1", ""),
    ("a<b>(c);\n", "", ""),
];

/// The same for types, behind `let x:`.
const TYPES: &[(&str, &str, &str)] = &[
    ("(", "T", ")"),
    ("[", "T", "]"),
    ("A<", "T", ">"),
    ("{a:", "T", "}"),
    ("()=>", "T", ""),
    ("(a: ", "T", ")=>T"),
    ("keyof ", "T", ""),
    ("A extends B?C:", "T", ""),
    ("A extends ", "T", "?B:C"),
    ("A extends infer B extends ", "T", "?C:D"),
    ("`${", "T", "}`"),
    ("", "T", "[]"),
    ("", "T", "[a]"),
    ("", "T", ".a"),
    ("", "T", "|T"),
    ("", "T", "&T"),
    ("typeof a", "", ".a"),
    ("this is ", "T", ""),
    ("()]", "T", ")"),
    ("() b ", "T", ""),
    ("();\n", "T", ""),
];

fn shapes() -> impl Iterator<Item = (&'static str, &'static str, &'static str, &'static str)> {
    let code = NESTS.iter().map(|(open, middle, close)| ("", *open, *middle, *close));
    code.chain(TYPES.iter().map(|(open, middle, close)| ("let x:", *open, *middle, *close)))
}

fn nested(shape: (&str, &str, &str, &str), depth: usize) -> String {
    let (head, open, middle, close) = shape;
    format!("{head}{}{middle}{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn what_has_more_tokens_than_there_is_stack_for_is_left_to_quickjs() {
    let tokens = |count: u32| "a;".repeat(count as usize / 2);
    assert_eq!(analyze(&tokens(MAX_TOKENS)).unwrap().unparsed, None);
    let source = tokens(MAX_TOKENS) + "\n$ext.a.b()";
    let unparsed = analyze(&source).unwrap();
    assert_eq!(unparsed.unparsed.unwrap().line, 2);
    assert_eq!((unparsed.suspend_mode, unparsed.why), (SuspendMode::Stack, Why::Unread));
}

#[test]
fn a_hundred_thousand_levels_of_anything_do_no_harm() {
    for shape in shapes() {
        let _ = analyze(&nested(shape, 100_000));
    }
}

#[test]
fn the_deepest_text_that_is_parsed_fits_its_stack() {
    for shape in shapes() {
        let fits = |depth: &usize| extent(&nested(shape, *depth)).is_ok();
        let mut depth = 1;
        let mut step = 1 << 15;
        while step > 0 {
            depth += if fits(&(depth + step)) { step } else { 0 };
            step /= 2;
        }
        let _ = analyze(&nested(shape, depth.min(20_000)));
    }
}

#[test]
fn what_is_too_deep_says_so_in_its_place() {
    let error = refused(&format!("let a = 1;\n{}", "(".repeat(100_000)));
    assert_eq!((error.line, error.message.as_str()), (2, "the handler is nested too deeply"));
    assert!(error.column > 1_000);
    // whatever stands there
    for (head, around) in [("return ", "await "), ("return await ", "await ("), ("return ", "(await ")] {
        let error = refused(&format!("{head}{}", around.repeat(20_000)));
        let told = [
            "the handler is nested too deeply",
            "too many arrow functions, comparisons or modifiers within one another",
        ];
        assert!(told.contains(&&*error.message), "{head}{around}: {}", error.message);
    }
}

#[test]
fn guesses_of_the_typescript_grammar_are_bounded() {
    let error = refused(&"a<".repeat(5_000));
    assert!(error.message.contains("too many"), "{}", error.message);
}

#[test]
fn long_handlers_are_not_deep_ones() {
    for line in [
        "const a = b.c.d(e => f[g] + h * 2)\n",
        "if (a < b) { c() } else if (d) e()\n",
        "f(a, { b: c ? d : e, g: [1, 2, 3] });\n",
        "for (let i = 0; i < 3; i++) { $state.a += i }\n",
        "while (a) { if (b) break; else continue }\n",
        "const { a, b: [c] } = await $ext.http.get(`/a/${b}/c`)\n",
        "function f(a: number, b?: string): void { return g<T>(a as any) }\n",
        "class A { private x: number = 1; m<T>(a: T): T { return a } }\n",
        "a = (b / c) / d + /[/(]/.exec(e)[0]\n",
        "switch (a) { case 1: b(); break; default: c() }\n",
        "try { a() } catch { b() } finally { c() }\n",
        "label: for (const x of y) continue label\n",
        "// it's a (comment\n",
        "a = 'it\\'s (a' + \"[\" + `{`\n",
        "export_ = async () => { await b; return { c } }\n",
    ] {
        let extent = extent(&line.repeat(20_000)).unwrap();
        assert!(extent.height < 300, "{line}{extent:?}");
    }
    let list = format!("return [{}]", "{ a: 1, b: [2, 'c'], d: x ? y : z },\n".repeat(10_000));
    assert!(understood(&list).capabilities.is_empty());
    let sum = format!("return {}1", "'a' +\n".repeat(10_000));
    assert!(understood(&sum).capabilities.is_empty());
}

#[test]
fn slashes_are_read_as_the_parser_reads_them() {
    // each hides or shows a bracket to whoever gets it wrong
    for (source, depth) in [
        ("a = b / c; (1)", 1),
        ("a = /(/", 0),
        ("if (a) /((/.test(b)", 1),
        ("(a) / (b)", 1),
        ("a++ / b", 0),
        ("return /(/", 0),
        ("a = b ? /(/ : /[/(]/", 0),
        ("x.if (a) / (b) / 1", 1),
        ("a = [] / (1)", 1),
        ("a = `${ /`(/ }`", 1),
        ("a // (((\n/* ((( */", 0),
        ("'\\'(' + \"\\\"(\"", 0),
        ("a = 1 / 2 / (3)", 1),
        ("typeof /(/", 0),
        ("/\\/(/", 0),
    ] {
        let brackets = extent(source).unwrap().height / 8;
        assert!(brackets >= depth && brackets <= depth + 3, "{source}: {brackets}");
    }
    assert!(matches!(extent("if (a) {}\n/(/.test(b)"), Err(Refusal::Ambiguous(10))));
    assert!(analyze("if (a) {}\n/(/.test(b)").unwrap().unparsed.is_some());
    assert!(understood("if (a) {}\n/b/.test(c)").unparsed.is_none());
}

#[test]
fn a_height_is_never_beyond_its_bound() {
    for shape in shapes() {
        for depth in [1, 10, 100, 1_000, 10_000] {
            if let Ok(extent) = extent(&nested(shape, depth)) {
                assert!(extent.height <= MAX_HEIGHT);
            }
        }
    }
}

#[test]
fn odd_text_is_no_trouble() {
    for source in [
        "\0",
        "\u{feff}return 1",
        "\u{2028}\u{2029}",
        "#!/bin/sh",
        "`${",
        "'\\",
        "/[",
        "/*",
        "<!--",
        "-->",
        "\\u{",
        "a\\u",
        "1..",
        "0x",
        "1e+",
        "@",
        "#",
        "?.",
        "${",
        "}`",
        "\r\r\n",
        "\u{1f600}",
        "/\u{2028}/",
        "'\u{2028}'",
        "a\u{a0}/\u{3000}b",
        "import",
        "import type",
        "import type a",
        "import type { a } from 'b",
        "async",
        "await",
        "let",
        "enum",
        "declare",
        "type",
        "interface",
        "class A { static",
        "return",
        "(",
        ")",
        "({",
        "=>",
        "a =>",
        "\u{200b}",
        "💩: 1",
        "\u{fffd}",
    ] {
        let _ = analyze(source);
    }
}
