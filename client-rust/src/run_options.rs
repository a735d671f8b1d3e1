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

/// What is said of all runs alike, said of a request that has them as `options`. The words are those of its `cancel`.
macro_rules! run_option_methods {
    ($request:ident, $(#[$cancel:meta])*) => {
        impl $request {
            /// The functions that a handler may call. Where no capability is named, these are granted, and nothing else.
            pub fn extensions(mut self, extensions: $crate::Extensions) -> Self {
                self.options.extensions = extensions;
                self
            }

            /// Decides what the handler sees of an extension's error: what is returned is thrown in it, in place of what the
            /// extension returned. That remains, as the [source](crate::FailedRun) of the run's error where the handler lets it
            /// through. It runs where the run is polled or waited for.
            pub fn on_extension_error(
                mut self,
                callback: impl FnMut($crate::CallError, &$crate::CurrentCall) -> $crate::CallError + Send + 'static,
            ) -> Self {
                self.options.on_extension_error = Some(Box::new(callback));
                self
            }

            /// Adds a label of the caller's own, for [`CurrentCall::label`](crate::CurrentCall::label) in the extensions.
            pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
                self.options.labels.insert(name.into(), value.into());
                self
            }

            $(#[$cancel])*
            pub fn cancel(mut self, token: &$crate::CancelToken) -> Self {
                self.options.cancel = Some(token.clone());
                self
            }
        }
    };
}
pub(crate) use run_option_methods;
