//! The host calls: what a handler can reach, in one table. Capabilities, counts and byte limits are checked here, once,
//! whatever the guest's memory may have become.
//!
//! A host call copies what it needs out of the guest, does a bounded amount of work, and returns. It never blocks, and it
//! touches the guest's memory only between `enter_host` and `leave_host`.
//!
//! What is refused is written down (`refusals.rs`): the host alone says that it was.

use std::sync::Arc;

use nexus_protocol::capability::Scope;
use nexus_protocol::limits::{MAX_HOST_CALL_BYTES, MAX_NAME_BYTES, MAX_RANDOM_BYTES};
use nexus_protocol::{Capability, Shared, payload};
use wasmedge_sdk::{ValType, WasmValue};

use super::abi::{self, result};
use super::context::{Breach, Context, NewCall};
use super::control::{Entry, HostCallGuard, RunControl};
use super::denial::{Named, Told};
use super::ffi::{HostTrap, Import, LinearMemory, guarded};
use super::keeper::Park;
use crate::faults::{self, Point};

/// Host data of one instance.
#[derive(Debug, Default)]
pub struct HostData {
    /// What the running execution may do and has done; none while the instance is idle.
    pub context: Option<Box<Context>>,
    /// Set once, when the instance is made.
    pub link: Option<(LinearMemory, Arc<RunControl>)>,
    /// For the one guest that is entered and never left.
    pub park: Option<Arc<Park>>,
}

/// Names for counting, in the order of the table.
pub const HOST_CALLS: [&str; 12] = [
    "state_get",
    "state_set",
    "state_delete",
    "state_has",
    "state_keys",
    "emit_event",
    "view_command",
    "ext_call",
    "ext_query",
    "log",
    "now",
    "random_bytes",
];

/// The guest's side of one call: its memory, and the arguments as it gave them.
struct Guest<'a> {
    memory: LinearMemory,
    args: &'a [WasmValue],
}

/// One call in progress.
struct Call<'a> {
    guest: Guest<'a>,
    context: &'a mut Context,
    control: &'a RunControl,
}

impl Guest<'_> {
    fn u32(&self, i: usize) -> u32 {
        self.args.get(i).map_or(0, |v| v.to_i32() as u32)
    }

    /// Bytes that the guest points at with the arguments i (address) and i + 1 (length).
    fn bytes(&self, i: usize, max: usize) -> Result<Vec<u8>, i32> {
        let len = self.u32(i + 1) as usize;
        if len > max {
            return Err(result::INVALID);
        }
        self.memory.read_vec(self.u32(i), len).map_err(|_| result::INVALID)
    }

    /// Copies `bytes` to arguments i (address) and i + 1 (capacity) if they fit, and returns their length.
    fn reply(&self, i: usize, bytes: &[u8]) -> Result<i32, i32> {
        if bytes.len() > abi::MAX_VALUE_BYTES {
            return Err(result::INTERNAL);
        }
        if bytes.len() <= (self.u32(i + 1) & !abi::QUIET_FLAG) as usize {
            self.memory.write(self.u32(i), bytes).map_err(|_| result::INVALID)?;
        }
        Ok(bytes.len() as i32)
    }
}

impl Call<'_> {
    /// A name that the guest points at with the arguments i (address) and i + 1 (length).
    fn name(&mut self, i: usize, named: Named) -> Result<String, i32> {
        let len = self.guest.u32(i + 1) as usize;
        if len > MAX_NAME_BYTES {
            return Err(self.context.refuse_name(Told::too_long(named, len)));
        }
        let bytes = self.guest.bytes(i, MAX_NAME_BYTES)?;
        String::from_utf8(bytes).map_err(|_| self.context.refuse_name(Told::no_text(named)))
    }

    /// A payload that the guest made: one well-formed value, as clients may rely on, also with what is put around it.
    fn payload(&mut self, i: usize, around: usize) -> Result<Vec<u8>, i32> {
        self.context.take_in(self.guest.u32(i + 1) as usize)?;
        let bytes = self.guest.bytes(i, MAX_HOST_CALL_BYTES as usize)?;
        payload::validate_inside(&bytes, around).map_err(|_| result::INVALID)?;
        Ok(bytes)
    }
}

type Answer = Result<i32, i32>;

/// What the language itself looks up in every object: when one is awaited or returned, written as JSON, or converted.
const LANGUAGE_NAMES: [&str; 14] = [
    "then",
    "toJSON",
    "constructor",
    "toString",
    "toLocaleString",
    "valueOf",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "__proto__",
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
];

fn state_get(call: &mut Call<'_>) -> Answer {
    let key = call.name(0, Named::Key)?;
    if !call.context.capabilities.can_read_state(&key) {
        // no handler has asked for this one
        if call.guest.u32(3) & abi::QUIET_FLAG != 0 && LANGUAGE_NAMES.contains(&&*key) {
            return Err(result::DENIED);
        }
        return call.context.deny(&Capability::StateRead(Scope::Name(&key)));
    }
    let read_only = if call.context.capabilities.can_write_state(&key) { 0 } else { abi::READ_ONLY_FLAG };
    let value = call.context.read_state(&key)?.ok_or(result::NOT_FOUND)?;
    Ok(call.guest.reply(2, value)? | read_only)
}

fn state_set(call: &mut Call<'_>) -> Answer {
    let key = call.name(0, Named::Key)?;
    if !call.context.capabilities.can_write_state(&key) {
        return call.context.deny(&Capability::StateWrite(Scope::Name(&key)));
    }
    let value = call.payload(2, abi::EFFECT_DEPTH)?;
    call.context.record_set(&key, value)?;
    Ok(0)
}

fn state_delete(call: &mut Call<'_>) -> Answer {
    let key = call.name(0, Named::Key)?;
    if !call.context.capabilities.can_write_state(&key) {
        return call.context.deny(&Capability::StateWrite(Scope::Name(&key)));
    }
    Ok(i32::from(call.context.record_delete(&key)?))
}

fn state_has(call: &mut Call<'_>) -> Answer {
    let key = call.name(0, Named::Key)?;
    if !call.context.capabilities.can_read_state(&key) {
        return call.context.deny(&Capability::StateRead(Scope::Name(&key)));
    }
    Ok(i32::from(call.context.state.get(&key).is_some()))
}

fn state_keys(call: &mut Call<'_>) -> Answer {
    if !call.context.capabilities.can_read_all_state() {
        return call.context.deny(&Capability::StateRead(Scope::All));
    }
    // who has used up what may be copied does not make the host build more of it
    call.context.copy(0)?;
    let control = call.control;
    let keys = call.context.state.keys(&mut || !control.is_due()).ok_or(result::LIMIT)?;
    call.context.copy(keys.len())?;
    call.guest.reply(0, &keys)
}

fn emit_event(call: &mut Call<'_>) -> Answer {
    let name = call.name(0, Named::Event)?;
    if !call.context.capabilities.can_emit(&name) {
        return call.context.deny(&Capability::EventsEmit(Scope::Name(&name)));
    }
    let payload = call.payload(2, abi::EFFECT_DEPTH)?;
    call.context.record_event(&name, payload)?;
    Ok(0)
}

fn view_command(call: &mut Call<'_>) -> Answer {
    // an array instead of the effect's map
    let bytes = Shared::new(call.payload(0, abi::EFFECT_DEPTH - 1)?);
    let mut parts = payload::array_items(&bytes).map_err(|_| result::INVALID)?.flatten();
    let (Some(view), Some(command), Some(params)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(result::INVALID);
    };
    let (Some(view), Some(command)) = (payload::as_str(view), payload::as_str(command)) else {
        return Err(result::INVALID);
    };
    // names as those that come by themselves: a refusal is kept and logged
    let longest = view.len().max(command.len());
    if longest > MAX_NAME_BYTES {
        return Err(call.context.refuse_name(Told::too_long(Named::View, longest)));
    }
    if !call.context.capabilities.can_update_view(view) {
        return call.context.deny(&Capability::ViewUpdate(Scope::Name(view)));
    }
    let at = params.as_ptr().addr() - bytes.as_ptr().addr();
    let params = bytes.part(at..at + params.len()).ok_or(result::INTERNAL)?;
    call.context.record_view_command(view, command, &params)?;
    Ok(0)
}

fn ext_call(call: &mut Call<'_>) -> Answer {
    let extension = call.name(0, Named::Extension)?;
    let method = call.name(2, Named::Method)?;
    if !call.context.capabilities.can_call(&extension, &method) {
        return call.context.deny(&Capability::ExtensionMethod { name: &extension, method: &method });
    }
    let methods = call
        .context
        .extensions
        .as_ref()
        .map(|registry| registry.methods(&extension).map(|mut methods| methods.any(|one| one == method)));
    match methods {
        Some(None) => return call.context.no_extension(extension),
        Some(Some(false)) => return call.context.no_method(extension, method),
        Some(Some(true)) | None => {}
    }
    let args = Shared::new(call.payload(4, 0)?);
    call.context.record_call(NewCall { extension, method, args, number: 0 })
}

fn ext_query(call: &mut Call<'_>) -> Answer {
    call.context.copy(0)?;
    let what = call.guest.u32(0);
    let name = if what == 2 { String::new() } else { call.name(1, Named::Extension)? };
    let names = match (what, &call.context.extensions) {
        (0, Some(registry)) => return Ok(i32::from(registry.methods(&name).is_some())),
        // without a list the client alone knows what there is, so nothing is said not to exist
        (0, None) => return Ok(1),
        (1, Some(registry)) => registry.methods(&name).map(Iterator::collect).unwrap_or_default(),
        (2, Some(registry)) => registry.names().collect(),
        (_, None) => Vec::<&str>::new(),
        _ => return Err(result::INVALID),
    };
    let bytes = rmp_serde::to_vec(&names).map_err(|_| result::INTERNAL)?;
    call.context.copy(bytes.len())?;
    call.guest.reply(3, &bytes)
}

fn log_record(call: &mut Call<'_>) -> Answer {
    let level = call.guest.u32(0);
    // cut before it is copied: a handler may hand over megabytes
    let most = call.context.log_bytes_left().saturating_add(1).min(MAX_HOST_CALL_BYTES as usize);
    let len = (call.guest.u32(2) as usize).min(most);
    call.context.copy(len)?;
    let mut text = call.guest.memory.read_vec(call.guest.u32(1), len).map_err(|_| result::INVALID)?;
    // the cut may have hit a character
    if let Err(e) = std::str::from_utf8(&text)
        && e.error_len().is_none()
    {
        text.truncate(e.valid_up_to());
    }
    call.context.record_log(level, &String::from_utf8_lossy(&text));
    Ok(0)
}

fn random_bytes(call: &mut Call<'_>) -> Answer {
    if !call.context.capabilities.has_random() {
        return call.context.deny(&Capability::CryptoRandom);
    }
    let len = call.guest.u32(1) as usize;
    if len > MAX_RANDOM_BYTES {
        return Err(result::INVALID);
    }
    call.context.copy(len)?;
    let mut bytes = vec![0; len];
    crate::os::fill_random(&mut bytes).map_err(|_| result::INTERNAL)?;
    call.guest.memory.write(call.guest.u32(0), &bytes).map_err(|_| result::INVALID)?;
    Ok(0)
}

/// What there is to say of the call before this one, which was refused.
fn refusal(call: &mut Call<'_>) -> Answer {
    let Call { guest, context, .. } = call;
    context.copy(guest.u32(2) as usize)?;
    let told = context.told().map_or("", |told| match guest.u32(0) {
        0 => &told.sentence,
        _ => told.token.as_deref().unwrap_or_default(),
    });
    guest.reply(1, told.as_bytes())
}

/// The frame around every host call: the gate to the watchdog, the count, the limit. `index`: None is not counted, since no handler
/// asks for it.
fn host_call(
    index: Option<usize>,
    data: &mut HostData,
    args: &[WasmValue],
    f: impl FnOnce(&mut Call<'_>) -> Answer,
) -> Result<i32, HostTrap> {
    let HostData { context, link, .. } = data;
    let (Some((memory, control)), Some(context)) = (link, context) else {
        // initialising, or a guest that calls out of its turn: there is nothing that it could reach
        return Ok(result::INTERNAL);
    };
    let _inside: HostCallGuard<'_> = match control.enter_host() {
        Entry::Open(guard) => guard,
        Entry::Refused => return Ok(result::LIMIT),
        Entry::Gone => return Err(HostTrap),
    };
    faults::pass(Point::HostCall);
    let answer = match index.map_or(Ok(()), |index| context.count_call(index)) {
        Ok(()) => f(&mut Call { guest: Guest { memory: *memory, args }, context, control }),
        Err(breach) => Err(breach.into()),
    };
    Ok(answer.unwrap_or_else(|code| code))
}

/// Place of a call in [`HOST_CALLS`]; a name that is not there does not compile.
const fn place_of(name: &str) -> usize {
    let mut place = 0;
    while !is_same(HOST_CALLS[place], name) {
        place += 1;
    }
    place
}

const fn is_same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

macro_rules! import {
    ($name:literal, $function:path, [$($param:ident),*]) => {
        Import {
            name: concat!("__nexus_", $name),
            params: &[$(ValType::$param),*],
            result: ValType::I32,
            entry: |data, _, _, args| {
                const PLACE: Option<usize> = Some(place_of($name));
                guarded(|data, args| host_call(PLACE, data, args, $function).map(WasmValue::from_i32), data, &args)
            },
        }
    };
}

/// Every import of the guest: the calls, and the question about one that was refused.
pub fn imports() -> [Import<HostData>; HOST_CALLS.len() + 1] {
    [
        import!("state_get", state_get, [I32, I32, I32, I32]),
        import!("state_set", state_set, [I32, I32, I32, I32]),
        import!("state_delete", state_delete, [I32, I32]),
        import!("state_has", state_has, [I32, I32]),
        import!("state_keys", state_keys, [I32, I32]),
        import!("emit_event", emit_event, [I32, I32, I32, I32]),
        import!("view_command", view_command, [I32, I32]),
        import!("ext_call", ext_call, [I32, I32, I32, I32, I32, I32]),
        import!("ext_query", ext_query, [I32, I32, I32, I32, I32]),
        import!("log", log_record, [I32, I32, I32]),
        Import {
            name: "__nexus_now",
            params: &[],
            result: ValType::F64,
            entry: |data, _, _, args| {
                guarded(
                    |data: &mut HostData, _| {
                        if let Some(park) = &data.park {
                            park.stay();
                        }
                        // needs no memory, so no gate; while the guest is initialised there is no context, and time stands at 0
                        Ok(WasmValue::from_f64(data.context.as_mut().map_or(0.0, |c| c.now_ms())))
                    },
                    data,
                    &args,
                )
            },
        },
        import!("random_bytes", random_bytes, [I32, I32]),
        Import {
            name: "__nexus_refusal",
            params: &[ValType::I32, ValType::I32, ValType::I32],
            result: ValType::I32,
            entry: |data, _, _, args| {
                guarded(|data, args| host_call(None, data, args, refusal).map(WasmValue::from_i32), data, &args)
            },
        },
    ]
}

impl From<Breach> for i32 {
    fn from(_: Breach) -> Self {
        result::LIMIT
    }
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
