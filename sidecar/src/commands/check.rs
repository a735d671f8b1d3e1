//! `check`: whether a handler compiles, which capabilities it needs, and how it suspends.

use nexus_protocol::message::{Check, Checked, SuspendMode};
use nexus_protocol::{ClientMessage, SidecarMessage};
use serde_json::{Value, json};

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
        SidecarMessage::Checked(checked) if json => Some(format!("{}\n", document(&checked))),
        SidecarMessage::Checked(checked) => Some(text(name, &checked)),
        _ => None,
    });
    match checked {
        Ok(report) => Ok((ExitCode::Ok, report)),
        Err(ClientError::Refused(error)) if json => {
            Ok((ExitCode::HandlerFailed, format!("{}\n", json!({"ok": false, "error": error}))))
        }
        Err(ClientError::Refused(error)) => Ok((ExitCode::HandlerFailed, diagnostic(&error, name, source))),
        Err(error) => Err(error.into()),
    }
}

fn document(checked: &Checked<'_>) -> Value {
    let mut document = json!({
        "ok": true,
        "suspendMode": checked.suspend_mode.as_str(),
        "capabilities": checked.capabilities,
        "certain": checked.certain,
        "warnings": checked.warnings,
    });
    if let Some(reason) = checked.suspend_reason {
        document["suspendReason"] = reason.into();
    }
    if let Some(unparsed) = checked.unparsed {
        document["unparsed"] = json!(unparsed);
    }
    document
}

fn text(name: &str, checked: &Checked<'_>) -> String {
    let style = match checked.suspend_mode {
        SuspendMode::Await => "promise style",
        SuspendMode::Stack => "stack style",
    };
    let reason = checked.suspend_reason.map(|reason| format!(": {}", escape(reason))).unwrap_or_default();
    let mut out = format!("{}: compiles\n{style}{reason}\n", escape(name));
    if let Some(note) = &checked.unparsed {
        out.push_str(&format!(
            "could not be analyzed, so it may need anything: {} ({}:{})\n",
            escape(note.message),
            note.line,
            note.column
        ));
    }
    if checked.capabilities.is_empty() {
        out.push_str("needs no capabilities\n");
    }
    for capability in &checked.capabilities {
        // who gives no reason does not tell the two apart either
        let certain = checked.suspend_reason.is_none() || checked.certain.contains(capability);
        out.push_str(&format!("{} {}\n", if certain { "needs   " } else { "may need" }, escape(capability)));
    }
    for warning in &checked.warnings {
        out.push_str(&format!("warning: {}:{}: {}\n", warning.line, warning.column, escape(warning.message)));
    }
    out
}

#[cfg(test)]
mod tests {
    use nexus_protocol::message::Note;
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
            suspend_reason: Some("`await` at 3:12"),
            certain: vec!["state:read:n"],
            warnings: vec![],
            unparsed: None,
        })
    }

    fn odd() -> SidecarMessage<'static> {
        SidecarMessage::Checked(Checked {
            capabilities: vec!["state:read:*"],
            suspend_mode: SuspendMode::Stack,
            suspend_reason: Some("could not be read"),
            certain: vec![],
            warnings: vec![Note { message: "await\u{1b}it", line: 2, column: 4 }],
            unparsed: Some(Note { message: "what", line: 1, column: 9 }),
        })
    }

    fn old() -> SidecarMessage<'static> {
        SidecarMessage::Checked(Checked {
            capabilities: vec!["state:read:n"],
            suspend_mode: SuspendMode::Stack,
            suspend_reason: None,
            certain: vec![],
            warnings: vec![],
            unparsed: None,
        })
    }

    fn bad() -> SidecarMessage<'static> {
        SidecarMessage::Error(WireError::new(ErrorCode::CompilationError, "unexpected end").with_location(1, 9))
    }

    #[test]
    fn what_a_handler_needs_is_listed() {
        let expected = "h.js: compiles\npromise style: `await` at 3:12\nmay need ext:http.get\nneeds    state:read:n\n";
        assert_eq!(checked(good(), false), (ExitCode::Ok, expected.to_owned()));
        let document = "{\"capabilities\":[\"ext:http.get\",\"state:read:n\"],\"certain\":[\"state:read:n\"],\"ok\":true,\
                        \"suspendMode\":\"await\",\"suspendReason\":\"`await` at 3:12\",\"warnings\":[]}\n";
        assert_eq!(checked(good(), true), (ExitCode::Ok, document.to_owned()));
    }

    #[test]
    fn what_its_author_should_know_is_told() {
        let expected = "h.js: compiles\nstack style: could not be read\n\
                        could not be analyzed, so it may need anything: what (1:9)\n\
                        may need state:read:*\nwarning: 2:4: await\\u{1b}it\n";
        assert_eq!(checked(odd(), false), (ExitCode::Ok, expected.to_owned()));
        let document: Value = serde_json::from_str(&checked(odd(), true).1).unwrap();
        assert_eq!(document["warnings"][0]["line"], 2);
        assert_eq!(document["unparsed"]["column"], 9);
    }

    #[test]
    fn a_sidecar_that_gives_no_reasons_is_believed() {
        let expected = "h.js: compiles\nstack style\nneeds    state:read:n\n";
        assert_eq!(checked(old(), false), (ExitCode::Ok, expected.to_owned()));
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
