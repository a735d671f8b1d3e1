//! Code that a model wrote, with the program's functions as its tools. Where it fails the model gets what it needs to mend it.

use nexus_client::{CallError, Client, Error, Extensions, SpawnOptions};

fn main() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let client = Client::spawn(SpawnOptions::new()).await?;
        let tools = Extensions::new().async_method("weather", "at", |args| async move {
            let city: String = args.get(0)?;
            if city == "Paris" { Ok(21) } else { Err(CallError::new(format!("no weather of {city}"))) }
        });
        for code in
            ["$log('asking')\nreturn await $ext.weather.at('Paris') + 1", "return await $ext.weather.at('Atlantis')"]
        {
            match client.run(code).extensions(tools.clone()).await {
                Ok(outcome) => println!("{}", outcome.value::<f64>()?),
                Err(error) => println!("{}", error.report().source(code)),
            }
        }
        client.shutdown().await
    })
}
