//! What can be wrong with the text of a graph?

/// The result of reading a text.
pub(super) type Result<T> = std::result::Result<T, ParseError>;

/// Text that is not a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: expected {expected}, got `{got}`")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// Description of the tokens that could have stood there.
    pub expected: &'static str,
    /// Text that stands there; empty at the end of a line.
    pub got: String,
}
