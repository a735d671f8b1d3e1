//! A point in time, as a handler's `Date` has it.
//!
//! Invariant: nanoseconds are less than a second. On the wire it is the timestamp of MessagePack (SPEC 5), in the shortest form.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rmp_serde::MSGPACK_EXT_STRUCT_NAME;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::ser::{Serialize, Serializer};

const TIMESTAMP: i8 = -1;
const SECOND_NANOS: u32 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;

/// A point in time, as a handler's `Date` has it. A handler reads whole milliseconds. Where a format is for people (JSON), serde
/// writes and reads it as text: `1970-01-01T00:00:00.000Z`.
///
/// ```
/// # use nexus_client::{Date, Payload};
/// # use std::time::{Duration, SystemTime};
/// let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
/// assert_eq!(Date::from(time).to_string(), "1970-01-01T00:00:01.500Z");
/// assert_eq!(SystemTime::try_from(Date::from(time)).ok(), Some(time));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    /// Since 1970.
    seconds: i64,
    nanoseconds: u32,
}

/// A date that this machine's clock cannot show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the date is beyond what this machine's clock can show")]
#[non_exhaustive]
pub struct DateOutOfRange;

impl Date {
    /// Of milliseconds since 1970, as `getTime()` tells them.
    pub fn from_millis(ms: i64) -> Self {
        Self { seconds: ms.div_euclid(1000), nanoseconds: (ms.rem_euclid(1000) * 1_000_000) as u32 }
    }

    /// Milliseconds since 1970, as `getTime()` tells them. Of a date beyond them, the nearest.
    pub fn as_millis(self) -> i64 {
        self.seconds.saturating_mul(1000).saturating_add(i64::from(self.nanoseconds / 1_000_000))
    }

    fn new(seconds: i64, nanoseconds: u32) -> Option<Self> {
        (nanoseconds < SECOND_NANOS).then_some(Self { seconds, nanoseconds })
    }

    /// Of the bytes of a timestamp.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [a, b, c, d] => Self::new(u32::from_be_bytes([a, b, c, d]).into(), 0),
            [a, b, c, d, e, f, g, h] => {
                let packed = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                Self::new((packed & 0x3_ffff_ffff) as i64, (packed >> 34) as u32)
            }
            [a, b, c, d, e, f, g, h, i, j, k, l] => {
                Self::new(i64::from_be_bytes([e, f, g, h, i, j, k, l]), u32::from_be_bytes([a, b, c, d]))
            }
            _ => None,
        }
    }

    fn to_bytes(self) -> Vec<u8> {
        match (u32::try_from(self.seconds), self.seconds) {
            (Ok(seconds), _) if self.nanoseconds == 0 => seconds.to_be_bytes().to_vec(),
            (_, 0..=0x3_ffff_ffff) => (u64::from(self.nanoseconds) << 34 | self.seconds as u64).to_be_bytes().to_vec(),
            _ => [&self.nanoseconds.to_be_bytes()[..], &self.seconds.to_be_bytes()].concat(),
        }
    }

    /// What an extension of MessagePack holds.
    pub(crate) fn from_extension<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (kind, bytes) = <(i8, Octets)>::deserialize(deserializer)?;
        let date = (kind == TIMESTAMP).then(|| Self::from_bytes(&bytes.0)).flatten();
        date.ok_or_else(|| D::Error::custom("an extension that is no timestamp"))
    }

    /// Of the text that [`Display`](fmt::Display) writes.
    fn from_text(text: &str) -> Option<Self> {
        let (day, time) = text.strip_suffix('Z')?.split_once('T')?;
        let mut parts = day.rsplitn(3, '-');
        let (date, month, year) = (number(parts.next()?)?, number(parts.next()?)?, parts.next()?);
        let year = match year.strip_prefix('-') {
            Some(before) => -number(before)?,
            None => number(year.strip_prefix('+').unwrap_or(year))?,
        };
        let (time, fraction) = time.split_once('.')?;
        let mut parts = time.split(':').map(number);
        let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
        let is_time = parts.next().is_none() && hour < 24 && minute < 60 && second < 60 && fraction.len() == 3;
        let is_day = (1..=12).contains(&month) && (1..=31).contains(&date) && (-300_000..=300_000).contains(&year);
        let seconds = days_of(year, month, date) * DAY_SECONDS + hour * 3600 + minute * 60 + second;
        let date = Self { seconds, nanoseconds: number(fraction)? as u32 * 1_000_000 };
        // A day that its month does not have would be written in another way.
        (is_time && is_day && date.to_string() == text).then_some(date)
    }
}

fn number(digits: &str) -> Option<i64> {
    let is_number = digits.len() <= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { digits.parse().ok() } else { None }
}

/// Days since 1970 of a day of the Gregorian calendar. Years begin in March here, so that a leap day is the last of its year.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of the Gregorian calendar.
fn day_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = (shifted + 2) % 12 + 1;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

impl fmt::Display for Date {
    /// As `toISOString()` writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = day_of(self.seconds.div_euclid(DAY_SECONDS));
        let second = self.seconds.rem_euclid(DAY_SECONDS);
        match year {
            0..=9999 => write!(f, "{year:04}")?,
            _ => write!(f, "{year:+07}")?,
        }
        let (hour, minute, ms) = (second / 3600, second / 60 % 60, self.nanoseconds / 1_000_000);
        write!(f, "-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.{ms:03}Z", second % 60)
    }
}

impl From<SystemTime> for Date {
    fn from(time: SystemTime) -> Self {
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self { seconds: seconds(since), nanoseconds: since.subsec_nanos() },
            Err(error) => {
                let before = error.duration();
                match before.subsec_nanos() {
                    0 => Self { seconds: -seconds(before), nanoseconds: 0 },
                    nanos => Self { seconds: -seconds(before) - 1, nanoseconds: SECOND_NANOS - nanos },
                }
            }
        }
    }
}

impl TryFrom<Date> for SystemTime {
    type Error = DateOutOfRange;

    fn try_from(date: Date) -> Result<Self, DateOutOfRange> {
        let whole = Duration::from_secs(date.seconds.unsigned_abs());
        let second = if date.seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
        second.and_then(|time| time.checked_add(Duration::from_nanos(date.nanoseconds.into()))).ok_or(DateOutOfRange)
    }
}

struct Octets(Vec<u8>);

impl Serialize for Octets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Octets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Octets, E> {
                Ok(Octets(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Reader)
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        serializer.serialize_newtype_struct(MSGPACK_EXT_STRUCT_NAME, &(TIMESTAMP, Octets(self.to_bytes())))
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Date;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a date")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Date, D::Error> {
                Date::from_extension(deserializer)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Date, E> {
                Date::from_text(text).ok_or_else(|| E::custom("not a date as toISOString() writes it"))
            }
        }
        if deserializer.is_human_readable() {
            return deserializer.deserialize_str(Reader);
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Payload;

    #[test]
    fn dates_are_written_as_javascript_writes_them_and_read_again() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000, "+010000-01-01T00:00:00.000Z"),
            (-62_167_219_200_001, "-000001-12-31T23:59:59.999Z"),
            (8_640_000_000_000_000, "+275760-09-13T00:00:00.000Z"),
            (-8_640_000_000_000_000, "-271821-04-20T00:00:00.000Z"),
        ] {
            let date = Date::from_millis(ms);
            assert_eq!((date.to_string(), date.as_millis()), (text.to_owned(), ms));
            let json = serde_json::to_string(&date).unwrap();
            assert_eq!(serde_json::from_str::<Date>(&json).unwrap(), date);
            assert_eq!(Payload::encode(&date).unwrap().decode::<Date>().unwrap(), date);
        }
        for text in ["2001-02-29T00:00:00.000Z", "1970-01-01", "1970-01-01T24:00:00.000Z", "x-01-01T00:00:00.000Z", ""]
        {
            assert!(Date::from_text(text).is_none(), "{text}");
        }
    }

    #[test]
    fn timestamps_have_the_shortest_form_and_every_form_is_read() {
        let nano = Date { seconds: 1, nanoseconds: 1 };
        for (date, bytes) in [(Date::from_millis(1000), 4), (nano, 8), (Date::from_millis(-1), 12)] {
            assert_eq!(date.to_bytes().len(), bytes);
            assert_eq!(Date::from_bytes(&date.to_bytes()), Some(date));
        }
        assert_eq!(Date::from_bytes(&[0xff; 12]), None, "more than a second of nanoseconds");
        assert_eq!(Date::from_bytes(&[0; 5]), None);
        assert!(Date { seconds: i64::MIN, nanoseconds: 0 }.to_string().ends_with('Z'));
    }

    #[test]
    fn clocks_and_dates_agree_on_both_sides_of_1970() {
        for nanos in [0, 1, 1_500_000_000] {
            for time in [UNIX_EPOCH + Duration::from_nanos(nanos), UNIX_EPOCH - Duration::from_nanos(nanos)] {
                assert_eq!(SystemTime::try_from(Date::from(time)), Ok(time));
            }
        }
    }
}
