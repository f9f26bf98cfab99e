//! From questions on texts to what a model reads.
//!
//! The rules are those of the published application (`bert_data/squad_utils.py`, after Google's
//! `run_squad.py`), for SQuAD 1.1: a text longer than a sequence is read through windows that
//! overlap, and each window is a feature of its own, `[CLS] question [SEP] window [SEP]`.
//!
//! Left out: version 2 with questions that have no answer, and the form of the files, which is
//! JSON.

use std::ops::Range;

use super::blanks;
use super::error::{DataError, Limit, RecipeField};
use super::{Tokeniser, Vocabulary};
use crate::config::Mode;

/// Tokens of a question at the most.
const QUESTION_TOKENS_MAX: usize = 64;
/// `[CLS]` and two `[SEP]`.
const SPECIAL_TOKENS: usize = 3;
/// The number of the first feature.
const FIRST_ID: u32 = 1_000_000_000;
/// What a longer window is worth where tokens have as much context in several.
const WORTH_OF_LENGTH: f64 = 0.01;

/// A question on a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Name of the question.
    pub id: String,
    /// The question.
    pub question: String,
    /// The text that answers it.
    pub context: String,
    /// Answers that people gave.
    pub answers: Vec<Answer>,
}

/// A part of a text that answers a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Text of the answer.
    pub text: String,
    /// Start of the answer in the question's text, in characters.
    pub start: usize,
}

/// A question with its text in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Name of the question.
    pub id: String,
    /// The question.
    pub question: String,
    /// Words of the text, as blanks part them.
    pub words: Vec<String>,
    /// In training, the words that hold the answer, and the answer.
    answer: Option<(Range<usize>, String)>,
}

/// An answer that doesn't stand where it should: its question is left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Could not find answer: '{words}' vs. '{answer}'")]
pub struct AnswerNotFound {
    /// The words that stand there.
    pub words: String,
    /// The answer.
    pub answer: String,
}

impl Example {
    /// Reads a question, for training with its answer.
    ///
    /// # Errors
    ///
    /// In training, [`DataError::Answers`] unless there is one answer and it begins within the text.
    pub fn read(
        question: &Question,
        mode: Mode,
    ) -> Result<Result<Self, AnswerNotFound>, DataError> {
        let (words, word_of) = split(&question.context);
        let answer = match mode {
            Mode::Inference => None,
            Mode::Training => {
                let [answer] = question.answers.as_slice() else {
                    return Err(DataError::Answers {
                        id: question.id.clone(),
                        count: question.answers.len(),
                    });
                };
                let length = answer.text.chars().count();
                let end = answer.start.saturating_add(length.saturating_sub(1));
                let ends = (word_of.get(answer.start), word_of.get(end));
                // A text of blanks has characters, but no word.
                let (Some(&first), Some(&last), false) = (ends.0, ends.1, words.is_empty()) else {
                    return Err(DataError::AnswerOutside {
                        id: question.id.clone(),
                        start: answer.start,
                        characters: word_of.len(),
                    });
                };
                let found = words[first..=last].join(" ");
                // Other blanks part an answer than part its text: the original has both rules.
                let answer_text = blanks::split(&answer.text).collect::<Vec<_>>().join(" ");
                if !found.contains(&answer_text) {
                    return Ok(Err(AnswerNotFound {
                        words: found,
                        answer: answer_text,
                    }));
                }
                Some((first..last + 1, answer.text.clone()))
            }
        };
        Ok(Ok(Self {
            id: question.id.clone(),
            question: question.question.clone(),
            words,
            answer,
        }))
    }
}

/// The words of a text, and for every character the word that it belongs to or follows.
fn split(text: &str) -> (Vec<String>, Vec<usize>) {
    let mut words: Vec<String> = Vec::new();
    let mut word_of = Vec::new();
    let mut inside = false;
    for character in text.chars() {
        if matches!(character, ' ' | '\t' | '\r' | '\n' | '\u{202F}') {
            inside = false;
        } else {
            if !inside {
                words.push(String::new());
            }
            inside = true;
            words.last_mut().expect("one was pushed").push(character);
        }
        word_of.push(words.len().saturating_sub(1));
    }
    (words, word_of)
}

/// Input of the model for an example through one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Number of the window among all, from 1,000,000,000 on.
    pub unique_id: u32,
    /// Which example it is of.
    pub example: usize,
    /// Which of its windows it is.
    pub window: usize,
    /// Word ids, `[S]`; 0 behind the sequence.
    pub input_ids: Vec<u32>,
    /// Segment ids, `[S]`: 0 up to the first `[SEP]`, then 1; 0 behind the sequence.
    pub segments: Vec<u32>,
    /// First slot behind the sequence.
    pub padding_start: u32,
    /// In training, first and last slot of the answer; slot 0 if the window doesn't hold it.
    pub answer: Option<(u32, u32)>,
    /// Slots of tokens that have more context in this window than in any other. They follow each
    /// other: the context of a window falls off towards both its ends.
    pub max_context: Range<u32>,
    /// The word of the text that each token of the window is of.
    pub word_of: Vec<usize>,
}

impl Feature {
    /// Slot of the first token of the window.
    #[must_use]
    pub fn context_start(&self) -> u32 {
        self.padding_start - 1 - small(self.word_of.len())
    }
}

/// The features of examples, for sequences of that length.
///
/// # Errors
///
/// [`DataError::OutOfRange`] if a sequence has no room for a question and a token of the text.
pub fn features(
    examples: &[Example],
    tokeniser: &Tokeniser,
    vocabulary: &Vocabulary,
    sequence_length: u32,
) -> Result<Vec<Feature>, DataError> {
    check_length(sequence_length)?;
    let mut out = Vec::new();
    for (number, example) in examples.iter().enumerate() {
        let text = Text::new(example, tokeniser);
        let mut question = tokeniser.encode(&example.question);
        question.truncate(QUESTION_TOKENS_MAX);
        let windows = windows(text.tokens.len(), sequence_length, question.len());
        for window in 0..windows.len() {
            let feature = text.feature(vocabulary, &question, &windows, window, sequence_length);
            out.push(Feature {
                unique_id: FIRST_ID + small(out.len()),
                example: number,
                ..feature
            });
        }
    }
    Ok(out)
}

/// How many [`features`] an example has; takes no memory for them.
///
/// # Errors
///
/// As [`features`].
pub fn count_features(
    example: &Example,
    tokeniser: &Tokeniser,
    sequence_length: u32,
) -> Result<usize, DataError> {
    check_length(sequence_length)?;
    let tokens = example
        .words
        .iter()
        .map(|word| tokeniser.encode(word).len());
    let question = tokeniser.encode(&example.question).len();
    let question = question.min(QUESTION_TOKENS_MAX);
    Ok(windows(tokens.sum(), sequence_length, question).len())
}

fn check_length(sequence_length: u32) -> Result<(), DataError> {
    let least = QUESTION_TOKENS_MAX + SPECIAL_TOKENS + 1;
    if (sequence_length as usize) < least {
        return Err(DataError::OutOfRange {
            field: RecipeField::SequenceLength,
            limit: Limit::Question { least },
            value: f64::from(sequence_length),
        });
    }
    Ok(())
}

/// A text in tokens.
struct Text {
    tokens: Vec<u32>,
    /// The word of each token.
    word_of: Vec<usize>,
    /// Tokens of the answer, in training.
    answer: Option<Range<usize>>,
}

impl Text {
    fn new(example: &Example, tokeniser: &Tokeniser) -> Self {
        let mut tokens = Vec::new();
        let mut word_of = Vec::new();
        let mut starts = Vec::new();
        for (place, word) in example.words.iter().enumerate() {
            starts.push(tokens.len());
            tokens.extend(tokeniser.encode(word));
            word_of.resize(tokens.len(), place);
        }
        starts.push(tokens.len());
        let answer = example.answer.as_ref().map(|(words, text)| {
            let around = starts[words.start]..starts[words.end];
            narrow(&tokens, around, &tokeniser.encode(text))
        });
        Self {
            tokens,
            word_of,
            answer,
        }
    }

    fn feature(
        &self,
        vocabulary: &Vocabulary,
        question: &[u32],
        windows: &[Range<usize>],
        number: usize,
        sequence_length: u32,
    ) -> Feature {
        let window = &windows[number];
        let context_start = question.len() + 2;
        let parts: [&[u32]; 5] = [
            &[vocabulary.classifier],
            question,
            &[vocabulary.separator],
            &self.tokens[window.clone()],
            &[vocabulary.separator],
        ];
        let mut input_ids = parts.concat();
        let padding_start = input_ids.len();
        let mut segments = vec![0; context_start];
        segments.resize(padding_start, 1);
        input_ids.resize(sequence_length as usize, 0);
        segments.resize(sequence_length as usize, 0);
        let slot = |token: usize| small(token - window.start + context_start);
        let within = |answer: &Range<usize>| {
            window.start <= answer.start && answer.end <= window.end && !answer.is_empty()
        };
        let best = |token: &usize| most_context(windows, *token) == Some(number);
        let first = window.clone().find(best);
        let last = window.clone().rev().find(best);
        Feature {
            unique_id: FIRST_ID,
            example: 0,
            window: number,
            input_ids,
            segments,
            padding_start: small(padding_start),
            answer: self.answer.as_ref().map(|answer| match within(answer) {
                true => (slot(answer.start), slot(answer.end - 1)),
                false => (0, 0),
            }),
            max_context: match first.zip(last) {
                Some((first, last)) => slot(first)..slot(last) + 1,
                None => 0..0,
            },
            word_of: self.word_of[window.clone()].to_vec(),
        }
    }
}

/// The first part of `around`, by start and then by falling end, that reads as the answer does
/// when it is cut to tokens alone; `around` if there is none.
fn narrow(tokens: &[u32], around: Range<usize>, answer: &[u32]) -> Range<usize> {
    let mut starts = around.clone();
    let start = starts.find(|&start| {
        let part = tokens.get(start..start + answer.len());
        start + answer.len() <= around.end && part == Some(answer)
    });
    match start {
        Some(start) if !answer.is_empty() => start..start + answer.len(),
        _ => around,
    }
}

/// The windows through which `tokens` tokens are read.
fn windows(tokens: usize, sequence_length: u32, question: usize) -> Vec<Range<usize>> {
    let room = sequence_length as usize - question - SPECIAL_TOKENS;
    let stride = if sequence_length >= 384 { 128 } else { 64 };
    let mut out = Vec::new();
    let mut start = 0;
    while start < tokens {
        let end = tokens.min(start + room);
        out.push(start..end);
        if end == tokens {
            break;
        }
        start += (end - start).min(stride);
    }
    out
}

/// The window in which a token has most context on its poorer side; the first of equals.
fn most_context(windows: &[Range<usize>], token: usize) -> Option<usize> {
    let mut best = None;
    for (number, window) in windows.iter().enumerate() {
        if !window.contains(&token) {
            continue;
        }
        let (left, right) = (token - window.start, window.end - 1 - token);
        let score = left.min(right) as f64 + WORTH_OF_LENGTH * window.len() as f64;
        if best.is_none_or(|(_, most)| score > most) {
            best = Some((number, score));
        }
    }
    best.map(|(number, _)| number)
}

fn small(count: usize) -> u32 {
    u32::try_from(count).expect("slots and features are fewer than 2^32")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Case;

    fn question(context: &str, answers: &[(&str, usize)]) -> Question {
        Question {
            id: "q".into(),
            question: "what falls ?".into(),
            context: context.into(),
            answers: answers
                .iter()
                .map(|&(text, start)| Answer {
                    text: text.into(),
                    start,
                })
                .collect(),
        }
    }

    #[test]
    fn answers_stand_where_they_say() {
        let check = |answers: &[(&str, usize)], expected: &str| {
            let read = Example::read(
                &question("The  tide\nrises, it falls.", answers),
                Mode::Training,
            );
            let text = match read {
                Ok(Ok(example)) => format!("{:?}", example.answer.unwrap().0),
                Ok(Err(missing)) => missing.to_string(),
                Err(error) => error.to_string(),
            };
            assert_eq!(text, expected);
        };
        check(&[("tide rises", 5)], "1..3");
        check(&[("falls", 20)], "4..5");
        check(
            &[("ebbs", 20)],
            "Could not find answer: 'falls.' vs. 'ebbs'",
        );
        // A blank that doesn't part words of a text does part those of an answer.
        let narrow = question("opened at 9\u{A0}am", &[("9\u{A0}am", 10)]);
        let read = Example::read(&narrow, Mode::Training).unwrap();
        assert_eq!(
            read.unwrap_err().to_string(),
            "Could not find answer: '9\u{A0}am' vs. '9 am'"
        );
        check(
            &[],
            "`q`: For training, each question should have exactly 1 answer. Got 0",
        );
        check(
            &[("tide", 23)],
            "`q`: the answer must end within the 26 characters of its text, got 23 as its start",
        );
        check(
            &[("a", 5), ("b", 5)],
            "`q`: For training, each question should have exactly 1 answer. Got 2",
        );
    }

    #[test]
    fn a_text_of_blanks_has_no_answer() {
        assert!(Example::read(&question("  ", &[("a", 0)]), Mode::Training).is_err());
        let read = Example::read(&question(" ", &[]), Mode::Inference);
        assert!(read.unwrap().unwrap().words.is_empty());
    }

    #[test]
    fn windows_overlap_and_end_with_the_text() {
        assert_eq!(windows(10, 128, 5), vec![0..10; 1]);
        assert!(windows(0, 128, 5).is_empty());
        assert_eq!(windows(200, 128, 5), [0..120, 64..184, 128..200]);
        assert_eq!(windows(500, 384, 1), [0..380, 128..500]);
        assert_eq!(most_context(&[0..120, 64..184], 0), Some(0));
        assert_eq!(most_context(&[0..120, 64..184], 92), Some(1));
        assert_eq!(most_context(&[0..120, 64..184], 91), Some(0));
        assert_eq!(most_context(&[0..120, 64..184], 184), None);
    }

    #[test]
    fn a_feature_reads_question_and_window() {
        let text = "the tide rises and the tide falls .";
        let vocabulary = Vocabulary::of_words(text, Case::Lower, 2000).unwrap();
        let tokeniser = Tokeniser::new(&vocabulary, Case::Lower);
        let read = Example::read(&question(text, &[("falls", 28)]), Mode::Training);
        let example = read.unwrap().unwrap();
        let found = features(&[example], &tokeniser, &vocabulary, 68).unwrap();
        let [feature] = found.as_slice() else {
            panic!("{found:?}");
        };
        let names: Vec<&str> = feature.input_ids[..feature.padding_start as usize]
            .iter()
            .map(|&id| vocabulary.token(id).unwrap())
            .collect();
        let start = feature.context_start() as usize;
        assert_eq!(
            names[start..],
            [
                "the", "tide", "rises", "and", "the", "tide", "falls", ".", "[SEP]"
            ]
        );
        let slot = small(start + 6);
        assert_eq!(feature.answer, Some((slot, slot)));
        assert_eq!(feature.max_context, small(start)..small(start + 8));
        assert_eq!(feature.word_of, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert!(features(&[], &tokeniser, &vocabulary, 67).is_err());
    }

    proptest::proptest! {
        /// Whatever stands in a text, an answer and a question.
        #[test]
        fn any_question_is_read_or_refused(
            context in "\\PC{0,300}|[a-c .]{0,900}",
            text in "\\PC{0,8}|[a-c ]{0,5}",
            start in 0_usize..400,
            words in "\\PC{0,200}",
        ) {
            let vocabulary = Vocabulary::of_words("abc", Case::Keep, 1200).unwrap();
            let tokeniser = Tokeniser::new(&vocabulary, Case::Keep);
            let asked = Question { question: words, ..question(&context, &[(&text, start)]) };
            let mut examples = Vec::new();
            for mode in [Mode::Training, Mode::Inference] {
                examples.extend(Example::read(&asked, mode).into_iter().flatten());
            }
            for feature in features(&examples, &tokeniser, &vocabulary, 80).unwrap() {
                let end = feature.padding_start;
                proptest::prop_assert!(end <= 80 && feature.max_context.end <= end);
                proptest::prop_assert!(feature.answer.is_none_or(|(from, to)| from <= to && to < end));
            }
        }
    }
}
