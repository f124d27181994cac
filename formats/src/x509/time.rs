//! Times of validity periods: `UTCTime` and `GeneralizedTime` as RFC 5280, 4.1.2.5, restricts them.

use zeroize::Zeroizing;

use super::der::element;

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Returns the element of the start of a validity period that includes the whole Unix era.
pub(super) fn always_from() -> Zeroizing<Vec<u8>> {
    element(UTC_TIME, &[b"700101000000Z"])
}

/// Returns the element of the end of a validity period without an end (RFC 5280, 4.1.2.5).
pub(super) fn always_until() -> Zeroizing<Vec<u8>> {
    element(GENERALIZED_TIME, &[b"99991231235959Z"])
}

/// Parses `YYMMDDHHMMSSZ`, from 1950 to 2049, as seconds since the Unix epoch.
pub(super) fn parse_utc(text: &[u8]) -> Option<i64> {
    let (year, rest) = text.split_at_checked(2)?;
    let year = number(year)?;
    seconds(if year < 50 { 2000 + year } else { 1900 + year }, rest)
}

/// Parses `YYYYMMDDHHMMSSZ` as seconds since the Unix epoch.
pub(super) fn parse_generalized(text: &[u8]) -> Option<i64> {
    let (year, rest) = text.split_at_checked(4)?;
    seconds(number(year)?, rest)
}

fn seconds(year: i64, rest: &[u8]) -> Option<i64> {
    let rest: &[u8; 11] = rest.try_into().ok()?;
    let [m1, m2, d1, d2, h1, h2, n1, n2, s1, s2, b'Z'] = *rest else {
        return None;
    };
    let two = |tens, ones| number(&[tens, ones]);
    let (month, day) = (two(m1, m2)?, two(d1, d2)?);
    let (hour, minute, second) = (two(h1, h2)?, two(n1, n2)?, two(s1, s2)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=last).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Years that begin in March end with the leap day.
    let (shifted, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * shifted + shifted.div_euclid(4) - shifted.div_euclid(100)
        + shifted.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1
        - DAYS_TO_EPOCH;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days from 1 March of the year 0 to 1 January 1970.
const DAYS_TO_EPOCH: i64 = 719_468;

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, digit| {
        digit
            .is_ascii_digit()
            .then(|| 10 * value + i64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_are_parsed() {
        for (text, unix) in [
            (&b"19700101000000Z"[..], 0),
            (b"20000229235959Z", 951_868_799),
            (b"20380119031408Z", 1 << 31),
            (b"19500101000000Z", -631_152_000),
            (b"99991231235959Z", 253_402_300_799),
        ] {
            assert_eq!(parse_generalized(text), Some(unix));
        }
        assert_eq!(parse_utc(b"700101000000Z"), Some(0));
        assert_eq!(parse_utc(b"491231235959Z"), parse_generalized(b"20491231235959Z"));
        assert_eq!(parse_utc(b"500101000000Z"), Some(-631_152_000));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            &b""[..],
            b"Z",
            b"7001010000Z",
            b"700101000000",
            b"700101000000+0100",
            b"700001000000Z",
            b"701301000000Z",
            b"700100000000Z",
            b"700431000000Z",
            b"010229000000Z",
            b"700101240000Z",
            b"700101006000Z",
            b"700101000060Z",
            b"7001010000a0Z",
        ] {
            assert_eq!(parse_utc(text), None, "{}", text.escape_ascii());
        }
    }
}
