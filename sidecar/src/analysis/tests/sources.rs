//! Sources of any size, each made to take as long as it can in one of the steps of the analysis. Also read by the bench that
//! publishes what the worst of them takes.

/// What a source begins with, what is repeated (`~` is a number of its own), and what it ends with.
const REPEATED: &[(&str, &str, &str)] = &[
    // statements, names, scopes
    ("", "a;", ""),
    ("", "a\n", ""),
    ("", ";", ""),
    ("", "let a~;", ""),
    ("let z", ",a~", ";"),
    ("var z", ",a~=1", ";"),
    ("const z=1", ",a~=z", ";"),
    ("", "var a~=a~;", ""),
    ("", "const a~=()=>a~;", ""),
    ("", "function f~(){}", ""),
    ("", "function f~(a,b,c){var d;let e;return f~(a)}", ""),
    ("", "async function f~(){return await f~()}", ""),
    ("", "{function f(){}}", ""),
    ("", "{var a~;}", ""),
    ("", "{let a;{let a;{let a}}}", ""),
    ("", "{const a~=$ext.x.y~;a~()}", ""),
    ("let a;", "{let a=1;a}", ""),
    ("function f(", "a~,", "z){}"),
    ("(", "a~,", "z)=>1"),
    ("switch(a){", "case ~:let a~;", "}"),
    ("switch(a){", "case ~:", "}"),
    ("", "a~:", ""),
    ("", "a~:;", ""),
    ("", "for(let i~=0;i~<1;i~++)i~;", ""),
    ("", "for(const a~ of b);", ""),
    ("", "for(const a~ in $state);", ""),
    ("", "try{}catch(e~){}", ""),
    ("", "if(a);else;", ""),
    ("", "while(a)break;", ""),
    ("", "do;while(a);", ""),
    ("", "with(a)b;", ""),
    ("", "label~:for(;;)break label~;", ""),
    // expressions and chains
    ("a", "+a", ""),
    ("a", ",a~", ""),
    ("", "a.b.c.d.e;", ""),
    ("", "a()()()();", ""),
    ("", "a.b().c().d();", ""),
    ("", "a[b][c][d];", ""),
    ("", "a?.b?.[c]?.(d);", ""),
    ("", "a!.b!.c!;", ""),
    ("", "a`${b}`;", ""),
    ("", "new a(b);", ""),
    ("", "a=b=c=d;", ""),
    ("", "a?b:c;", ""),
    ("", "(a,b,c);", ""),
    ("[", "a~,", "]"),
    ("[", ",", "]"),
    ("[", "...a,", "]"),
    ("({", "a~:1,", "})"),
    ("({", "a~,", "})"),
    ("({", "a~(){},", "})"),
    ("({", "get a~(){return 1},", "})"),
    ("({", "[a~]:1,", "})"),
    ("({", "...a,", "})"),
    ("({", "'a~':1,", "})"),
    ("f(", "a,", ")"),
    ("f(", "()=>a,", ")"),
    ("f(", "x=>x,", ")"),
    ("f(", "function(){},", ")"),
    // patterns
    ("let{", "a~,", "}=b"),
    ("let[", "a~,", "]=b"),
    ("let{", "a~=1,", "}=b"),
    ("let{", "a~:{b~},", "}=c"),
    ("({", "a~,", "}=b)"),
    ("[", "a~,", "]=b"),
    ("const{", "a~,", "}=$state"),
    ("const{", "a~,", "}=$ext"),
    ("const{", "a~:{b},", "}=$ext"),
    ("({", "a~,", "}=$state)"),
    ("({", "a~,", "}=$ext)"),
    // classes
    ("class A{", "#a~;", "}"),
    ("class A{", "#a~;m~(){this.#a~}", "}"),
    ("class A{", "a~=1;", "}"),
    ("class A{", "a~(){}", "}"),
    ("class A{", "static{}", "}"),
    ("class A{", "static{var a~;}", "}"),
    ("class A{", "get a(){return 1}", "}"),
    ("class A{", "[a~](){}", "}"),
    ("class A{m(){", "this.#a;", "}}"),
    ("", "class A~{}", ""),
    ("", "class A~ extends B{}", ""),
    ("", "(class{#a;static #b(){}});", ""),
    // literals, comments, white space
    ("", "'a~';", ""),
    ("'", "a", "'"),
    ("'", "\\x41", "'"),
    ("'", "\\u{41}", "'"),
    ("`", "a", "`"),
    ("`", "${a}", "`"),
    ("`", "\n", "`"),
    ("`", "\\`", "`"),
    ("", "`${a}`;", ""),
    ("", "/a~/;", ""),
    ("", "/[/]/g;", ""),
    ("/", "a", "/"),
    ("/", "(?:a)", "/"),
    ("", "1~;", ""),
    ("", "0x1;", ""),
    ("", "1n;", ""),
    ("", "1_0.0e1;", ""),
    ("", "9", ""),
    ("", "//a\n", ""),
    ("", "/**/", ""),
    ("", "/*\n*/", ""),
    ("/*", "*", "*/"),
    ("//", "/", ""),
    ("", "<!--\n", ""),
    ("", "-->\n", ""),
    ("", " ", ""),
    ("", "\n", ""),
    ("", "\r\n", ""),
    ("", "a;\r\n", ""),
    ("", "a;\u{2028}", ""),
    ("", "\u{feff}", ""),
    ("", "\u{a0}a;", ""),
    ("", "\u{e9}~;", ""),
    ("", "'\u{1f600}';", ""),
    ("", "\\u0061~;", ""),
    ("a", "b", ""),
    ("", "\u{4e2d}", ""),
    // slashes that only a parser could read
    ("", "a++/b;", ""),
    ("", "a++/b", ""),
    ("", "a++/\"[\",", ""),
    ("", "a++/'[';", ""),
    ("", "a++/`[`;", ""),
    ("", "a=/\"[\",", ""),
    ("", "a++/\"[\"\n", ""),
    ("", "a!/\"[\",", ""),
    ("", "{}/\"[\",", ""),
    ("", "a++/\"\\\\[\",", ""),
    ("", "a>b/\"[\",", ""),
    ("", "await/\"[\",", ""),
    // TypeScript
    ("", "import type A~ from 'a';\n", ""),
    ("", "import type{A~}from'a';", ""),
    ("", "import type A from 'a';", "x;"),
    ("", "import a~ from 'a';", ""),
    ("import type{", "A~,", "}from'a';"),
    ("", "let a~:T;", ""),
    ("", "let a~:T=1 as T;", ""),
    ("", "let a~!:T;", ""),
    ("", "type A~=B;", ""),
    ("", "type A~=B\n", ""),
    ("type A=B", "|C~", ";"),
    ("type A=", "{a~:B}&", "C;"),
    ("type A={", "a~:B;", "};"),
    ("type A=[", "B,", "];"),
    ("type A<", "T~,", "U>=B;"),
    ("function f<", "T~,", "U>(){}"),
    ("class A<", "T~,", "U>{}"),
    ("class A implements ", "B~,", "C{}"),
    ("", "interface A~{a:B}", ""),
    ("interface A{", "a~:B;", "}"),
    ("", "a as T;", ""),
    ("", "a as any as T;\n", ""),
    ("", "a as T\n(b)\n", ""),
    ("", "a satisfies T;", ""),
    ("", "a!;", ""),
    ("", "a!\n", ""),
    ("", "f<T>();", ""),
    ("", "f<T,U>(a);", ""),
    ("", "f(a<b,c>(d));", ""),
    ("let b,c;", "f(a<b,c>(d));", ""),
    ("f<", "T,", "U>()"),
    ("", "(a:T):U=>1;", ""),
    ("", "<T\n>(a:T)=>1;", ""),
    ("", "(a):{a:\nb}=>1;", ""),
    ("", "(a)\n:T\n=>1;", ""),
    ("f(", "(a:T)=>a,", ")"),
    ("", "function f~(this:T,a?:U):V{}", ""),
    ("", "function f(a:T):U;", "function f(a){}"),
    ("", "declare let a~;", ""),
    ("", "declare function f~():T;", ""),
    ("class A{", "private a~:T;", "}"),
    ("class A{", "private readonly a~:T=1;", "}"),
    ("class A{", "private static override a~?:T\n", "}"),
    ("class A{", "declare a~:T;", "}"),
    ("class A{", "[a:string]:T;", "}"),
    ("abstract class A{", "abstract a~():T;", "}"),
    ("", "abstract class A~{}", ""),
    ("", "enum A~{}", ""),
    ("enum A{", "a~,", "}"),
    ("", "namespace A~{}", ""),
    ("", "@a class A~{}", ""),
    ("class A{", "@a b~;", "}"),
    ("class A{constructor(", "private a~:T,", "){}}"),
    ("let a:", "B|", "C"),
    ("let a:", "B\n", ""),
    ("let a:(", "b~:T,", ")=>U"),
    // modifiers that are looked through again and again
    ("", "async ", ""),
    ("", "declare ", ""),
    ("", "abstract\n", ""),
    ("class A{", "static ", "}"),
    ("class A{", "static\n", "}"),
    ("class A{", "public static a~;", "}"),
    ("", "a<", ""),
    ("", "a<b;", ""),
    ("", "a<b>c;", ""),
    ("", "a=>", ""),
    ("", "(a)=>{};", ""),
    ("", "async(a)=>{};", ""),
    ("", "a?(b):c=>d;", ""),
    // mistakes
    ("", ")", ""),
    ("", "}", ""),
    ("", "let a:()];", ""),
    ("", "let a:() b ;", ""),
    ("", "const a~;", ""),
    ("", "let let;", ""),
    ("", "a b", ""),
    ("", "return;", ""),
    ("", "break;", ""),
    ("", "yield;", ""),
    ("", "super();", ""),
    ("", "new.target;", ""),
    ("", "import.meta;", ""),
    ("", "delete a;", ""),
    ("", "1=1;", ""),
    ("", "a~?.b=1;", ""),
    ("", "({a=1});", ""),
    ("", "\u{0}", ""),
    ("", "#", ""),
    ("", "@", ""),
    ("", "'a\n", ""),
    ("", "\\", ""),
    // what a handler asks for
    ("", "$state.a~;", ""),
    ("", "$state.a~=1;", ""),
    ("", "$state.a.b.c.d=1;", ""),
    ("", "$state[a~];", ""),
    ("", "$state['a~'];", ""),
    ("", "$state.get('a~');", ""),
    ("", "$state.a.push(1);", ""),
    ("", "delete $state.a~;", ""),
    ("", "'a~' in $state;", ""),
    ("Object.assign($state,{", "a~:1,", "})"),
    ("Object.assign($state,", "{a},", ")"),
    ("", "Object.keys($state);", ""),
    ("", "$emit('a~');", ""),
    ("", "$view.focus('a~');", ""),
    ("", "$ext.a~.b();", ""),
    ("", "await $ext.a.b~();", ""),
    ("", "$ext[a~][b]();", ""),
    ("await Promise.all([", "$ext.a.b(),", "])"),
    ("", "this.$ext;", ""),
    ("", "a.$state.b;", ""),
    ("const e=$ext.a;", "e.b~();", ""),
    ("const e=$ext.a.b;", "e;", ""),
    ("", "const e~=$ext.a,f~=e~.b;", ""),
    ("", "const f~=()=>$ext.a.b();f~();", ""),
    ("const f=()=>$ext.a.b();", "f();", ""),
    ("const f=()=>$ext.a.b();", "const g~=()=>f();", ""),
    ("", "globalThis.$state.a~;", ""),
    ("", "new Proxy(a,{get(){return 1}});", ""),
    ("", "a.map(x=>$ext.a.b(x));", ""),
    ("const l=[];", "await Promise.all(l);", ""),
];

/// A source of about that size.
pub fn repeated(shape: &(&str, &str, &str), bytes: usize) -> String {
    let (head, unit, tail) = shape;
    let mut out = String::with_capacity(bytes + 64);
    out.push_str(head);
    let mut n = 0usize;
    while out.len() + unit.len() + tail.len() < bytes {
        for part in unit.split_inclusive('~') {
            match part.strip_suffix('~') {
                None => out.push_str(part),
                Some(before) => {
                    out.push_str(before);
                    number(n, &mut out);
                }
            }
        }
        n += 1;
    }
    out.push_str(tail);
    out
}

/// In capitals, so that it can stand anywhere in a name and makes no word of the language.
fn number(mut n: usize, out: &mut String) {
    loop {
        out.push(char::from(b'A' + (n % 26) as u8));
        n /= 26;
        if n == 0 {
            return;
        }
    }
}

/// What a level begins and ends with, how often it is nested, what stands in the middle and is repeated there.
const NESTED: &[(&str, usize, &str, &str, &str)] = &[
    ("const ", 900, "{a:", "b~,", "}=$state"),
    ("const ", 900, "{a:", "b~,", "}=$ext"),
    ("const ", 900, "{a:", "b~,", "}=c"),
    ("(", 900, "{a:", "b~,", "}=$state)"),
    ("", 1900, "{", "let a~;", "}"),
    ("", 1900, "{", "var a~;", "}"),
    ("", 1900, "{", "function f~(){}", "}"),
    ("", 1900, "{let b;", "b;", "}"),
    ("", 400, "(()=>{", "var a~;", "})();"),
    ("", 400, "(()=>{", "a~;", "})();"),
    ("", 400, "(function(){", "function f~(){}", "})();"),
    ("", 400, "(class{static{", "var a~;", "}});"),
    ("", 900, "[", "a~,", "];"),
    ("", 900, "f(", "a~,", ");"),
    ("", 1900, "(", "a~,b", ");"),
    ("", 500, "({a:[", "a~,", "]});"),
    ("", 600, "if(a){", "a~;", "}"),
    ("", 600, "for(;;){", "const a~=$ext.b.c;", "}"),
    ("", 600, "switch(a){case 1:", "let a~;", "}"),
    ("", 600, "try{", "a~;", "}catch(e){}"),
    ("", 600, "`${", "a,b~,", "c}`;"),
    ("let x:", 400, "{a:", "b~:T,", "}"),
    ("let x:", 400, "A<", "T,", "U>"),
    ("let x:", 400, "(", "[A],", "B)"),
];

/// A source of about that size whose middle is deep within it.
pub fn nested(shape: &(&str, usize, &str, &str, &str), bytes: usize) -> String {
    let (head, depth, open, unit, close) = shape;
    // the end of the innermost level has what only it has; those around it close with the bracket alone
    let bracket: String = match close.find([';', '=']) {
        Some(at) if close.contains('=') => close[..at].trim_end_matches(')').into(),
        Some(at) => close[..at].into(),
        None => (*close).into(),
    };
    let end = close.strip_prefix(bracket.as_str()).unwrap_or_default();
    let levels = open.repeat(*depth);
    let middle_bytes = bytes.saturating_sub(head.len() + levels.len() + bracket.len() * depth + end.len());
    let middle = repeated(&("", unit, ""), middle_bytes);
    format!("{head}{levels}{middle}{}{end}", bracket.repeat(*depth))
}

/// A source of a size.
type Make = fn(usize) -> String;

/// Others, by a function of their size.
const OTHERS: &[(&str, Make)] = &[
    ("many properties out of a long chain", |bytes| {
        let chain = "$state".to_owned() + &".a".repeat(bytes / 80);
        let names = repeated(&("const{", "a~,", "}="), bytes - chain.len());
        names + &chain
    }),
    ("many properties assigned out of a long chain", |bytes| {
        let chain = "$state".to_owned() + &".a".repeat(bytes / 80);
        let names = repeated(&("({", "a~,", "}="), bytes - chain.len());
        names + &chain + ")"
    }),
    ("many properties out of a long name", |bytes| {
        let names = repeated(&("const{", "a~,", "}="), bytes / 2);
        format!("{names}$state['{}']", "x".repeat(bytes / 2))
    }),
    ("many properties out of a name of a thousand bytes", |bytes| {
        let names = repeated(&("const{", "a~,", "}="), bytes);
        format!("{names}$state['{}']", "x".repeat(1_000))
    }),
    ("many uses of a long name", |bytes| {
        let head = format!("const e=$ext['{}'];", "x".repeat(bytes / 2));
        repeated(&(&head, "e;", ""), bytes)
    }),
    ("many uses of a name of a thousand bytes", |bytes| {
        let head = format!("const e=$ext['{}'];", "x".repeat(1_000));
        repeated(&(&head, "e;", ""), bytes)
    }),
    ("many long names", |bytes| repeated(&("", &format!("let {}~;", "x".repeat(500)), ""), bytes)),
    ("many long names that are used", |bytes| repeated(&("", &format!("$state.{}~;", "x".repeat(990)), ""), bytes)),
    ("one name in many scopes, each within the last function", |bytes| {
        repeated(&("function f(){let a;", "{let a;(()=>a)()}", "}"), bytes)
    }),
    ("many functions that call the next", |bytes| {
        let mut out = String::new();
        let mut n = 0usize;
        while out.len() < bytes {
            let (mut this, mut next) = (String::new(), String::new());
            number(n, &mut this);
            number(n + 1, &mut next);
            out.push_str(&format!("const f{this}=()=>f{next}();"));
            n += 1;
        }
        out
    }),
    ("many functions that call the one before, which calls an extension", |bytes| {
        let mut out = String::from("const fA=()=>$ext.a.b();");
        let mut n = 1usize;
        while out.len() < bytes {
            let (mut this, mut before) = (String::new(), String::new());
            number(n, &mut this);
            number(n - 1, &mut before);
            out.push_str(&format!("const f{this}=()=>f{before}();"));
            n += 1;
        }
        out
    }),
    ("one line of a regular expression's beginning", |bytes| format!("a={}", "/[".repeat(bytes / 2))),
    ("an import of types before an ordinary handler", |bytes| {
        repeated(&("import type A from 'a';", "let a~=1;", ""), bytes)
    }),
    ("imports of types before types", |bytes| {
        let imports = repeated(&("", "import type A~ from 'a';", ""), bytes / 2);
        repeated(&(&imports, "let a~:A=1 as A;", ""), bytes)
    }),
];

/// A kind of source: what it is called, and how it is made in a size.
pub type Kind = (String, Box<dyn Fn(usize) -> String>);

/// All of them.
pub fn all() -> Vec<Kind> {
    let mut all: Vec<Kind> = Vec::new();
    for shape in REPEATED {
        let (head, unit, tail) = shape;
        all.push((format!("{head}({unit})*{tail}"), Box::new(move |bytes| repeated(shape, bytes))));
    }
    for shape in NESTED {
        let (head, depth, open, unit, close) = shape;
        let name = format!("{head}({open}){{{depth}}}({unit})*{close}");
        all.push((name, Box::new(move |bytes| nested(shape, bytes))));
    }
    for (name, make) in OTHERS {
        all.push(((*name).into(), Box::new(make)));
    }
    all
}
