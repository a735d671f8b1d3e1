//! A stop button: it ends a handler that runs, and the work of the extension that it waits for.

use nexus_client::{CancelToken, Client, Error, ErrorCode, Extensions, SpawnOptions};

fn main() -> Result<(), Error> {
    let client = Client::spawn(SpawnOptions::new()).wait()?;
    let stop = CancelToken::new();
    let button = stop.clone();
    let jobs = Extensions::new().method("jobs", "render", move |args| {
        button.cancel(); // somebody presses it while this is at work
        while !args.call().token().is_cancelled() {
            std::thread::yield_now();
        }
        Ok(())
    });
    let stopped = client.run("await $ext.jobs.render()").extensions(jobs).cancel(&stop).wait();
    println!("stopped: {}", stopped.is_err_and(|error| error.code() == ErrorCode::Cancelled));
    client.shutdown().wait()
}
