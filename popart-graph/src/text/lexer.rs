//! A line of text as tokens.

use ipu_sim::ids::Id;
use smallvec::SmallVec;

use super::error::{ParseError, Result};
use crate::ir::TensorId;

/// A piece of a line.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// Letters, digits and `_`, starting with a letter.
    Word(&'a str),
    /// Digits, signs, a point, an exponent.
    Number(&'a str),
    /// `%7`.
    Tensor(TensorId),
    /// A quoted name, without its quotes.
    Name(String),
    /// Anything else.
    Sign(char),
}

/// The tokens of one line, taken from the front.
pub(super) struct Line<'a> {
    /// Counted from 1.
    pub(super) number: usize,
    tokens: std::iter::Peekable<std::vec::IntoIter<(Token<'a>, &'a str)>>,
}

impl<'a> Line<'a> {
    pub(super) fn new(number: usize, text: &'a str) -> Result<Self> {
        let mut tokens = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() && !rest.starts_with('#') {
            let (token, length) =
                token(rest).map_err(|expected| error(number, expected, rest.to_owned()))?;
            tokens.push((token, &rest[..length]));
            rest = rest[length..].trim_start();
        }
        Ok(Self {
            number,
            tokens: tokens.into_iter().peekable(),
        })
    }

    pub(super) fn is_at_end(&mut self) -> bool {
        self.tokens.peek().is_none()
    }

    /// An error at the next token.
    pub(super) fn unexpected(&mut self, expected: &'static str) -> ParseError {
        let got = self.tokens.peek().map_or("", |&(_, text)| text);
        error(self.number, expected, got.to_owned())
    }

    /// The next token, if `wanted` makes something of it.
    pub(super) fn try_take<T>(&mut self, wanted: impl Fn(&Token<'a>) -> Option<T>) -> Option<T> {
        let taken = self.tokens.peek().and_then(|(token, _)| wanted(token))?;
        self.tokens.next();
        Some(taken)
    }

    pub(super) fn take<T>(
        &mut self,
        expected: &'static str,
        wanted: impl Fn(&Token<'a>) -> Option<T>,
    ) -> Result<T> {
        self.try_take(wanted)
            .ok_or_else(|| self.unexpected(expected))
    }

    pub(super) fn try_sign(&mut self, sign: char) -> bool {
        self.try_take(|token| (*token == Token::Sign(sign)).then_some(()))
            .is_some()
    }

    pub(super) fn sign(&mut self, sign: char, expected: &'static str) -> Result<()> {
        if self.try_sign(sign) {
            return Ok(());
        }
        Err(self.unexpected(expected))
    }

    pub(super) fn try_word(&mut self) -> Option<&'a str> {
        self.try_take(|token| match token {
            Token::Word(word) => Some(*word),
            _ => None,
        })
    }

    pub(super) fn try_name(&mut self) -> Option<String> {
        self.try_take(|token| match token {
            Token::Name(name) => Some(name.clone()),
            _ => None,
        })
    }

    pub(super) fn tensor(&mut self) -> Result<TensorId> {
        self.take("a tensor", |token| match token {
            Token::Tensor(id) => Some(*id),
            _ => None,
        })
    }

    pub(super) fn number(&mut self, expected: &'static str) -> Result<u32> {
        self.take(expected, |token| match token {
            Token::Number(digits) => digits.parse().ok(),
            _ => None,
        })
    }

    /// An `f64` that can be printed and read again.
    pub(super) fn finite(&mut self, expected: &'static str) -> Result<f64> {
        self.take(expected, |token| match token {
            Token::Number(digits) => digits
                .parse()
                .ok()
                .filter(|number: &f64| number.is_finite()),
            _ => None,
        })
    }

    /// What `item` reads, separated by commas, up to `close`.
    pub(super) fn list<T>(
        &mut self,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<SmallVec<[T; 4]>> {
        let mut items = SmallVec::new();
        while !self.try_sign(close) {
            if !items.is_empty() {
                self.sign(',', "a comma or the end of the list")?;
            }
            items.push(item(self)?);
        }
        Ok(items)
    }
}

fn error(line: usize, expected: &'static str, got: String) -> ParseError {
    ParseError {
        line,
        expected,
        got,
    }
}

/// The token at the start of `text` and its length, or what was expected.
fn token(text: &str) -> std::result::Result<(Token<'_>, usize), &'static str> {
    let span = |from: usize, belongs: fn(char) -> bool| {
        text[from..]
            .find(|character| !belongs(character))
            .map_or(text.len(), |length| from + length)
    };
    let first = text.chars().next().ok_or("a token")?;
    match first {
        '"' => name(text),
        '%' => {
            let end = span(1, |character| character.is_ascii_digit());
            let id: u32 = text[1..end].parse().map_err(|_| "a tensor")?;
            Ok((Token::Tensor(TensorId::from_index(id as usize)), end))
        }
        '0'..='9' | '-' => {
            let end = span(1, |character| {
                character.is_ascii_digit() || matches!(character, '.' | 'e' | '-' | '+')
            });
            Ok((Token::Number(&text[..end]), end))
        }
        'a'..='z' | 'A'..='Z' => {
            let end = span(0, |character| {
                character.is_ascii_alphanumeric() || character == '_'
            });
            Ok((Token::Word(&text[..end]), end))
        }
        other => Ok((Token::Sign(other), other.len_utf8())),
    }
}

/// A quoted name with its escapes resolved.
fn name(text: &str) -> std::result::Result<(Token<'_>, usize), &'static str> {
    let mut name = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return Ok((Token::Name(name), position + 1)),
            '\\' => match characters.next() {
                Some((_, 'n')) => name.push('\n'),
                Some((_, 'r')) => name.push('\r'),
                Some((_, same @ ('"' | '\\'))) => name.push(same),
                _ => return Err("an escape of `\"`, `\\`, `n` or `r`"),
            },
            other => name.push(other),
        }
    }
    Err("a name that ends with a quote")
}
