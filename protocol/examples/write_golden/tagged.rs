//! MessagePack as the tagged JSON of the vectors.

use rmpv::Value as Pack;
use serde_json::{Value, json};

/// A control value, or the fields of a message.
pub(crate) fn control(bytes: &[u8]) -> Value {
    from_pack(&rmpv::decode::read_value(&mut &*bytes).expect("vectors of messages are MessagePack"))
}

fn from_pack(value: &Pack) -> Value {
    match value {
        Pack::Nil => Value::Null,
        Pack::Boolean(value) => json!(value),
        Pack::Integer(value) => integer(i128::from(value.as_i64().unwrap_or_default()), value.as_u64()),
        Pack::F32(value) => json!(value),
        Pack::F64(value) => json!(value),
        Pack::String(text) => json!(text.as_str().expect("UTF-8")),
        Pack::Binary(bytes) => json!({ "$bin": hex(bytes) }),
        Pack::Array(items) => items.iter().map(from_pack).collect(),
        Pack::Map(entries) => {
            let entry = |(key, value): &(Pack, Pack)| (key.as_str().expect("str keys").to_owned(), from_pack(value));
            Value::Object(entries.iter().map(entry).collect())
        }
        Pack::Ext(..) => unreachable!("no message holds an extension"),
    }
}

fn integer(signed: i128, unsigned: Option<u64>) -> Value {
    let value = unsigned.map_or(signed, i128::from);
    if value.unsigned_abs() < 1 << 53 { json!(value as i64) } else { json!({ "$int": value.to_string() }) }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
