//! `soak [--executions N] [--seed S]`: prints what a long load leaves behind, and fails where that is too much.

use std::process::ExitCode;

use nexus_tests::soak;

fn main() -> ExitCode {
    let (mut executions, mut seed) = (100_000, 1);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let number = args.next().and_then(|value| value.parse().ok());
        match (flag.as_str(), number) {
            ("--executions", Some(number)) => executions = number,
            ("--seed", Some(number)) => seed = number,
            _ => {
                eprintln!("usage: soak [--executions N] [--seed S]");
                return ExitCode::from(2);
            }
        }
    }
    let report = soak::run(executions as usize, seed);
    report.print();
    let failures = report.failures();
    for failure in failures.iter().take(20) {
        println!("FAILED {failure}");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
