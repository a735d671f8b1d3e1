//! What every exporter of metrics tells of its own process, by the names that dashboards for any of them use.
//!
//! Read from /proc when somebody asks. What cannot be read there (it may be hidden) is left out rather than told as zero.

use std::fmt::{Display, Write};

use procfs::process::{LimitValue, Process};
use procfs::{CurrentSI, KernelStats, ProcResult, WithCurrentSystemInfo};

/// The Prometheus text of this process.
pub fn text() -> String {
    let mut out = String::new();
    // a figure that is missing takes no other with it
    let _ = write(&mut out);
    out
}

fn write(out: &mut String) -> ProcResult<()> {
    let own = Process::myself()?;
    let stat = own.stat()?;
    let ticks = procfs::ticks_per_second() as f64;
    let mut one = |name: &str, kind: &str, help: &str, value: &dyn Display| {
        let _ = writeln!(out, "# HELP process_{name} {help}\n# TYPE process_{name} {kind}\nprocess_{name} {value}");
    };
    let cpu = (stat.utime + stat.stime) as f64 / ticks;
    one("cpu_seconds_total", "counter", "Processor time of this process", &cpu);
    one("resident_memory_bytes", "gauge", "Memory of this process that is in use", &stat.rss_bytes().get());
    one("virtual_memory_bytes", "gauge", "Address space of this process", &stat.vsize);
    one("threads", "gauge", "Threads of this process", &stat.num_threads);
    if let Ok(open) = own.fd_count() {
        one("open_fds", "gauge", "Descriptors that this process has open", &open);
    }
    if let Ok(limits) = own.limits()
        && let LimitValue::Value(max) = limits.max_open_files.soft_limit
    {
        one("max_fds", "gauge", "Descriptors that this process may have open", &max);
    }
    let booted = KernelStats::current()?.btime as f64;
    let started = booted + stat.starttime as f64 / ticks;
    one("start_time_seconds", "gauge", "When this process was started, in seconds since 1970", &started);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_of_this_process_is_there_and_makes_sense() {
        let text = text();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let started = value("process_start_time_seconds");
        assert!(started < now + 2.0 && started > now - 86_400.0, "{started} {now}");
        assert!(value("process_resident_memory_bytes") > 1e6 && value("process_virtual_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_threads") >= 1.0 && value("process_cpu_seconds_total") >= 0.0);
    }
}
