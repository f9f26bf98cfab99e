//! The matrix of the executed proof: every factor that a training step is made of, and few
//! combinations in which they meet.

use std::collections::BTreeSet;

use bert_model::config::{Dropout, Mode, SequenceFormat, Task};
use bert_model::optim::LambNorms;
use bert_model::optim::{OptimizerKind, OptimizerOptions};
use bert_model::placement::{Recomputation, SquadHead};
use popart_graph::ir::Reduction;
use popart_graph::passes::{
    CollectiveMerging, OptimizerState, Pipelining, Sharding, SoftmaxDropoutGradient, StateMemory,
};

use crate::Plan;
use crate::plan::{adam, half_first_moment, lamb, other_correction, plain_sgd, sgd};

/// Training on masked words and next sentences.
pub const PRETRAINING: Task = Task::Pretraining(Mode::Training);

/// Training on questions.
pub const SQUAD: Task = Task::Squad(Mode::Training);

/// One value of each factor, by number: placement, accumulation, recomputation, split or merged
/// queries, keys and values, slices of the word table, optimiser, replicas, where moments live.
pub type Values = [usize; 8];

/// How many values each factor has.
pub const FACTORS: Values = [PLACEMENTS.len(), ACCUMULATIONS.len(), 4, 2, 2, 8, 2, 4];

/// Which model is where.
struct Placed {
    task: Task,
    pipelining: Pipelining,
    encoder_start_ipu: u32,
    layers_per_ipu: &'static [u32],
    /// Halves of layers by stage, in place of whole layers.
    half_layers: &'static [(u32, u32, u32)],
    squad_head: SquadHead,
    sequence_format: SequenceFormat,
    /// Of the pipeline, backward ones included; 1 without one.
    n_stages: u32,
}

const fn placed(pipelining: Pipelining, encoder_start_ipu: u32, n_stages: u32) -> Placed {
    Placed {
        task: PRETRAINING,
        pipelining,
        encoder_start_ipu,
        layers_per_ipu: &[1],
        half_layers: &[],
        squad_head: SquadHead::FirstIpu,
        sequence_format: SequenceFormat::Single,
        n_stages,
    }
}

/// A pipeline for pre-training returns to its first IPU, for the projection shares the word
/// table; one for SQuAD may end where its encoder does. Those with both layers on one IPU have a
/// layer whose output may be kept while all between is computed again. Three have a layer cut in the
/// middle: between the first IPU and another, also of packs, and between three IPUs with the heads
/// in a stage of their own.
const PLACEMENTS: [Placed; 12] = [
    // One IPU, and four in turn.
    Placed {
        layers_per_ipu: &[2],
        ..placed(Pipelining::Off, 0, 1)
    },
    placed(Pipelining::Off, 2, 1),
    // Two forward stages, and four.
    Placed {
        task: SQUAD,
        layers_per_ipu: &[2],
        squad_head: SquadHead::LastEncoderIpu,
        ..placed(Pipelining::On, 1, 3)
    },
    Placed {
        task: SQUAD,
        squad_head: SquadHead::LastEncoderIpu,
        ..placed(Pipelining::On, 2, 7)
    },
    // Back on the first IPU: from two IPUs, whose first also has a layer or not, and from three,
    // with four forward stages.
    placed(Pipelining::On, 0, 5),
    Placed {
        layers_per_ipu: &[2],
        ..placed(Pipelining::On, 1, 5)
    },
    Placed {
        task: SQUAD,
        layers_per_ipu: &[2],
        ..placed(Pipelining::On, 2, 7)
    },
    Placed {
        half_layers: &[(1, 2, 1), (0, 0, 1)],
        ..placed(Pipelining::On, 0, 5)
    },
    Placed {
        task: SQUAD,
        half_layers: &[(1, 1, 0), (2, 1, 2)],
        ..placed(Pipelining::On, 0, 7)
    },
    // Packs, in turn and in a pipeline.
    Placed {
        sequence_format: PACKS,
        ..placed(Pipelining::Off, 2, 1)
    },
    Placed {
        layers_per_ipu: &[2],
        sequence_format: PACKS,
        ..placed(Pipelining::On, 1, 5)
    },
    Placed {
        half_layers: &[(1, 1, 0), (0, 1, 2)],
        sequence_format: PACKS,
        ..placed(Pipelining::On, 0, 5)
    },
];

/// Rows of up to three sequences.
pub const PACKS: SequenceFormat = SequenceFormat::Packed { sequences: 3 };

const ACCUMULATIONS: [u32; 3] = [1, 4, 8];

/// What isn't a factor: tiles of an IPU, reduction, norms of LAMB, dropout, its gradient behind a
/// softmax, merged collectives, clipped gradients and the next-sentence head take turns with the combinations.
#[must_use]
pub fn turn(values: Values) -> usize {
    values.iter().sum()
}

/// The plan of one value of each factor at a [`turn`]; none where they exclude each other or give
/// what another combination gives: a pipeline that accumulates needs as many micro-batches as
/// stages, only a pipeline recomputes, and only one with several layers on an IPU has an output of
/// a layer to keep. A pipeline that doesn't accumulate makes enough updates to fill it and repeat
/// its main cycle.
#[must_use]
pub fn combined(values: Values, turn: usize) -> Option<Plan> {
    let [
        placement,
        accumulation,
        recomputation,
        qkv,
        vocab,
        optimizer,
        replicas,
        state,
    ] = values;
    let placed = &PLACEMENTS[placement];
    let micro_batches = ACCUMULATIONS[accumulation];
    let recomputation = [
        Recomputation::Off,
        Recomputation::FromStageInput,
        Recomputation::FromEveryLayer,
        Recomputation::FromEveryBlock,
    ][recomputation];
    let optimizer = [
        lamb(),
        other_correction(lamb()),
        adam(),
        other_correction(adam()),
        sgd(),
        plain_sgd(),
        half_first_moment(lamb()),
        half_first_moment(other_correction(adam())),
    ][optimizer];
    let in_halves = !placed.half_layers.is_empty();
    let several_layers = placed.layers_per_ipu != [1];
    match recomputation {
        Recomputation::FromEveryLayer if in_halves || !several_layers => return None,
        Recomputation::FromEveryBlock if !in_halves => return None,
        _ => {}
    }
    let (valid, updates) = match placed.pipelining {
        Pipelining::On if micro_batches == 1 => (true, placed.n_stages + 1),
        Pipelining::On => (micro_batches >= placed.n_stages, 1),
        Pipelining::Off => (recomputation == Recomputation::Off, 1),
    };
    valid.then_some(Plan {
        updates,
        recomputation,
        encoder_start_ipu: placed.encoder_start_ipu,
        layers_per_ipu: placed.layers_per_ipu,
        half_layers: placed.half_layers,
        squad_head: placed.squad_head,
        sequence_format: placed.sequence_format,
        split_qkv: qkv == 0,
        vocab_steps: 1 + vocab as u32,
        replicas: 1 + replicas as u32,
        state: OptimizerState {
            sharding: [Sharding::Off, Sharding::On][state % 2],
            memory: [StateMemory::OnChip, StateMemory::OffChip][state / 2],
        },
        n_tiles: [16, 32, 64][turn % 3],
        collective_merging: [CollectiveMerging::Off, CollectiveMerging::On][turn % 2],
        reduction: [Reduction::Sum, Reduction::Mean][turn % 2],
        norms: [LambNorms::OfAll, LambNorms::OfFactors][turn / 3 % 2],
        dropout: [Dropout::HiddenAndAttention, Dropout::Hidden, Dropout::Off][turn / 2 % 3],
        softmax_dropout_gradient: [
            SoftmaxDropoutGradient::Exact,
            SoftmaxDropoutGradient::Identity,
        ][turn / 6 % 2],
        next_sentence: turn % 4 != 1,
        ..Plan::new(
            placed.task,
            placed.pipelining,
            micro_batches,
            clipped(optimizer, placed.pipelining, micro_batches, turn),
        )
    })
}

/// The optimiser with a limit on the norm of all gradients at every second turn, where it can have
/// one.
fn clipped(
    optimizer: OptimizerOptions,
    pipelining: Pipelining,
    micro_batches: u32,
    turn: usize,
) -> OptimizerOptions {
    let updates_in_stages = pipelining == Pipelining::On && micro_batches == 1;
    let takes =
        optimizer.kind != OptimizerKind::Sgd && !updates_in_stages && turn.is_multiple_of(2);
    OptimizerOptions {
        clip_norm: takes.then_some(CLIP_NORM),
        ..optimizer
    }
}

/// Below the norms of all gradients here, so that all are clipped.
const CLIP_NORM: f64 = 0.25;

/// All combinations that can be.
#[must_use]
pub fn all() -> Vec<Values> {
    let mut all = vec![[0; 8]];
    for (factor, &count) in FACTORS.iter().enumerate() {
        let with = |values: Values| {
            (0..count).map(move |value| {
                let mut values = values;
                values[factor] = value;
                values
            })
        };
        all = all.into_iter().flat_map(with).collect();
    }
    all.retain(|&values| combined(values, 0).is_some());
    all
}

/// Every choice of `strength` factors with their values, each as one number: a digit for each
/// factor, 0 where it isn't chosen.
fn choices(values: Values, strength: u32) -> impl Iterator<Item = u64> {
    let chosen = (0_u32..1 << 8).filter(move |mask| mask.count_ones() == strength);
    chosen.map(move |mask| {
        let digits = values.iter().enumerate().map(|(factor, &value)| {
            (u64::from(mask >> factor & 1) * (value as u64 + 1)) << (4 * factor)
        });
        digits.sum()
    })
}

/// Few combinations in which every choice of `strength` values occurs that occurs in `all`:
/// always the one that adds most, the first of equals.
fn covering(all: &[Values], strength: u32) -> Vec<Values> {
    let mut missing: BTreeSet<u64> = all
        .iter()
        .flat_map(|&values| choices(values, strength))
        .collect();
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let gain = |values: &Values| {
            let found = choices(*values, strength).filter(|choice| missing.contains(choice));
            found.count()
        };
        let best = all.iter().rev().max_by_key(|values| gain(values));
        let best = best.expect("what is missing is in one of them");
        for choice in choices(*best, strength) {
            missing.remove(&choice);
        }
        chosen.push(*best);
    }
    chosen
}

/// What `IPU_BENCH_PROOF` asks for of the combinations that are `meant`: `2` values together in
/// every way, or `3`, or `all` combinations, which takes an hour to execute; `default` values
/// together where it says nothing.
///
/// # Panics
/// If it is something else.
#[must_use]
pub fn asked_for(default: u32, meant: impl Fn(&Plan) -> bool) -> Vec<Values> {
    let mut all = all();
    all.retain(|&values| combined(values, turn(values)).is_some_and(|plan| meant(&plan)));
    match std::env::var("IPU_BENCH_PROOF").as_deref() {
        Err(_) => covering(&all, default),
        Ok("2") => covering(&all, 2),
        Ok("3") => covering(&all, 3),
        Ok("all") => all,
        Ok(other) => panic!("IPU_BENCH_PROOF is 2, 3 or all, not `{other}`"),
    }
}
