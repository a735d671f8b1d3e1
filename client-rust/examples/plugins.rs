//! A plugin that a user installed: it reads and writes the fields that it was granted, and its effects are the program's to apply.

use nexus_client::{Client, Error, Extensions, SpawnOptions, StateMutation, Value};
use serde_json::json;

fn main() -> Result<(), Error> {
    let client = Client::spawn(SpawnOptions::new()).wait()?;
    let plugin = "$state.title = await $ext.text.upper($state.title); $emit('saved', { by: 'plugin' })";
    let text = Extensions::new().method("text", "upper", |args| Ok(args.get::<String>(0)?.to_uppercase()));
    let document = json!({ "title": "draft", "secret": 1 });
    let run = client.run(plugin).state(&document).extensions(text);
    let grants = ["state:read:title", "state:write:title", "events:emit:saved", "ext:text"];
    for segment in run.grants(grants).wait()?.segments {
        for mutation in segment.state_mutations()? {
            let StateMutation::Set { key, value } = mutation else { continue };
            println!("{key} = {:?}", value.decode::<Value>()?.as_str());
        }
        segment.events()?.iter().for_each(|event| println!("event {}", event.name));
    }
    client.shutdown().wait()
}
