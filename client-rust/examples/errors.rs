//! An error of a handler as its author wants to see it, and what the handler had done before.

use nexus_client::{Client, Error, SpawnOptions};

fn main() -> Result<(), Error> {
    let client = Client::spawn(SpawnOptions::new()).wait()?;
    let code = "$log('starting')\nconst user = $args.users.find((user) => user.id === 7)\n\nreturn user.name";
    let request = client.run(code).args(&serde_json::json!({ "users": [] }));
    if let Err(error) = request.wait() {
        println!("{}", error.report().source(code).handler_name("greet.js"));
        for log in error.as_run().map(|run| run.logs()).transpose()?.unwrap_or_default() {
            println!("it had logged: {}", log.message.escape_debug());
        }
        println!("worth another try: {}", error.retryable());
    }
    client.shutdown().wait()
}
