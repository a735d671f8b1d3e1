//! Many runs as they are put together.

use std::future::IntoFuture;

use super::{Item, items};
use crate::call::Call;
use crate::client::Client;
use crate::compiled::Handler;
use crate::context::Context;
use crate::error::Error;
use crate::run::Outcome;
use crate::run_options::{RunOptions, run_option_methods};

/// Handlers to be run to their ends in one request, from [`Client::run_many`]: `.await` it, or [`wait`](Self::wait),
/// [`start`](Self::start).
///
/// ```no_run
/// # use nexus_client::{Client, Context, Error, Extensions};
/// # async fn example(client: Client) -> Result<(), Error> {
/// let rates = Extensions::new().method("rates", "of", |args| Ok(if args.get::<String>(0)? == "EUR" { 1.0 } else { 1.1 }));
/// let rows = ["EUR", "USD"].map(|currency| Context::new().args(currency));
/// for row in client.run_many("return 100 * await $ext.rates.of($args)", rows).extensions(rates).await? {
///     println!("{}", row?.value::<f64>()?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited, waited for or started"]
pub struct ManyRequest {
    client: Client,
    items: Vec<Item>,
    options: RunOptions,
}

run_option_methods! {
    ManyRequest,
    /// Lets another part of the program end them all: the call then fails with [`Error::Cancelled`], at once.
}

impl ManyRequest {
    pub(crate) fn new(client: Client, all: impl IntoIterator<Item = (Handler, Context)>) -> Self {
        Self { client, items: items(all), options: RunOptions::default() }
    }

    /// Sends it now. The call does not keep the client: when the last clone of that is dropped, it fails.
    pub fn start(self) -> Call<Vec<Result<Outcome, Error>>> {
        self.client.start_run_many(self.items, self.options)
    }

    /// Sends it, and blocks this thread until all are done. Not for use within an executor's thread.
    pub fn wait(self) -> Result<Vec<Result<Outcome, Error>>, Error> {
        self.start().wait()
    }
}

impl IntoFuture for ManyRequest {
    type Output = Result<Vec<Result<Outcome, Error>>, Error>;
    type IntoFuture = Call<Vec<Result<Outcome, Error>>>;

    fn into_future(self) -> Self::IntoFuture {
        self.start()
    }
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Item").field("at", &self.at).finish_non_exhaustive()
    }
}
