//! What a handler logs, segment by segment, while it goes on.

use nexus_client::{Client, Error, Extensions, Progress, SpawnOptions};

fn main() -> Result<(), Error> {
    let client = Client::spawn(SpawnOptions::new()).wait()?;
    let files = Extensions::new().method("files", "size", |args| Ok(args.get::<String>(0)?.len()));
    let code = "for (const name of $args) $log.info(`${name}: ${await $ext.files.size(name)}`)\nreturn $args.length";
    let mut running = client.run(code).args(&["one", "three"]).extensions(files).stream();
    while let Some(piece) = running.next_blocking() {
        match piece? {
            Progress::Log(log) => println!("{} {}", log.level, log.message.escape_debug()),
            Progress::Done(outcome) => println!("{} files", outcome.value::<u32>()?),
            _ => {}
        }
    }
    client.shutdown().wait()
}
