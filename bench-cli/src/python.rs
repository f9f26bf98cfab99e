//! How Python writes what a drop-in must print alike.
//!
//! The benchmark's log lines and argument errors hold Python literals. This module covers texts,
//! lists of texts and floats, and nothing else.

use std::fmt::Write as _;

/// A text as `repr` writes it: single quotes, unless that would need escapes.
#[must_use]
pub fn repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::from(quote);
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if letter == quote => {
                out.push('\\');
                out.push(letter);
            }
            _ => out.push(letter),
        }
    }
    out.push(quote);
    out
}

/// The texts of `items` between `, `, each as [`repr`] writes it.
#[must_use]
pub fn repr_items<S: AsRef<str>>(items: &[S]) -> String {
    let items: Vec<String> = items.iter().map(|item| repr(item.as_ref())).collect();
    items.join(", ")
}

/// A float as `str` writes it: the shortest digits that read back equal, with an exponent below
/// 1e-4 and from 1e16 on.
#[must_use]
pub fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.into();
    }
    let size = number.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let scientific = format!("{number:e}");
        let (digits, exponent) = scientific
            .split_once('e')
            .expect("the e form has an exponent");
        let exponent: i32 = exponent.parse().expect("an exponent is a whole number");
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let mut out = String::new();
    write!(out, "{number:?}").expect("writing to a String cannot fail");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (text, expected) in [
            ("foo", "'foo'"),
            ("it's", "\"it's\""),
            ("a'b\"c", "'a\\'b\"c'"),
            ("a\\b\n", "'a\\\\b\\n'"),
            ("", "''"),
        ] {
            assert_eq!(repr(text), expected);
        }
        assert_eq!(repr_items(&["a", "b"]), "'a', 'b'");
    }

    #[test]
    fn floats() {
        for (number, expected) in [
            (0.00039, "0.00039"),
            (0.0001, "0.0001"),
            (5e-5, "5e-05"),
            (1.25e-7, "1.25e-07"),
            (12.0, "12.0"),
            (12.345678, "12.345678"),
            (0.0, "0.0"),
            (1e16, "1e+16"),
            (123456789012345.0, "123456789012345.0"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(float(number), expected);
        }
    }
}
