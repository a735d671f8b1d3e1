//! Handlers that people get wrong, and what check and a run tell them.

use nexus_protocol::ErrorCode;
use nexus_protocol::message::Status;
use nexus_tests::run::listening;
use nexus_tests::{Options, Run};
use serde_json::json;

const AWAIT: &str = "`await` is only for async functions: write `async` before the function that it stands in";
const IMPORT: &str =
    "a handler cannot import modules: put the code into the handler, or call an extension, `$ext.name.method()`";
const EXPORT: &str = "a handler cannot export: leave `export` out, and `return` the result";
const CODE: &str = "needs generated code, and types in a handler are only erased";

#[test]
fn what_does_not_compile_is_told_with_what_to_do_and_where() {
    let (_w, _s, mut client) = listening(&Options::new());
    for (source, message, at) in [
        ("import axios from 'axios'\nreturn axios", IMPORT, (1, 1)),
        ("const a = 1\nimport { b } from './b'", IMPORT, (2, 1)),
        ("export default async () => 1", EXPORT, (1, 1)),
        ("const handler = () => 1\nexport { handler }", EXPORT, (2, 1)),
        ("function load(id) {\n  const r = await $ext.http.get(id)\n  return r\n}", AWAIT, (2, 13)),
        ("return $args.map(x => await $ext.a.b(x))", AWAIT, (1, 23)),
        ("'use strict'\nwith ($state.a) { b = 1 }", "`with` is not for strict code", (2, 1)),
        ("const a = 1\nconst a = 2", "`a` is declared twice", (2, 7)),
        ("function f(a) { let a = 1 }", "`a` is declared twice", (1, 21)),
        ("if ($args) {\n  return 1", "Expected `}` but the handler ends", (2, 11)),
        ("if ($args) {\n  return 1 }\n}", "this `}` closes nothing", (3, 1)),
        ("return f(1, 2", "Expected `,` or `)` but the handler ends", (1, 14)),
        ("return {\n  a: 1\n  b: 2\n}", "Expected `,` or `}` but found `Identifier`", (3, 3)),
        ("const name = 'Ada", "Unterminated string", (1, 14)),
        ("const a = ", "Unexpected end of the handler", (1, 11)),
        ("enum Color { Red }\nreturn Color.Red", CODE, (1, 1)),
        ("class A {\n  constructor(private x: string) {}\n}", CODE, (2, 15)),
        ("let x: Map<string = 1", "Expected", (1, 19)),
        ("let a; let a", "`a` is declared twice", (1, 12)),
        ("#", "Unexpected end of the handler", (1, 2)),
        ("let await = 1", "`await` cannot be a name", (1, 5)),
        ("class A {\n  constructor() {}\n  constructor() {}\n}", "a class has one `constructor`", (3, 3)),
        ("'use strict'; let x\ndelete x", "strict code cannot delete a variable", (2, 1)),
        ("break", "`break` is only for loops and `switch`", (1, 1)),
        ("if ($args) { continue }", "`continue` is only for loops", (1, 14)),
        ("a: for (;;) { break b }", "nothing around this has the label `b`", (1, 21)),
        ("#x in {}", "no class around `#x` declares it", (1, 1)),
        ("class A { #x }\nreturn $args.#y", "no class around `#y` declares it", (2, 14)),
        ("1_000_", "a `_` in a number stands between two of its digits", (1, 6)),
        ("return 1_000_", "a `_` in a number stands between two of its digits", (1, 13)),
    ] {
        let of_run = client.run(source).error().clone();
        for error in [client.check(source).unwrap_err(), client.precompile(source).unwrap_err(), of_run] {
            assert_eq!(
                (error.code, error.name.as_deref()),
                (ErrorCode::CompilationError, Some("SyntaxError")),
                "{source}"
            );
            assert!(error.message.contains(message), "{source}: {}", error.message);
            assert_eq!(error.location.as_ref().map(|at| (at.line, at.column)), Some(at), "{source}: {}", error.message);
        }
    }
}

/// What is deep, and no mistake: it runs, or it is said to be too deep.
#[test]
fn what_is_deep_is_taken_or_told_as_deep() {
    let (_w, _s, mut client) = listening(&Options::new());
    let deep = |head: &str, open: &str, inner: &str, close: &str, tail: &str, depth: usize| {
        format!("{head}{}{inner}{}{tail}", open.repeat(depth), close.repeat(depth))
    };
    for depth in [200, 256, 300, 500, 999, 1_000, 3_000] {
        for source in [
            deep("const ", "{ a: ", "b", " = {}}", " = {}; return 1", depth),
            deep("const ", "[", "b", " = []]", " = []; return 1", depth),
            deep("await 1; return ", "await ", "1", "", "", depth),
            deep("return ", "(await ", "1", ")", "", depth),
        ] {
            let segment = client.run(&*source);
            match segment.error.as_ref() {
                None => assert_eq!(segment.value(), json!(1)),
                Some(error) => assert!(
                    error.message.contains("nested too deeply") || error.message.contains("within one another"),
                    "{depth} levels of {:?}: {}",
                    &source[..20],
                    error.message
                ),
            }
            assert!(
                depth > 300 || segment.error.is_none(),
                "{depth} levels of {:?}: {:?}",
                &source[..20],
                segment.error
            );
        }
    }
}

#[test]
fn what_compiles_and_does_not_do_what_it_looks_like_is_warned_about() {
    let (_w, _s, mut client) = listening(&Options::new());
    let promise = |call: &str, at: &str, word: &str, of: &str| {
        format!("`{call}` at {at} is a promise here, since the handler mentions `{word}` at {of}; await it")
    };
    for (source, style, warnings) in [
        (
            "const user = await $ext.db.get(1)\nif ($ext.auth.allowed(user)) $state.user = user",
            "`await` at 1:14",
            vec![promise("$ext.auth.allowed()", "2:5", "await", "1:14")],
        ),
        (
            "const f = async () => 1\nreturn $ext.db.list().map(x => x.id)",
            "`async` at 1:11",
            vec![promise("$ext.db.list()", "2:8", "async", "1:11")],
        ),
        (
            "const { id } = $ext.db.get(1)\nreturn await $ext.db.save(id)",
            "`await` at 2:8",
            vec![promise("$ext.db.get()", "1:16", "await", "2:8")],
        ),
        (
            "const user = $ext.db.get(1)\nreturn user.name",
            "calls extensions, and nothing in it mentions promises",
            vec![],
        ),
        (
            "return eval('1 + 1')",
            "calls no extension",
            vec!["`eval` throws here: no text becomes code; write the code into the handler itself".to_owned()],
        ),
        (
            "if (/a(b)/.test($args)) return RegExp.$1",
            "calls no extension",
            vec![
                "`RegExp` does not keep what was matched last, and has no such property: take it from what `match` or `exec` gives"
                    .to_owned(),
            ],
        ),
    ] {
        let found = client.check(source).unwrap();
        assert_eq!(found.reason, style, "{source}");
        assert_eq!(found.warnings.into_iter().map(|(message, ..)| message).collect::<Vec<_>>(), warnings, "{source}");
    }
}

#[test]
fn a_return_may_be_the_last_word() {
    let (_w, _s, mut client) = listening(&Options::new());
    for source in ["return", "if ($args) return", "return // why", "return /* why */", "$log(1)\n  return  ", "return;"]
    {
        let segment = client.run(source);
        assert_eq!((segment.status, segment.value()), (Status::Success, json!(null)), "{source}");
    }
}

#[test]
fn what_is_javascript_means_what_it_means_there() {
    let (_w, _s, mut client) = listening(&Options::new());
    for (source, value) in [
        ("const f = (...all) => all, a = 1; return f(a < Math.PI, Math.E > (0))", json!([true, true])),
        ("const f = (...all) => all, a = 1, b = [2]; return f(a < b[0], b[0] > (0))", json!([true, true])),
        ("const f = (...all) => all, a = 1, b = 2; return f(a < typeof b, b > (0))", json!([false, true])),
        ("const i = 1, lo = 0, hi = 3; return i<lo>(hi)", json!(false)),
        ("let global = 1\nglobal\n{ return 5 }", json!(5)),
        ("import type { A } from 'a'\nwith ({ b: 2 }) return b", json!(2)),
        ("let a: number = 1; const f = <T>(x: T) => x; return f<number>(a)", json!(1)),
    ] {
        assert_eq!(client.run(source).value(), value, "{source}");
    }
}

#[test]
fn more_tokens_than_are_analyzed_are_a_limit_for_what_has_types() {
    let (_w, _s, mut client) = listening(&Options::new());
    let plain = format!("let a = 0;{}return a", "a++;".repeat(180_000));
    assert_eq!(client.run(Run::source(&plain).timeout_ms(60_000)).value(), json!(180_000));
    let error = client.run(Run::source(plain.replacen("let a", "let a: number", 1)).timeout_ms(60_000)).error().clone();
    assert_eq!(error.code, ErrorCode::ResourceLimit, "{}", error.message);
    assert!(error.message.contains("maxSourceTokens"), "{}", error.message);
}
