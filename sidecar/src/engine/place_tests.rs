//! Where errors stand, and what they say that they are about.

use serde_json::json;

use super::handler_tests::outcome;
use super::instance_tests::{context, on_engine_thread};
use super::*;

const ALL: &[&str] = &["state:read:*", "state:write:*", "events:emit:*", "view:update:*", "ext:*", "crypto:random"];

/// What is thrown there: message, and the place of its first frame.
fn thrown(i: &mut Instance, body: &str) -> (String, String) {
    let source = format!(
        "const user = {{a: {{}}, none: null}}, list = [1], nothing = null;\ntry {{\n{body}\n}} catch (e) {{ return [e.message, e.stack] }}"
    );
    let found = outcome(i, &source, context(json!({}), ALL));
    let stack = found[1].as_str().unwrap_or_else(|| panic!("{body}: {found}"));
    let place = stack.lines().find_map(|frame| frame.trim_end_matches(')').rsplit_once("handler.js:")).unwrap().1;
    (found[0].as_str().unwrap().to_owned(), place.to_owned())
}

#[test]
fn an_error_names_what_it_is_about() {
    on_engine_thread(|i| {
        let cases = [
            ("user.getName()", "user.getName is not a function", "3:6"),
            ("list[0]()", "list[0] is not a function", "3:1"),
            ("user\n  .a\n  .b(1,\n 2)", "user.a.b is not a function", "5:4"),
            ("user?.a.b()", "user?.a.b is not a function", "3:9"),
            ("user['get' + 'Name'](1)", "user['get' + 'Name'] is not a function", "3:1"),
            ("(() => user)().b()", "(...).b is not a function", "3:16"),
            ("nothing()", "nothing is not a function", "3:1"),
            ("user.a.b(...list)", "user.a.b is not a function", "3:8"),
            ("user.tag`x${1}`", "user.tag is not a function", "3:6"),
            ("new user.Thing()", "user.Thing is not a constructor", "3:5"),
            ("new user.Thing", "user.Thing is not a constructor", "3:5"),
            ("user['a  b']()", "user['a  b'] is not a function", "3:1"),
            ("user[`x ${1}`]()", "user[`x ${1}`] is not a function", "3:1"),
            ("user[typeof 1]()", "user[typeof 1] is not a function", "3:1"),
            ("user [ 1\n + 2 ] . b ()", "cannot read property 'b' of undefined", "4:10"),
            ("user . a\n . b ()", "user.a.b is not a function", "4:4"),
            ("(1)()", "not a function", "3:1"),
            ("list.map(1)", "not a function", "3:6"),
            ("user.a\u{e9}()", "user.a\u{e9} is not a function", "3:6"),
            ("Math.max(1);\nconst { x } = nothing;", "cannot destructure 'nothing' as it is null", "4:7"),
            (
                "Math.max(1);\nconst {\n x = '}',\n y } =\n user.none;",
                "cannot destructure 'user.none' as it is null",
                "4:7",
            ),
            ("let x; Math.max(1);\n({ x } = nothing);", "cannot destructure 'nothing' as it is null", "4:2"),
            ("Math.max(1);\nconst [x] = user.a.b;", "cannot destructure 'user.a.b' as it is undefined", "4:7"),
            ("const { a: { b: [c] } } = user;", "cannot destructure 'b' as it is undefined", "3:17"),
            ("const { none: { b } } = user;", "cannot destructure 'none' as it is null", "3:15"),
            ("(function f({ x }) {})();", "cannot destructure the argument as it is undefined", "3:13"),
            ("((a, [x]) => 1)(1, null);", "cannot destructure the argument as it is null", "3:6"),
            ("(({ x } = {}) => 1)(null);", "cannot destructure the argument as it is null", "3:3"),
            ("try { throw null } catch ({ x }) {}", "cannot destructure what was thrown as it is null", "3:27"),
            ("for (const { x } of [null]);", "cannot destructure an item of the list as it is null", "3:12"),
            ("const { x } = await nothing;", "cannot destructure 'nothing' as it is null", "3:7"),
            ("const { x } = (() => null)();", "cannot destructure null", "3:7"),
            ("const { x } = user.a.b ?? null;", "cannot destructure 'user.a.b' as it is null", "3:7"),
            ("for (const x of user.none);", "user.none is not iterable", "3:22"),
            ("const [x] = user;", "user is not iterable", "3:7"),
            ("Math.max(...nothing)", "nothing is not iterable", "3:13"),
            ("[...user.none]", "user.none is not iterable", "3:10"),
            ("user['a\\0b'].c", "cannot read property 'c' of undefined", "3:14"),
        ];
        for (body, message, place) in cases {
            assert_eq!(thrown(i, body), (message.to_owned(), place.to_owned()), "{body}");
        }
    });
}

/// What stands before it is innocent, and has a place and a name that the error must not take.
#[test]
fn an_error_is_told_where_and_of_what_it_is() {
    on_engine_thread(|i| {
        let call_super = "'this' is there once 'super()' has been called: call it first";
        let cases = [
            ("[...null]", "null is not iterable", "4:5"),
            ("[...5]", "value is not iterable", "4:5"),
            ("[1,\n ...null]", "null is not iterable", "5:5"),
            ("Math.max(1,\n ...null)", "null is not iterable", "5:5"),
            ("[...user.none]", "user.none is not iterable", "4:10"),
            ("+1n", "bigint argument with unary +", "4:2"),
            ("with (null) 1", "Cannot convert undefined or null to object", "4:6"),
            (
                "{ using a = 5; }",
                "what 'using' keeps must be an object with a method [Symbol.dispose], null or undefined",
                "4:13",
            ),
            ("using a = {}", "what 'using' keeps has no method [Symbol.dispose]", "4:11"),
            (
                "{\n await using a = {};\n}",
                "what 'using' keeps has no method [Symbol.dispose], and none [Symbol.asyncDispose]",
                "5:18",
            ),
            (
                "for (using a of [5]) ;",
                "what 'using' keeps must be an object with a method [Symbol.dispose], null or undefined",
                "4:12",
            ),
            ("class A {}\n A()", "A is a class: it is called with 'new'", "5:2"),
            (
                "class A { constructor() { this.x = 1 } }\n A.call({})",
                "this is a class: it is called with 'new'",
                "5:4",
            ),
            (
                "class A {} class B extends A {}\n const o = { B };\n o.B(1)",
                "o.B is a class: it is called with 'new'",
                "6:4",
            ),
            ("class A {}\n list.map(A)", "this is a class: it is called with 'new'", "5:7"),
            ("class A {} class B extends A { constructor() {} }\n new B()", call_super, "4:43"),
            ("class A {} class B extends A { constructor() { this.x = 1 } }\n new B()", call_super, "4:48"),
            (
                "class A {} class B extends A { constructor() { return 1 } }\n new B()",
                "derived class constructor must return an object or undefined",
                "4:43",
            ),
            ("user.none.a ||= 1", "cannot read property 'a' of null", "4:11"),
            ("user.none[0] ||= 1", "cannot read property '0' of null", "4:6"),
            ("user.none[list] ??= 1", "cannot read a property of null", "4:11"),
            ("user.none['a' + 1]++", "cannot read property 'a1' of null", "4:17"),
            ("for await (const x of user) ;", "value is not iterable", "4:23"),
            ("for await (const x of user.none) ;", "user.none is not iterable", "4:28"),
            (
                "await import('fs')",
                "a handler cannot import 'fs': put the code into the handler, or call an extension, $ext.name.method()",
                "4:1",
            ),
        ];
        for (body, message, place) in cases {
            let body = format!("list.slice(1);\n{body}");
            assert_eq!(thrown(i, &body), (message.to_owned(), place.to_owned()), "{body}");
        }
    });
}

#[test]
fn an_error_stands_where_it_is_made() {
    on_engine_thread(|i| {
        let classes = "class A extends Error { constructor(s) { super(s) } }\nclass B extends A {}\nclass C extends B { constructor() { super('c'); this.x = 1 } }\n";
        let cases = [
            ("throw new A('x')", "6:11"),
            ("throw new B('x')", "6:11"),
            ("function f() {\n throw new C() }\n f()", "7:12"),
            ("throw new (class extends TypeError {})('x')", "6:11"),
            ("throw new (class extends AggregateError { constructor() { super([1]) } })()", "6:11"),
            ("throw Reflect.construct(Error, ['x'], C)", "6:15"),
            ("throw Error('x')", "6:7"),
            ("const made = new C();\nthrow made", "6:18"),
        ];
        for (body, place) in cases {
            // two lines of the frame, three of the classes
            let source = format!("{classes}{}", body);
            assert_eq!(thrown(i, &source).1, place, "{body}");
        }
    });
}
