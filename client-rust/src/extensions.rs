//! Extensions: the functions of this program that handlers may call as `$ext.name.method(...)`.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::current::CurrentCall;
use crate::payload::Payload;
use crate::slot::Slot;
use crate::workers::Workers;

/// How an extension call ended.
pub(crate) type CallResult = Result<Payload, CallError>;
pub(crate) type CallFuture = Pin<Box<dyn Future<Output = CallResult> + Send>>;

type Blocking = dyn Fn(Args) -> CallResult + Send + Sync;
type Asynchronous = dyn Fn(Args) -> CallFuture + Send + Sync;

/// The extensions of a run. Clones share the functions.
///
/// ```
/// # use nexus_client::Extensions;
/// let extensions = Extensions::new()
///     .method("math", "add", |args| Ok(args.get::<f64>(0)? + args.get::<f64>(1)?))
///     .async_method("clock", "zone", |_args| async { Ok("UTC") });
/// ```
#[derive(Clone, Default)]
pub struct Extensions(BTreeMap<String, BTreeMap<String, Method>>);

#[derive(Clone)]
enum Method {
    Blocking(Arc<Blocking>),
    Async(Arc<Asynchronous>),
}

impl Extensions {
    /// None: every call fails.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function that may block. It runs on a thread of the client's, several at a time; a panic fails the call.
    #[must_use]
    pub fn method<T, F>(mut self, extension: &str, method: &str, function: F) -> Self
    where
        T: Serialize,
        F: Fn(Args) -> Result<T, CallError> + Send + Sync + 'static,
    {
        let function = move |args: Args| {
            let max_bytes = args.max_bytes;
            answer(function(args), max_bytes)
        };
        self.add(extension, method, Method::Blocking(Arc::new(function)));
        self
    }

    /// Adds a function that returns a future. It is polled with the run, so it must not block.
    #[must_use]
    pub fn async_method<T, F, R>(mut self, extension: &str, method: &str, function: F) -> Self
    where
        T: Serialize,
        F: Fn(Args) -> R + Send + Sync + 'static,
        R: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        let function = move |args: Args| -> CallFuture {
            let max_bytes = args.max_bytes;
            let future = function(args);
            Box::pin(async move { answer(future.await, max_bytes) })
        };
        self.add(extension, method, Method::Async(Arc::new(function)));
        self
    }

    fn add(&mut self, extension: &str, method: &str, function: Method) {
        self.0.entry(extension.to_owned()).or_default().insert(method.to_owned(), function);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and methods, as the sidecar hears them.
    pub(crate) fn registry(&self) -> Vec<(String, Vec<String>)> {
        self.0.iter().map(|(name, methods)| (name.clone(), methods.keys().cloned().collect())).collect()
    }

    /// Starts a call.
    pub(crate) fn call(&self, workers: &Arc<Workers>, args: Args) -> CallFuture {
        let (extension, method) = (args.call.extension(), args.call.method());
        let Some(methods) = self.0.get(extension) else {
            return failed(
                CallError::new(format!("there is no extension `{extension}`")).with_code("EXTENSION_NOT_FOUND"),
            );
        };
        match methods.get(method).cloned() {
            None => failed(
                CallError::new(format!("extension `{extension}` has no method `{method}`"))
                    .with_code("METHOD_NOT_FOUND"),
            ),
            Some(Method::Blocking(function)) => {
                let slot = Slot::new();
                let filled = Arc::clone(&slot);
                let begun = workers.run(move || {
                    let result = catch_unwind(AssertUnwindSafe(|| function(args))).unwrap_or_else(|_| Err(panicked()));
                    // Nobody may be waiting any more; then the answer is of no use.
                    filled.fill(result);
                });
                match begun {
                    Ok(()) => Box::pin(std::future::poll_fn(move |context| slot.poll(context))),
                    Err(error) => failed(CallError::from(error).with_code("INTERNAL_ERROR")),
                }
            }
            Some(Method::Async(function)) => match catch_unwind(AssertUnwindSafe(|| function(args))) {
                Ok(mut future) => Box::pin(std::future::poll_fn(move |context| {
                    catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)))
                        .unwrap_or_else(|_| Poll::Ready(Err(panicked())))
                })),
                Err(_) => failed(panicked()),
            },
        }
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, methods)| (name, methods.keys().collect::<Vec<_>>()))).finish()
    }
}

fn answer<T: Serialize>(result: Result<T, CallError>, max_bytes: usize) -> CallResult {
    // A value that no payload can hold is the extension's fault: its call fails in the handler, which may catch it.
    let too_large = |error| CallError::from(error).with_code("SERIALIZATION_ERROR");
    result.and_then(|value| Payload::encode_within(&value, max_bytes).map_err(too_large))
}

fn failed(error: CallError) -> CallFuture {
    Box::pin(std::future::ready(Err(error)))
}

fn panicked() -> CallError {
    CallError::new("the extension panicked").with_code("INTERNAL_ERROR")
}

/// The arguments of an extension call.
#[derive(Clone, Debug)]
pub struct Args {
    payload: Payload,
    /// What the answer may take.
    max_bytes: usize,
    call: CurrentCall,
}

impl Args {
    pub(crate) fn new(payload: Payload, max_bytes: usize, call: CurrentCall) -> Self {
        Self { payload, max_bytes, call }
    }

    /// The call that is being answered: whose it is, by when it has to be answered, and whether anybody still waits for it.
    pub fn call(&self) -> &CurrentCall {
        &self.call
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items().count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Argument `position`, from 0, as a type. One that is missing is nil.
    pub fn get<T: DeserializeOwned>(&self, position: usize) -> Result<T, CallError> {
        self.payload(position).decode().map_err(|error| {
            let detail = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            CallError::new(format!("argument {position}: {error}{detail}")).with_name("TypeError")
        })
    }

    /// Argument `position`, from 0, as MessagePack. One that is missing is nil.
    pub fn payload(&self, position: usize) -> Payload {
        self.items().nth(position).map_or_else(Payload::nil, |bytes| Payload::from_bytes(bytes.to_vec()))
    }

    /// All of them as one type, a tuple for example.
    pub fn all<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        Ok(self.payload.decode()?)
    }

    fn items(&self) -> impl Iterator<Item = &[u8]> {
        nexus_protocol::payload::array_items(self.payload.as_bytes()).into_iter().flatten().map_while(Result::ok)
    }
}

/// Why an extension call failed. The handler sees an `Error` with that message, which it may catch. Any error becomes
/// one with `?`: its text, and those of its sources, become the message. The error itself stays on this side: where the handler
/// lets it through, it is the source of the run's (see [`ExtensionError`](crate::ExtensionError)).
#[derive(Clone, Debug)]
pub struct CallError {
    message: String,
    name: Option<String>,
    code: Option<String>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl CallError {
    /// An error with that message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), name: None, code: None, source: None }
    }

    /// Name of the error that the handler sees.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// `.code` of the error that the handler sees.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Code.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The error that it was made of.
    pub fn source(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.source.as_deref()
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for CallError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            message = format!("{message}: {error}");
            source = error.source();
        }
        Self { source: Some(Arc::new(error)), ..Self::new(message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Suspension;
    use crate::slot::block_on;

    fn call(extensions: &Extensions, extension: &str, method: &str, args: &impl Serialize) -> CallResult {
        let args = Payload::encode(args).unwrap();
        let (id, extension, method) = (String::new(), extension.to_owned(), method.to_owned());
        let suspension = Suspension { id, extension, method, args: args.clone() };
        let args = Args::new(args, 1 << 20, CurrentCall::new(&suspension, &Arc::default(), None));
        block_on(extensions.call(&Arc::new(Workers::new(1)), args))
    }

    #[test]
    fn blocking_and_asynchronous_functions_get_arguments_and_answer() {
        let extensions = Extensions::new()
            .method("math", "add", |args| Ok(args.get::<i64>(0)? + args.get::<i64>(1)?))
            .async_method("math", "count", |args| async move { Ok(args.len()) });
        assert_eq!(call(&extensions, "math", "add", &(2, 3)).unwrap().decode::<i64>().unwrap(), 5);
        assert_eq!(call(&extensions, "math", "count", &(1, "x", ())).unwrap().decode::<usize>().unwrap(), 3);
        assert_eq!(extensions.registry(), [("math".to_owned(), vec!["add".to_owned(), "count".to_owned()])]);
    }

    #[test]
    fn failures_panics_and_missing_names_are_errors_of_the_call() {
        let extensions = Extensions::new()
            .method("x", "text", |args| args.get::<String>(0))
            .method("x", "panics", |_| -> Result<(), CallError> { panic!("expected by the test") })
            .async_method("x", "panics_later", |_| async {
                if true { panic!("expected by the test") } else { Ok(()) }
            });
        let error = call(&extensions, "x", "text", &(5,)).unwrap_err();
        assert!(error.message().starts_with("argument 0: the payload is not a alloc::string::String: "), "{error:?}");
        for method in ["panics", "panics_later"] {
            assert_eq!(call(&extensions, "x", method, &()).unwrap_err().message(), "the extension panicked");
        }
        assert_eq!(call(&extensions, "y", "text", &()).unwrap_err().code(), Some("EXTENSION_NOT_FOUND"));
        assert_eq!(call(&extensions, "x", "y", &()).unwrap_err().code(), Some("METHOD_NOT_FOUND"));
    }

    #[test]
    fn sources_of_an_error_are_part_of_the_message() {
        let parse: Result<(), CallError> = (|| {
            "x".parse::<u8>()?;
            Ok(())
        })();
        assert_eq!(parse.unwrap_err().message(), "invalid digit found in string");
    }
}
