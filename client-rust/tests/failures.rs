//! What a run that failed tells.

mod support;

use std::error::Error as _;
use std::io;

use nexus_client::{CallError, CancelToken, Client, Error, ErrorCode, Extensions};
use support::{client, options, watched};

fn files() -> Extensions {
    Extensions::new()
        .method("fs", "read", |_| -> Result<(), CallError> { Err(io::Error::from(io::ErrorKind::NotFound))? })
        .async_method("fs", "list", |_| async { Ok(["a"]) })
}

#[test]
fn what_had_happened_is_told_of_all_segments_the_last_one_included() {
    watched(|| {
        let code = "$state.a = 1; $emit('one', 1); $log('before')\nawait $ext.fs.list()\n\
            $state.b = 2; delete $state.a; $emit('two', 2); $view.focus('v'); $log.error('behind')\nnull.x";
        let client = client();
        let request = client.run(code).state(&serde_json::json!({})).extensions(files());
        let error = request.grants(["state:write:*", "events:emit:*", "view:update:*", "ext:fs"]).wait().unwrap_err();
        assert_eq!(error.code(), ErrorCode::ExecutionError);
        assert!(!error.retryable());
        let run = error.as_run().unwrap();
        assert_eq!(run.segments().iter().map(|segment| segment.seq).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(run.state_mutations().unwrap().len(), 3);
        assert_eq!(run.events().unwrap().iter().map(|event| &*event.name).collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(run.view_commands().unwrap().len(), 1);
        let logs: Vec<_> = run.logs().unwrap().into_iter().map(|log| log.message).collect();
        assert_eq!(logs, ["before", "behind"]);
        assert_eq!(run.metrics().unwrap().host_calls.get("ext_call"), Some(&1), "{:?}", run.metrics());
        assert_eq!(error.as_sidecar().unwrap().location.unwrap().line, 4);
    });
}

#[test]
fn a_run_that_was_stopped_tells_it_too() {
    watched(|| {
        let client = Client::spawn(options()).wait().unwrap();
        let stopped = client.run("$log('here'); for (;;);").timeout(std::time::Duration::from_millis(50)).wait();
        let error = stopped.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Timeout);
        assert_eq!(error.as_run().unwrap().logs().unwrap()[0].message, "here");
        let token = CancelToken::new();
        let stop = token.clone();
        let extensions = Extensions::new().method("x", "stop", move |_| {
            stop.cancel();
            Ok(())
        });
        let error = client.run("$log('there'); for (;;) await $ext.x.stop()").extensions(extensions).cancel(&token);
        let error = error.wait().unwrap_err();
        assert_eq!(error.code(), ErrorCode::Cancelled);
        assert_eq!(error.as_run().unwrap().logs().unwrap()[0].message, "there");
        let compiles = client.run("return +* 1").wait().unwrap_err();
        assert!(matches!(compiles.code(), ErrorCode::CompilationError));
    });
}

#[test]
fn the_extensions_own_error_is_the_source_where_the_handler_let_it_through() {
    watched(|| {
        let client = client();
        let error = client.run("await $ext.fs.read('/x')").extensions(files()).wait().unwrap_err();
        let thrown = error.as_run().unwrap().extension_error().unwrap();
        assert_eq!((&*thrown.extension, &*thrown.method), ("fs", "read"));
        assert_eq!(thrown.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::NotFound);
        let source = error.source().unwrap().source().unwrap();
        assert_eq!(source.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::NotFound);
        assert!(error.report().to_string().contains("\n  caused by Error: entity not found"), "{}", error.report());
        let own = "try { await $ext.fs.read('/x') } catch (e) { throw new Error(e.message) }";
        let error = client.run(own).extensions(files()).wait().unwrap_err();
        assert!(error.as_run().unwrap().extension_error().is_none(), "that one is the handler's own");
        let forged = "throw Object.assign(new Error('entity not found'), { extension: 'fs', method: 'read' })";
        let error = client.run(forged).extensions(files()).wait().unwrap_err();
        assert!(error.as_run().unwrap().extension_error().is_none(), "no extension threw it");
    });
}

#[test]
fn what_the_handler_sees_of_an_error_is_the_callers_to_decide() {
    watched(|| {
        let client = client();
        let seen = "try { await $ext.fs.read('/x') } catch (e) { return [e.message, e.code] }";
        let hide = |_: CallError, call: &nexus_client::CurrentCall| {
            CallError::new(format!("{} failed", call.method())).with_code("E_IO")
        };
        let outcome = client.run(seen).extensions(files()).on_extension_error(hide).wait().unwrap();
        assert_eq!(outcome.value::<[String; 2]>().unwrap(), ["read failed", "E_IO"]);
        let error =
            client.run("await $ext.fs.read('/x')").extensions(files()).on_extension_error(hide).wait().unwrap_err();
        assert_eq!(error.as_sidecar().unwrap().message, "read failed");
        let thrown = error.as_run().unwrap().extension_error().unwrap();
        assert_eq!(thrown.error.message(), "entity not found", "the caller has all of it");
    });
}

#[test]
fn a_report_shows_the_handlers_lines() {
    watched(|| {
        let client = Client::spawn(options().debug(true)).wait().unwrap();
        let source = "const a = 1\nconst b = { c: null }\nreturn b.c.d";
        let error = client.run(source).wait().unwrap_err();
        let lines = ["  1 | const a = 1", "  2 | const b = { c: null }", "> 3 | return b.c.d"];
        for text in [error.report().to_string(), error.report().source(source).to_string()] {
            assert!(lines.iter().all(|line| text.contains(line)), "{text}");
        }
        let gone = Error::Cancelled.report().to_string();
        assert_eq!(gone, "CANCELLED: the run was cancelled");
    });
}
