//! A rule that a customer wrote decides about orders. It sees nothing but the order, and has a second for it.

use std::time::Duration;

use nexus_client::{Client, Error, SpawnOptions, Value};
use serde_json::json;

fn main() -> Result<(), Error> {
    let client = Client::spawn(SpawnOptions::new()).wait()?;
    let rule = client.precompile("return $args.total >= 100 ? { discount: $args.total / 20 } : null").wait()?;
    for order in [json!({ "total": 120 }), json!({ "total": 20 })] {
        let outcome = client.run(&rule).args(&order).timeout(Duration::from_secs(1)).wait()?;
        match outcome.value::<Value>()?.get("discount") {
            Some(discount) => println!("{order}: {} off", discount.as_f64().unwrap_or_default()),
            None => println!("{order}: nothing off"),
        }
    }
    client.shutdown().wait()
}
