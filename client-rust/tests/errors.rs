//! What a handler throws, as the caller gets it.

mod support;

use std::collections::BTreeMap;

use nexus_client::ErrorCode;
use support::{client, watched};

#[test]
fn cause_and_own_fields_of_an_error_arrive() {
    watched(|| {
        let client = client();
        let source = "const root = Object.assign(new TypeError('root'), { code: 'E_ROOT' });\n\
            throw Object.assign(new Error('top', { cause: new Error('middle', { cause: root }) }), { status: 503 })";
        let error = client.execute(source).wait().unwrap().into_result().unwrap_err();
        assert_eq!(error.code(), ErrorCode::ExecutionError);
        let fields: BTreeMap<String, u32> = error.properties().unwrap().decode().unwrap();
        assert_eq!(fields, BTreeMap::from([("status".to_owned(), 503)]));
        let wire = error.as_sidecar().unwrap();
        assert_eq!((&*wire.message, wire.location.map(|at| at.line)), ("top", Some(2)));
        let middle = wire.cause.as_deref().unwrap();
        assert_eq!((middle.name.as_deref(), &*middle.message), (Some("Error"), "middle"));
        let root = middle.cause.as_deref().unwrap();
        assert_eq!(
            (root.name.as_deref(), &*root.message, root.code.as_deref()),
            (Some("TypeError"), "root", Some("E_ROOT"))
        );
        assert!(root.cause.is_none());
    });
}

#[test]
fn a_cause_that_is_no_error_is_a_value() {
    watched(|| {
        let client = client();
        let source = "throw new Error('x', { cause: [7, 8] })";
        let error = client.execute(source).wait().unwrap().into_result().unwrap_err();
        let value = error.as_sidecar().unwrap().cause.as_deref().unwrap().value.clone().unwrap();
        assert_eq!(value.decode::<Vec<u32>>().unwrap(), [7, 8]);
        assert!(error.properties().is_none());
    });
}
