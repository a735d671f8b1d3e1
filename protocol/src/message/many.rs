//! Executions of one frame: what they have in common, and what is each one's own.

use serde::{Deserialize, Serialize};

use crate::error::WireError;
use crate::limits::MAX_MANY_ITEMS;
use crate::message::maps::{ExecuteManyFields, ManyItem};
use crate::message::request::{ExecuteError, code_of, invalid};
use crate::message::{CallLimits, Code, Execute, Regions};

/// A request to run handlers one after another. Every item makes an [`Execute`] with what is common.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "ExecuteManyFields<'a>", into = "ExecuteManyFields<'a>")]
pub struct ExecuteMany<'a> {
    #[serde(borrow)]
    common: ManyItem<'a>,
    #[serde(borrow)]
    items: Vec<ManyItem<'a>>,
}

impl<'a> ExecuteMany<'a> {
    /// Fails where an item makes no execute.
    pub fn new(common: ManyItem<'a>, items: Vec<ManyItem<'a>>) -> Result<Self, String> {
        Self::checked(common, items).map_err(|e| e.to_string())
    }

    fn checked(common: ManyItem<'a>, items: Vec<ManyItem<'a>>) -> Result<Self, ExecuteError> {
        for item in &items {
            merge(&common, item)?;
        }
        Ok(Self { common, items })
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What is to be run for one of them.
    pub fn item(&self, at: usize) -> Option<Execute<'a>> {
        self.items.get(at).and_then(|item| merge(&self.common, item).ok())
    }

    /// The values that can be judged for all items at once. Those of each are checked when it runs.
    pub fn check(&self) -> Result<(), WireError> {
        match self.len() {
            1..=MAX_MANY_ITEMS => Ok(()),
            len => Err(invalid(format!("items: there are {len}, and 1 to {MAX_MANY_ITEMS} may be"))),
        }
    }
}

/// What an item does not say, it has in common with the others.
fn merge<'a>(common: &ManyItem<'a>, item: &ManyItem<'a>) -> Result<Execute<'a>, ExecuteError> {
    let own_code = item.source.is_some() || item.handler.is_some();
    let code = if own_code { item } else { common };
    let own_state = item.state.is_some() || item.resident.is_some();
    let state = if own_state { item } else { common };
    if state.state.is_some() && state.resident.is_some() {
        return Err(ExecuteError::TwoStates);
    }
    Ok(Execute {
        code: code_of(code.source, code.handler)?,
        panel_id: item.panel_id.or(common.panel_id),
        handler_name: item.handler_name.or(common.handler_name),
        state: state.state,
        resident: state.resident,
        args: item.args.or(common.args),
        scope: item.scope.or(common.scope),
        capabilities: item.capabilities.as_ref().or(common.capabilities.as_ref()).cloned().unwrap_or_default(),
        extensions: item.extensions.as_ref().or(common.extensions.as_ref()).cloned(),
        timeout_ms: item.timeout_ms.or(common.timeout_ms),
        limits: item.limits.or(common.limits).unwrap_or_default(),
        strict_capabilities: item.strict_capabilities.or(common.strict_capabilities).unwrap_or_default(),
        suspend_mode: item.suspend_mode.or(common.suspend_mode),
        seed: item.seed.or(common.seed),
        stream_logs: false,
        regions: Regions::NONE,
    })
}

impl<'a> TryFrom<ExecuteManyFields<'a>> for ExecuteMany<'a> {
    type Error = ExecuteError;

    fn try_from(fields: ExecuteManyFields<'a>) -> Result<Self, ExecuteError> {
        Self::checked(fields.common.unwrap_or_default(), fields.items)
    }
}

impl<'a> From<ExecuteMany<'a>> for ExecuteManyFields<'a> {
    fn from(many: ExecuteMany<'a>) -> Self {
        Self { common: (many.common != ManyItem::default()).then_some(many.common), items: many.items }
    }
}

impl<'a> From<Execute<'a>> for ManyItem<'a> {
    /// All that an execute says but for what goes through shared memory, with nothing in common.
    fn from(execute: Execute<'a>) -> Self {
        let (source, handler) = match execute.code {
            Code::Source(source) => (Some(source), None),
            Code::Handler(handler) => (None, Some(handler)),
        };
        Self {
            source,
            handler,
            panel_id: execute.panel_id,
            handler_name: execute.handler_name,
            state: execute.state,
            resident: execute.resident,
            args: execute.args,
            scope: execute.scope,
            capabilities: (!execute.capabilities.is_empty()).then_some(execute.capabilities),
            extensions: execute.extensions,
            timeout_ms: execute.timeout_ms,
            limits: (execute.limits != CallLimits::default()).then_some(execute.limits),
            strict_capabilities: execute.strict_capabilities.then_some(true),
            suspend_mode: execute.suspend_mode,
            seed: execute.seed,
        }
    }
}
