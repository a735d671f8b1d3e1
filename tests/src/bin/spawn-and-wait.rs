//! A parent for tests that kill it: spawns a sidecar, gives it a handler that never ends, a suspension, and waits.
//!
//! Prints the sidecar's process id once all of that is under way. With `--leak` another process holds the parent's end of
//! the socket as well, so that its end cannot be seen there; that process's id comes second.

use std::io::Write;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use nexus_tests::{Options, Run, SOON, eventually};

fn main() {
    let (sidecar, mut client) = Options::new().patient().child();
    client.run(Run::source("return await $ext.a.b()").grant(&["ext:a"]));
    client.start("for (;;);");
    eventually("the handler runs", SOON, || client.stats().active_instances == 1);
    let mut line = sidecar.pid().to_string();
    if std::env::args().any(|arg| arg == "--leak") {
        let parent_fd = client.stream().as_fd().try_clone_to_owned().expect("a descriptor can be copied");
        let mut holder = Command::new("sleep");
        holder.arg("600").fd_mappings(vec![FdMapping { parent_fd, child_fd: 9 }]).expect("one mapping cannot collide");
        line = format!("{line} {}", holder.spawn().expect("sleep can be spawned").id());
    }
    println!("{line}");
    std::io::stdout().flush().expect("whoever reads this is there");
    std::thread::sleep(Duration::from_secs(600));
}
