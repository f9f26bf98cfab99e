//! Questions in the form of SQuAD 1.1.

use std::path::Path;

use bert_model::data::squad::{Answer, Question};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::read_text;
use crate::{Error, Result};

/// A file; keys that it has besides are left alone.
#[derive(Deserialize)]
struct Form {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<QuestionEntry>,
}

#[derive(Deserialize)]
struct QuestionEntry {
    id: String,
    question: String,
    #[serde(default)]
    answers: Vec<Answered>,
}

#[derive(Deserialize)]
struct Answered {
    text: String,
    #[serde(deserialize_with = "start")]
    answer_start: usize,
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
    parse(path, &read_text(path)?)
}

/// The questions in the `text` of a file at `path`, in order.
///
/// # Errors
///
/// A text that is not of this form, with line and column.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Question>> {
    let form: Form = serde_json::from_str(text).map_err(|json| Error::Json {
        path: path.display().to_string(),
        json,
    })?;
    let paragraphs = form.data.into_iter().flat_map(|article| article.paragraphs);
    let questions = paragraphs.flat_map(|paragraph| {
        let context = paragraph.context;
        paragraph.qas.into_iter().map(move |asked| Question {
            id: asked.id,
            question: asked.question,
            context: context.clone(),
            answers: asked.answers.into_iter().map(answer).collect(),
        })
    });
    Ok(questions.collect())
}

fn answer(answered: Answered) -> Answer {
    Answer {
        text: answered.text,
        start: answered.answer_start,
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
}
