//! Reports as JSON, indented by two, with a line feed at the end.

use serde::Serialize;

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
