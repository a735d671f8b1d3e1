//! The formulas of a sheet, in one request, each apart from the others.

use nexus_client::{Client, Context, Error, SpawnOptions};
use serde_json::json;

fn main() -> Result<(), Error> {
    let client = Client::spawn(SpawnOptions::new()).wait()?;
    let cells = json!({ "price": 12.5, "count": 4, "rate": 0.2 });
    let formulas = [
        "return $scope.price * $scope.count",
        "return Math.round(1000 * $scope.rate) / 10",
        "return $scope.price.foo.bar",
    ];
    let items = formulas.map(|formula| (formula, Context::new().scope(&cells)));
    let results = client.run_many_of(items).wait()?;
    for (formula, result) in formulas.iter().zip(results) {
        match result {
            Ok(outcome) => println!("{}", outcome.value::<f64>()?),
            Err(error) => println!("{}", error.report().source(formula)),
        }
    }
    client.shutdown().wait()
}
