//! An upper bound on the height of a handler's syntax tree, from one pass over its bytes, before it is parsed.
//!
//! The parser recurses without a limit of its own, and so does everything that walks its tree. A handler of a million
//! `(` would end this process. So the height is bounded first, by code that does not recurse, and the stack that the
//! parser needs is reserved by that figure.
//!
//! ```text
//! height of a bracket   = highest of its segments                     ( a , b ; c )
//! height of a segment   = statement keywords + operators in it + highest bracket in it
//! segments end at         , ;  and where a line can only start a new statement
//! ```
//! A tree is never higher than the tokens that can nest it, so counting them all errs on the safe side: long chains that
//! the parser builds flat are counted as if they nested, with a smaller weight where it is known that they do not
//! recurse.
//!
//! Invariants: where the text is ambiguous without a parser (`/` after `}`: division or regular expression?), both
//! readings must agree on every bracket and quote, or the answer is `Refusal::Ambiguous`. A reading is only ever wrong
//! behind a point where the parser gives up.
//! What it does not do: check syntax. Mismatched brackets are the parser's to report.

use super::lexeme::{Lexeme, Lexer, Word};
use crate::token::{StopCause, StopToken};

/// Height that a handler may have, in units. A bracket or a prefix operator is worth 8, a link of a chain 1: about 2,000
/// brackets within brackets, or a sum of 16,000 terms. QuickJS gives up earlier on most of these.
pub(super) const MAX_HEIGHT: u32 = 16 << 10;

/// What nests by recursion.
const NESTS: u32 = 8;
/// What only makes a chain longer.
const LINKS: u32 = 1;

/// Bound on the work of the TypeScript grammar's guesses (is `<` a comparison, is this `:` a return type), each of which
/// may read all that is nested in it again. About half a second.
const MAX_GUESSES: u64 = 500_000;

/// Tokens of a handler that is parsed: each may need stack. A text of a megabyte has a third of that, a minified one not all.
pub(super) const MAX_TOKENS: u32 = 512 << 10;

/// Lexemes between two looks at the token.
const LEXEMES: u32 = 1024;

/// Why a handler is not parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    TooDeep(usize),
    TooManyGuesses(usize),
    TooManyTokens(usize),
    /// A `/` that only a parser could read.
    Ambiguous(usize),
    /// Its time is over.
    Stopped(StopCause),
}

/// One bracket that is open.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Height of everything around this bracket.
    base: u32,
    /// Guesses that are open around this bracket.
    base_guesses: u32,
    /// Statements that the current one is nested in without a brace: `if (a) for (;;) x`.
    statements: u32,
    /// `statements` and `operators` at the last `;`: an `else` or `while` goes on with them.
    ended: u32,
    operators: u32,
    guesses: u32,
    inner: u32,
    highest: u32,
    /// `<` that no `>` has closed: a comma may belong to type arguments.
    angles: u32,
    colons: u32,
    questions: u32,
    /// `do` whose `while` has not come.
    loops: u32,
}

impl Level {
    fn segment(&self) -> u32 {
        self.statements + self.operators + self.inner
    }

    fn nests(&mut self, by: u32) {
        self.operators = self.operators.saturating_add(by);
    }

    /// `,`: what follows is beside what came before, but within the same statement.
    fn end_element(&mut self) {
        if self.angles > 0 {
            return;
        }
        // `a: b: c, d`: labels go on behind the comma; one colon may be a key's, others belong to conditionals
        let labels = self.colons.saturating_sub(self.questions + 1);
        self.end_segment();
        self.statements = self.statements.saturating_add(labels * NESTS);
    }

    fn end_statement(&mut self) {
        let ended = self.statements.saturating_add(self.operators);
        self.end_segment();
        self.statements = 0;
        self.ended = ended;
    }

    fn end_segment(&mut self) {
        self.highest = self.highest.max(self.segment());
        (self.operators, self.inner, self.guesses) = (0, 0, 0);
        (self.angles, self.colons, self.questions) = (0, 0, 0);
    }
}

/// What the parser and the walks can need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The height of the handler's tree in units, at most.
    pub(super) height: u32,
    /// Its tokens. The parser recovers from some mistakes in types by passing over a token, whatever it is; then brackets
    /// are not what they seem, and it may recurse where nothing nests. But it recurses once a token at most.
    pub(super) tokens: u32,
}

/// Bounds a handler.
pub(super) fn extent(source: &str, token: &StopToken) -> Result<Extent, Refusal> {
    let mut steps = token.every(LEXEMES);
    let mut lexer = Lexer::new(source);
    let mut levels: Vec<Level> = Vec::new();
    let mut level = Level::default();
    let mut guesses: u64 = 0;
    let mut tokens: u32 = 0;
    let mut after_semicolon = false;
    let mut modifiers: u64 = 0;
    loop {
        let before = lexer.previous();
        let Some((lexeme, at)) = lexer.next_lexeme() else { break };
        steps.step().map_err(Refusal::Stopped)?;
        tokens += 1;
        if tokens > MAX_TOKENS {
            return Err(Refusal::TooManyTokens(at));
        }
        let ends_loop = lexeme == Lexeme::Word(Word::While) && level.loops > 0;
        let starts_statement = lexeme.can_start_statement()
            && !ends_loop
            && before.ends_operand()
            && (lexer.line_break_before() || before.is_brace())
            && !before.is_control_paren();
        if starts_statement {
            level.end_statement();
        }
        // words that may be modifiers are looked through to the last, from each of them
        let modifier = matches!(lexeme, Lexeme::Word(Word::Modifier | Word::Prefix | Word::Contextual | Word::Infix));
        modifiers = if modifier { modifiers + 1 } else { 0 };
        guesses += modifiers;
        match lexeme {
            Lexeme::Open { chains } => {
                level.nests(if chains { LINKS } else { 0 });
                let base = level.base.saturating_add(level.statements).saturating_add(level.operators) + NESTS;
                if base > MAX_HEIGHT {
                    return Err(Refusal::TooDeep(at));
                }
                let base_guesses = level.base_guesses + level.guesses;
                levels.push(std::mem::replace(&mut level, Level { base, base_guesses, ..Level::default() }));
            }
            Lexeme::Close => {
                level.end_segment();
                if let Some(around) = levels.pop() {
                    let inner = level.highest + NESTS;
                    level = Level { inner: around.inner.max(inner), ..around };
                }
            }
            Lexeme::Comma => level.end_element(),
            Lexeme::Semicolon => level.end_statement(),
            Lexeme::Word(word @ (Word::Control | Word::Do | Word::While | Word::Else)) => {
                if after_semicolon && (ends_loop || word == Word::Else) {
                    level.statements = level.statements.saturating_add(level.ended);
                }
                level.loops += u32::from(word == Word::Do);
                level.loops -= u32::from(ends_loop);
                level.statements = level.statements.saturating_add(NESTS);
            }
            Lexeme::Word(Word::Prefix) | Lexeme::Prefix | Lexeme::Assigns => level.nests(NESTS),
            Lexeme::Word(Word::Infix) | Lexeme::Infix => level.nests(LINKS),
            Lexeme::Word(Word::Literal | Word::Name | Word::Modifier | Word::Contextual) | Lexeme::Value => {}
            Lexeme::Skipped(bytes) => level.nests(u32::try_from(bytes).unwrap_or(MAX_HEIGHT).saturating_mul(NESTS)),
            Lexeme::Question => {
                level.questions += 1;
                level.nests(NESTS);
            }
            Lexeme::Colon => {
                level.colons += 1;
                level.nests(NESTS);
            }
            Lexeme::Arrow | Lexeme::Less => {
                level.nests(NESTS);
                level.angles += u32::from(lexeme == Lexeme::Less);
                level.guesses += 1;
                guesses += u64::from(level.base_guesses + level.guesses);
            }
            Lexeme::Greater => {
                level.angles = level.angles.saturating_sub(1);
                level.nests(LINKS);
            }
            Lexeme::Ambiguous => return Err(Refusal::Ambiguous(at)),
        }
        if guesses > MAX_GUESSES {
            return Err(Refusal::TooManyGuesses(at));
        }
        if level.base.saturating_add(level.segment()) > MAX_HEIGHT {
            return Err(Refusal::TooDeep(at));
        }
        after_semicolon = lexeme == Lexeme::Semicolon;
    }
    // brackets that nothing closed: the parser sees them too
    level.end_segment();
    let mut height = level.highest;
    while let Some(mut around) = levels.pop() {
        around.inner = around.inner.max(height + NESTS);
        around.end_segment();
        height = around.highest;
    }
    if height > MAX_HEIGHT { Err(Refusal::TooDeep(source.len())) } else { Ok(Extent { height, tokens }) }
}
