//! TypeScript out of a handler, in place: every type token becomes spaces, so that line and column of all else stay.
//!
//! Two steps. `find` walks the tree once and notes what is to go; for plain JavaScript that is nothing, and the handler
//! is used as it came. `erase` then writes the text, with the help of the token list.
//!
//! Blanks keep both the bytes and the UTF-16 units of what they replace: a character beyond ASCII becomes white space of
//! its own width.
//!
//! Where a blank would join two lines that a type kept apart, a `;` is written into it:
//! ```text
//! let a = b as T        let a = b;
//! (c)()                 (c)()
//! ```
//! Whatever this file misses, `same_program` (file fingerprint) notices, and the handler is refused rather than changed.
//! What it does not do: generate code. Enums, namespaces, parameter properties and decorators are refused by name.

use oxc_ast::ast::*;
use oxc_ast_visit::{Visit, walk};
use oxc_parser::{Kind, Token};
use oxc_span::{GetSpan, Span};
use oxc_syntax::scope::ScopeFlags;

use super::pace::Pace;
use super::parse::{Mistake, offset};
use crate::token::{StopCause, StopToken};

/// Edits between two looks at the token.
const EDITS: u32 = 256;

/// What is to go. Positions are those of the wrapped text.
#[derive(Default)]
pub(super) struct Findings {
    edits: Vec<Edit>,
    /// Ends of statements and properties that no `;` ends.
    open_ends: Vec<u32>,
    /// The first construct that would need generated code.
    pub(super) unsupported: Option<Mistake>,
}

impl Findings {
    /// Whether the handler has any TypeScript.
    pub(super) fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.unsupported.is_none()
    }

    /// Offset in the handler of the first of it.
    pub(super) fn first(&self) -> usize {
        let starts = self.edits.iter().map(|edit| match *edit {
            Edit::Blank(span) | Edit::Item(span) | Edit::This(span) | Edit::Modifiers(span) => span.start,
            Edit::Token(_, span) | Edit::From(_, span, _) => span.start,
            Edit::MoveOpen { to, .. } => to,
            Edit::MoveClose { before, .. } => before,
        });
        starts.min().map_or(0, offset)
    }
}

enum Edit {
    Blank(Span),
    /// A whole statement or class member.
    Item(Span),
    /// The first token of that kind within the span.
    Token(Kind, Span),
    /// From the first token of that kind within the span to a position.
    From(Kind, Span, u32),
    /// Modifiers of a class member, within the span.
    Modifiers(Span),
    /// `this` parameter, and the comma behind it.
    This(Span),
    /// The first `(` from the first position on goes to the second: the line may not break before it.
    MoveOpen {
        from: u32,
        to: u32,
    },
    /// The last `)` before the first position goes to the second.
    MoveClose {
        before: u32,
        to: u32,
    },
}

/// Notes all TypeScript in a handler.
pub(super) fn find(body: &FunctionBody<'_>, text: &str, token: &StopToken) -> Result<Findings, StopCause> {
    let mut finder = Finder { text, found: Findings::default(), pace: Pace::new(token) };
    finder.visit_function_body(body);
    finder.pace.finish(finder.found)
}

/// Statements that only the type checker sees.
pub(super) fn is_type_only(statement: &Statement<'_>) -> bool {
    match statement {
        Statement::TSTypeAliasDeclaration(_) | Statement::TSInterfaceDeclaration(_) => true,
        Statement::TSGlobalDeclaration(it) => it.declare,
        Statement::TSEnumDeclaration(it) => it.declare,
        Statement::TSNamespaceDeclaration(it) => it.declare,
        Statement::TSExternalModuleDeclaration(it) => it.declare,
        Statement::VariableDeclaration(it) => it.declare,
        Statement::FunctionDeclaration(it) => it.declare || it.body.is_none(),
        Statement::ClassDeclaration(it) => it.declare,
        _ => false,
    }
}

/// Class members that only the type checker sees.
pub(super) fn is_type_only_member(member: &ClassElement<'_>) -> bool {
    match member {
        ClassElement::TSIndexSignature(_) => true,
        ClassElement::MethodDefinition(it) => it.value.body.is_none(),
        ClassElement::PropertyDefinition(it) => {
            it.declare || it.r#type == PropertyDefinitionType::TSAbstractPropertyDefinition
        }
        ClassElement::AccessorProperty(it) => it.r#type == AccessorPropertyType::TSAbstractAccessorProperty,
        ClassElement::StaticBlock(_) => false,
    }
}

struct Finder<'t> {
    text: &'t str,
    found: Findings,
    pace: Pace<'t>,
}

impl Finder<'_> {
    fn edit(&mut self, edit: Edit) {
        self.found.edits.push(edit);
    }

    fn refused(&mut self, span: Span, message: &str) {
        if self.found.unsupported.is_none() {
            self.found.unsupported = Some(Mistake { offset: offset(span.start), message: message.to_owned() });
        }
    }

    fn unsupported(&mut self, span: Span, what: &str, instead: &str) {
        self.refused(span, &format!("{what} needs generated code, and types in a handler are only erased; {instead}"));
    }

    fn breaks_line(&self, from: u32, to: u32) -> bool {
        let between = self.text.get(from as usize..to as usize).unwrap_or_default();
        between.contains(['\n', '\r', '\u{2028}', '\u{2029}'])
    }

    fn open_end(&mut self, span: Span) {
        let text = self.text.get(span.start as usize..span.end as usize).unwrap_or_default();
        if !text.ends_with(';') {
            self.found.open_ends.push(span.end);
        }
    }

    fn marker(&mut self, present: bool, kind: Kind, from: u32, to: u32) {
        if present {
            self.edit(Edit::Token(kind, Span::new(from, to)));
        }
    }
}

impl<'a> Visit<'a> for Finder<'_> {
    fn visit_expression(&mut self, it: &Expression<'a>) {
        if self.pace.goes_on() {
            walk::walk_expression(self, it);
        }
    }

    fn visit_statement(&mut self, it: &Statement<'a>) {
        if !self.pace.goes_on() {
            return;
        }
        if is_type_only(it) {
            return self.edit(Edit::Item(it.span()));
        }
        match it {
            Statement::ExpressionStatement(_)
            | Statement::VariableDeclaration(_)
            | Statement::ReturnStatement(_)
            | Statement::ThrowStatement(_) => self.open_end(it.span()),
            _ => {}
        }
        walk::walk_statement(self, it);
    }

    // ---- what needs code ----

    fn visit_ts_enum_declaration(&mut self, it: &TSEnumDeclaration<'a>) {
        self.unsupported(it.span, "a TypeScript enum", "write an object, `const A = { B: 0 }`");
    }
    fn visit_ts_namespace_declaration(&mut self, it: &TSNamespaceDeclaration<'a>) {
        self.unsupported(it.span, "a TypeScript namespace", "write an object with its functions");
    }
    fn visit_ts_external_module_declaration(&mut self, it: &TSExternalModuleDeclaration<'a>) {
        self.unsupported(it.span, "a TypeScript module", "write `declare` before it, or leave it out");
    }
    fn visit_ts_import_equals_declaration(&mut self, it: &TSImportEqualsDeclaration<'a>) {
        self.unsupported(it.span, "`import x = ...`", "write `const x = ...`");
    }

    fn visit_ts_global_declaration(&mut self, it: &TSGlobalDeclaration<'a>) {
        self.unsupported(it.span, "`global { ... }`", "write `declare` before it");
    }

    // ---- what only modules have ----

    fn visit_import_declaration(&mut self, it: &ImportDeclaration<'a>) {
        self.refused(it.span, super::advice::IMPORT);
    }
    fn visit_export_declaration(&mut self, it: &ExportDeclaration<'a>) {
        self.refused(it.span, super::advice::EXPORT);
    }
    fn visit_export_from_declaration(&mut self, it: &ExportFromDeclaration<'a>) {
        self.refused(it.span, super::advice::EXPORT);
    }
    fn visit_export_named_declaration(&mut self, it: &ExportNamedDeclaration<'a>) {
        self.refused(it.span, super::advice::EXPORT);
    }
    fn visit_export_default_declaration(&mut self, it: &ExportDefaultDeclaration<'a>) {
        self.refused(it.span, super::advice::EXPORT);
    }
    fn visit_export_all_declaration(&mut self, it: &ExportAllDeclaration<'a>) {
        self.refused(it.span, super::advice::EXPORT);
    }

    // ---- types ----

    fn visit_ts_type_annotation(&mut self, it: &TSTypeAnnotation<'a>) {
        self.edit(Edit::Blank(it.span));
    }
    fn visit_ts_type_parameter_declaration(&mut self, it: &TSTypeParameterDeclaration<'a>) {
        self.edit(Edit::Blank(it.span));
    }
    fn visit_ts_type_parameter_instantiation(&mut self, it: &TSTypeParameterInstantiation<'a>) {
        self.edit(Edit::Blank(it.span));
    }

    // ---- expressions ----

    fn visit_ts_as_expression(&mut self, it: &TSAsExpression<'a>) {
        self.visit_expression(&it.expression);
        self.edit(Edit::Blank(Span::new(it.expression.span().end, it.span.end)));
    }
    fn visit_ts_satisfies_expression(&mut self, it: &TSSatisfiesExpression<'a>) {
        self.visit_expression(&it.expression);
        self.edit(Edit::Blank(Span::new(it.expression.span().end, it.span.end)));
    }
    fn visit_ts_non_null_expression(&mut self, it: &TSNonNullExpression<'a>) {
        self.visit_expression(&it.expression);
        self.edit(Edit::Token(Kind::Bang, Span::new(it.expression.span().end, it.span.end)));
    }
    fn visit_ts_type_assertion(&mut self, it: &TSTypeAssertion<'a>) {
        if self.found.unsupported.is_none() {
            let message = "a type assertion `<T>value` cannot be erased in place; write `value as T`".into();
            self.found.unsupported = Some(Mistake { offset: offset(it.span.start), message });
        }
    }
    fn visit_decorator(&mut self, it: &Decorator<'a>) {
        self.unsupported(it.span, "a decorator", "call its function yourself");
    }

    // ---- functions ----

    fn visit_arrow_function_expression(&mut self, it: &ArrowFunctionExpression<'a>) {
        if let Some(types) = &it.type_parameters
            && self.breaks_line(types.span.start, it.params.span.start)
        {
            self.edit(Edit::MoveOpen { from: it.params.span.start, to: types.span.start });
        }
        if let Some(types) = &it.return_type
            && self.breaks_line(types.span.start, it.body.span().start)
        {
            self.edit(Edit::MoveClose { before: types.span.start, to: types.span.end.saturating_sub(1) });
        }
        walk::walk_arrow_function_expression(self, it);
    }
    fn visit_ts_this_parameter(&mut self, it: &TSThisParameter<'a>) {
        self.edit(Edit::This(it.span));
    }
    fn visit_formal_parameter(&mut self, it: &FormalParameter<'a>) {
        if it.accessibility.is_some() || it.readonly || it.r#override {
            return self.unsupported(
                it.span,
                "a parameter property",
                "declare the field, and assign it in the constructor",
            );
        }
        let end = it.type_annotation.as_ref().map_or(it.span.end, |types| types.span.start);
        self.marker(it.optional, Kind::Question, it.pattern.span().end, end);
        walk::walk_formal_parameter(self, it);
    }
    fn visit_variable_declarator(&mut self, it: &VariableDeclarator<'a>) {
        self.marker(it.definite, Kind::Bang, it.id.span().end, it.span.end);
        walk::walk_variable_declarator(self, it);
    }

    // ---- classes ----

    fn visit_class(&mut self, it: &Class<'a>) {
        self.marker(it.r#abstract, Kind::Abstract, it.span.start, it.body.span.start);
        if let Some(last) = it.implements.last() {
            let from = it.heritage.as_ref().map_or(it.span.start, |heritage| heritage.expression.span().end);
            self.edit(Edit::From(Kind::Implements, Span::new(from, it.body.span.start), last.span.end));
        }
        walk::walk_class(self, it);
    }
    fn visit_ts_class_implements(&mut self, _: &TSClassImplements<'a>) {}

    fn visit_class_element(&mut self, it: &ClassElement<'a>) {
        if is_type_only_member(it) {
            return self.edit(Edit::Item(it.span()));
        }
        match it {
            ClassElement::MethodDefinition(it) => {
                if it.accessibility.is_some() || it.r#override {
                    self.edit(Edit::Modifiers(Span::new(it.span.start, it.key.span().start)));
                }
                self.marker(it.optional, Kind::Question, it.key.span().end, it.value.params.span.start);
            }
            ClassElement::PropertyDefinition(it) => {
                if it.accessibility.is_some() || it.r#override || it.readonly {
                    self.edit(Edit::Modifiers(Span::new(it.span.start, it.key.span().start)));
                }
                self.marker(it.optional, Kind::Question, it.key.span().end, it.span.end);
                self.marker(it.definite, Kind::Bang, it.key.span().end, it.span.end);
                self.open_end(it.span);
            }
            ClassElement::AccessorProperty(it) => {
                if it.accessibility.is_some() || it.r#override {
                    self.edit(Edit::Modifiers(Span::new(it.span.start, it.key.span().start)));
                }
                self.marker(it.definite, Kind::Bang, it.key.span().end, it.span.end);
                self.open_end(it.span);
            }
            ClassElement::StaticBlock(_) | ClassElement::TSIndexSignature(_) => {}
        }
        walk::walk_class_element(self, it);
    }

    fn visit_function(&mut self, it: &Function<'a>, flags: ScopeFlags) {
        walk::walk_function(self, it, flags);
    }
}

/// The wrapped text without what was found. `tokens` are those of the same text.
pub(super) fn erase(text: &str, tokens: &[Token], found: &Findings, token: &StopToken) -> Result<String, StopCause> {
    let mut steps = token.every(EDITS);
    let mut writer = Writer { text, tokens, output: text.as_bytes().to_vec(), ends: Vec::new() };
    for edit in &found.edits {
        steps.step()?;
        writer.apply(edit);
    }
    writer.close_open_ends(&found.open_ends);
    for edit in &found.edits {
        steps.step()?;
        writer.move_brackets(edit);
    }
    Ok(writer.finish())
}

/// A text with these parts of it blank; `None` if there are none. One copy, however many they are.
pub(super) fn blank(text: &str, spans: impl IntoIterator<Item = Span>) -> Option<String> {
    let mut spans = spans.into_iter().peekable();
    spans.peek()?;
    let mut writer = Writer { text, tokens: &[], output: text.as_bytes().to_vec(), ends: Vec::new() };
    spans.for_each(|span| writer.blank(span));
    Some(writer.finish())
}

struct Writer<'t> {
    text: &'t str,
    tokens: &'t [Token],
    output: Vec<u8>,
    /// End and start of every blank that may stand at the end of a statement.
    ends: Vec<(u32, u32)>,
}

impl Writer<'_> {
    /// Only whole characters were replaced, by whole characters.
    fn finish(self) -> String {
        String::from_utf8(self.output).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    }

    fn apply(&mut self, edit: &Edit) {
        match *edit {
            Edit::Blank(span) => self.blank(span),
            Edit::Item(span) => {
                self.blank(span);
                self.put(span.start, b';');
            }
            Edit::Token(kind, within) => {
                if let Some(token) = self.find(kind, within) {
                    self.blank(token.span());
                }
            }
            Edit::From(kind, within, to) => {
                if let Some(token) = self.find(kind, within) {
                    self.blank(Span::new(token.start(), to));
                }
            }
            Edit::Modifiers(within) => self.modifiers(within),
            Edit::This(span) => {
                self.blank(span);
                if let Some(next) = self.from(span.end).first().copied().filter(|t| t.kind() == Kind::Comma) {
                    self.blank(next.span());
                }
            }
            Edit::MoveOpen { .. } | Edit::MoveClose { .. } => {}
        }
    }

    fn move_brackets(&mut self, edit: &Edit) {
        match *edit {
            Edit::MoveOpen { from, to } => {
                if let Some(open) = self.from(from).first().copied().filter(|t| t.kind() == Kind::LParen) {
                    self.put(open.start(), b' ');
                    self.put(to, b'(');
                }
            }
            Edit::MoveClose { before, to } => {
                let end = self.tokens.partition_point(|t| t.start() < before);
                let last = self.tokens.get(..end).and_then(<[Token]>::last).copied();
                if let Some(close) = last.filter(|t| t.kind() == Kind::RParen) {
                    self.put(close.start(), b' ');
                    // the last byte of a character beyond ASCII is not a place for one
                    let to = (0..=to as usize).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or_default();
                    let wide = self.text.get(to..).and_then(|rest| rest.chars().next()).is_some_and(|c| !c.is_ascii());
                    self.put(to as u32, b')');
                    if wide {
                        self.narrow(to);
                    }
                }
            }
            _ => {}
        }
    }

    /// A `;` at the start of each blank that ends a statement which nothing else ends.
    fn close_open_ends(&mut self, open_ends: &[u32]) {
        let mut ends = std::mem::take(&mut self.ends);
        ends.sort_unstable();
        for end in open_ends {
            // of several blanks that end here, the one that starts first
            let at = ends.partition_point(|(e, _)| e < end);
            if let Some(&(_, start)) = ends.get(at).filter(|(e, _)| e == end) {
                self.put(start, b';');
                if self.text.get(start as usize..).and_then(|r| r.chars().next()).is_some_and(|c| !c.is_ascii()) {
                    self.narrow(start as usize);
                }
            }
        }
    }

    /// `public`, `readonly`... A member that starts with one gets a `;`, as the line above may have no end.
    fn modifiers(&mut self, within: Span) {
        let modifiers: Vec<Token> = self
            .from(within.start)
            .iter()
            .copied()
            .take_while(|t| t.start() < within.end)
            .filter(|t| {
                matches!(
                    t.kind(),
                    Kind::Public | Kind::Private | Kind::Protected | Kind::Readonly | Kind::Override | Kind::Abstract
                )
            })
            .collect();
        for token in modifiers {
            self.blank(token.span());
            if token.start() == within.start {
                self.put(token.start(), b';');
            }
        }
    }

    fn from(&self, start: u32) -> &[Token] {
        let at = self.tokens.partition_point(|t| t.start() < start);
        self.tokens.get(at..).unwrap_or_default()
    }

    fn find(&self, kind: Kind, within: Span) -> Option<Token> {
        self.from(within.start).iter().copied().take_while(|t| t.start() < within.end).find(|t| t.kind() == kind)
    }

    fn put(&mut self, at: u32, byte: u8) {
        if let Some(place) = self.output.get_mut(at as usize) {
            *place = byte;
        }
    }

    /// A character beyond ASCII at `at`, whose first byte was replaced: spaces for the rest.
    fn narrow(&mut self, at: usize) {
        let len = self.text.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8);
        for byte in self.output.get_mut(at + 1..at + len).unwrap_or_default() {
            *byte = b' ';
        }
    }

    fn blank(&mut self, span: Span) {
        let Some(old) = self.text.get(span.start as usize..span.end as usize) else { return };
        let Some(new) = self.output.get_mut(span.start as usize..span.end as usize) else { return };
        let mut at = 0;
        for character in old.chars() {
            let len = character.len_utf8();
            if let Some(place) = new.get_mut(at..at + len) {
                place.copy_from_slice(space_for(character).as_bytes());
            }
            at += len;
        }
        self.ends.push((span.end, span.start));
    }
}

/// White space as wide as the character, in bytes and in UTF-16 units; line ends stay.
fn space_for(character: char) -> &'static str {
    match character {
        '\n' => "\n",
        '\r' => "\r",
        '\u{2028}' => "\u{2028}",
        '\u{2029}' => "\u{2029}",
        _ => match character.len_utf8() {
            1 => " ",
            2 => "\u{a0}",
            3 => "\u{3000}",
            _ => "\u{3000} ",
        },
    }
}
