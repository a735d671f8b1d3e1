//! The commands that ask a running sidecar: `stats`, `metrics`, `ping`.

use std::io::Write;
use std::time::{Duration, Instant};

use nexus_protocol::message::Stats;
use nexus_protocol::{ClientMessage, SidecarMessage};
use serde_json::json;

use super::client::{Client, Sidecar};
use crate::cli::Connect;
use crate::error::StartError;
use crate::observe::logging::escape;

pub(super) fn stats(connect: &Connect, out: &mut dyn Write) -> Result<(), StartError> {
    write_stats(&mut Client::connect(connect.path.as_deref())?, connect.json, out)
}

pub(super) fn metrics(connect: &Connect, out: &mut dyn Write) -> Result<(), StartError> {
    write_metrics(&mut Client::connect(connect.path.as_deref())?, connect.json, out)
}

pub(super) fn ping(connect: &Connect, out: &mut dyn Write) -> Result<(), StartError> {
    write_ping(&mut Client::connect(connect.path.as_deref())?, connect.json, out)
}

fn write_stats(client: &mut Client, json: bool, out: &mut dyn Write) -> Result<(), StartError> {
    let stats = client.ask(&ClientMessage::Stats, |answer| match answer {
        SidecarMessage::Stats(stats) => Some(stats),
        _ => None,
    })?;
    if json {
        writeln!(out, "{}", json!(stats))?;
    } else {
        out.write_all(stats_text(&stats).as_bytes())?;
    }
    Ok(())
}

fn write_metrics(client: &mut Client, json: bool, out: &mut dyn Write) -> Result<(), StartError> {
    let text = client.ask(&ClientMessage::Metrics, |answer| match answer {
        SidecarMessage::Metrics(metrics) => Some(metrics.text.to_owned()),
        _ => None,
    })?;
    if json {
        writeln!(out, "{}", json!(text))?;
    } else {
        out.write_all(text.as_bytes())?;
    }
    Ok(())
}

fn write_ping(client: &mut Client, json: bool, out: &mut dyn Write) -> Result<(), StartError> {
    let who = client.identity()?;
    let asked = Instant::now();
    client.ask(&ClientMessage::Ping, |answer| matches!(answer, SidecarMessage::Pong).then_some(()))?;
    let micros = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
    if json {
        let document = json!({"build": who.build, "engine": who.engine, "pid": who.pid, "protocol": who.protocol, "roundTripUs": micros});
        writeln!(out, "{document}")?;
    } else {
        let (build, engine) = (escape(&who.build), escape(&who.engine));
        writeln!(out, "nexus-sidecar {build}, pid {}, protocol {}, answered in {micros} us", who.pid, who.protocol)?;
        writeln!(out, "engine {engine}")?;
    }
    Ok(())
}

fn stats_text(stats: &Stats) -> String {
    format!(
        "executions  {} ended; {:.1} us on average, p50 {} us, p95 {} us, p99 {} us\n\
         instances   {} active, {} available, {} suspended; {} created, {} reused\n\
         queued      {}\n\
         states      {}, {}; shared memory {}\n\
         memory      {}\n\
         cache       {} handlers, {} in memory; {} on disk; {:.1} % hits, {} rejected\n\
         uptime      {}\n",
        stats.total_executions,
        stats.avg_execution_time_us,
        stats.p50_execution_time_us,
        stats.p95_execution_time_us,
        stats.p99_execution_time_us,
        stats.active_instances,
        stats.available_instances,
        stats.suspended_instances,
        stats.instances_created,
        stats.instances_reused,
        stats.queued,
        stats.resident_states,
        bytes_text(stats.resident_state_bytes),
        bytes_text(stats.arena_bytes),
        bytes_text(stats.total_memory_bytes),
        stats.cache_entries,
        bytes_text(stats.cache_size_bytes),
        bytes_text(stats.cache_disk_bytes),
        stats.cache_hit_rate * 100.0,
        stats.cache_rejected,
        uptime_text(Duration::from_millis(stats.uptime_ms)),
    )
}

/// Sizes in the unit that leaves at least one whole.
pub(super) fn bytes_text(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} bytes"),
    }
}

fn uptime_text(uptime: Duration) -> String {
    let seconds = uptime.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    if days > 0 {
        format!("{days} d {hours} h")
    } else if hours > 0 {
        format!("{hours} h {minutes} min")
    } else if minutes > 0 {
        format!("{minutes} min {} s", seconds % 60)
    } else {
        format!("{:.1} s", uptime.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use nexus_protocol::message::{Code, Execute, MetricsText};
    use serde_json::Value;

    use super::super::client::tests::peer;
    use super::*;
    use crate::config::Config;
    use crate::runtime::Runtime;
    use crate::server::{Mode, Server, Surroundings};

    type Command = fn(&mut Client, bool, &mut dyn Write) -> Result<(), StartError>;

    fn output(command: Command, json: bool, answer: SidecarMessage<'static>) -> String {
        let (stream, _) = peer(vec![answer]);
        let mut out = Vec::new();
        command(&mut Client::over(stream, None).unwrap(), json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn some_stats() -> Stats {
        Stats {
            total_executions: 1200,
            active_instances: 1,
            available_instances: 3,
            avg_execution_time_us: 12.34,
            p99_execution_time_us: 31,
            cache_hit_rate: 0.975,
            cache_entries: 12,
            cache_size_bytes: 34 << 10,
            cache_disk_bytes: 5 << 20,
            cache_rejected: 1,
            total_memory_bytes: 1_200_000,
            uptime_ms: 3_723_000,
            ..Stats::default()
        }
    }

    #[test]
    fn stats_are_readable() {
        let text = output(write_stats, false, SidecarMessage::Stats(some_stats()));
        let expected = "\
executions  1200 ended; 12.3 us on average, p50 0 us, p95 0 us, p99 31 us
instances   1 active, 3 available, 0 suspended; 0 created, 0 reused
queued      0
states      0, 0 bytes; shared memory 0 bytes
memory      1.1 MiB
cache       12 handlers, 34.0 KiB in memory; 5.0 MiB on disk; 97.5 % hits, 1 rejected
uptime      1 h 2 min
";
        assert_eq!(text, expected);
    }

    #[test]
    fn stats_for_programs_have_the_names_of_the_protocol() {
        let text = output(write_stats, true, SidecarMessage::Stats(some_stats()));
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["totalExecutions"], 1200);
        assert_eq!(document["p99ExecutionTimeUs"], 31);
        assert_eq!(document.as_object().unwrap().len(), 21);
    }

    #[test]
    fn metrics_are_printed_as_they_are() {
        let answer = SidecarMessage::Metrics(MetricsText { text: "# HELP a b\na 1\n" });
        assert_eq!(output(write_metrics, false, answer.clone()), "# HELP a b\na 1\n");
        assert_eq!(output(write_metrics, true, answer), "\"# HELP a b\\na 1\\n\"\n");
    }

    #[test]
    fn ping_says_who_answered_and_how_fast() {
        let text = output(write_ping, false, SidecarMessage::Pong);
        assert!(text.starts_with("nexus-sidecar 9.9.9, pid 42, protocol 2, answered in "), "{text}");
        let document: Value = serde_json::from_str(&output(write_ping, true, SidecarMessage::Pong)).unwrap();
        assert!(document["roundTripUs"].is_u64() && document["pid"] == 42, "{document}");
    }

    /// A whole sidecar in this process; it ends with the connection.
    fn real_sidecar() -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let runtime = Arc::new(Runtime::new(Config::default()).unwrap());
        let exit = Arc::new(crate::lifecycle::Exit::new().unwrap());
        let server = Server::new(runtime, Mode::Child, exit, Surroundings::alone()).unwrap();
        server.adopt(theirs).unwrap();
        server.start().unwrap();
        Client::over(ours, Some(Duration::from_secs(20))).unwrap()
    }

    #[test]
    fn a_real_sidecar_counts_what_it_was_asked() {
        let mut client = real_sidecar();
        for source in ["return $state.a", "return $state.a", "throw new Error('x')"] {
            let mut execute = Execute::new(Code::Source(source));
            execute.capabilities = vec!["state:read:a"];
            let ended = |answer: SidecarMessage<'_>| matches!(answer, SidecarMessage::Result(_)).then_some(());
            client.ask(&ClientMessage::Execute(execute), ended).unwrap();
        }
        let mut out = Vec::new();
        write_stats(&mut client, true, &mut out).unwrap();
        let stats: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&stats["totalExecutions"], &stats["cacheEntries"]), (&json!(3), &json!(2)), "{stats}");
        assert!(stats["p50ExecutionTimeUs"].as_u64().unwrap() > 0, "{stats}");
        let mut out = Vec::new();
        write_metrics(&mut client, false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for line in [
            "nexus_handler_executions_total{status=\"success\"} 2",
            "nexus_handler_executions_total{status=\"error\"} 1",
            "nexus_errors_total{code=\"EXECUTION_ERROR\"} 1",
            "nexus_host_calls_total{function=\"state_get\"} 2",
            "nexus_cache_hits_total 1",
            "nexus_cache_misses_total 2",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
        let mut out = Vec::new();
        write_ping(&mut client, false, &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("answered in"));
    }

    #[test]
    fn durations_and_sizes_take_the_fitting_unit() {
        let uptime = |seconds| uptime_text(Duration::from_secs(seconds));
        assert_eq!(
            [uptime(5), uptime(65), uptime(3700), uptime(90_000)],
            ["5.0 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]
        );
        assert_eq!([bytes_text(1023), bytes_text(1024), bytes_text(3 << 30)], ["1023 bytes", "1.0 KiB", "3.0 GiB"]);
    }
}
