//! The scanner of payloads: what it accepts, what it refuses, and why.

use super::*;

fn nested(levels: usize) -> Vec<u8> {
    let mut bytes = vec![0x91; levels];
    bytes.push(0xc0);
    bytes
}

// shows P-payload-depth
#[test]
fn depth_is_counted_in_containers_around_one_another() {
    assert_eq!(validate(&nested(64)), Ok(()));
    assert_eq!(validate(&nested(65)), Err(PayloadError::TooDeep));
    assert_eq!(validate(&nested(100_000)), Err(PayloadError::TooDeep));
    let mut empty_at_65 = vec![0x91; 64];
    empty_at_65.push(0x90);
    assert_eq!(validate(&empty_at_65), Err(PayloadError::TooDeep));
    assert_eq!(scan(&[0x92; 200]), Err(PayloadError::TooDeep));
}

#[test]
fn claims_beyond_the_end_fail_at_once() {
    for bytes in
        [&[0xdd, 0xff, 0xff, 0xff, 0xff][..], &[0xdf, 0xff, 0xff, 0xff, 0xff, 0xc0], &[0xdb, 0xff, 0xff, 0xff, 0xff]]
    {
        assert_eq!(scan(bytes), Err(PayloadError::Truncated));
    }
}

#[test]
fn scan_stops_behind_the_first_value_and_validate_wants_one() {
    let bytes = [0x82, 0xa1, b'a', 1, 0xa1, b'b', 0xc4, 2, 9, 9, 0xc0];
    assert_eq!(scan(&bytes), Ok(10));
    assert_eq!(validate(&bytes), Err(PayloadError::TrailingBytes { offset: 10 }));
    assert_eq!(validate(&bytes[..10]), Ok(()));
}

#[test]
fn utf8_is_checked_by_validate_and_in_keys_only() {
    let bytes = [0x81, 0xa1, b'a', 0xa1, 0xff];
    assert_eq!(validate(&bytes), Err(PayloadError::BadUtf8 { offset: 4 }));
    assert_eq!(validate_shape(&bytes), Ok(()));
    assert_eq!(map_entries(&bytes).unwrap().next(), Some(Ok(("a", &bytes[3..]))));
    assert_eq!(map_entries(&[0x81, 0xa1, 0xff, 1]).unwrap().next(), Some(Err(PayloadError::BadUtf8 { offset: 2 })));
}

/// Goes on up to a position.
struct UpTo(usize);

impl Pace for UpTo {
    fn goes_on(&mut self, at: usize) -> bool {
        at < self.0
    }
}

#[test]
fn a_look_that_is_paced_ends_wherever_it_is_told_to() {
    let large = [&[0x81, 0xa1, b'a', 0xdc, 0xff, 0xff][..], &[1; 0xffff]].concat();
    for stop in [1, 10, 1000, large.len() - 1] {
        assert_eq!(validate_paced(&large, &mut UpTo(stop)), Err(PayloadError::Stopped));
        assert_eq!(validate_shape_paced(&large, &mut UpTo(stop)), Err(PayloadError::Stopped));
        let entries: Vec<_> = map_entries_paced(&large, UpTo(stop)).unwrap().collect();
        assert_eq!(entries, [Err(PayloadError::Stopped)]);
    }
    assert_eq!(validate_paced(&large, &mut UpTo(large.len())), Ok(()));
    assert_eq!(map_entries_paced(&large, UpTo(large.len())).unwrap().filter_map(Result::ok).count(), 1);
}

#[test]
fn only_timestamps_are_accepted_as_extensions() {
    for (header, length, ok) in [
        (&[0xd6, 0xff][..], 4, true),
        (&[0xd7, 0xff], 8, true),
        (&[0xc7, 12, 0xff], 12, true),
        (&[0xd6, 0x01], 4, false),
        (&[0xd4, 0xff], 1, false),
        (&[0xd8, 0xff], 16, false),
        (&[0xc7, 0, 0xff], 0, false),
    ] {
        let mut bytes = header.to_vec();
        bytes.resize(header.len() + length, 0);
        assert_eq!(validate(&bytes).is_ok(), ok, "{header:?}");
        assert_eq!(scan(&bytes).is_ok(), ok, "{header:?}");
    }
    assert_eq!(validate(&[0xc1]), Err(PayloadError::BadMarker { offset: 0 }));
}

#[test]
fn only_keys_that_have_a_string_form_are_accepted_at_any_depth() {
    let good: [&[u8]; 8] =
        [b"\xa1k", b"\xd9\x01k", b"\x05", b"\xff", b"\xcc\xff", b"\xca\0\0\0\0", b"\xc2", b"\xd3\0\0\0\0\0\0\0\x01"];
    let bad: [&[u8]; 9] = [
        b"\xc0",
        b"\x90",
        b"\x91\x01",
        b"\x80",
        b"\xc4\x01k",
        b"\xd6\xff\0\0\0\0",
        b"\xdc\0\0",
        b"\xde\0\0",
        b"\xc7\x04\xff\0\0\0\0",
    ];
    // bare; behind a map that has ended; inside of an array within a map; as the second key, and around a value alike
    type Wrap = fn(&[u8]) -> Vec<u8>;
    let around: [Wrap; 5] = [
        |key| [b"\x81", key, b"\xc0"].concat(),
        |key| [b"\x92\x81\x01\x90\x81", key, b"\xc0"].concat(),
        |key| [b"\x81\xa1a\x92\xc0\x81", key, b"\xc0"].concat(),
        |key| [b"\x82\xa1a\x81\xa1b\x91\xc0", key, b"\xc0"].concat(),
        |key| [b"\xde\0\x02\xa1a\xc0", key, b"\xdf\0\0\0\0"].concat(),
    ];
    for wrap in around {
        for key in good {
            assert_eq!((validate(&wrap(key)), validate_shape(&wrap(key))), (Ok(()), Ok(())), "{:x?}", wrap(key));
        }
        for key in bad {
            for result in [validate(&wrap(key)), validate_shape(&wrap(key)), validate_inside(&wrap(key), 7)] {
                assert!(matches!(result, Err(PayloadError::BadKey { .. })), "{:x?}: {result:?}", wrap(key));
            }
            assert_eq!(validate(key), Ok(()), "a value may be what a key may not");
        }
    }
    let mut deepest = b"\x81\xa1k".repeat(63);
    deepest.extend(b"\x81\xc0\xc0");
    assert_eq!(validate(&deepest), Err(PayloadError::BadKey { offset: 190 }));
}

#[test]
fn a_timestamp_has_less_than_a_second_of_nanoseconds() {
    let t64 = |nanoseconds: u64| [&b"\xd7\xff"[..], &(nanoseconds << 34 | 1).to_be_bytes()].concat();
    let t96 = |nanoseconds: u32| [&b"\xc7\x0c\xff"[..], &nanoseconds.to_be_bytes(), &[0; 8]].concat();
    assert_eq!((validate(&t64(999_999_999)), validate(&t96(999_999_999))), (Ok(()), Ok(())));
    let refused = Err(PayloadError::BadTimestamp { nanoseconds: 1_000_000_000 });
    assert_eq!((validate(&t64(1_000_000_000)), validate_shape(&t96(1_000_000_000))), (refused, refused));
    assert_eq!(validate(&t96(u32::MAX)), Err(PayloadError::BadTimestamp { nanoseconds: u32::MAX }));
}

#[test]
fn entries_are_walked_to_the_end_and_nothing_may_follow() {
    let bytes = [0x82, 0xa1, b'a', 0x92, 1, 2, 0xa1, b'b', 0xc0, 0x07];
    let entries: Vec<_> = map_entries(&bytes).unwrap().collect();
    assert_eq!(
        entries,
        [Ok(("a", &bytes[3..6])), Ok(("b", &bytes[8..9])), Err(PayloadError::TrailingBytes { offset: 9 })]
    );
    assert_eq!(map_entries(&[0x90]).unwrap_err(), PayloadError::NotAMap);
    assert_eq!(map_entries(&[0x81, 1, 1]).unwrap().next(), Some(Err(PayloadError::KeyNotAString { offset: 1 })));
    assert_eq!(array_items(&[0x92, 1, 0xa0]).unwrap().collect::<Vec<_>>(), [Ok(&[1][..]), Ok(&[0xa0][..])]);
}
