//! Vectors of several executions in one frame, and of what is told before an answer.

use nexus_protocol::message::{
    CallLimits, Code, Execute, ExecuteMany, LogsSoFar, ManyItem, Resident, Results, SegmentResult, Status, SuspendMode,
};
use nexus_protocol::{ClientMessage, EffectList, ErrorCode, SidecarMessage, WireError};

use crate::Vector;
use crate::messages::{STATE, client, sidecar};

pub(crate) fn all() -> Vec<Vector> {
    let many = |common, items| ClientMessage::ExecuteMany(ExecuteMany::new(common, items).expect("each is whole"));
    let args = |args: &'static [u8]| ManyItem { args: Some(args), ..ManyItem::default() };
    let common = ManyItem {
        source: Some("return $args * $scope.rate"),
        panel_id: Some("sheet"),
        handler_name: Some("cell"),
        state: Some(&[0x80]),
        scope: Some(b"\x81\xa4rate\x02"),
        capabilities: Some(vec!["state:read:*"]),
        extensions: Some(vec![("http", vec!["get"])]),
        timeout_ms: Some(250),
        limits: Some(CallLimits { max_events: Some(0), ..CallLimits::default() }),
        strict_capabilities: Some(true),
        suspend_mode: Some(SuspendMode::Await),
        seed: Some(7),
        ..ManyItem::default()
    };
    let own = ManyItem {
        handler: Some(&[0xca, 0xfe]),
        resident: Some(Resident { id: STATE, expect_version: Some(3), exclusive: true }),
        capabilities: Some(vec![]),
        ..ManyItem::default()
    };
    let alone = ManyItem { source: Some("return 1"), ..ManyItem::default() };
    let mut value = SegmentResult::new(Status::Success, 0);
    value.value = Some(&[0x0e]);
    let mut failed = SegmentResult::new(Status::Error, 0);
    failed.error = Some(WireError::new(ErrorCode::ExecutionError, "no"));
    let part = Results { results: vec![value.clone(), failed], more: true };
    let mut logs = EffectList::new();
    logs.push_log("info", "half of it is done", 1_700_000_000_000.0);
    let mut streamed = Execute::new(Code::Source("console.log('half of it is done')"));
    streamed.stream_logs = true;
    vec![
        client("execute-many", "two items on what they have in common", &many(common, vec![args(&[7]), own])),
        client("execute-many-alone", "one item that says all", &many(ManyItem::default(), vec![alone])),
        client("execute-streamed-logs", "logs are told while it runs", &ClientMessage::Execute(streamed)),
        sidecar("results-part", "further ones follow", &SidecarMessage::Results(part)),
        sidecar("results", "the answer", &SidecarMessage::Results(Results { results: vec![value], more: false })),
        sidecar(
            "logs",
            "before the answer",
            &SidecarMessage::Logs(LogsSoFar { logs: logs.payload().expect("there is one") }),
        ),
    ]
}
