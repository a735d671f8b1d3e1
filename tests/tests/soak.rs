//! The short form of `cargo xtask soak`.

use nexus_tests::{Watchdog, soak};

#[test]
fn a_mixed_load_leaves_nothing_behind() {
    let _w = Watchdog::seconds(150);
    let report = soak::run(5000, 1);
    report.print();
    let failures = report.failures();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
