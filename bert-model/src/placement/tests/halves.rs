//! Placements of half layers, as the submissions to MLPerf v1.1 and v2.0 write them.

use super::*;

/// IPU, attention halves, feed-forward halves.
type Group = (u32, u32, u32);

const V1_1_POD16: &[Group] = &[(1, 7, 6), (2, 6, 7), (3, 7, 6), (0, 4, 5)];

const V1_1_POD64: &[Group] = &[
    (1, 2, 2),
    (2, 3, 3),
    (3, 4, 3),
    (4, 3, 4),
    (5, 4, 3),
    (6, 3, 4),
    (7, 4, 3),
    (0, 1, 2),
];

const V1_1_MINI: &[Group] = &[(1, 2, 1), (0, 1, 2)];

const V2_0_POD16: &[Group] = &[
    (1, 3, 3),
    (2, 4, 3),
    (3, 3, 3),
    (4, 3, 4),
    (5, 4, 3),
    (6, 3, 4),
    (7, 4, 3),
    (0, 0, 1),
];

const V2_0_POD64: &[Group] = &[
    (1, 3, 3),
    (2, 3, 3),
    (3, 3, 3),
    (4, 4, 3),
    (5, 3, 4),
    (6, 4, 3),
    (7, 3, 4),
    (0, 1, 1),
];

fn halves(encoder_start_pipeline_stage: u32, groups: &[Group]) -> HalvesPerStage {
    let group = |&(ipu, attention, feed_forward): &Group| StageHalves {
        ipu,
        halves: Halves {
            attention,
            feed_forward,
        },
    };
    HalvesPerStage {
        encoder_start_pipeline_stage,
        groups: groups.iter().map(group).collect(),
    }
}

/// The options of halves from stage 1 on that keep what the submissions keep.
fn options_of(groups: &[Group]) -> PlacementOptions {
    PlacementOptions {
        encoder: EncoderPlacement::Halves(halves(1, groups)),
        recomputation: Recomputation::FromEveryBlock,
        ..options(0, &[1])
    }
}

/// The placement of halves from stage 1 on.
pub(crate) fn placed(groups: &[Group], num_layers: u32, task: Task) -> Placement {
    Placement::from_options(&options_of(groups), num_layers, task).unwrap()
}

/// Stage of the loss, and stages with the backward ones, of published placements.
#[test]
fn published_halves_have_their_stages() {
    for (groups, num_layers, loss, all) in [
        (V1_1_POD16, 24, 4, 9),
        (V1_1_POD64, 24, 8, 17),
        (V1_1_MINI, 3, 2, 5),
        (V2_0_POD16, 24, 8, 17),
        (V2_0_POD64, 24, 8, 17),
    ] {
        let forward = [0].into_iter().chain(groups.iter().map(|group| group.0));
        let forward: Vec<u32> = forward.collect();
        let backward = forward.iter().rev().skip(1);
        let expected: Vec<u32> = forward.iter().chain(backward).copied().collect();
        let options = options_of(groups);
        let placement = check(&options, num_layers, PRETRAINING, &expected);
        assert_eq!(expected.len(), all);
        for block in [Block::NextSentence, Block::Cls, Block::Mlm, Block::Loss] {
            assert_eq!(placement.stage(block), StageId(loss), "{block}");
        }
        for block in [Block::WordEmbedding, Block::PositionSegment] {
            assert_eq!(placement.stage(block), StageId(0), "{block}");
        }
        assert!(options.encoder.ends_on_first_ipu(num_layers));
        let n_ipus = groups.iter().map(|group| group.0 + 1).max();
        assert_eq!(Some(placement.n_ipus()), n_ipus);
        assert_eq!(options.encoder.replica_ipus(num_layers).ok(), n_ipus);
    }
}

/// Halves are dealt out in order, and a layer may be cut.
#[test]
fn halves_are_dealt_out_in_order() {
    let placement = placed(V1_1_POD16, 24, PRETRAINING);
    for (block, stage) in [
        (Block::Attention(6), 1),
        (Block::FeedForward(5), 1),
        (Block::FeedForward(6), 2),
        (Block::Attention(12), 2),
        (Block::FeedForward(12), 2),
        (Block::Attention(13), 3),
        (Block::Attention(19), 3),
        (Block::FeedForward(19), 4),
        (Block::FeedForward(23), 4),
    ] {
        assert_eq!(placement.stage(block), StageId(stage), "{block}");
    }
}

/// Heads follow the last group a stage later unless it is on their IPU.
#[test]
fn heads_have_a_stage_of_their_own_behind_another_ipu() {
    let placement = placed(&[(0, 1, 0), (1, 1, 2)], 2, PRETRAINING);
    // The first group is in the embedding's stage, which is on its IPU.
    let ipus: Vec<u32> = placement.stages.values().map(|stage| stage.ipu.0).collect();
    assert_eq!(ipus, [0, 1, 0]);
    assert_eq!(placement.stage(Block::Attention(0)), StageId(0));
    assert_eq!(placement.stage(Block::Mlm), StageId(2));
    for start in [0, 1] {
        let options = PlacementOptions {
            encoder: EncoderPlacement::Halves(halves(start, &[(0, 1, 0), (1, 1, 2)])),
            ..options_of(&[])
        };
        let same = Placement::from_options(&options, 2, PRETRAINING).unwrap();
        assert_eq!(same, placement);
    }
    let groups = &[(1, 1, 0), (2, 0, 1)];
    for (task, head, expected) in [
        (SQUAD, SquadHead::FirstIpu, &[0, 1, 2, 0][..]),
        (SQUAD, SquadHead::LastEncoderIpu, &[0, 1, 2]),
        (SQUAD_INFERENCE, SquadHead::FirstIpu, &[0, 1, 2, 0]),
        (SQUAD_INFERENCE, SquadHead::LastEncoderIpu, &[0, 1, 2]),
    ] {
        let options = PlacementOptions {
            squad_head: head,
            ..options_of(groups)
        };
        let placement = Placement::from_options(&options, 1, task).unwrap();
        placement.validate(1, task).unwrap();
        let ipus: Vec<u32> = placement.stages.values().map(|stage| stage.ipu.0).collect();
        assert_eq!(ipus, expected, "{task:?} {head:?}");
    }
}

#[test]
fn checkpoints_are_those_of_the_submissions() {
    let placement = placed(V1_1_POD16, 24, PRETRAINING);
    let dropped: Vec<u32> = (0..24).filter(|&l| !placement.keeps_output(l)).collect();
    // Layers 5 and 18 have the attention of the next layer behind them on their IPU.
    assert_eq!(dropped, [12]);
    let kept: Vec<u32> = (0..24).filter(|&l| placement.keeps_attention(l)).collect();
    assert_eq!(kept, [20, 21, 22, 23]);
    assert!(placement.keeps_logits());

    // The last output is kept, also where it leaves its IPU; attention outputs are not.
    let placement = placed(&[(1, 1, 1), (2, 1, 1)], 2, PRETRAINING);
    let kept: Vec<bool> = (0..2).map(|l| placement.keeps_output(l)).collect();
    assert_eq!(kept, [false, true]);
    assert!(!placement.keeps_attention(1) && placement.keeps_logits());

    // "On its IPU", not in its stage: the next feed-forward half is there in a later one.
    let placement = placed(&[(1, 1, 1), (2, 1, 0), (1, 0, 1)], 2, PRETRAINING);
    assert!(placement.keeps_output(0));

    for recomputation in [Recomputation::Off, Recomputation::FromStageInput] {
        let options = PlacementOptions {
            recomputation,
            ..options_of(V1_1_POD16)
        };
        let placement = Placement::from_options(&options, 24, PRETRAINING).unwrap();
        assert!(!(0..24).any(|l| placement.keeps_output(l) || placement.keeps_attention(l)));
        assert!(!placement.keeps_logits());
    }
}

#[test]
fn memory_of_halves_is_indexed_by_ipu() {
    let shares = |memory: &[f64]| -> Vec<f64> {
        let options = PlacementOptions {
            memory: EncoderMemory::PerIpu(memory.to_vec()),
            ..options_of(V1_1_MINI)
        };
        let placement = Placement::from_options(&options, 3, PRETRAINING).unwrap();
        let stages = placement.stages.values();
        stages
            .map(|stage| stage.memory_proportion.value())
            .collect()
    };
    assert_eq!(shares(&[0.2, 0.25]), [0.2, 0.25, 0.2]);
    assert_eq!(shares(&[0.3]), [0.3; 3]);
}

#[test]
fn halves_that_cannot_be_placed_are_an_error() {
    #[track_caller]
    fn check(start: u32, groups: &[Group], expected: &str) {
        let halves = halves(start, groups);
        let error = halves.check(4).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(halves.replica_ipus(4), Err(error));
    }
    check(
        1,
        &[(1, 2, 2), (0, 2, 1)],
        "`att_ffn_placement` must have 4 attention and 4 feed-forward blocks, got 4 and 3",
    );
    check(
        1,
        &[],
        "`att_ffn_placement` must have 4 attention and 4 feed-forward blocks, got 0 and 0",
    );
    check(
        1,
        &[(1, 4, 2), (0, 0, 2)],
        "`att_ffn_placement` has 4 attention and 2 feed-forward blocks up to group 1, \
         expected as many of both or one attention block more",
    );
    check(
        1,
        &[(1, 1, 1), (2, 0, 1), (0, 3, 2)],
        "`att_ffn_placement` has 1 attention and 2 feed-forward blocks up to group 2, \
         expected as many of both or one attention block more",
    );
    check(
        1,
        &[(1, 2, 2), (2, 0, 0), (0, 2, 2)],
        "group 2 of `att_ffn_placement` has no attention and no feed-forward block",
    );
    check(
        1,
        &[(u32::MAX, 4, 4)],
        "group 1 of `att_ffn_placement` is on an IPU that is not below 2^32 - 1",
    );
    check(
        0,
        &[(1, 4, 4)],
        "`encoder_start_pipeline_stage` 0 is the stage of the embedding on IPU 0, expected the \
         first group of `att_ffn_placement` there, got IPU 1",
    );
    check(
        2,
        &[(1, 4, 4)],
        "`encoder_start_pipeline_stage` must be 1, or 0 for a first group on IPU 0, got 2: \
         nothing would run in the stages before",
    );
    assert_eq!(halves(1, &[]).check(0), Err(PlacementError::NoLayers));
}

proptest::proptest! {
    /// Any number of halves to an IPU is an order in which they can run, and what the check lets
    /// through can be built.
    #[test]
    fn even_halves_can_be_placed(num_layers in 1_u32..25, each in 1_u32..60) {
        let encoder = HalvesPerStage::evenly(num_layers, each);
        proptest::prop_assert_eq!(encoder.check(num_layers), Ok(()));
        let fullest = encoder.by_ipu().into_values();
        let fullest = fullest.map(|halves| halves.attention + halves.feed_forward).max();
        proptest::prop_assert_eq!(fullest, Some(each.min(2 * num_layers)));
        let options = PlacementOptions {
            encoder: EncoderPlacement::Halves(encoder),
            ..options_of(&[])
        };
        let placement = Placement::from_options(&options, num_layers, PRETRAINING).unwrap();
        proptest::prop_assert_eq!(placement.validate(num_layers, PRETRAINING), Ok(()));
        let n_ipus = options.encoder.replica_ipus(num_layers);
        proptest::prop_assert_eq!(n_ipus, Ok(placement.n_ipus()));
    }

    /// The check by counts says what the placement's own check says block by block.
    #[test]
    fn order_by_counts_is_order_by_blocks(
        mut list in proptest::collection::vec((0_u32..4, 0_u32..3, 0_u32..3), 1..5),
    ) {
        let sums = |list: &[Group]| {
            let sum = |of: fn(&Group) -> u32| list.iter().map(of).sum::<u32>();
            (sum(|group| group.1), sum(|group| group.2))
        };
        list.retain(|group| group.1 + group.2 > 0);
        // As many of both kinds in the end.
        let (attention, feed_forward) = sums(&list);
        let num_layers = attention.max(feed_forward) + 1;
        list.push((0, num_layers - attention, num_layers - feed_forward));
        let encoder = halves(1, &list);
        let stage = |of: fn(Halves) -> u32| encoder.dealt(of);
        let (first, second) = (stage(|h| h.attention), stage(|h| h.feed_forward));
        let in_order = (0..num_layers as usize).all(|layer| {
            let next = first.get(layer + 1);
            first[layer].0 <= second[layer].0 && next.is_none_or(|next| second[layer].0 <= next.0)
        });
        proptest::prop_assert_eq!(encoder.check(num_layers).is_ok(), in_order);
    }
}
