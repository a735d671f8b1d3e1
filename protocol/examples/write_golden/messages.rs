//! One vector per message, in its smallest and its fullest form, and what the vectors of other files are put together with.

use nexus_protocol::message::{
    Arena, CallFailure, CallLimits, Cancel, Check, Checked, ClientHello, Code, Compiled, CreateState, DisposeState,
    Done, Execute, ExecutionEntry, ExecutionMetrics, ExecutionState, Executions, HelloLimits, Kill, MetricsText, Note,
    OpenArena, PatchState, PendingCall, Precompile, Region, Regions, Resident, Resolution, Resume, SegmentResult,
    SidecarHello, SnapshotState, StateCreated, StateDisposed, StatePatched, StateSnapshot, Stats, Status, SuspendMode,
};
use nexus_protocol::{
    ClientMessage, EffectList, ErrorCode, InnerError, MAGIC, ProtocolVersion, RequestId, SidecarMessage, WireError,
    limits,
};
use serde_json::json;

use crate::Vector;
use crate::bytes::{map, text};
use crate::lenient::accepted;
use crate::tagged;

const SUSPENSION: &str = "00112233445566778899aabbccddeeff";
const OTHER_SUSPENSION: &str = "ffeeddccbbaa99887766554433221100";
const THIRD_SUSPENSION: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
pub(crate) const STATE: &str = "8899aabbccddeeff0011223344556677";
const ENGINE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const MAX_BODY_BYTES: usize = 1 << 20;

pub(crate) fn all() -> Vec<Vector> {
    [requests(), answers(), results(), resident(), shared(), errors()].into_iter().flatten().collect()
}

fn requests() -> Vec<Vector> {
    let only = ProtocolVersion::V2;
    let hello = ClientHello { magic: MAGIC, min: only, max: only, client: "nexus-client/0.1.0" };
    let mut full = Execute::new(Code::Source("const r = await $ext.http.get($args.url)\n$state.n = r.n\nreturn r"));
    full.panel_id = Some("panel-1");
    full.handler_name = Some("onClick");
    full.state = Some(&[0x81, 0xa1, b'n', 0x01]);
    full.args = Some(b"\x81\xa3url\xa1/");
    full.scope = Some(&[0x80]);
    full.capabilities =
        vec!["state:read:*", "state:write:n", "ext:http.get", "events:emit:system:error", "crypto:random"];
    full.extensions = Some(vec![("http", vec!["get", "post"]), ("none", vec![])]);
    full.timeout_ms = Some(250);
    full.limits = CallLimits {
        memory_limit_bytes: Some(8 << 20),
        max_host_calls: Some(100),
        max_state_mutations: Some(10),
        max_events: Some(0),
        max_result_bytes: Some(1 << 16),
        max_log_bytes: Some(1024),
        unknown: None,
    };
    full.strict_capabilities = true;
    full.suspend_mode = Some(SuspendMode::Await);
    full.seed = Some(u64::MAX);
    let failure = CallFailure { message: "connect ECONNREFUSED", name: Some("FetchError"), code: Some("ECONNREFUSED") };
    let bare_failure = CallFailure { message: "no", name: None, code: None };
    let resume = |resolution| ClientMessage::Resume(Resume::new(SUSPENSION, resolution));
    vec![
        client("hello", "first frame of a client", &ClientMessage::Hello(hello)),
        client(
            "execute-smallest",
            "a source and nothing else",
            &ClientMessage::Execute(Execute::new(Code::Source("return 1"))),
        ),
        client(
            "execute-empty-source",
            "an empty source is a source",
            &ClientMessage::Execute(Execute::new(Code::Source(""))),
        ),
        client(
            "execute-handler",
            "a handle instead of a source",
            &ClientMessage::Execute(Execute::new(Code::Handler(&[0, 1, 254, 255]))),
        ),
        client("execute-full", "every key", &ClientMessage::Execute(full)),
        client(
            "execute-unicode",
            "a source beyond ASCII",
            &ClientMessage::Execute(Execute::new(Code::Source("return 'żółw 🐢'"))),
        ),
        client(
            "precompile",
            "without a name",
            &ClientMessage::Precompile(Precompile { source: "return 1", handler_name: None, suspend_mode: None }),
        ),
        client(
            "precompile-named",
            "with a name",
            &ClientMessage::Precompile(Precompile {
                source: "return 1",
                handler_name: Some("onLoad"),
                suspend_mode: Some(SuspendMode::Stack),
            }),
        ),
        client("resume-nil", "no value means nil", &resume(Resolution::Value(None))),
        client("resume-value", "a value", &resume(Resolution::Value(Some(&[0x93, 1, 2, 3])))),
        client("resume-error", "the call failed", &resume(Resolution::Failure(failure))),
        client("resume-error-smallest", "the call failed, message only", &resume(Resolution::Failure(bare_failure))),
        client("cancel-suspension", "cancel by suspension", &ClientMessage::Cancel(Cancel::Suspension(SUSPENSION))),
        client("cancel-request", "cancel by request", &ClientMessage::Cancel(Cancel::Request(4_000_000_000))),
        client("check", "check", &ClientMessage::Check(Check { source: "$emit('x', 1)" })),
        client("stats", "stats", &ClientMessage::Stats),
        client("metrics", "metrics", &ClientMessage::Metrics),
        client("ping", "ping", &ClientMessage::Ping),
        client("executions", "what is there", &ClientMessage::Executions),
        client("kill", "end an execution", &ClientMessage::Kill(Kill { execution: 7 })),
        client("shutdown", "shutdown", &ClientMessage::Shutdown),
    ]
}

fn answers() -> Vec<Vector> {
    let hello = SidecarHello {
        version: ProtocolVersion::V2,
        build: "0.1.0",
        engine: ENGINE,
        pid: 4242,
        debug: false,
        limits: HelloLimits {
            max_frame_bytes: limits::DEFAULT_MAX_FRAME_BYTES,
            max_source_bytes: limits::DEFAULT_MAX_SOURCE_BYTES,
            max_result_bytes: limits::DEFAULT_MAX_RESULT_BYTES,
            timeout_ms: limits::DEFAULT_TIMEOUT_MS,
            memory_limit_bytes: limits::DEFAULT_MEMORY_LIMIT_BYTES,
            stack_size_bytes: limits::DEFAULT_STACK_SIZE_BYTES,
            suspension_timeout_ms: limits::DEFAULT_SUSPENSION_TIMEOUT_MS,
            max_host_calls: limits::DEFAULT_MAX_HOST_CALLS,
            max_state_mutations: limits::DEFAULT_MAX_STATE_MUTATIONS,
            max_events: limits::DEFAULT_MAX_EVENTS,
            max_in_flight: limits::DEFAULT_MAX_IN_FLIGHT,
            max_states: limits::DEFAULT_MAX_STATES,
            max_state_bytes: limits::DEFAULT_MAX_STATE_BYTES,
            max_arena_bytes: limits::DEFAULT_MAX_ARENA_BYTES,
            max_suspended: Some(limits::DEFAULT_MAX_SUSPENDED),
        },
    };
    let running = ExecutionEntry {
        id: 7,
        session: 16,
        client: "kernel 1.2",
        pid: 4711,
        panel_id: Some("orders"),
        handler_name: Some("save"),
        state: ExecutionState::Running,
        age_ms: 1200,
        cpu_us: 1_190_000,
        memory_bytes: Some(1 << 20),
        pending_calls: 0,
    };
    let queued = ExecutionEntry {
        id: 8,
        panel_id: None,
        handler_name: None,
        state: ExecutionState::Queued,
        age_ms: 0,
        cpu_us: 0,
        memory_bytes: None,
        ..running
    };
    let executions = Executions { executions: vec![running, queued], total: 3 };
    let compiled = Compiled {
        handler: &[0xca, 0xfe, 0xba, 0xbe],
        capabilities: vec!["state:read:n", "ext:http.get"],
        suspend_mode: SuspendMode::Await,
        cache_hit: true,
        compilation_time_us: 812,
        warnings: vec![],
    };
    let promise = "`$ext.a.b()` at 1:8 is a promise here, since the handler mentions `async` at 2:1; await it";
    let warned = Compiled { warnings: vec![Note { message: promise, line: 1, column: 8 }], ..compiled.clone() };
    let stats = Stats {
        total_executions: 1_000_000,
        active_instances: 2,
        available_instances: 8,
        suspended_instances: 1,
        cache_hit_rate: 0.875,
        avg_execution_time_us: 17.25,
        p50_execution_time_us: 16,
        p95_execution_time_us: 40,
        p99_execution_time_us: 300,
        total_memory_bytes: 5 << 30,
        instances_created: 11,
        instances_reused: 999_989,
        cache_entries: 64,
        cache_size_bytes: 1 << 20,
        queued: 0,
        uptime_ms: 86_400_000,
        resident_states: 3,
        resident_state_bytes: 30 << 20,
        arena_bytes: 64 << 20,
        cache_disk_bytes: 12 << 20,
        cache_rejected: 2,
    };
    let text = "# TYPE nexus_handler_executions_total counter\nnexus_handler_executions_total{status=\"success\"} 3\n";
    vec![
        sidecar("answer-hello", "first frame of a sidecar", &SidecarMessage::Hello(hello)),
        sidecar("answer-compiled", "a handle", &SidecarMessage::Compiled(compiled)),
        sidecar("answer-compiled-warned", "a handle, and a warning", &SidecarMessage::Compiled(warned)),
        sidecar("answer-done", "cancelled", &SidecarMessage::Done(Done { cancelled: true })),
        sidecar("answer-done-nothing", "there was nothing to cancel", &SidecarMessage::Done(Done { cancelled: false })),
        sidecar(
            "answer-checked",
            "stack style, no needs",
            &SidecarMessage::Checked(Checked {
                capabilities: vec![],
                suspend_mode: SuspendMode::Stack,
                suspend_reason: None,
                certain: vec![],
                warnings: vec![],
                unparsed: None,
            }),
        ),
        sidecar(
            "answer-checked-all",
            "needs, certain and not, a reason, a warning, and what could not be read",
            &SidecarMessage::Checked(Checked {
                capabilities: vec!["ext:a.b", "state:read:n", "state:write:*"],
                suspend_mode: SuspendMode::Await,
                suspend_reason: Some("`async` at 2:1"),
                certain: vec!["state:read:n"],
                warnings: vec![Note { message: promise, line: 1, column: 8 }],
                unparsed: Some(Note { message: "Unterminated string", line: 3, column: 9 }),
            }),
        ),
        sidecar("answer-stats", "figures", &SidecarMessage::Stats(stats)),
        sidecar("answer-metrics", "Prometheus text", &SidecarMessage::Metrics(MetricsText { text })),
        sidecar("answer-pong", "pong", &SidecarMessage::Pong),
        sidecar("answer-executions", "two executions of three", &SidecarMessage::Executions(executions)),
    ]
}

fn results() -> Vec<Vector> {
    let metrics = ExecutionMetrics {
        duration_us: 1234,
        cpu_us: 234,
        queue_us: 12,
        memory_used_bytes: 300_000,
        memory_peak_bytes: 400_000,
        instruction_count: 20_000,
        host_calls: vec![("state_get", 2), ("ext_call", 1)],
        cache_hit: false,
        compilation_time_us: Some(900),
    };
    let mut mutations = EffectList::new();
    mutations.push_set("user", b"\x81\xa4name\xa3Ada");
    mutations.push_delete("draft");
    let mut events = EffectList::new();
    events.push_event("saved", &[0xc0], 1_700_000_000_000.0);
    let mut views = EffectList::new();
    views.push_view_command("grid", "setFilter", b"\x81\xa5value\xa1x");
    views.push_view_command("grid", "scrollTo", b"\x81\xa8position\x05");
    views.push_view_command("grid", "focus", &[0x80]);
    let mut logs = EffectList::new();
    logs.push_log("info", "saved", 1_700_000_000_000.5);

    let mut full = SegmentResult::new(Status::Success, 2);
    full.value = Some(b"\x81\xa2ok\xc3");
    full.state_mutations = mutations.payload();
    full.events = events.payload();
    full.view_commands = views.payload();
    full.logs = logs.payload();
    full.metrics = metrics.clone();
    let mut suspended = SegmentResult::new(Status::Suspended, 0);
    suspended.state_mutations = mutations.payload();
    suspended.suspensions = vec![
        PendingCall { id: SUSPENSION, extension: "http", method: "get", args: b"\x91\xa1/" },
        PendingCall { id: OTHER_SUSPENSION, extension: "db", method: "query", args: &[0x90] },
    ];
    let mut goes_on = SegmentResult::new(Status::Suspended, 1);
    goes_on.suspensions = vec![PendingCall { id: THIRD_SUSPENSION, extension: "http", method: "get", args: &[0x90] }];
    let mut failed = SegmentResult::new(Status::Error, 1);
    failed.events = events.payload();
    failed.error = Some(full_error());
    failed.metrics = metrics;
    let mut warned = SegmentResult::new(Status::Success, 0);
    let message = "`$ext.a.b()` at 1:8 is a promise here, since the handler mentions `async` at 2:1; await it";
    warned.warnings = vec![Note { message, line: 1, column: 8 }];
    vec![
        sidecar(
            "result-nil",
            "returned nothing, no effects",
            &SidecarMessage::Result(SegmentResult::new(Status::Success, 0)),
        ),
        sidecar("result-full", "returned, with every sort of effect", &SidecarMessage::Result(full)),
        sidecar("result-warned", "returned nothing, with a warning", &SidecarMessage::Result(warned)),
        sidecar(
            "result-suspended",
            "waits for two calls, both made in this segment",
            &SidecarMessage::Result(suspended),
        ),
        sidecar(
            "result-suspended-again",
            "has made one more call; one of those made before is outstanding and not told again",
            &SidecarMessage::Result(goes_on),
        ),
        sidecar(
            "result-suspended-no-call",
            "has made no call, and waits for one made before",
            &SidecarMessage::Result(SegmentResult::new(Status::Suspended, 2)),
        ),
        sidecar("result-error", "failed, with the effects before it", &SidecarMessage::Result(failed)),
    ]
}

/// States that stay with the sidecar.
fn resident() -> Vec<Vector> {
    let mut on_state = Execute::new(Code::Source("$state.n += 1"));
    on_state.resident = Some(Resident::new(STATE));
    let mut exclusive = on_state.clone();
    exclusive.resident = Some(Resident { expect_version: Some(7), exclusive: true, ..Resident::new(STATE) });
    let patch = PatchState { id: STATE, set: None, delete: vec![], expect_version: None, regions: Regions::NONE };
    let full_patch = PatchState {
        set: Some(&[0x81, 0xa1, b'n', 0x02]),
        delete: vec!["draft", "żółw"],
        expect_version: Some(1 << 50),
        ..patch.clone()
    };
    let snapshot = |keys| ClientMessage::SnapshotState(SnapshotState { id: STATE, keys, regions: Regions::NONE });
    let mut result = SegmentResult::new(Status::Success, 0);
    result.state_version = Some(8);
    vec![
        client("execute-resident", "on a resident state", &ClientMessage::Execute(on_state)),
        client("execute-resident-exclusive", "on one version, and nobody else", &ClientMessage::Execute(exclusive)),
        client("create-state-empty", "no state is an empty one", &ClientMessage::CreateState(CreateState::default())),
        client(
            "create-state",
            "keep a state",
            &ClientMessage::CreateState(CreateState { state: Some(&[0x81, 0xa1, b'n', 0x01]), regions: Regions::NONE }),
        ),
        client("patch-state-nothing", "changes nothing", &ClientMessage::PatchState(patch)),
        client("patch-state", "every key", &ClientMessage::PatchState(full_patch)),
        client("snapshot-state", "all of it", &snapshot(None)),
        client("snapshot-state-keys", "two keys", &snapshot(Some(vec!["n", "m"]))),
        client("snapshot-state-no-keys", "none is not all: only the version is wanted", &snapshot(Some(vec![]))),
        client("dispose-state", "forget", &ClientMessage::DisposeState(DisposeState { id: STATE })),
        sidecar(
            "answer-state-created",
            "where it is kept",
            &SidecarMessage::StateCreated(StateCreated { id: STATE, version: 1 }),
        ),
        sidecar(
            "answer-state-patched",
            "its new version",
            &SidecarMessage::StatePatched(StatePatched { version: 1 << 40 }),
        ),
        sidecar(
            "answer-state-snapshot",
            "what it holds",
            &SidecarMessage::StateSnapshot(StateSnapshot {
                version: 8,
                state: Some(&[0x81, 0xa1, b'n', 0x02]),
                regions: Regions::NONE,
            }),
        ),
        sidecar(
            "answer-state-disposed",
            "there was one",
            &SidecarMessage::StateDisposed(StateDisposed { disposed: true }),
        ),
        sidecar("result-state-version", "ran on a resident state", &SidecarMessage::Result(result)),
        sidecar("error-unknown-state", "no such state", &SidecarMessage::Error(WireError::unknown_state())),
        sidecar(
            "error-stale-version",
            "the state has moved on",
            &SidecarMessage::Error(WireError::stale_version(8, 7)),
        ),
    ]
}

/// Shared memory.
fn shared() -> Vec<Vector> {
    let region = |offset, len| Some(Region { generation: 5, offset, len, crc32: None });
    let mut execute = Execute::new(Code::Source("return $args"));
    execute.regions = Regions {
        state: region(0, 300_000),
        args: region(300_032, 1 << 20),
        scope: region(1 << 40, u64::MAX),
        reply: region(1 << 21, 1 << 24),
        ..Regions::NONE
    };
    let mut checked = Execute::new(Code::Source("return 1"));
    checked.regions.state = Some(Region { generation: 5, offset: 0, len: 1, crc32: Some(0xd1f4_eb9a) });
    let mut resume = Resume::new(SUSPENSION, Resolution::Value(None));
    resume.regions.value = region(64, 65_536);
    let mut create = CreateState::default();
    create.regions.state = region(0, 300_000);
    let patch = PatchState {
        id: STATE,
        set: None,
        delete: vec![],
        expect_version: None,
        regions: Regions { set: region(0, 300_000), ..Regions::NONE },
    };
    let reply = Regions { reply: region(0, 1 << 20), ..Regions::NONE };
    let mut result = SegmentResult::new(Status::Success, 0);
    result.regions = Regions { value: region(0, 300_000), state_mutations: region(300_000, 270_000), ..Regions::NONE };
    let snapshot_regions = Regions { state: region(0, 300_000), ..Regions::NONE };
    vec![
        client("open-arena", "make one", &ClientMessage::OpenArena(OpenArena::Make { bytes: 64 << 20 })),
        client(
            "open-arena-opened",
            "the client has it open",
            &ClientMessage::OpenArena(OpenArena::Settle { generation: 5, opened: true }),
        ),
        client("execute-regions", "payloads in shared memory", &ClientMessage::Execute(execute)),
        client("execute-region-checked", "one with its CRC-32", &ClientMessage::Execute(checked)),
        client("resume-region", "a value in shared memory", &ClientMessage::Resume(resume)),
        client("create-state-region", "a state in shared memory", &ClientMessage::CreateState(create)),
        client("patch-state-region", "a patch in shared memory", &ClientMessage::PatchState(patch)),
        client(
            "snapshot-state-reply",
            "a place for the answer",
            &ClientMessage::SnapshotState(SnapshotState { id: STATE, keys: None, regions: reply }),
        ),
        sidecar(
            "answer-arena",
            "where it is",
            &SidecarMessage::Arena(Arena {
                generation: 5,
                bytes: 64 << 20,
                name: Some("nexus-sidecar.4242.00112233445566778899aabbccddeeff"),
            }),
        ),
        sidecar(
            "answer-arena-unnamed",
            "both have it open",
            &SidecarMessage::Arena(Arena { generation: 5, bytes: 64 << 20, name: None }),
        ),
        sidecar("result-regions", "payloads in shared memory", &SidecarMessage::Result(result)),
        sidecar(
            "answer-state-snapshot-region",
            "a state in shared memory",
            &SidecarMessage::StateSnapshot(StateSnapshot { version: 8, state: None, regions: snapshot_regions }),
        ),
    ]
}

fn errors() -> Vec<Vector> {
    let error = |name: &str, about: &str, error: WireError| {
        sidecar(&format!("error-{name}"), about, &SidecarMessage::Error(error))
    };
    let mut vectors: Vec<_> = ErrorCode::ALL
        .iter()
        .filter(|code| !code.is_of_clients())
        .map(|code| {
            let name = code.as_str().to_lowercase().replace('_', "-");
            error(&name, &format!("{code} ({})", code.number()), WireError::new(*code, "what happened"))
        })
        .collect();
    vectors.push(error("full", "every key", full_error()));
    vectors.push(error("with-errors", "an AggregateError", aggregate_error()));
    vectors.push(error(
        "unknown-handler",
        "INVALID_HANDLER that precompiling again cures",
        WireError::unknown_handler("unknown handler"),
    ));
    vectors.push(error(
        "which-limit",
        "RESOURCE_LIMIT names the resource",
        WireError::resource_limit("events", 100, 101),
    ));
    vectors.push(error(
        "which-token",
        "PERMISSION_DENIED names the token",
        WireError::permission_denied("state:write:user"),
    ));
    vectors.push(written(
        "error-of-the-connection",
        "an error that belongs to no request",
        "sidecar",
        SidecarMessage::Error(WireError::new(
            ErrorCode::ProtocolError,
            "no common protocol version: this side speaks 2 to 2, the peer 3 to 4",
        )),
        RequestId::CONNECTION,
    ));
    let fields =
        map(&[("error", map(&[("code", text("FUTURE_ERROR")), ("message", text("new")), ("retryable", vec![0xc3])]))]);
    vectors.push(accepted(
        "error-unknown-code",
        "a code of a later version is an INTERNAL_ERROR to this one",
        "sidecar",
        0xff,
        7,
        &fields,
    ));
    vectors
}

fn full_error() -> WireError {
    WireError::new(ErrorCode::ExecutionError, "boom: żółw")
        .with_name("TypeError")
        .with_location(3, 14)
        .with_stack("at onClick (handler:3:14)")
        .with_snippet("const a = 1\nconst b = 2\na.b.c()\n", 3)
        .with_context_text("resource", "hostCalls")
        .with_context_number("limit", 10)
        .with_properties(*b"\x82\xa4code\xa5E_TOP\xa5tries\x03")
        .with_cause(
            InnerError::new("cannot load")
                .with_name("LoadError")
                .with_code("E_LOAD")
                .with_properties(*b"\x82\xa4code\xa6E_LOAD\xa6status\xcd\x01\xf7")
                .with_cause(InnerError::new("[object Object]").with_value(*b"\x81\xa2id\x07")),
        )
}

fn aggregate_error() -> WireError {
    WireError::new(ErrorCode::ExecutionError, "All promises were rejected").with_name("AggregateError").with_errors(
        vec![
            InnerError::new("first").with_name("TypeError"),
            InnerError::new("42").with_value([42]),
            InnerError::new("a symbol was thrown"),
        ],
    )
}

pub(crate) fn client(name: &str, about: &str, message: &ClientMessage<'_>) -> Vector {
    let id = RequestId(u32::from(!matches!(message, ClientMessage::Hello(_))) * 7);
    let mut bytes = Vec::new();
    message.encode(id, MAX_BODY_BYTES, &mut bytes).expect("vectors are small");
    described(name, about, "client", bytes, message.kind().number(), id)
}

pub(crate) fn sidecar(name: &str, about: &str, message: &SidecarMessage<'_>) -> Vector {
    let id = RequestId(u32::from(!matches!(message, SidecarMessage::Hello(_))) * 7);
    written(name, about, "sidecar", message.clone(), id)
}

fn written(name: &str, about: &str, direction: &str, message: SidecarMessage<'_>, id: RequestId) -> Vector {
    let mut bytes = Vec::new();
    message.encode(id, MAX_BODY_BYTES, &mut bytes).expect("vectors are small");
    described(name, about, direction, bytes, message.kind().number(), id)
}

fn described(name: &str, about: &str, direction: &str, bytes: Vec<u8>, kind: u8, id: RequestId) -> Vector {
    let body = tagged::control(&bytes[4..]);
    let meaning = json!({
        "about": about, "sort": "message", "direction": direction, "canonical": true,
        "kind": kind, "id": id.0, "fields": body[2],
    });
    Vector::new(format!("message-{name}"), bytes, meaning)
}
