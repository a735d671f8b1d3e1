//! A tour: handlers as a program would run them, and what comes back.
//!
//! `cargo run -p nexus-client --example demo` (with the sidecar at `NEXUS_SIDECAR_BIN` or on `PATH`). The HTTP server that
//! the handlers fetch from is started here, on a free port of this machine; nothing else is contacted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use nexus_client::{
    CallError, Client, Context, Error, ErrorCode, Extensions, Outcome, Payload, Segment, SpawnOptions, StateMutation,
};
use serde_json::{Value, json};

/// Time that the server takes for an answer, so that waiting can be seen.
const SERVER_DELAY: Duration = Duration::from_millis(120);

fn main() -> ExitCode {
    match tour() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn tour() -> Result<(), Box<dyn std::error::Error>> {
    let server = start_server()?;
    let started = Instant::now();
    let client = Client::spawn(SpawnOptions::new().max_instances(4).debug(true)).wait()?;
    println!("nexus-sidecar {} (pid {}) ready after {:.0?}", client.build(), client.pid(), started.elapsed());

    counter(&client)?;
    profile(&client, server)?;
    both_at_once(&client, server)?;
    endless(&client)?;
    not_allowed(&client)?;
    broken(&client)?;

    let stats = client.stats().wait()?;
    println!(
        "\n{} executions, p50 {} us, {} instances made, cache hit rate {:.0} %",
        stats.total_executions,
        stats.p50_execution_time_us,
        stats.instances_created,
        stats.cache_hit_rate * 100.0
    );
    client.shutdown().wait()?;
    println!("sidecar ended");
    Ok(())
}

fn counter(client: &Client) -> Result<(), Error> {
    title("a counter: compiled once, run three times on the state it leaves");
    let handler = client
        .precompile("$state.count = ($state.count ?? 0) + $args.step\n$emit('counted', { count: $state.count })\nreturn $state.count")
        .wait()?;
    println!("  compiled in {} us, cache hit: {}", handler.compilation_time_us(), handler.cache_hit());
    let mut count = json!(0);
    for step in 1..=3 {
        let context = Context::new()
            .handler_name("counter")
            .state(&json!({ "count": count }))
            .args(&json!({ "step": step }))
            .grants(["state:read:count", "state:write:count", "events:emit:counted"]);
        let started = Instant::now();
        let segment = client.execute(&handler).context(&context).wait()?.into_result()?;
        let elapsed = started.elapsed();
        for mutation in segment.state_mutations()? {
            if let StateMutation::Set { value, .. } = mutation {
                count = value.decode()?;
            }
        }
        println!(
            "  + {step} = {} in {elapsed:.0?} ({} us in the sidecar)",
            segment.value::<Value>()?,
            segment.metrics.duration_us
        );
        print_effects(&segment)?;
    }
    Ok(())
}

fn profile(client: &Client, server: SocketAddr) -> Result<(), Error> {
    title("a profile update: the loading flag is delivered before the server has answered");
    let code = "
        $state.loading = true
        try {
            const profile = await $ext.http.get('/profile')
            $state.profile = { ...$state.profile, ...profile }
            $emit.toast(`Welcome back, ${profile.name}`)
        } finally {
            $state.loading = false
        }
        return $state.profile";
    let context = Context::new().state(&json!({ "profile": { "theme": "dark" }, "loading": false })).grants([
        "state:read:profile",
        "state:write:*",
        "events:emit:*",
        "ext:http.get",
    ]);
    run(client, code, &context, server)
}

fn both_at_once(client: &Client, server: SocketAddr) -> Result<(), Error> {
    title("two fetches at once: one waiting time, not two");
    let code = "
        const [profile, orders] = await Promise.all([$ext.http.get('/profile'), $ext.http.get('/orders')])
        return { name: profile.name, total: orders.reduce((sum, order) => sum + order.price, 0) }";
    run(client, code, &Context::new().grant("ext:http"), server)
}

fn endless(client: &Client) -> Result<(), Error> {
    title("a handler that never ends: stopped at its deadline");
    let context = Context::new().timeout(Duration::from_millis(100));
    let started = Instant::now();
    expect(client.run("let n = 0\nwhile (true) n++").context(&context).wait(), ErrorCode::Timeout)?;
    println!("  after {:.1?}, of 100 ms granted", started.elapsed());
    let answer: i32 = client.run("return 6 * 7").wait()?.value()?;
    println!("  the next one runs: {answer}");
    Ok(())
}

fn not_allowed(client: &Client) -> Result<(), Error> {
    title("a handler that wants more than it was granted");
    let context = Context::new().state(&json!({ "name": "Ada", "salary": 1 })).grant("state:read:name");
    let code = "const name = $state.name\n\n$state.salary = 1_000_000\nreturn name";
    expect(client.run(code).context(&context).wait(), ErrorCode::PermissionDenied)
}

fn broken(client: &Client) -> Result<(), Error> {
    title("a handler with a syntax error on line 3");
    let code = "const a = 1\nconst b = 2\nreturn a +* b";
    expect(client.run(code).wait(), ErrorCode::CompilationError)
}

fn run(client: &Client, code: &str, context: &Context, server: SocketAddr) -> Result<(), Error> {
    let started = Instant::now();
    let extensions = Extensions::new().method("http", "get", move |args| fetch(server, &args.get::<String>(0)?));
    let outcome = client
        .run(code)
        .context(context)
        .extensions(extensions)
        .on_segment(move |segment| {
            println!("  segment {} after {:.0?}: {}", segment.seq, started.elapsed(), segment.status.as_str());
            if let Err(error) = print_effects(segment) {
                println!("    effects that cannot be read: {error}");
            }
            for call in &segment.suspensions {
                println!("    waits for $ext.{}.{}({})", call.extension, call.method, compact(&call.args));
            }
        })
        .wait()?;
    println!("  returned {} after {:.0?}", compact(&outcome.value), started.elapsed());
    println!("  {} us running, {} KB at most", outcome.metrics.duration_us, outcome.metrics.memory_peak_bytes / 1024);
    Ok(())
}

/// Prints the error that a handler is here for; anything else ends the demo.
fn expect(result: Result<Outcome, Error>, code: ErrorCode) -> Result<(), Error> {
    let error = match result {
        Err(error) if error.code() == code => error,
        Err(error) => return Err(error),
        Ok(outcome) => {
            println!("  returned {} although {code} was to be expected", compact(&outcome.value));
            return Ok(());
        }
    };
    println!("  {error}");
    let Some(error) = error.as_sidecar() else { return Ok(()) };
    if let Some(location) = error.location {
        println!("  at line {}, column {}", location.line, location.column);
    }
    if let Some(snippet) = &error.snippet {
        for (number, line) in (1..).zip(snippet.code.lines()) {
            println!("    {} {line}", if number == snippet.highlight_line { ">" } else { " " });
        }
    }
    if let Some(token) = &error.capability {
        println!("  it would need the capability {token}");
    }
    Ok(())
}

fn print_effects(segment: &Segment) -> Result<(), Error> {
    for mutation in segment.state_mutations()? {
        match mutation {
            StateMutation::Set { key, value } => println!("    state.{key} = {}", compact(&value)),
            StateMutation::Delete { key } => println!("    delete state.{key}"),
            _ => {}
        }
    }
    for event in segment.events()? {
        println!("    event {} {}", event.name, compact(&event.payload));
    }
    for command in segment.view_commands()? {
        println!("    view {}: {} {}", command.view_id, command.command, compact(&command.params));
    }
    for log in segment.logs()? {
        println!("    log {}: {}", log.level, log.message.escape_debug());
    }
    Ok(())
}

fn compact(payload: &Payload) -> String {
    payload.decode::<Value>().map_or_else(|error| error.to_string(), |value| value.to_string())
}

fn title(text: &str) {
    println!("\n== {text}");
}

/// A GET as a program without an HTTP library would do it.
fn fetch(server: SocketAddr, path: &str) -> Result<Value, CallError> {
    let mut stream = TcpStream::connect(server)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").ok_or_else(|| CallError::new("no HTTP response"))?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(serde_json::from_str(body)?),
        status => Err(CallError::new(format!("GET {path}: status {}", status.unwrap_or("?"))).with_name("HttpError")),
    }
}

fn start_server() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    thread::sleep(SERVER_DELAY);
    let (status, body) = match request.split(' ').nth(1) {
        Some("/profile") => ("200 OK", json!({ "name": "Ada Lovelace", "city": "London" })),
        Some("/orders") => ("200 OK", json!([{ "id": 1, "price": 12.5 }, { "id": 2, "price": 30 }])),
        _ => ("404 Not Found", Value::Null),
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{body}")
}
