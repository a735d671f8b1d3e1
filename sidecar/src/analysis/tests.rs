//! Tables of handlers and what the analysis must say of them.

mod capabilities;
mod hostile;
mod properties;
mod suspend;
mod typescript;

use super::{Analysis, SyntaxError, analyze};

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
