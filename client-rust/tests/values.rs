//! Values that JSON does not have, to a handler and back.

mod support;

use std::time::SystemTime;

use nexus_client::{Date, Value};
use support::{client, watched};

#[test]
fn any_value_of_a_handler_can_be_held_and_goes_back_as_it_came() {
    watched(|| {
        let client = client();
        let source =
            "return { at: new Date(1500), big: 2n ** 63n, bytes: new Uint8Array([7]), z: [null, -0.5], a: 'x' }";
        let value: Value = client.execute(source).wait().unwrap().value().unwrap();
        assert_eq!(value.get("at").and_then(Value::as_date), Some(Date::from_millis(1500)));
        assert_eq!(value.get("big").and_then(Value::as_integer), Some(1 << 63));
        assert_eq!(value.get("bytes").and_then(Value::as_bytes), Some(&[7][..]));
        let keys: Vec<_> = value.as_map().unwrap().iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["at", "big", "bytes", "z", "a"]);
        let back = "const { at, big, bytes, z } = $args\n\
            return [at instanceof Date, at.getTime(), typeof big, bytes instanceof Uint8Array, z[1], Object.keys($args).join()]";
        let segment = client.execute(back).args(&value).wait().unwrap();
        let told = segment.value::<(bool, u32, String, bool, f64, String)>().unwrap();
        assert_eq!(told, (true, 1500, "bigint".into(), true, -0.5, "at,big,bytes,z,a".into()));
        let now = SystemTime::UNIX_EPOCH;
        let segment = client.execute("return $args").args(&Date::from(now)).wait().unwrap();
        assert_eq!(segment.value::<Date>().unwrap(), Date::from(now));
    });
}
