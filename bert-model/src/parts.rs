//! Parts of a model, by which time and memory of its operations are sorted.
//!
//! Every [`Block`] is a part. The halves of a layer are in the part that is the layer, and both
//! halves of the embedding in one, too. What belongs to no block is a part of its own: the
//! attention mask, which several layers share, and each stream. Names are those with which the
//! published application's scopes begin (`applications/popart/bert/bert_model.py`).

use popart_graph::ir::{Part, PartId, PartKind, Parts};

use crate::config::SequenceFormat;
use crate::interface::Input;
use crate::placement::Block;

/// What of a model a part of its graph stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A block.
    Block(Block),
    /// The attention mask, on its way and made.
    Mask,
    /// What the host sends, in rows of that form.
    Input(Input, SequenceFormat),
}

impl Unit {
    /// Its part of a graph, added if it is new.
    pub(crate) fn part(self, parts: &mut Parts) -> PartId {
        let (outer, inner) = match self {
            Self::Block(block) => block_parts(block),
            Self::Mask => (Part::single("Mask"), None),
            Self::Input(input, format) => (Part::single(input.name(format)), None),
        };
        let outer = parts.add(outer);
        match inner {
            Some(name) => parts.add(Part {
                within: Some(outer),
                ..Part::single(name)
            }),
            None => outer,
        }
    }
}

/// The part that a block is, or the one it is in and its name there.
fn block_parts(block: Block) -> (Part, Option<&'static str>) {
    let layer = |layer: u32| Part {
        kind: PartKind::Repeated,
        ..Part::single(&format!("Layer{layer}"))
    };
    match block {
        Block::WordEmbedding => (Part::single("Embedding"), Some("Words")),
        Block::PositionSegment => (Part::single("Embedding"), Some("Positions")),
        Block::Attention(number) => (layer(number), Some("Attention")),
        Block::FeedForward(number) => (layer(number), Some("FF")),
        Block::NextSentence => (Part::single("NSP"), None),
        Block::Cls => (Part::single("CLS"), None),
        Block::Mlm => (Part::single("MLM"), None),
        Block::Squad => (Part::single("Squad"), None),
        Block::Loss => (Part::single("Loss"), None),
        Block::Outputs => (Part::single("Outputs"), None),
    }
}
