//! What a run does besides running.

use std::collections::BTreeMap;
use std::fmt;

use crate::current::CurrentCall;
use crate::extensions::{CallError, Extensions};
use crate::segment::{Log, Segment};
use crate::token::CancelToken;

/// Called for each segment.
pub(crate) type OnSegment = Box<dyn FnMut(&Segment) + Send>;
/// Called for each record, while the handler runs.
pub(crate) type OnLog = Box<dyn FnMut(Log) + Send>;
/// Called for each error of an extension.
pub(crate) type OnExtensionError = Box<dyn FnMut(CallError, &CurrentCall) -> CallError + Send>;

/// How to run.
#[derive(Default)]
pub(crate) struct RunOptions {
    pub(crate) extensions: Extensions,
    pub(crate) on_segment: Option<OnSegment>,
    pub(crate) on_log: Option<OnLog>,
    pub(crate) on_extension_error: Option<OnExtensionError>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) cancel: Option<CancelToken>,
}

impl fmt::Debug for RunOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOptions").field("extensions", &self.extensions).finish_non_exhaustive()
    }
}
