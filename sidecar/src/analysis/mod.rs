//! Static analysis of a handler: types out, capabilities inferred, suspend mode chosen (CONTRACT 2 and 5).
//!
//! ```text
//! source -> nesting (how deep?) -> parse as JavaScript -> parse as TypeScript -> erase types -> style, walk -> Analysis
//!               |                        |                      |                    |
//!               v                        v                      v                    v
//!         too deep: error           walk at once          no tree: left to      construct that needs code: error
//!                                                         QuickJS
//! ```
//! The text is hostile. Nothing here trusts it: the height of its tree is bounded before any recursion starts and the
//! stack reserved by it, the guesses of the TypeScript grammar are bounded, and a panic of the parser is caught.
//!
//! QuickJS has the last word on what JavaScript is. Text that is refused here as TypeScript *and* as JavaScript is left
//! to it (`unparsed`) unless the TypeScript reading got further than the JavaScript one, which means that the mistake is
//! in, or behind, something that only TypeScript has.
//!
//! What parses as plain JavaScript is taken as that; only what does not is tried as TypeScript. So `f(a < b, c > (d))` is two
//! comparisons in a handler without types, and a call with type arguments in one with them, unless what would be compared is called
//! like a type of the language, as in `new Set<string>(items)`, and nothing declares it.
//!
//! Every step is linear in the text but for the guesses, which are bounded, and looks at the request's token on its way. The
//! parser is the exception: it reads a text of a bounded height to its end.
//!
//! Invariant: `code` has each line and each column (in UTF-16 units, and in bytes) where `source` has it.
//! Two promises: who grants all that is listed has granted enough (what cannot be followed is listed as `*`), and what is
//! `certain` is needed whenever the handler runs. What it does not do: enforce anything. The host side of the guest boundary is
//! where capabilities count.

mod advice;
mod analyze;
mod calls;
mod erase;
mod fingerprint;
mod flow;
mod fresh;
mod functions;
mod imports;
mod keywords;
mod lexeme;
mod needs;
mod nesting;
mod pace;
mod parse;
mod path;
mod place;
mod plain;
mod private;
mod scope;
mod statements;
mod style;
#[cfg(test)]
mod tests;
mod uses;
mod walk;

pub use advice::beyond_parser;
pub use analyze::{Analysis, AnalysisError, InferredCapability, SyntaxError, Warning, analyze};
pub use style::Why;
