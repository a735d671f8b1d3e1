//! What whoever looks after a sidecar asks: what is there, and to end one of them. No value of a handler is told.

use serde::{Deserialize, Serialize};

use crate::message::ExecutionState;
use crate::strict;

/// A request to end an execution of anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    pub execution: u64,
}

/// The executions that are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executions<'a> {
    #[serde(borrow, deserialize_with = "strict::maps")]
    pub executions: Vec<ExecutionEntry<'a>>,
    /// How many there are, of which only some may be listed.
    pub total: u64,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionEntry<'a> {
    pub id: u64,
    pub session: u64,
    #[serde(borrow, deserialize_with = "strict::text")]
    pub client: &'a str,
    pub pid: u32,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_text")]
    pub panel_id: Option<&'a str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_text")]
    pub handler_name: Option<&'a str>,
    pub state: ExecutionState,
    pub age_ms: u64,
    pub cpu_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    pub pending_calls: u32,
}
