//! Text that Postgres can hold: everything but the character U+0000.

use std::borrow::Cow;

/// The same text with U+0000 and the backslash escaped, so that different texts stay different. For what is compared.
pub(super) fn exact(text: &str) -> Cow<'_, str> {
    if text.contains(['\0', '\\']) {
        Cow::Owned(text.replace('\\', "\\\\").replace('\0', "\\0"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The same text with U+FFFD for U+0000. For what people read.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// Whether JSON text may hold something that `jsonb` refuses: an escape, or a number with an exponent or of many digits.
pub(super) fn is_odd(json: &str) -> bool {
    let bytes = json.as_bytes();
    let escape = bytes.windows(2).any(|pair| pair == b"\\u");
    let exponent = bytes.windows(2).any(|pair| matches!(pair, [b'0'..=b'9', b'e' | b'E']));
    let long = json.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 1_000);
    escape || exponent || long
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_texts_stay_different() {
        let texts = ["a\0", "a\\0", "a\\\\0", "a\0\\", "a"];
        let stored: Vec<_> = texts.iter().map(|text| exact(text)).collect();
        for (at, text) in stored.iter().enumerate() {
            assert!(!text.contains('\0'));
            assert!(!stored.iter().skip(at + 1).any(|other| other == text), "{texts:?} became {stored:?}");
        }
        assert_eq!(shown("a\0b"), "a\u{fffd}b");
    }

    #[test]
    fn odd_json_is_found() {
        for odd in [r#"{"a":"\u0000"}"#, r#"{"a":1e999999}"#, r#"{"a":2E5}"#] {
            assert!(is_odd(odd), "{odd}");
        }
        assert!(is_odd(&format!("[{}]", "1".repeat(2_000))));
        assert!(!is_odd(r#"{"a":"text","b":[1,2.5,true]}"#));
    }
}
