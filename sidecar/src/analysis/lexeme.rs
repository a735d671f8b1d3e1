//! Reads a handler's text as brackets, operators and operands: just enough for `nesting`.
//!
//! Strings, comments, templates and regular expressions are told apart from code exactly, but for a `/` whose meaning
//! depends on the grammar (`}`, `>`, `++`, postfix `!`, `await` and the like before it). Such a `/` is only passed over if
//! what follows reads the same either way, see `after_ambiguous_slash`.
//! What it does not do: distinguish operators that nest alike.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// `this`, `null`, `true`...: an operand that is no name.
    Literal,
    Name,
    /// `extends`, `catch`, `of`...: goes on with what came before.
    Contextual,
    /// `typeof`, `new`, `return`, `function`, `await`, `keyof`...
    Prefix,
    /// `in`, `instanceof`, `as`, `satisfies`.
    Infix,
    /// `static`, `public`, `declare`...: a name, but many of them in a row are read again and again.
    Modifier,
    /// `if`, `for`, `with`.
    Control,
    Do,
    While,
    Else,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lexeme {
    /// `chains`: a call or an index.
    Open {
        chains: bool,
    },
    Close,
    Comma,
    Semicolon,
    Word(Word),
    /// Number, string, template, regular expression, `#name`.
    Value,
    Prefix,
    Infix,
    /// Right-associative: `=` and its kind, `**`, `...`, `@`, `++`.
    Assigns,
    Question,
    Colon,
    Arrow,
    Less,
    Greater,
    /// Text that is a comment in one reading and operators in another.
    Skipped(usize),
    /// Nobody but a parser can tell.
    Ambiguous,
}

impl Lexeme {
    /// Behind an operand and a line break, only a new statement can begin like this.
    pub(super) fn can_start_statement(self) -> bool {
        matches!(
            self,
            Self::Word(Word::Name | Word::Modifier | Word::Literal | Word::Prefix | Word::Control)
                | Self::Value
                | Self::Word(Word::Do | Word::While)
        )
    }
}

/// What came before, as far as it matters for what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Previous {
    /// Start, operator, opening bracket, keyword.
    Operator,
    Operand,
    /// `)` of `if (..)`, `while (..)`, `for (..)`, `with (..)`: a statement follows.
    ControlParen,
    CloseBrace,
    /// A name or operator behind which both an operand and an operator may follow.
    Either,
    /// `.` or `?.`: a name follows, whatever it spells.
    Dot,
    /// `if`, `while`, `for`, `with`: a `(` behind it is a control parenthesis.
    ControlWord,
    /// The same for `do`, `else`.
    ControlTail,
}

impl Previous {
    pub(super) fn ends_operand(self) -> bool {
        matches!(self, Self::Operand | Self::CloseBrace)
    }
    pub(super) fn is_brace(self) -> bool {
        self == Self::CloseBrace
    }
    pub(super) fn is_control_paren(self) -> bool {
        self == Self::ControlParen
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bracket {
    Paren,
    ControlParen,
    Square,
    Brace,
    Template,
}

/// How often a byte may be looked at, on the average, in search of the end of a regular expression that may be none.
const LOOKS_AHEAD_PER_BYTE: u64 = 16;

/// Where a regular expression would end.
enum Ahead {
    End(usize),
    /// Not on this line.
    Nowhere,
    /// There were too many such searches.
    Unknown,
}

pub(super) struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    previous: Previous,
    line_break: bool,
    brackets: Vec<Bracket>,
    /// The last bracket closed a substitution: template text follows.
    in_template: bool,
    /// Bytes that may still be looked at ahead of the place.
    looks_left: u64,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        Self {
            bytes: source.as_bytes(),
            at: 0,
            previous: Previous::Operator,
            line_break: true,
            brackets: Vec::new(),
            in_template: false,
            looks_left: (source.len() as u64).saturating_mul(LOOKS_AHEAD_PER_BYTE),
        }
    }

    pub(super) fn previous(&self) -> Previous {
        self.previous
    }

    /// Whether a line ended between the last lexeme and the one before it.
    pub(super) fn line_break_before(&self) -> bool {
        self.line_break
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn starts_with(&self, text: &str) -> bool {
        self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(text.as_bytes()))
    }

    /// The next lexeme and its offset.
    pub(super) fn next_lexeme(&mut self) -> Option<(Lexeme, usize)> {
        if std::mem::take(&mut self.in_template) {
            let start = self.at;
            let (lexeme, previous) = self.template();
            (self.previous, self.line_break) = (previous, false);
            return Some((lexeme, start));
        }
        self.skip_space();
        let start = self.at;
        if start >= self.bytes.len() {
            return None;
        }
        let (lexeme, previous) = self.read();
        self.previous = previous;
        Some((lexeme, start))
    }

    fn skip_space(&mut self) {
        // the handler starts on a line of its own
        self.line_break = self.at == 0;
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'\n' | b'\r' => {
                    self.line_break = true;
                    self.at += 1;
                }
                b' ' | b'\t' | 0x0b | 0x0c => self.at += 1,
                b'/' if self.peek(1) == b'/' => self.skip_line(),
                b'/' if self.peek(1) == b'*' => {
                    let rest = self.bytes.get(self.at + 2..).unwrap_or_default();
                    let len = rest.windows(2).position(|w| w == b"*/").unwrap_or(rest.len());
                    let comment = rest.get(..len).unwrap_or_default();
                    self.line_break |=
                        comment.iter().any(|b| matches!(b, b'\n' | b'\r')) || has_line_separator(comment);
                    self.at = (self.at + 2 + len + 2).min(self.bytes.len());
                }
                0x80.. => match space_length(self.bytes.get(self.at..).unwrap_or_default()) {
                    Some((length, breaks)) => {
                        self.line_break |= breaks;
                        self.at += length;
                    }
                    None => return,
                },
                _ => return,
            }
        }
    }

    fn skip_line(&mut self) {
        while let Some(rest) = self.bytes.get(self.at..).filter(|rest| !rest.is_empty()) {
            if matches!(rest.first(), Some(b'\n' | b'\r')) || has_line_separator(rest.get(..3).unwrap_or_default()) {
                return;
            }
            self.at += 1;
        }
    }

    fn read(&mut self) -> (Lexeme, Previous) {
        use Previous::{CloseBrace, ControlParen, ControlWord, Dot, Either, Operand, Operator};
        let byte = self.peek(0);
        let binary = !matches!(self.previous, Operator | Dot | ControlWord | ControlParen | Previous::ControlTail);
        match byte {
            b'(' => {
                let control = self.previous == ControlWord;
                self.open(if control { Bracket::ControlParen } else { Bracket::Paren }, binary)
            }
            b'[' => self.open(Bracket::Square, binary),
            b'{' => self.open(Bracket::Brace, false),
            b')' | b']' => {
                self.at += 1;
                let control = self.brackets.pop() == Some(Bracket::ControlParen);
                (Lexeme::Close, if control { ControlParen } else { Operand })
            }
            b'}' => {
                self.at += 1;
                if self.brackets.pop() == Some(Bracket::Template) {
                    self.in_template = true;
                    return (Lexeme::Close, Operator);
                }
                (Lexeme::Close, CloseBrace)
            }
            b'`' => {
                self.at += 1;
                self.template()
            }
            b'\'' | b'"' => {
                self.string(byte);
                (Lexeme::Value, Operand)
            }
            b'0'..=b'9' => self.number(),
            b'.' if self.peek(1).is_ascii_digit() && !self.starts_with("...") => self.number(),
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | b'\\' | b'#' | 0x80.. => self.word(),
            b'/' => self.slash(),
            b'<' if self.starts_with("<!--") => self.maybe_comment(4),
            b'-' if self.starts_with("-->") && self.line_break => self.maybe_comment(3),
            b';' => self.operator(1, Lexeme::Semicolon),
            b',' => self.operator(1, Lexeme::Comma),
            b':' => self.operator(1, Lexeme::Colon),
            b'@' | b'~' => self.operator(1, Lexeme::Prefix),
            b'.' if self.starts_with("...") => self.operator(3, Lexeme::Assigns),
            b'.' => (self.advance(1, Lexeme::Infix), Dot),
            b'?' if self.peek(1) == b'.' && !self.peek(2).is_ascii_digit() => (self.advance(2, Lexeme::Infix), Dot),
            b'?' if self.starts_with("??=") => self.operator(3, Lexeme::Assigns),
            b'?' if self.peek(1) == b'?' => self.operator(2, Lexeme::Infix),
            b'?' => self.operator(1, Lexeme::Question),
            b'=' if self.peek(1) == b'>' => self.operator(2, Lexeme::Arrow),
            b'=' if self.starts_with("===") => self.operator(3, Lexeme::Infix),
            b'=' if self.peek(1) == b'=' => self.operator(2, Lexeme::Infix),
            b'=' => self.operator(1, Lexeme::Assigns),
            b'!' if self.starts_with("!==") => self.operator(3, Lexeme::Infix),
            b'!' if self.peek(1) == b'=' => self.operator(2, Lexeme::Infix),
            b'!' if binary && !self.line_break => (self.advance(1, Lexeme::Infix), Either),
            b'!' => self.operator(1, Lexeme::Prefix),
            // one at a time, as type arguments may end in several
            b'>' => (self.advance(1, Lexeme::Greater), Either),
            b'<' => self.operator(1, Lexeme::Less),
            b'+' | b'-' if self.peek(1) == byte => {
                self.at += 2;
                (Lexeme::Assigns, Either)
            }
            b'*' if self.peek(1) == b'*' => self.operator(2, Lexeme::Assigns),
            b'&' | b'|' if self.peek(1) == byte => self.operator(2, Lexeme::Infix),
            b'+' | b'-' | b'*' | b'%' | b'&' | b'|' | b'^' => {
                self.operator(1, if binary { Lexeme::Infix } else { Lexeme::Prefix })
            }
            _ => self.operator(1, Lexeme::Infix),
        }
    }

    fn advance(&mut self, bytes: usize, lexeme: Lexeme) -> Lexeme {
        self.at += bytes;
        lexeme
    }

    fn operator(&mut self, bytes: usize, lexeme: Lexeme) -> (Lexeme, Previous) {
        (self.advance(bytes, lexeme), Previous::Operator)
    }

    fn open(&mut self, bracket: Bracket, chains: bool) -> (Lexeme, Previous) {
        self.brackets.push(bracket);
        self.operator(1, Lexeme::Open { chains })
    }

    /// Behind a backquote, or behind the `}` of a substitution.
    fn template(&mut self) -> (Lexeme, Previous) {
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'\\' => self.at += 2,
                b'`' => {
                    self.at += 1;
                    // behind a tag it is one more link of a chain
                    return (Lexeme::Infix, Previous::Operand);
                }
                b'$' if self.peek(1) == b'{' => {
                    self.brackets.push(Bracket::Template);
                    return self.operator(2, Lexeme::Open { chains: true });
                }
                _ => self.at += 1,
            }
        }
        (Lexeme::Value, Previous::Operand)
    }

    fn string(&mut self, quote: u8) {
        self.at += 1;
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'\\' if self.peek(1) == b'\r' && self.peek(2) == b'\n' => self.at += 3,
                b'\\' => self.at += 2,
                // unterminated: the parser stops here
                b'\n' | b'\r' => return,
                _ => {
                    self.at += 1;
                    if byte == quote {
                        return;
                    }
                }
            }
        }
    }

    fn number(&mut self) -> (Lexeme, Previous) {
        let digits = self.bytes.get(self.at..).unwrap_or_default();
        let hex = matches!(digits, [b'0', b'x' | b'X', ..]);
        let mut dots = 0;
        let mut last = 0;
        for &byte in digits {
            let sign = matches!(byte, b'+' | b'-') && matches!(last, b'e' | b'E') && !hex;
            dots += u32::from(byte == b'.');
            // `1..a.b` and `0x1.a`: the rest are names
            if byte == b'.' && (dots > 1 || hex)
                || !(byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.') || sign)
            {
                break;
            }
            last = byte;
            self.at += 1;
        }
        (Lexeme::Value, Previous::Operand)
    }

    fn word(&mut self) -> (Lexeme, Previous) {
        let start = self.at;
        let mut escaped = false;
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'$' => self.at += 1,
                b'#' if self.at == start => self.at += 1,
                b'\\' => {
                    escaped = true;
                    self.at += if self.starts_with("\\u{") { 3 } else { 1 };
                    while self.peek(0).is_ascii_hexdigit() {
                        self.at += 1;
                    }
                    self.at += usize::from(self.peek(0) == b'}');
                }
                0x80.. if space_length(self.bytes.get(self.at..).unwrap_or_default()).is_none() => self.at += 1,
                _ => break,
            }
        }
        let word = self.bytes.get(start..self.at).unwrap_or_default();
        if escaped {
            return (Lexeme::Word(Word::Name), Previous::Either);
        }
        if self.previous == Previous::Dot {
            return (Lexeme::Word(Word::Name), Previous::Operand);
        }
        self.classify(word)
    }

    fn classify(&self, word: &[u8]) -> (Lexeme, Previous) {
        use Previous::{ControlTail, ControlWord, Either, Operand, Operator};
        let (class, previous) = match word {
            b"if" | b"for" | b"with" => (Word::Control, ControlWord),
            b"while" => (Word::While, ControlWord),
            b"do" => (Word::Do, ControlTail),
            b"else" => (Word::Else, ControlTail),
            b"in" | b"instanceof" => (Word::Infix, Operator),
            b"as" | b"satisfies" => (Word::Infix, Either),
            b"await" if self.previous == ControlWord => (Word::Prefix, ControlWord),
            b"typeof" | b"void" | b"delete" | b"new" | b"return" | b"throw" | b"case" | b"function" | b"class" => {
                (Word::Prefix, Operator)
            }
            b"await" | b"yield" | b"async" | b"keyof" | b"readonly" | b"infer" | b"unique" | b"asserts"
            | b"abstract" => (Word::Prefix, Either),
            b"extends" | b"implements" | b"of" => (Word::Contextual, Either),
            b"catch" | b"finally" | b"default" => (Word::Contextual, Operator),
            b"this" | b"null" | b"true" | b"false" | b"super" => (Word::Literal, Operand),
            b"static" | b"public" | b"private" | b"protected" | b"declare" | b"override" | b"accessor" | b"export"
            | b"out" | b"get" | b"set" | b"type" | b"namespace" | b"module" | b"global" | b"interface" | b"enum" => {
                (Word::Modifier, Operand)
            }
            b"var" | b"const" | b"switch" | b"try" => (Word::Name, Operator),
            b"let" | b"using" => (Word::Name, Either),
            _ => (Word::Name, Operand),
        };
        (Lexeme::Word(class), previous)
    }

    fn slash(&mut self) -> (Lexeme, Previous) {
        match self.previous {
            Previous::Operand | Previous::Dot => self.division(),
            Previous::CloseBrace | Previous::Either => self.ambiguous_slash(),
            _ => match self.expression_end() {
                Ahead::End(end) => self.regular_expression(end),
                Ahead::Nowhere => self.division(),
                Ahead::Unknown => self.operator(1, Lexeme::Ambiguous),
            },
        }
    }

    fn division(&mut self) -> (Lexeme, Previous) {
        if self.peek(1) == b'=' { self.operator(2, Lexeme::Assigns) } else { self.operator(1, Lexeme::Infix) }
    }

    fn regular_expression(&mut self, end: usize) -> (Lexeme, Previous) {
        self.at = end;
        while self.peek(0).is_ascii_alphanumeric() {
            self.at += 1;
        }
        (Lexeme::Value, Previous::Operand)
    }

    /// Where the regular expression that starts here would end, if it ends on this line.
    fn expression_end(&mut self) -> Ahead {
        let start = self.at + 1;
        let (end, at) = self.look_ahead(start);
        match self.looks_left.checked_sub((at - start) as u64) {
            Some(left) => self.looks_left = left,
            None => return Ahead::Unknown,
        }
        end.map_or(Ahead::Nowhere, Ahead::End)
    }

    /// The end, if there is one, and how far it had to look.
    fn look_ahead(&self, start: usize) -> (Option<usize>, usize) {
        let mut at = start;
        let mut in_class = false;
        while let Some(&byte) = self.bytes.get(at) {
            match byte {
                b'\n' | b'\r' => break,
                b'\\' => at += 1,
                b'[' => in_class = true,
                b']' => in_class = false,
                b'/' if !in_class => return (Some(at + 1), at),
                0xe2 if has_line_separator(self.bytes.get(at..at + 3).unwrap_or_default()) => break,
                _ => {}
            }
            at += 1;
        }
        (None, at)
    }

    /// A division and a regular expression agree on what follows if there is no second slash in the line (then the
    /// regular expression would be an error), or if between the two are only names, numbers and dots, up to an operand.
    fn ambiguous_slash(&mut self) -> (Lexeme, Previous) {
        let end = match self.expression_end() {
            Ahead::End(end) => end,
            Ahead::Nowhere => return self.division(),
            Ahead::Unknown => return self.operator(1, Lexeme::Ambiguous),
        };
        let between = self.bytes.get(self.at + 1..end - 1).unwrap_or_default();
        let plain = between.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'.' | b' '));
        let ends_in_operand = between.last().is_some_and(|b| b.is_ascii_alphanumeric());
        if !(plain && ends_in_operand) {
            return self.operator(1, Lexeme::Ambiguous);
        }
        let start = self.at;
        self.at = end;
        (Lexeme::Skipped(end - start), Previous::Either)
    }

    /// `<!--` and `-->`: a comment to the end of the line in scripts, operators elsewhere.
    fn maybe_comment(&mut self, mark: usize) -> (Lexeme, Previous) {
        let start = self.at;
        self.skip_line();
        let line = self.bytes.get(start + mark..self.at).unwrap_or_default();
        if line.iter().any(|b| b"()[]{}'\"`/\\".contains(b)) {
            return (Lexeme::Ambiguous, Previous::Either);
        }
        (Lexeme::Skipped(self.at - start), Previous::Either)
    }
}

fn has_line_separator(bytes: &[u8]) -> bool {
    bytes.windows(3).any(|w| matches!(w, [0xe2, 0x80, 0xa8 | 0xa9]))
}

/// Length of the white space character beyond ASCII that `bytes` start with, and whether it ends a line.
fn space_length(bytes: &[u8]) -> Option<(usize, bool)> {
    match bytes {
        [0xc2, 0xa0, ..] => Some((2, false)),
        [0xe2, 0x80, 0xa8 | 0xa9, ..] => Some((3, true)),
        [0xe1, 0x9a, 0x80, ..]
        | [0xe2, 0x80, 0x80..=0x8a | 0xaf, ..]
        | [0xe2, 0x81, 0x9f, ..]
        | [0xe3, 0x80, 0x80, ..]
        | [0xef, 0xbb, 0xbf, ..] => Some((3, false)),
        _ => None,
    }
}
