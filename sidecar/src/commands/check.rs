//! `check`: whether a handler compiles, which capabilities it needs, and how it suspends.

use nexus_protocol::message::{Check, SuspendMode};
use nexus_protocol::{ClientMessage, SidecarMessage};
use serde_json::json;

use super::client::{ClientError, Sidecar};
use super::diagnostic::diagnostic;
use crate::error::StartError;
use crate::exit::ExitCode;
use crate::observe::logging::escape;

/// The report, and how the command ends.
pub(super) fn check(
    sidecar: &mut impl Sidecar,
    name: &str,
    source: &str,
    json: bool,
) -> Result<(ExitCode, String), StartError> {
    let checked = sidecar.ask(&ClientMessage::Check(Check { source }), |answer| match answer {
        SidecarMessage::Checked(checked) => {
            Some((checked.suspend_mode, checked.capabilities.into_iter().map(str::to_owned).collect::<Vec<_>>()))
        }
        _ => None,
    });
    match checked {
        Ok((mode, capabilities)) if json => {
            let document = json!({"ok": true, "suspendMode": mode.as_str(), "capabilities": capabilities});
            Ok((ExitCode::Ok, format!("{document}\n")))
        }
        Ok((mode, capabilities)) => Ok((ExitCode::Ok, text(name, mode, &capabilities))),
        Err(ClientError::Refused(error)) if json => {
            Ok((ExitCode::HandlerFailed, format!("{}\n", json!({"ok": false, "error": error}))))
        }
        Err(ClientError::Refused(error)) => Ok((ExitCode::HandlerFailed, diagnostic(&error, name, source))),
        Err(error) => Err(error.into()),
    }
}

fn text(name: &str, mode: SuspendMode, capabilities: &[String]) -> String {
    let how = match mode {
        SuspendMode::Await => "at await",
        SuspendMode::Stack => "anywhere, with the whole stack (an extension call stands without await)",
    };
    let mut out = format!("{}: compiles\nsuspends {how}\n", escape(name));
    if capabilities.is_empty() {
        out.push_str("needs no capabilities\n");
    }
    for capability in capabilities {
        out.push_str(&format!("needs    {}\n", escape(capability)));
    }
    out
}

#[cfg(test)]
mod tests {
    use nexus_protocol::message::Checked;
    use nexus_protocol::{ErrorCode, WireError};

    use super::super::client::Client;
    use super::super::client::tests::peer;
    use super::*;

    fn checked(answer: SidecarMessage<'static>, json: bool) -> (ExitCode, String) {
        let (stream, _) = peer(vec![answer]);
        check(&mut Client::over(stream, None).unwrap(), "h.js", "return (", json).unwrap()
    }

    fn good() -> SidecarMessage<'static> {
        SidecarMessage::Checked(Checked {
            capabilities: vec!["ext:http.get", "state:read:n"],
            suspend_mode: SuspendMode::Await,
        })
    }

    fn bad() -> SidecarMessage<'static> {
        SidecarMessage::Error(WireError::new(ErrorCode::CompilationError, "unexpected end").with_location(1, 9))
    }

    #[test]
    fn what_a_handler_needs_is_listed() {
        let expected = "h.js: compiles\nsuspends at await\nneeds    ext:http.get\nneeds    state:read:n\n";
        assert_eq!(checked(good(), false), (ExitCode::Ok, expected.to_owned()));
        let document = "{\"capabilities\":[\"ext:http.get\",\"state:read:n\"],\"ok\":true,\"suspendMode\":\"await\"}\n";
        assert_eq!(checked(good(), true), (ExitCode::Ok, document.to_owned()));
    }

    #[test]
    fn a_handler_that_does_not_compile_ends_with_1_and_shows_where() {
        let (code, text) = checked(bad(), false);
        assert_eq!(code as u8, 1);
        assert!(
            text.contains("error: COMPILATION_ERROR: unexpected end\n") && text.contains(" 1 | return (\n"),
            "{text}"
        );
        let (code, document) = checked(bad(), true);
        assert_eq!(code as u8, 1);
        assert!(document.starts_with("{\"error\":{\"code\":\"COMPILATION_ERROR\""), "{document}");
    }
}
