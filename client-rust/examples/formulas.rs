//! The formulas of a sheet, all under way at once, each apart from the others.

use nexus_client::{Client, Error, SpawnOptions};
use serde_json::json;

fn main() -> Result<(), Error> {
    let client = Client::spawn(SpawnOptions::new()).wait()?;
    let cells = json!({ "price": 12.5, "count": 4, "rate": 0.2 });
    let formulas = [
        "return $scope.price * $scope.count",
        "return Math.round(1000 * $scope.rate) / 10",
        "return $scope.price.foo.bar",
    ];
    let calls = formulas.map(|formula| client.execute(formula).scope(&cells).start());
    for (formula, call) in formulas.iter().zip(calls) {
        match call.wait()?.into_result() {
            Ok(segment) => println!("{}", segment.value::<f64>()?),
            Err(error) => println!("{}", error.report().source(formula)),
        }
    }
    client.shutdown().wait()
}
