//! Reports as JSON, with a line feed at the end; indented by two, but for those of tiles.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};
use serde_json::{Map, Value};

use crate::python;

/// The JSON text of a report or of a list of them.
///
/// # Panics
///
/// Never for the types of this crate: their keys are texts and their numbers finite or null.
#[must_use]
pub fn text(report: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(report).expect("reports have text keys");
    text.push('\n');
    text
}

/// The JSON text of a report with millions of numbers: on one line, half as long.
///
/// # Panics
///
/// As [`text`].
#[must_use]
pub fn compact_text(report: &impl Serialize) -> String {
    let mut text = serde_json::to_string(report).expect("reports have text keys");
    text.push('\n');
    text
}

/// The JSON text of a resolved configuration, with numbers as the original writes them.
///
/// # Panics
///
/// Never: keys are texts, and texts can be written to.
#[must_use]
pub fn config_text(values: &Map<String, Value>) -> String {
    let mut bytes = Vec::new();
    let formatter = PythonNumbers(PrettyFormatter::new());
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    let written = values.serialize(&mut serializer);
    written.expect("configurations have text keys");
    bytes.push(b'\n');
    String::from_utf8(bytes).expect("JSON is text")
}

/// Writes floats as Python does and leaves the rest to the formatter inside.
struct PythonNumbers<'a>(PrettyFormatter<'a>);

/// Functions of the formatter inside.
macro_rules! inside {
    ($($name:ident($($argument:ident: $kind:ty)?)),* $(,)?) => {
        $(fn $name<W: ?Sized + Write>(
            &mut self,
            writer: &mut W,
            $($argument: $kind)?
        ) -> io::Result<()> {
            self.0.$name(writer, $($argument)?)
        })*
    };
}

impl Formatter for PythonNumbers<'_> {
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, number: f64) -> io::Result<()> {
        writer.write_all(python::float(number).as_bytes())
    }

    inside! {
        begin_array(),
        end_array(),
        begin_array_value(first: bool),
        end_array_value(),
        begin_object(),
        end_object(),
        begin_object_key(first: bool),
        begin_object_value(),
        end_object_value(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_written_as_python_does() {
        let values = json!({"a": 1e-7, "b": [0.5, 2], "c": {}, "d": {"0": 1.0}, "e": "x"});
        let expected = r#"{
  "a": 1e-07,
  "b": [
    0.5,
    2
  ],
  "c": {},
  "d": {
    "0": 1.0
  },
  "e": "x"
}
"#;
        assert_eq!(config_text(values.as_object().unwrap()), expected);
    }
}
