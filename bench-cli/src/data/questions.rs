//! Questions in the form of SQuAD 1.1.

use std::path::Path;

use bert_model::data::squad::{Answer, Question};
use ipu_sim::object::{Form, Object};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::DataError;
use crate::text::FileKind;
use crate::{Error, Result, text};

/// Bytes of the texts of all questions, each with its own: those of SQuAD 2.0 have 110 MB.
const TEXT_BYTES_MAX: u64 = 256 << 20;

/// A file; keys that it has besides are left alone.
#[derive(Deserialize)]
struct File {
    data: Vec<Object<Article>>,
}

#[derive(Deserialize)]
struct Article {
    paragraphs: Vec<Object<Paragraph>>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<Object<QuestionEntry>>,
}

#[derive(Deserialize)]
struct QuestionEntry {
    #[serde(deserialize_with = "id")]
    id: String,
    question: String,
    #[serde(default)]
    answers: Vec<Object<AnswerEntry>>,
}

#[derive(Deserialize)]
struct AnswerEntry {
    text: String,
    #[serde(deserialize_with = "start")]
    answer_start: usize,
}

impl Form for File {
    const EXPECTED: &'static str = "an object with `data`, a list of articles";
}

impl Form for Article {
    const EXPECTED: &'static str = "an article: an object with `paragraphs`";
}

impl Form for Paragraph {
    const EXPECTED: &'static str = "a paragraph: an object with `context` and `qas`";
}

impl Form for QuestionEntry {
    const EXPECTED: &'static str = "a question: an object with `id`, `question` and `answers`";
}

impl Form for AnswerEntry {
    const EXPECTED: &'static str = "an answer: an object with `text` and `answer_start`";
}

/// The name of a question, which some files have as a number.
fn id<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "id: expected the name of a question, a text or a whole number"
    )]
    enum Id {
        Text(String),
        Positive(u64),
        Negative(i64),
    }
    Ok(match Id::deserialize(from)? {
        Id::Text(text) => text,
        Id::Positive(number) => number.to_string(),
        Id::Negative(number) => number.to_string(),
    })
}

/// A place in a text: not everything that is no place is no number.
fn start<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<usize, D::Error> {
    let found = i64::deserialize(from)?;
    usize::try_from(found).map_err(|_| {
        let expected = "answer_start: expected a place in the text, 0 or more";
        D::Error::custom(format!("{expected}, got {found}"))
    })
}

/// The questions of a file, in order.
///
/// # Errors
///
/// A file that can't be read or that is not of this form, with line and column.
pub fn read(path: &Path) -> Result<Vec<Question>> {
    parse(path, &text::read(path, FileKind::Questions)?)
}

/// The questions in the `text` of a file at `path`, in order.
///
/// # Errors
///
/// A text that is not of this form, with line and column.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Question>> {
    let Object(file): Object<File> = serde_json::from_str(text).map_err(|json| Error::Json {
        path: path.display().to_string(),
        json,
    })?;
    let paragraphs = file.data.iter();
    let paragraphs = paragraphs.flat_map(|Object(article)| &article.paragraphs);
    let bytes = paragraphs
        .map(|Object(Paragraph { context, qas })| context.len() as u64 * qas.len() as u64)
        .fold(0, u64::saturating_add);
    let most = TEXT_BYTES_MAX;
    if bytes > most {
        let path = path.into();
        return Err(DataError::ManyQuestions { path, bytes, most }.into());
    }
    let articles = file.data.into_iter();
    let paragraphs = articles.flat_map(|Object(article)| article.paragraphs);
    let questions = paragraphs.flat_map(|Object(Paragraph { context, qas })| {
        qas.into_iter().map(move |Object(asked)| Question {
            id: asked.id,
            question: asked.question,
            context: context.clone(),
            answers: asked.answers.into_iter().map(answer).collect(),
        })
    });
    Ok(questions.collect())
}

fn answer(Object(entry): Object<AnswerEntry>) -> Answer {
    Answer {
        text: entry.text,
        start: entry.answer_start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_before_the_text_is_named() {
        let text = r#"{"data": [{"paragraphs": [{"context": "a", "qas": [
            {"id": "q", "question": "b", "answers": [{"text": "a", "answer_start": -2}]}
        ]}]}]}"#;
        let error = parse(Path::new("q.json"), text).unwrap_err().to_string();
        assert!(error.starts_with("q.json:2:"), "{error}");
        let expected = "answer_start: expected a place in the text, 0 or more, got -2";
        assert!(error.ends_with(expected), "{error}");
    }

    /// A long text and many questions on it are little to read and much to answer.
    #[test]
    fn texts_count_with_each_of_their_questions() {
        let questions = |count: usize| {
            let question = r#"{"id": "", "question": ""}"#;
            let questions = vec![question; count].join(",");
            let text = "a".repeat(1 << 20);
            let text = format!(
                r#"{{"data": [{{"paragraphs": [{{"context": "{text}", "qas": [{questions}]}}]}}]}}"#
            );
            parse(Path::new("q.json"), &text)
        };
        let expected = "q.json: the questions have 314572800 bytes of text, each with its own: \
                        expected at most 268435456";
        assert_eq!(questions(300).unwrap_err().to_string(), expected);
        assert_eq!(questions(3).unwrap().len(), 3);
    }

    #[test]
    fn a_number_names_a_question() {
        for id in ["7211011040021", "-3", r#""7211011040021""#] {
            let text = format!(
                r#"{{"data": [{{"paragraphs": [{{"context": "a", "qas": [
                {{"id": {id}, "question": "b"}}]}}]}}]}}"#
            );
            let questions = parse(Path::new("q.json"), &text).unwrap();
            assert_eq!(questions[0].id, id.trim_matches('"'));
        }
    }

    #[test]
    fn another_form_is_named_with_its_place() {
        for (text, expected) in [
            (
                "[1]",
                "q.json:1:0: not of the form expected: invalid type: sequence, expected an object with `data`, a list of articles",
            ),
            (
                "{\"data\": [\n[[]]]}",
                "q.json:2:0: not of the form expected: invalid type: sequence, expected an article: an object with `paragraphs`",
            ),
            (
                r#"{"data": [{"paragraphs": [{"context": "a", "qas": [["a", "b", []]]}]}]}"#,
                "q.json:1:51: not of the form expected: invalid type: sequence, expected a question: an object with `id`, \
                 `question` and `answers`",
            ),
            (
                r#"{"data": [{"paragraphs": [{"context": "a", "qas": [{"id": 1.5, "question": "b"}]}]}]}"#,
                "q.json:1:61: not of the form expected: id: expected the name of a question, a text or a whole number",
            ),
        ] {
            let error = parse(Path::new("q.json"), text).unwrap_err();
            assert_eq!(error.to_string(), expected, "{text}");
        }
    }
}
