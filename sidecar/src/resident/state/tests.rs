use nexus_protocol::ContextValue;
use nexus_protocol::limits::STATE_COPIED_ENTRY_BYTES;

use super::*;

fn refused<T: std::fmt::Debug>(result: Result<T, Halt>) -> WireError {
    result.unwrap_err().into_error(|cause| panic!("nobody has stopped it: {cause:?}"))
}

/// There is room for it.
fn admit(_: usize) -> Result<(), WireError> {
    Ok(())
}

/// A payload with so many keys.
fn many(keys: usize) -> Vec<u8> {
    let map: std::collections::BTreeMap<String, usize> = (0..keys).map(|n| (format!("{n:06}"), n)).collect();
    rmp_serde::to_vec(&map).unwrap()
}

fn stopped() -> StopToken {
    let token = StopToken::new();
    token.stop(StopCause::Cancelled);
    token
}

const STOPPED: Halt = Halt::Stopped(StopCause::Cancelled);

#[test]
fn nothing_large_goes_on_without_time_and_then_nothing_has_happened() {
    let budget = Budget::new("bytes", 1 << 30);
    let (large, token) = (many(2000), StopToken::new());
    assert_eq!(ResidentState::new(&large, &budget, &stopped()).unwrap_err(), STOPPED);
    assert_eq!(budget.used(), 0);
    let state = ResidentState::new(&large, &budget, &token).unwrap();
    let used = budget.used();
    assert_eq!(Changes::of_client(&large, &[], &budget, &stopped()).unwrap_err(), STOPPED);
    let deletes: Vec<String> = (0..2000).map(|n| format!("{n:06}")).collect();
    let deletes: Vec<&str> = deletes.iter().map(String::as_str).collect();
    assert_eq!(Changes::of_client(&[0x80], &deletes, &budget, &stopped()).unwrap_err(), STOPPED);
    let changes = Changes::of_client(&[0x80], &deletes, &budget, &token).unwrap();
    assert_eq!(state.apply(changes, None, &stopped()), Err(STOPPED));
    assert_eq!(state.snapshot().encode(None, 1 << 30, &mut admit, &stopped()).unwrap_err(), STOPPED);
    assert_eq!((state.snapshot().version(), state.snapshot().key_count(), budget.used()), (1, 2000, used));
}

#[test]
fn large_and_small_change_sets_do_the_same() {
    let budget = Budget::new("bytes", 1 << 30);
    let token = StopToken::new();
    for keys in [AT_ONCE, AT_ONCE + 1] {
        let state = ResidentState::new(&[0x81, 0xa1, b'x', 1], &budget, &token).unwrap();
        let changes = || Changes::of_client(&many(keys), &["x"], &budget, &token).unwrap();
        assert_eq!(state.apply(changes(), Some(1), &token), Ok(2));
        assert_eq!(state.snapshot().key_count(), keys);
        assert_eq!(state.snapshot().get("x"), None);
        assert!(state.apply(changes(), Some(1), &token).is_err());
        state.dispose();
        assert_eq!(state.apply(changes(), None, &token), Ok(2), "a disposed state takes nothing in");
        assert_eq!(state.snapshot().key_count(), 0);
    }
}

#[test]
fn change_sets_that_race_are_all_applied_whatever_their_size() {
    let budget = Budget::new("bytes", 1 << 30);
    let token = StopToken::new();
    let state = ResidentState::new(&[0x80], &budget, &token).unwrap();
    std::thread::scope(|s| {
        for n in 0..4 {
            let (state, budget, token) = (&state, &budget, &token);
            s.spawn(move || {
                for round in 0..50 {
                    let keys = if n == 0 { 2 * AT_ONCE } else { 1 };
                    let set: std::collections::BTreeMap<String, u32> =
                        (0..keys).map(|key| (format!("{n}-{key}"), round)).collect();
                    let set = rmp_serde::to_vec(&set).unwrap();
                    let changes = Changes::of_client(&set, &[], budget, token).unwrap();
                    state.apply(changes, None, token).unwrap();
                }
            });
        }
    });
    let end = state.snapshot();
    assert_eq!((end.version(), end.key_count()), (201, 2 * AT_ONCE + 3));
    assert!(["0-0", "1-0", "2-0", "3-0"].iter().all(|key| end.get(key) == Some(&[49])));
}

#[test]
fn a_state_has_a_bounded_number_of_keys() {
    let budget = Budget::new("bytes", 1 << 30);
    let mut claims = vec![0xdf];
    claims.extend_from_slice(&(MAX_STATE_KEYS as u32 + 1).to_be_bytes());
    claims.resize(claims.len() + 2 * (MAX_STATE_KEYS + 1), 0);
    for (at, byte) in claims.iter_mut().enumerate().skip(5) {
        *byte = if at % 2 == 1 { 0xa0 } else { 0xc0 };
    }
    let error = refused(ResidentState::new(&claims, &budget, &StopToken::new()));
    assert_eq!(error.context["resource"], ContextValue::Text("maxStateKeys".into()));
    assert!(check_key_count(MAX_STATE_KEYS).is_ok());
}

fn pack(json: serde_json::Value) -> Vec<u8> {
    rmp_serde::to_vec(&json).unwrap()
}

fn state(json: serde_json::Value) -> (Arc<ResidentState>, Arc<Budget>) {
    let budget = Budget::new("bytes", 1 << 20);
    (ResidentState::new(&pack(json), &budget, &StopToken::new()).unwrap(), budget)
}

fn unpack(snapshot: &Snapshot) -> serde_json::Value {
    rmp_serde::from_slice(&snapshot.encode(None, 1 << 20, &mut admit, &StopToken::new()).unwrap()).unwrap()
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let (state, budget) = state(serde_json::json!({"a": 1, "b": [2], "c": null}));
    let before = state.snapshot();
    let changes =
        Changes::of_client(&pack(serde_json::json!({"a": 10, "d": 4})), &["b", "nothing"], &budget, &StopToken::new());
    assert_eq!(state.apply(changes.unwrap(), None, &StopToken::new()).unwrap(), 2);
    assert_eq!(unpack(&before), serde_json::json!({"a": 1, "b": [2], "c": null}));
    assert_eq!(unpack(&state.snapshot()), serde_json::json!({"a": 10, "c": null, "d": 4}));
    assert_eq!((before.version(), state.snapshot().version()), (1, 2));
}

// shows P-key-order
#[test]
fn keys_come_in_the_order_in_which_they_were_made_whatever_the_size_of_a_change() {
    let budget = Budget::new("bytes", 1 << 30);
    let token = StopToken::new();
    let map = |keys: &[String]| {
        let mut bytes = Vec::new();
        rmp::encode::write_map_len(&mut bytes, keys.len() as u32).unwrap();
        for key in keys {
            rmp::encode::write_str(&mut bytes, key).unwrap();
            bytes.push(1);
        }
        bytes
    };
    for size in [3, 2 * AT_ONCE] {
        let names = |letter: char| (0..size).map(|n| format!("{letter}{}", (n * 7919) % size)).collect::<Vec<String>>();
        let (first, second) = (names('z'), names('a'));
        let state = ResidentState::new(&map(&first), &budget, &token).unwrap();
        let change = |set: &[String], delete: &[&str]| {
            let changes = Changes::of_client(&map(set), delete, &budget, &token).unwrap();
            state.apply(changes, None, &token).unwrap();
        };
        let before = state.snapshot();
        change(&second, &[]);
        // set anew: it stays; deleted and made again: it comes last
        change(&[first[1].clone()], &[]);
        change(&[first[0].clone()], &[&first[0]]);
        let now = state.snapshot();
        let expected: Vec<&str> = first[1..].iter().chain(&second).chain(&first[..1]).map(String::as_str).collect();
        assert_eq!(now.keys(&mut || true).unwrap(), expected);
        assert_eq!(before.keys(&mut || true).unwrap(), first);
        assert_eq!(now.keys(&mut || false), None);
    }
}

#[test]
fn a_key_that_is_deleted_and_set_is_set() {
    let (state, budget) = state(serde_json::json!({"a": 1}));
    let changes = Changes::of_client(&pack(serde_json::json!({"a": 2})), &["a"], &budget, &StopToken::new()).unwrap();
    state.apply(changes, None, &StopToken::new()).unwrap();
    assert_eq!(unpack(&state.snapshot()), serde_json::json!({"a": 2}));
}

#[test]
fn another_version_than_expected_changes_nothing() {
    let (state, budget) = state(serde_json::json!({"a": 1}));
    let change = || Changes::of_client(&pack(serde_json::json!({"a": 2})), &[], &budget, &StopToken::new()).unwrap();
    let error = refused(state.apply(change(), Some(2), &StopToken::new()));
    assert_eq!(error.context["reason"], ContextValue::Text("stale-version".into()));
    assert!(error.retryable);
    assert_eq!(unpack(&state.snapshot()), serde_json::json!({"a": 1}));
    assert_eq!(state.apply(change(), Some(1), &StopToken::new()).unwrap(), 2);
    assert_eq!(state.apply(Changes::default(), Some(2), &StopToken::new()).unwrap(), 2);
}

#[test]
fn bytes_count_until_the_last_reader_is_gone() {
    let (state, budget) = state(serde_json::json!({"a": "x".repeat(1000)}));
    let full = budget.used();
    assert!(full > 1000 + STATE_BYTES);
    let reader = state.snapshot();
    state
        .apply(
            Changes::of_client(&pack(serde_json::json!({"a": 0})), &[], &budget, &StopToken::new()).unwrap(),
            None,
            &StopToken::new(),
        )
        .unwrap();
    assert!(budget.used() > full, "the reader still has the old value");
    drop(reader);
    assert!(budget.used() < full - 900);
    drop(state);
    assert_eq!(budget.used(), 0);
}

#[test]
fn what_an_old_version_keeps_beside_what_was_changed_counts_until_nobody_reads_it() {
    let (budget, token) = (Budget::new("bytes", 1 << 20), StopToken::new());
    let state = ResidentState::new(&many(100), &budget, &token).unwrap();
    let full = budget.used();
    let [first, second] = [1, 2].map(|_| state.snapshot());
    let mut changes = Changes::default();
    changes.push("000050", Some(&[1]), &budget).unwrap();
    state.apply(changes, None, &token).unwrap();
    let entry = STATE_ENTRY_BYTES + 7;
    let kept = budget.used() - full - entry;
    assert!(kept > 0 && kept.is_multiple_of(STATE_COPIED_ENTRY_BYTES), "{kept}");
    drop(first);
    assert_eq!(budget.used(), full + entry + kept);
    drop(second);
    assert_eq!(budget.used(), full);
}

#[test]
fn a_disposed_state_takes_nothing_in() {
    let (state, budget) = state(serde_json::json!({"a": 1}));
    let reader = state.snapshot();
    state.dispose();
    assert_eq!(unpack(&reader), serde_json::json!({"a": 1}));
    state
        .apply(
            Changes::of_client(&pack(serde_json::json!({"b": 1})), &[], &budget, &StopToken::new()).unwrap(),
            None,
            &StopToken::new(),
        )
        .unwrap();
    drop(reader);
    assert_eq!(budget.used(), STATE_BYTES);
}

#[test]
fn what_is_too_much_changes_nothing() {
    let budget = Budget::new("bytes", 2000);
    let state = ResidentState::new(&pack(serde_json::json!({"a": 1})), &budget, &StopToken::new()).unwrap();
    let used = budget.used();
    let error =
        Changes::of_client(&pack(serde_json::json!({"b": 1, "c": "x".repeat(2000)})), &[], &budget, &StopToken::new());
    assert_eq!(refused(error).code, ErrorCode::ResourceLimit);
    assert_eq!(budget.used(), used);
    assert!(ResidentState::new(&pack(serde_json::json!({"a": "x".repeat(2000)})), &budget, &StopToken::new()).is_err());
    assert_eq!(budget.used(), used);
    drop(state);
}

#[test]
fn of_equal_keys_the_last_one_counts() {
    let budget = Budget::new("bytes", 2000);
    let state = ResidentState::new(&[0x82, 0xa1, b'k', 1, 0xa1, b'k', 2], &budget, &StopToken::new()).unwrap();
    assert_eq!(state.snapshot().get("k"), Some(&[2][..]));
    assert_eq!(budget.used(), STATE_BYTES + STATE_ENTRY_BYTES + 2);
}

#[test]
fn some_keys_or_all_and_never_more_than_fits() {
    let (state, _) = state(serde_json::json!({"a": 1, "b": 2, "c": 3}));
    let snapshot = state.snapshot();
    let some = snapshot.encode(Some(&["c", "nothing", "a", "c"]), 1000, &mut admit, &StopToken::new()).unwrap();
    assert_eq!(some, [0x82, 0xa1, b'a', 1, 0xa1, b'c', 3]);
    assert_eq!(snapshot.encode(Some(&[]), 1000, &mut admit, &StopToken::new()).unwrap(), [0x80]);
    assert_eq!(refused(snapshot.encode(None, 10, &mut admit, &StopToken::new())).code, ErrorCode::ResourceLimit);
    // a map's head, and for each entry at most that of its key beside key and value
    let size = 5 + 3 * (5 + 1 + 1);
    assert!(snapshot.encode(None, size, &mut admit, &StopToken::new()).is_ok());
    let error = refused(snapshot.encode(None, size - 1, &mut admit, &StopToken::new()));
    assert_eq!(error.context["count"], ContextValue::Number(size as u64));
}

#[test]
fn a_key_has_at_most_as_many_bytes_as_a_handler_can_name() {
    let budget = Budget::new("bytes", 1 << 20);
    let keyed = |bytes: usize| {
        let set = pack(serde_json::json!({ "k".repeat(bytes): 1 }));
        Changes::of_client(&set, &[], &budget, &StopToken::new()).map(drop)
    };
    assert!(keyed(MAX_STATE_KEY_BYTES).is_ok());
    for more in [1, 2, 1000] {
        assert_eq!(refused(keyed(MAX_STATE_KEY_BYTES + more)).code, ErrorCode::InvalidArgument);
    }
}

#[test]
fn a_full_state_takes_no_key_more_and_those_that_it_has() {
    let (budget, token) = (Budget::new("bytes", 1 << 30), StopToken::new());
    let state = ResidentState::new(&many(MAX_STATE_KEYS), &budget, &token).unwrap();
    let change = |key: &str| {
        let mut changes = Changes::default();
        changes.push(key, Some(&[1]), &budget).unwrap();
        state.apply(changes, None, &token)
    };
    assert_eq!(change("000007"), Ok(2));
    assert_eq!(refused(change("more")).context["resource"], ContextValue::Text("maxStateKeys".into()));
    assert_eq!(state.snapshot().key_count(), MAX_STATE_KEYS);
}
