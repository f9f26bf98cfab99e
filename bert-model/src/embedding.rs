//! From token ids to the first hidden state.
//!
//! Sums of a word, a position and a segment vector, normalised. In pre-training
//! the word table is stored as `[H, V]`, the operand of the projection on the
//! vocabulary, and looked up through its transpose. In slices, it is looked up in
//! each, rows outside a slice being zero, and the results are added up. Source:
//! `applications/popart/bert/bert_model.py`, `embedding`. Left out: fusing the
//! look-up's gradient into the projection's accumulator, which a pass does.

use popart_graph::ir::{OpKind, TensorId};

use crate::builder::{Builder, Component, NORMAL, Result};
use crate::config::{SequenceFormat, Task};
use crate::interface::{Input, SerialisedWeight};
use crate::parts::Unit;
use crate::placement::Block;

/// Name of the word table within [`WORDS`].
const TABLE: &str = "Embedding_Dict";

const WORDS: Component = Component::new(Block::WordEmbedding, "Embedding");

const POSITIONS: Component = Component::new(Block::PositionSegment, "Embedding");

/// Word vectors `[B S, H]`; makes the word table.
pub(crate) fn words(builder: &mut Builder) -> Result<TensorId> {
    word_table(builder);
    let indices = builder.tensor_of(Input::Indices);
    let rows = builder.config.vocab_length / builder.config.vocab_steps;
    let is_transposed = matches!(builder.task, Task::Pretraining(_));
    let mut sum = None;
    for (slice, first_row) in (0..).zip((0..builder.config.vocab_length).step_by(rows as usize)) {
        let mut table = builder.word_table[slice];
        if is_transposed {
            let perm = [1, 0].into_iter().collect();
            table = builder.op(WORDS, "Transpose", OpKind::Transpose { perm }, &[table])?;
        }
        let x = builder.op(
            WORDS,
            "Gather",
            OpKind::Gather { first_row },
            &[table, indices],
        )?;
        sum = Some(match sum {
            None => x,
            Some(sum) => builder.add(WORDS, "Add", [x, sum])?,
        });
    }
    let x = sum.expect("a table has at least one slice");
    match builder.config.update_embedding_dict {
        true => Ok(x),
        false => builder.detach(WORDS, "Detach", x),
    }
}

/// The word table as one variable, or as one for each slice of the vocabulary.
fn word_table(builder: &mut Builder) {
    let steps = builder.config.vocab_steps;
    let (rows, width) = (
        builder.config.vocab_length / steps,
        builder.config.hidden_size,
    );
    let is_tied = matches!(builder.task, Task::Pretraining(_));
    let shape = match is_tied {
        true => [width, rows],
        false => [rows, width],
    };
    let name = |slice: u32| match steps {
        1 => TABLE.to_owned(),
        _ => format!("{TABLE}/split{slice}"),
    };
    // A tied table is trained where it is last read.
    let block = match is_tied {
        true => Block::Mlm,
        false => Block::WordEmbedding,
    };
    let component = Component { block, ..WORDS };
    builder.word_table = (0..steps)
        .map(|slice| builder.weight(component, &name(slice), shape, NORMAL))
        .collect();
    if steps > 1 {
        builder.serialised.push(SerialisedWeight {
            name: format!("{}/{TABLE}", WORDS.name),
            slices: builder.word_table.clone(),
            axis: u32::from(is_tied),
            joint_norm: is_tied,
        });
    }
}

/// The hidden state `[B S, H]` before the first layer, from word vectors.
pub(crate) fn positions_and_segments(builder: &mut Builder, words: TensorId) -> Result<TensorId> {
    let width = builder.config.hidden_size;
    let one_hot = OpKind::OneHot {
        depth: 2,
        dtype: builder.config.dtype,
    };
    let segments = builder.tensor_of(Input::Segments);
    let segments = builder.op(POSITIONS, "Segment/OneHot", one_hot, &[segments])?;
    let table = builder.weight(POSITIONS, "Segment_Dict", [2, width], NORMAL);
    let segments = builder.matmul(POSITIONS, "Segment/MatMul", [segments, table])?;

    let rows = builder.config.max_positional_length;
    let table = builder.weight(POSITIONS, "Positional_Dict", [rows, width], NORMAL);
    let gather = OpKind::Gather { first_row: 0 };
    let positions = builder.tensor_of(Input::Positions);
    let positions = builder.op(POSITIONS, "Position/Gather", gather, &[table, positions])?;

    let x = builder.add(POSITIONS, "Position/Add", [words, positions])?;
    let x = builder.add(POSITIONS, "Segment/Add", [x, segments])?;
    let x = builder.norm(POSITIONS, x)?;
    builder.dropout(POSITIONS, x)
}

/// Takes the mask indices in on the IPU of the embedding, from which the others
/// have them, so that encoder IPUs take no part in streams. The numbers of packs aren't taken in
/// here: each layer reads the stream itself, and the first of them has it.
pub(crate) fn mask_indices(builder: &mut Builder) -> Result<()> {
    if builder.config.sequence_format != SequenceFormat::Single {
        return Ok(());
    }
    let inputs: &[Input] = match builder.task {
        Task::Pretraining(_) => &[Input::MaskTokensIndex, Input::SequenceIndex],
        Task::Squad(_) => &[Input::SequencePadIndex],
    };
    let component = Component {
        name: "Mask",
        unit: Unit::Mask,
        ..POSITIONS
    };
    for &input in inputs {
        let stream = builder.tensor_of(input);
        let name = input.name(builder.config.sequence_format);
        let index = builder.detach(component, name, stream)?;
        builder.mask_indices.push(index);
    }
    Ok(())
}
