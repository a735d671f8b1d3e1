//! A parent for tests that kill it: spawns a sidecar, gives it a handler that never ends, a suspension, and waits.
//!
//! Prints the sidecar's process id once all of that is under way.

use std::io::Write;
use std::time::Duration;

use nexus_tests::{Options, Run, eventually};

fn main() {
    let (sidecar, mut client) = Options::new().flag("timeout-ms", 60_000).child();
    client.run(Run::source("return await $ext.a.b()").grant(&["ext:a"]));
    client.start("for (;;);");
    eventually("the handler runs", Duration::from_secs(10), || client.stats().active_instances == 1);
    println!("{}", sidecar.pid());
    std::io::stdout().flush().expect("whoever reads this is there");
    std::thread::sleep(Duration::from_secs(600));
}
