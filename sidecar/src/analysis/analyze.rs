//! The analysis of one handler, step by step.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nexus_protocol::message::SuspendMode;
use oxc_allocator::Allocator;

use super::erase::Findings;
use super::needs::Needs;
use super::nesting::Refusal;
use super::parse::{Grammar, Mistake, Parsed};
use super::plain::PlainUse;
use super::style::{self, Why};
use super::{advice, erase, fingerprint, imports, keywords, nesting, parse, place, private, walk};
use crate::token::{StopCause, StopToken};

/// Stack for a handler of no height. Debug builds have frames several times as large.
const STACK_BASE_BYTES: usize = if cfg!(debug_assertions) { 1 << 20 } else { 128 << 10 };
/// Stack per unit of height. Measured: at most 0.41 of this, over 130 kinds of nesting.
const STACK_PER_UNIT_BYTES: usize = if cfg!(debug_assertions) { 4 << 10 } else { 512 };
/// Stack per token, for what `nesting` may have missed: the largest recursion takes 1.8 KiB per token. Address space that
/// nothing touches costs nothing, and of tokens there is a bounded number: a gigabyte of it is the most.
const STACK_PER_TOKEN_BYTES: usize = if cfg!(debug_assertions) { 8 << 10 } else { 2 << 10 };

/// A need that was seen in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InferredCapability {
    /// The token, in the form of CONTRACT 2.
    pub token: String,
    /// 1-based.
    pub line: u32,
    /// 1-based, in UTF-16 units.
    pub column: u32,
    /// Whether the handler needs just this when it gets there. Uncertain: the name is known only at run time, or the
    /// object went where its use cannot be seen.
    pub certain: bool,
}

/// What is known of a handler without running it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Analysis<'s> {
    /// The handler in JavaScript: borrowed if there was no TypeScript in it.
    pub code: Cow<'s, str>,
    /// Sorted by token, each once, at its first place.
    pub capabilities: Vec<InferredCapability>,
    /// The style of its extension calls.
    pub suspend_mode: SuspendMode,
    /// Why it is that one.
    pub why: Why,
    /// What its author should know, in the order of the text.
    pub warnings: Vec<Warning>,
    /// Why the handler was not understood, if it was not: then QuickJS decides what it is, no capabilities are known,
    /// and the mode is stack, in which both styles work.
    pub unparsed: Option<SyntaxError>,
    /// What is wrong with it, if QuickJS does not take it either.
    pub mistake: Option<SyntaxError>,
    /// The number of tokens that it has more of than are analyzed. QuickJS takes it if it is plain JavaScript.
    pub beyond_limit: Option<u32>,
}

/// Something in a handler that can't be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// What is wrong, and what to do.
    pub message: String,
    /// 1-based.
    pub line: u32,
    /// 1-based, in UTF-16 units.
    pub column: u32,
    /// Line and column behind it, if an error that has its place in here comes of it.
    pub explains_until: Option<(u32, u32)>,
}

/// A mistake in a handler that no run of QuickJS would report in the right place, or at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct SyntaxError {
    /// What is wrong.
    pub message: String,
    /// 1-based.
    pub line: u32,
    /// 1-based, in UTF-16 units.
    pub column: u32,
}

/// Why a handler was not analyzed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnalysisError {
    /// TypeScript that is wrong or cannot be erased, or text that nests too deeply to be parsed.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// Its request has no time left, or was cancelled.
    #[error("the analysis was stopped")]
    Stopped(StopCause),
}

impl From<StopCause> for AnalysisError {
    fn from(cause: StopCause) -> Self {
        Self::Stopped(cause)
    }
}

/// Analyzes a handler, for as long as the token allows. `asked`: the style that its client wants, whatever the text says.
pub fn analyze<'s>(
    source: &'s str,
    asked: Option<SuspendMode>,
    token: &StopToken,
) -> Result<Analysis<'s>, AnalysisError> {
    let extent = match nesting::extent(source, token) {
        Ok(extent) => extent,
        Err(refusal) => return refused(source, asked, refusal),
    };
    let stack = STACK_BASE_BYTES
        + extent.height as usize * STACK_PER_UNIT_BYTES
        + extent.tokens as usize * STACK_PER_TOKEN_BYTES;
    catch_unwind(AssertUnwindSafe(|| stacker::maybe_grow(stack, stack, || analyze_here(source, asked, token))))
        .unwrap_or_else(|_| {
            log::error!("the parser panicked on a handler of {} bytes", source.len());
            Ok(unparsed(source, asked, told(source, &beyond(0, "the handler could not be analyzed"))))
        })
}

fn refused(source: &str, asked: Option<SuspendMode>, refusal: Refusal) -> Result<Analysis<'_>, AnalysisError> {
    match refusal {
        Refusal::Stopped(cause) => Err(cause.into()),
        Refusal::TooDeep(offset) => Err(told(source, &beyond(offset, "the handler is nested too deeply")).into()),
        Refusal::TooManyGuesses(offset) => {
            let message = "too many arrow functions, comparisons or modifiers within one another";
            Err(told(source, &beyond(offset, message)).into())
        }
        Refusal::TooManyTokens(offset) => {
            let message = format!("the handler is not analyzed: it has more than {} tokens", nesting::MAX_TOKENS);
            let analysis = unparsed(source, asked, told(source, &beyond(offset, &message)));
            Ok(Analysis { mistake: None, beyond_limit: Some(nesting::MAX_TOKENS), ..analysis })
        }
        Refusal::Ambiguous(offset) => {
            let message = "whether this starts a regular expression cannot be told; put parentheses around it";
            Ok(unparsed(source, asked, told(source, &beyond(offset, message))))
        }
    }
}

/// What is being analyzed.
struct Read<'t, 's> {
    source: &'s str,
    /// In its wrapper, as it is parsed.
    text: String,
    asked: Option<SuspendMode>,
    token: &'t StopToken,
}

/// The caller has seen to the stack. Each of the parser's readings takes its time, so there is a look before each.
fn analyze_here<'s>(
    source: &'s str,
    asked: Option<SuspendMode>,
    token: &StopToken,
) -> Result<Analysis<'s>, AnalysisError> {
    let allocator = Allocator::default();
    token.check()?;
    let without_imports = imports::erase_type_imports(&allocator, source);
    let text = parse::wrap(without_imports.as_deref().unwrap_or(source));
    let read = Read { source, text, asked, token };
    let text = &read.text;
    token.check()?;
    // what is JavaScript means what it means there
    let plain = parse::parse(&allocator, text, Grammar::JavaScript);
    let plain_mistake = match &plain {
        Ok(plain) => match plain.mistakes.first() {
            // the parser lets some types pass here
            None if erase::find(plain.body, text, token)?.is_empty() => {
                // or what reads as it may have types that were meant
                let typed = match keywords::are_compared(plain.body, text, token)? {
                    true => typed_instead(&read, &allocator)?,
                    false => None,
                };
                return match typed {
                    Some(typed) => Ok(typed),
                    None => Ok(understood(&read, code_of(source, without_imports), plain, None)?),
                };
            }
            None => Mistake { offset: 0, message: "this is no JavaScript".into() },
            Some(mistake) => mistake.clone(),
        },
        Err(mistake) => mistake.clone(),
    };
    token.check()?;
    let typed = parse::parse(&allocator, text, Grammar::TypeScript);
    token.check()?;
    let typed_mistake = match &typed {
        Ok(typed) => {
            let found = erase::find(typed.body, text, token)?;
            match typed.mistakes.first() {
                None if found.is_empty() => {
                    let code = code_of(source, without_imports);
                    return Ok(understood(&read, code, typed, Some(plain_mistake))?);
                }
                None => {
                    let code = match without_types(&allocator, text, typed, found, token)? {
                        Ok(code) => code,
                        Err(mistake) => return Err(error(source, mistake).into()),
                    };
                    return Ok(understood(&read, Cow::Owned(code), typed, None)?);
                }
                Some(mistake) => mistake.clone(),
            }
        }
        Err(mistake) => mistake.clone(),
    };
    // the reading that got further is the one that was meant
    if typed_mistake.offset > plain_mistake.offset {
        return Err(error(source, typed_mistake).into());
    }
    match plain {
        Ok(plain) => Ok(understood(&read, code_of(source, without_imports), &plain, Some(plain_mistake))?),
        Err(_) => Ok(unparsed(source, asked, error(source, plain_mistake))),
    }
}

/// What reads as JavaScript, read as TypeScript. None: there are no types in it that can be erased.
fn typed_instead<'s>(read: &Read<'_, 's>, allocator: &Allocator) -> Result<Option<Analysis<'s>>, StopCause> {
    read.token.check()?;
    let Ok(typed) = parse::parse(allocator, allocator.alloc_str(&read.text), Grammar::TypeScript) else {
        return Ok(None);
    };
    let found = erase::find(typed.body, &read.text, read.token)?;
    if !typed.mistakes.is_empty() || found.is_empty() {
        return Ok(None);
    }
    match without_types(allocator, &read.text, &typed, found, read.token)? {
        Ok(code) => Ok(Some(understood(read, Cow::Owned(code), &typed, None)?)),
        Err(_) => Ok(None),
    }
}

fn code_of(source: &str, without_imports: Option<String>) -> Cow<'_, str> {
    without_imports.map_or(Cow::Borrowed(source), Cow::Owned)
}

/// Erases types, and makes sure that nothing else changed.
fn without_types(
    allocator: &Allocator,
    text: &str,
    typed: &Parsed<'_>,
    found: Findings,
    token: &StopToken,
) -> Result<Result<String, Mistake>, StopCause> {
    if let Some(mistake) = found.unsupported {
        return Ok(Err(mistake));
    }
    token.check()?;
    let erased = erase::erase(text, &parse::tokens(allocator, text), &found, token)?;
    token.check()?;
    let again = parse::parse(allocator, allocator.alloc_str(&erased), Grammar::JavaScript);
    let same = match again {
        Ok(plain) if plain.mistakes.is_empty() => fingerprint::same_program(typed.body, plain.body, token)?,
        _ => false,
    };
    if !same {
        let message = "a type here cannot be erased without changing the program; put parentheses around the expression that it belongs to";
        return Ok(Err(Mistake { offset: found.first(), message: message.into() }));
    }
    Ok(Ok(parse::unwrap(&erased).map_or_else(String::new, str::to_owned)))
}

/// `mistake`: what is wrong with it, if QuickJS thinks so too.
fn understood<'s>(
    read: &Read<'_, 's>,
    code: Cow<'s, str>,
    parsed: &Parsed<'_>,
    mistake: Option<Mistake>,
) -> Result<Analysis<'s>, StopCause> {
    let (source, token) = (read.source, read.token);
    let mention = match read.asked {
        Some(_) => None,
        None => style::mention(parsed.body, &read.text, token)?,
    };
    let mode = match (read.asked, mention) {
        (Some(asked), _) => asked,
        (None, Some(_)) => SuspendMode::Await,
        (None, None) => SuspendMode::Stack,
    };
    let found = walk::walk(parsed.body, mode, token)?;
    let calls = found.needs.any_extension();
    let needs: Vec<_> = found.needs.into_tokens().collect();
    let mut offsets: Vec<usize> = needs.iter().map(|(_, need)| parse::offset(need.position)).collect();
    offsets.extend(found.plain.iter().flat_map(|used| [parse::offset(used.position), parse::offset(used.end)]));
    offsets.extend(found.odd.iter().map(|odd| parse::offset(odd.position)));
    offsets.extend(mention.map(|mention| parse::offset(mention.position)));
    let places = place::places(source, &offsets);
    let (of_needs, rest) = places.split_at_checked(needs.len()).unwrap_or_default();
    let capabilities = needs
        .into_iter()
        .zip(of_needs)
        .map(|((token, need), (line, column))| InferredCapability {
            token,
            line: *line,
            column: *column,
            certain: need.certain,
        })
        .collect();
    let why = match (read.asked, mention, rest.last()) {
        (Some(_), ..) => Why::Asked,
        (None, Some(mention), Some((line, column))) => Why::Mentions(mention.word, *line, *column),
        _ if calls => Why::CallsWithout,
        _ => Why::CallsNone,
    };
    let suspend_mode = read.asked.unwrap_or(why.mode());
    let mut warnings: Vec<Warning> = match suspend_mode {
        SuspendMode::Await => found.plain.iter().zip(rest.chunks_exact(2)).filter_map(|it| promise(it, why)).collect(),
        SuspendMode::Stack => Vec::new(),
    };
    let of_odd = rest.get(2 * found.plain.len()..).unwrap_or_default();
    warnings.extend(found.odd.iter().zip(of_odd).map(|(odd, (line, column))| Warning {
        message: odd.kind.message(),
        line: *line,
        column: *column,
        explains_until: None,
    }));
    warnings.sort_by_key(|warning| (warning.line, warning.column));
    let mistake = match mistake {
        Some(mistake) => Some(error(source, mistake)),
        None => private::undeclared(parsed.body, source, token)?.map(|mistake| told(source, &mistake)),
    };
    Ok(Analysis { code, capabilities, suspend_mode, why, warnings, unparsed: None, mistake, beyond_limit: None })
}

/// A call whose promise is used as a plain value, and its place: begin and end.
fn promise((used, places): (&PlainUse, &[(u32, u32)]), why: Why) -> Option<Warning> {
    let [(line, column), end] = *places else { return None };
    let since = match why {
        Why::Mentions(word, line, column) => format!("the handler mentions `{word}` at {line}:{column}"),
        _ => "`suspendMode` is \"await\"".to_owned(),
    };
    let message = format!("`{}` at {line}:{column} is a promise here, since {since}; await it", used.call);
    Some(Warning { message, line, column, explains_until: Some(end) })
}

/// Nothing is known of it, so whatever there is may be needed.
fn unparsed(source: &str, asked: Option<SuspendMode>, mistake: SyntaxError) -> Analysis<'_> {
    let mut needs = Needs::default();
    needs.everything(0);
    let anything = |(token, _)| InferredCapability { token, line: 1, column: 1, certain: false };
    let why = if asked.is_some() { Why::Asked } else { Why::Unread };
    Analysis {
        code: Cow::Borrowed(source),
        capabilities: needs.into_tokens().map(anything).collect(),
        suspend_mode: asked.unwrap_or(why.mode()),
        why,
        warnings: Vec::new(),
        unparsed: Some(mistake.clone()),
        mistake: Some(mistake),
        beyond_limit: None,
    }
}

/// What the parser found, in better words where there are some.
fn error(source: &str, mistake: Mistake) -> SyntaxError {
    told(source, &advice::advised(source, mistake))
}

/// What is too much for an analysis, whatever stands there.
fn beyond(offset: usize, message: &str) -> Mistake {
    Mistake { offset, message: message.to_owned() }
}

fn told(source: &str, mistake: &Mistake) -> SyntaxError {
    let (line, column) = place::place(source, mistake.offset);
    SyntaxError { message: mistake.message.clone(), line, column }
}
