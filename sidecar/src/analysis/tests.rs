//! Tables of handlers and what the analysis must say of them.

mod capabilities;
mod escapes;
mod hostile;
mod linear;
mod mistakes;
mod properties;
mod sources;
mod style;
mod typescript;

use nexus_protocol::message::SuspendMode;

use super::nesting::{Extent, Refusal};
use super::{Analysis, AnalysisError, SyntaxError};
use crate::token::StopToken;

/// Without a bound in time.
fn analyze(source: &str) -> Result<Analysis<'_>, SyntaxError> {
    analyze_as(source, None)
}

fn analyze_as(source: &str, mode: Option<SuspendMode>) -> Result<Analysis<'_>, SyntaxError> {
    super::analyze(source, mode, &StopToken::new()).map_err(|e| match e {
        AnalysisError::Syntax(error) => error,
        AnalysisError::Stopped(cause) => panic!("nobody has stopped it: {cause:?}"),
    })
}

fn extent(source: &str) -> Result<Extent, Refusal> {
    super::nesting::extent(source, &StopToken::new())
}

fn understood(source: &str) -> Analysis<'_> {
    match analyze(source) {
        Ok(analysis) if analysis.unparsed.is_none() => analysis,
        other => panic!("{source}\nwas not understood: {other:?}"),
    }
}

fn refused(source: &str) -> SyntaxError {
    match analyze(source) {
        Err(error) => error,
        Ok(analysis) => panic!("{source}\nwas accepted: {analysis:?}"),
    }
}
