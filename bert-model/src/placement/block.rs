//! The parts of a model that are placed as wholes, and what each of them reads.
//!
//! Source: the scopes of the published application
//! (`applications/popart/bert/bert_model.py`). Left out: what a part computes.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Task;

/// A part of the model that is placed as a whole.
///
/// Written, it is a word such as `mlm` or `attention_3`, so that it can be a key.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(into = "String", try_from = "String")]
#[schemars(with = "String")]
pub enum Block {
    /// Looking words up.
    WordEmbedding,
    /// Positions, segments, sum, norm and dropout; mask indices enter here.
    PositionSegment,
    /// The first half of an encoder layer, up to its norm.
    Attention(u32),
    /// The second half of an encoder layer.
    FeedForward(u32),
    /// Pooler, next-sentence head and its loss; placed with nothing to do in a model without it.
    NextSentence,
    /// The transform of hidden states before the projection on the vocabulary.
    Cls,
    /// The projection on the vocabulary and its loss.
    Mlm,
    /// The head for answers, with its losses.
    Squad,
    /// The sum of the losses.
    Loss,
    /// Where the host takes the results of inference.
    Outputs,
}

impl Block {
    /// The blocks of a model, in the order in which they are built.
    #[must_use]
    pub fn of_model(num_layers: u32, task: Task) -> Vec<Block> {
        let mut blocks = vec![Block::WordEmbedding, Block::PositionSegment];
        blocks.extend(
            (0..num_layers).flat_map(|layer| [Block::Attention(layer), Block::FeedForward(layer)]),
        );
        match task {
            Task::Pretraining(_) => blocks.extend([Block::NextSentence, Block::Cls, Block::Mlm]),
            Task::Squad(_) => blocks.push(Block::Squad),
        }
        blocks.push(match task.trains() {
            true => Block::Loss,
            false => Block::Outputs,
        });
        blocks
    }

    /// The blocks whose results this one reads.
    #[must_use]
    pub fn producers(self, num_layers: u32, task: Task) -> Vec<Block> {
        match self {
            Block::WordEmbedding => vec![],
            Block::PositionSegment => vec![Block::WordEmbedding],
            Block::Attention(0) => vec![Block::PositionSegment],
            Block::Attention(layer) => vec![Block::FeedForward(layer - 1)],
            Block::FeedForward(layer) => vec![Block::Attention(layer)],
            Block::NextSentence | Block::Cls | Block::Squad => {
                vec![Block::FeedForward(num_layers - 1)]
            }
            Block::Mlm => vec![Block::Cls],
            Block::Loss | Block::Outputs => match task {
                Task::Pretraining(_) => vec![Block::NextSentence, Block::Mlm],
                Task::Squad(_) => vec![Block::Squad],
            },
        }
    }
}

/// `attention of layer 3`.
impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Block::WordEmbedding => write!(f, "word embedding"),
            Block::PositionSegment => write!(f, "position and segment embedding"),
            Block::Attention(layer) => write!(f, "attention of layer {layer}"),
            Block::FeedForward(layer) => write!(f, "feed-forward of layer {layer}"),
            Block::NextSentence => write!(f, "next-sentence head"),
            Block::Cls => write!(f, "transform before the vocabulary"),
            Block::Mlm => write!(f, "projection on the vocabulary"),
            Block::Squad => write!(f, "answer head"),
            Block::Loss => write!(f, "loss"),
            Block::Outputs => write!(f, "outputs"),
        }
    }
}

/// A word that is the name of no block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no part of a model is called `{0}`")]
pub struct UnknownBlock(pub String);

impl Block {
    /// The blocks that a model has once, with their words.
    const SINGLE: [(Block, &str); 8] = [
        (Block::WordEmbedding, "word_embedding"),
        (Block::PositionSegment, "position_segment"),
        (Block::NextSentence, "next_sentence"),
        (Block::Cls, "cls"),
        (Block::Mlm, "mlm"),
        (Block::Squad, "squad"),
        (Block::Loss, "loss"),
        (Block::Outputs, "outputs"),
    ];
}

impl From<Block> for String {
    fn from(block: Block) -> String {
        match block {
            Block::Attention(layer) => format!("attention_{layer}"),
            Block::FeedForward(layer) => format!("feed_forward_{layer}"),
            Block::WordEmbedding
            | Block::PositionSegment
            | Block::NextSentence
            | Block::Cls
            | Block::Mlm
            | Block::Squad
            | Block::Loss
            | Block::Outputs => {
                let found = Block::SINGLE
                    .into_iter()
                    .find(|(single, _)| *single == block);
                found.expect("all of these are listed").1.to_owned()
            }
        }
    }
}

impl TryFrom<String> for Block {
    type Error = UnknownBlock;

    fn try_from(word: String) -> Result<Block, UnknownBlock> {
        let single = Block::SINGLE.into_iter().find(|(_, name)| *name == word);
        let layer = |prefix| word.strip_prefix(prefix)?.parse().ok();
        single
            .map(|(block, _)| block)
            .or_else(|| layer("attention_").map(Block::Attention))
            .or_else(|| layer("feed_forward_").map(Block::FeedForward))
            .ok_or(UnknownBlock(word))
    }
}
