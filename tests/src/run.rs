//! Execute requests in few words, and the first lines that tests have in common.

use nexus_protocol::message::{CallLimits, Code, Execute, ExecuteMany, ManyItem, Regions, Resident, SuspendMode};
use nexus_protocol::{ClientMessage, ErrorCode, WireError};
use serde_json::Value;

use crate::client::{Client, Segment};
use crate::process::{Options, Sidecar};
use crate::watchdog::Watchdog;

/// Everything that can be granted.
pub const ALL: [&str; 6] =
    ["state:read:*", "state:write:*", "events:emit:*", "view:update:*", "ext:*", "crypto:random"];

/// A sidecar that serves a socket of its own, and a connection to it.
pub fn listening(options: &Options) -> (Watchdog, Sidecar, Client) {
    let watchdog = Watchdog::seconds(120);
    let sidecar = options.listen();
    let client = sidecar.connect();
    (watchdog, sidecar, client)
}

/// A sidecar that is a child of the test, with details in errors.
pub fn sidecar() -> (Watchdog, Sidecar, Client) {
    let watchdog = Watchdog::seconds(120);
    let (sidecar, client) = Options::new().debug().child();
    (watchdog, sidecar, client)
}

/// A handler that may do everything.
pub fn calling(source: impl Into<String>) -> Run {
    Run::source(source).grant(&ALL)
}

/// Runs it; what follows it on the same connection works, however it ended.
#[track_caller]
pub fn run(client: &mut Client, run: impl Into<Run>) -> Segment {
    let segment = client.run(run);
    client.still_works();
    segment
}

/// What a handler that may do everything returns.
#[track_caller]
pub fn value(client: &mut Client, source: &str) -> Value {
    run(client, calling(source)).value()
}

/// The first segment of a handler that may do everything and waits for a call.
#[track_caller]
pub fn suspended(client: &mut Client, source: &str) -> Segment {
    client.run_suspended(calling(source))
}

/// Handlers of every kind, one after another: stopped in each way, compiled, suspended and resumed.
pub fn every_kind(client: &mut Client) {
    client.still_works();
    client.run(Run::source("for (;;);").timeout_ms(30));
    client.run(Run::source("return (3n ** 4000000n).toString()").timeout_ms(30));
    client.run("const a = []; for (;;) a.push(new Array(1000).fill(1))");
    client.run("function f() { f() } f()");
    client.run("crypto.getRandomValues(new Uint8Array(9)); return new Date().toString()");
    client.precompile("return 1 + 1").expect("it compiles");
    let suspended = client.run(Run::source("return await $ext.a.b()").grant(&["ext:a"]));
    assert_eq!(client.resume(&suspended.call().id, &Value::from(1)).value(), 1);
}

/// The error of a resume that nobody was waiting for.
#[track_caller]
pub fn suspension_error(segment: &Segment) -> WireError {
    assert_eq!(segment.code(), ErrorCode::SuspensionError, "{segment:?}");
    segment.error().clone()
}

/// MessagePack of a JSON value.
pub fn pack(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("JSON fits MessagePack")
}

/// JSON of MessagePack; panics on what JSON does not have.
pub fn unpack(bytes: &[u8]) -> Value {
    rmp_serde::from_slice(bytes).unwrap_or_else(|e| panic!("{e}: {bytes:02x?}"))
}

/// A builtin that looks at no clock, and is at it for minutes.
pub const BUILTIN: &str = "return 'a'.repeat(4e6).indexOf('a'.repeat(2e6) + 'b')";

/// QuickJS takes seconds to compile it, and 30 MiB of memory: so many variables, each used in a function of its own.
pub fn slow_to_compile() -> String {
    let names: Vec<String> = (0..48_000).map(|n| format!("v{n:X}")).collect();
    let uses: String = names.iter().map(|name| format!("()=>{name};")).collect();
    format!("let {};{uses}", names.join(","))
}

/// One request to run a handler.
#[derive(Clone, Debug, Default)]
pub struct Run {
    source: String,
    handle: Option<Vec<u8>>,
    state: Option<Vec<u8>>,
    resident: Option<(String, Option<u64>, bool)>,
    regions: Regions,
    args: Option<Vec<u8>>,
    scope: Option<Vec<u8>>,
    capabilities: Vec<String>,
    extensions: Option<Vec<(String, Vec<String>)>>,
    timeout_ms: Option<u64>,
    limits: CallLimits<'static>,
    strict: bool,
    mode: Option<SuspendMode>,
    seed: Option<u64>,
    handler_name: Option<String>,
}

impl Run {
    pub fn source(source: impl Into<String>) -> Self {
        Self { source: source.into(), ..Self::default() }
    }

    pub fn handle(handle: &[u8]) -> Self {
        Self { handle: Some(handle.to_vec()), ..Self::default() }
    }

    #[must_use]
    pub fn handler_name(mut self, name: &str) -> Self {
        self.handler_name = Some(name.to_owned());
        self
    }

    #[must_use]
    pub fn state(self, state: &Value) -> Self {
        self.state_bytes(pack(state))
    }

    #[must_use]
    pub fn state_bytes(mut self, state: Vec<u8>) -> Self {
        self.state = Some(state);
        self
    }

    /// Payloads in shared memory.
    #[must_use]
    pub fn regions(mut self, regions: Regions) -> Self {
        self.regions = regions;
        self
    }

    /// Runs on a resident state.
    #[must_use]
    pub fn resident(self, id: &str) -> Self {
        self.resident_with(id, None, false)
    }

    #[must_use]
    pub fn resident_with(mut self, id: &str, expect_version: Option<u64>, exclusive: bool) -> Self {
        self.resident = Some((id.to_owned(), expect_version, exclusive));
        self
    }

    #[must_use]
    pub fn args(self, args: &Value) -> Self {
        self.args_bytes(pack(args))
    }

    #[must_use]
    pub fn args_bytes(mut self, args: Vec<u8>) -> Self {
        self.args = Some(args);
        self
    }

    #[must_use]
    pub fn scope(self, scope: &Value) -> Self {
        self.scope_bytes(pack(scope))
    }

    #[must_use]
    pub fn scope_bytes(mut self, scope: Vec<u8>) -> Self {
        self.scope = Some(scope);
        self
    }

    #[must_use]
    pub fn grant(mut self, tokens: &[&str]) -> Self {
        self.capabilities.extend(tokens.iter().map(|t| (*t).to_owned()));
        self
    }

    #[must_use]
    pub fn extension(mut self, name: &str, methods: &[&str]) -> Self {
        let methods = methods.iter().map(|m| (*m).to_owned()).collect();
        self.extensions.get_or_insert_default().push((name.to_owned(), methods));
        self
    }

    #[must_use]
    pub fn timeout_ms(mut self, ms: u64) -> Self {
        self.timeout_ms = Some(ms);
        self
    }

    #[must_use]
    pub fn limits(mut self, narrow: impl FnOnce(&mut CallLimits<'static>)) -> Self {
        narrow(&mut self.limits);
        self
    }

    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    #[must_use]
    pub fn suspend_mode(mut self, mode: SuspendMode) -> Self {
        self.mode = Some(mode);
        self
    }

    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    pub fn message(&self) -> ClientMessage<'_> {
        let code = self.handle.as_deref().map_or(Code::Source(&self.source), Code::Handler);
        let mut execute = Execute::new(code);
        execute.state = self.state.as_deref();
        execute.resident = self.resident.as_ref().map(|(id, expect_version, exclusive)| Resident {
            id,
            expect_version: *expect_version,
            exclusive: *exclusive,
        });
        execute.args = self.args.as_deref();
        execute.scope = self.scope.as_deref();
        execute.capabilities = self.capabilities.iter().map(String::as_str).collect();
        execute.extensions = self.extensions.as_ref().map(|all| {
            all.iter().map(|(name, methods)| (name.as_str(), methods.iter().map(String::as_str).collect())).collect()
        });
        execute.timeout_ms = self.timeout_ms;
        execute.limits = self.limits;
        execute.strict_capabilities = self.strict;
        execute.suspend_mode = self.mode;
        execute.seed = self.seed;
        execute.handler_name = self.handler_name.as_deref();
        execute.regions = self.regions;
        ClientMessage::Execute(execute)
    }
}

/// All of them in one request, with nothing in common.
pub fn many(runs: &[Run]) -> ClientMessage<'_> {
    many_on(ManyItem::default(), runs.iter().map(item))
}

/// Items on what they have in common.
pub fn many_on<'a>(common: ManyItem<'a>, items: impl IntoIterator<Item = ManyItem<'a>>) -> ClientMessage<'a> {
    ClientMessage::ExecuteMany(ExecuteMany::new(common, items.into_iter().collect()).expect("each is whole"))
}

/// One of many.
pub fn item(run: &Run) -> ManyItem<'_> {
    let ClientMessage::Execute(execute) = run.message() else { unreachable!("it is one") };
    // all of it, also what is as if it were absent
    let (limits, strict) = (execute.limits, execute.strict_capabilities);
    let capabilities = Some(execute.capabilities.clone());
    ManyItem { limits: Some(limits), strict_capabilities: Some(strict), capabilities, ..execute.into() }
}

impl From<&str> for Run {
    fn from(source: &str) -> Self {
        Self::source(source)
    }
}
