pub(crate) mod halves;

use super::*;
use crate::config::Mode;

const PRETRAINING: Task = Task::Pretraining(Mode::Training);
const SQUAD: Task = Task::Squad(Mode::Training);
const SQUAD_INFERENCE: Task = Task::Squad(Mode::Inference);

fn options(encoder_start_ipu: u32, layers_per_ipu: &[u32]) -> PlacementOptions {
    PlacementOptions {
        encoder: EncoderPlacement::Layers(LayersPerIpu {
            encoder_start_ipu,
            layers_per_ipu: layers_per_ipu.to_vec(),
        }),
        memory: EncoderMemory::PoplibsDefault,
        squad_head: SquadHead::FirstIpu,
        recomputation: Recomputation::FromEveryLayer,
        execution: Execution::Pipelined,
    }
}

/// The application's placement as a pipeline.
pub(crate) fn published(
    encoder_start_ipu: u32,
    layers_per_ipu: &[u32],
    num_layers: u32,
    task: Task,
) -> Placement {
    let options = options(encoder_start_ipu, layers_per_ipu);
    Placement::from_options(&options, num_layers, task).unwrap()
}

/// All of a model on the first IPU.
pub(crate) fn on_one_ipu(num_layers: u32, task: Task) -> Placement {
    published(0, &[num_layers], num_layers, task)
}

/// Stages map to `expected` IPUs, mirrored ones included.
#[track_caller]
fn check(options: &PlacementOptions, num_layers: u32, task: Task, expected: &[u32]) -> Placement {
    let placement = Placement::from_options(options, num_layers, task).unwrap();
    placement.validate(num_layers, task).unwrap();
    let ipus: Vec<u32> = placement.stage_ipus(task).iter().map(|ipu| ipu.0).collect();
    assert_eq!(ipus, expected);
    placement
}

#[test]
fn published_stage_maps() {
    let wrapped = [0, 1, 2, 3, 0, 3, 2, 1, 0];
    for task in [PRETRAINING, SQUAD] {
        check(&options(0, &[3, 7, 7, 7]), 24, task, &wrapped);
        check(&options(1, &[4, 4, 4]), 12, task, &wrapped);
    }
    let two_embedding_ipus = (0..14).chain([1, 0, 1]).chain((0..14).rev());
    let mk1 = check(
        &options(2, &[2]),
        24,
        PRETRAINING,
        &two_embedding_ipus.collect::<Vec<_>>(),
    );
    assert_eq!(mk1.n_ipus(), 14);

    let unwrapped = |layers_per_ipu: &[u32]| PlacementOptions {
        squad_head: SquadHead::LastEncoderIpu,
        ..options(0, layers_per_ipu)
    };
    check(&unwrapped(&[6, 6]), 12, SQUAD, &[0, 1, 0]);
    check(&options(0, &[6, 6]), 12, SQUAD, &[0, 1, 0, 1, 0]);
    let up_and_down: Vec<u32> = (0..8).chain((0..7).rev()).collect();
    let layers = [2, 3, 3, 3, 3, 3, 3, 4];
    check(&unwrapped(&layers), 24, SQUAD, &up_and_down);
}

#[test]
fn inference_has_forward_stages_only_and_may_need_one_ipu() {
    let task = SQUAD_INFERENCE;
    // The head wraps to the first IPU or not; no copy follows where it doesn't.
    for (start, list, layers, unwrapped) in [
        (0, &[6, 6][..], 12, &[0, 1][..]),
        (1, &[4, 4, 4], 12, &[0, 1, 2, 3]),
        (0, &[2, 3, 3, 3, 3, 3, 3, 4], 24, &[0, 1, 2, 3, 4, 5, 6, 7]),
    ] {
        let last = PlacementOptions {
            squad_head: SquadHead::LastEncoderIpu,
            ..options(start, list)
        };
        let placement = check(&last, layers, task, unwrapped);
        assert_eq!(
            placement.stage(Block::Outputs),
            placement.stage(Block::Squad)
        );
        let wrapped = [unwrapped, &[0]].concat();
        check(&options(start, list), layers, task, &wrapped);
    }
    check(&options(0, &[3]), 3, task, &[0]);
    let task = Task::Pretraining(Mode::Inference);
    check(&options(0, &[3]), 3, task, &[0]);
    // The projection on the vocabulary is where outputs are.
    check(&options(0, &[2, 1]), 3, task, &[0, 1, 0]);
    let two_embedding_ipus = [0, 1, 2, 3, 1, 0];
    let placement = check(&options(2, &[2]), 4, task, &two_embedding_ipus);
    assert_eq!(placement.stage(Block::Outputs), placement.stage(Block::Mlm));
}

#[test]
fn heads_wrap_to_the_embedding_ipus() {
    let placement = check(
        &options(2, &[1]),
        2,
        PRETRAINING,
        &[0, 1, 2, 3, 1, 0, 1, 3, 2, 1, 0],
    );
    let places = [
        (Block::WordEmbedding, 0, 0),
        (Block::PositionSegment, 1, 1),
        (Block::Attention(0), 2, 2),
        (Block::FeedForward(1), 3, 3),
        (Block::NextSentence, 4, 1),
        (Block::Cls, 4, 1),
        (Block::Mlm, 5, 0),
        (Block::Loss, 5, 0),
    ];
    for (block, stage, ipu) in places {
        let got = (placement.stage(block), placement.ipu(block));
        assert_eq!(got, (StageId(stage), IpuId(ipu)), "{block}");
    }
}

#[test]
fn only_layers_that_stay_are_checkpoints() {
    let mut options = options(0, &[3, 2]);
    let kept = |options: &PlacementOptions| -> Vec<bool> {
        let placement = Placement::from_options(options, 5, PRETRAINING).unwrap();
        (0..5).map(|layer| placement.keeps_output(layer)).collect()
    };
    assert_eq!(kept(&options), [true, true, false, true, false]);
    options.recomputation = Recomputation::FromStageInput;
    assert_eq!(kept(&options), [false; 5]);
}

#[test]
fn memory_is_indexed_from_the_first_encoder_ipu() {
    let mut options = options(1, &[1, 1]);
    let shares = |options: &PlacementOptions| -> Vec<f64> {
        let placement = Placement::from_options(options, 2, PRETRAINING).unwrap();
        let stages = placement.stages.values();
        stages
            .map(|stage| stage.memory_proportion.value())
            .collect()
    };
    options.memory = EncoderMemory::PerIpu(vec![0.25]);
    assert_eq!(shares(&options), [0.6, 0.25, 0.25, 0.6]);
    options.memory = EncoderMemory::PerIpu(vec![0.15, 0.4]);
    assert_eq!(shares(&options), [0.6, 0.15, 0.4, 0.6]);
}

#[test]
fn ipus_are_counted_without_a_placement() {
    let replica_ipus = |encoder_start_ipu, list: &[u32], num_layers| {
        let encoder = options(encoder_start_ipu, list).encoder;
        encoder.replica_ipus(num_layers)
    };
    assert_eq!(replica_ipus(2, &[2], 24), Ok(14));
    assert_eq!(ipus_requested(14, 1), Ok(16));
    assert_eq!(ipus_requested(1, 1), Ok(1));
    assert_eq!(ipus_requested(4, 16), Ok(64));
    // The list ends where the layers do.
    assert_eq!(replica_ipus(0, &[6, 6, 6], 12), Ok(2));
    assert_eq!(
        replica_ipus(1, &[1], u32::MAX).unwrap_err().to_string(),
        "a replica must have less than 2^32 IPUs, got 4294967295 with encoder layers from IPU 1 on",
    );
    let most = u32::MAX;
    assert_eq!(
        ipus_requested(most, most).unwrap_err().to_string(),
        "4294967295 replicas of 4294967295 IPUs must have less than 2^32 IPUs in all",
    );
}

proptest::proptest! {
    /// What is counted is what a placement has.
    #[test]
    fn counted_ipus_are_those_of_a_placement(
        start in 0_u32..3,
        list in proptest::collection::vec(1_u32..5, 1..6),
        num_layers in 1_u32..25,
        inference: bool,
    ) {
        let mode = if inference { Mode::Inference } else { Mode::Training };
        for task in [Task::Pretraining(mode), Task::Squad(mode)] {
            let options = options(start, &list);
            let placement = Placement::from_options(&options, num_layers, task);
            let counted = options.encoder.replica_ipus(num_layers);
            let Ok(placement) = placement else {
                proptest::prop_assert!(counted.is_err());
                continue;
            };
            proptest::prop_assert_eq!(counted, Ok(placement.n_ipus()));
        }
    }
}

#[test]
fn what_cannot_be_placed_is_an_error() {
    #[track_caller]
    fn check(options: &PlacementOptions, expected: &str) {
        let error = Placement::from_options(options, 4, PRETRAINING).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    check(&options(0, &[0]), "`layers_per_ipu` must be at least 1");
    check(
        &options(0, &[1, 2]),
        "`layers_per_ipu` must cover 4 layers, got 3",
    );
    check(
        &options(0, &[]),
        "`layers_per_ipu` must cover 4 layers, got 0",
    );
    check(&options(0, &[2, 0, 2]), "stage1 on IPU 1 has nothing to do");
    check(&options(3, &[4]), "stage1 on IPU 1 has nothing to do");
    let memory = |values: &[f64]| PlacementOptions {
        memory: EncoderMemory::PerIpu(values.to_vec()),
        ..options(0, &[1, 1, 2])
    };
    check(
        &memory(&[0.1, 0.2]),
        "`available_memory_proportion` must have 1 value or 3, got 2",
    );
    check(
        &memory(&[1.5]),
        "`available_memory_proportion` must be above 0 and at most 1, got 1.5",
    );
}

#[test]
fn placements_by_hand_are_checked() {
    let good = Placement::from_options(&options(1, &[1, 1]), 2, PRETRAINING).unwrap();
    #[track_caller]
    fn check(good: &Placement, change: impl FnOnce(&mut Placement), expected: &str) {
        let mut placement = good.clone();
        change(&mut placement);
        let error = placement.validate(2, PRETRAINING).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    check(
        &good,
        |p| p.blocks.remove(&Block::Cls).map_or((), drop),
        "transform before the vocabulary has no stage",
    );
    check(
        &good,
        |p| p.blocks.insert(Block::Squad, StageId(0)).map_or((), drop),
        "answer head is placed but is not part of the model",
    );
    check(
        &good,
        |p| p.blocks.insert(Block::Loss, StageId(9)).map_or((), drop),
        "loss is on stage9, expected one of 4 stages",
    );
    check(
        &good,
        |p| {
            p.blocks
                .insert(Block::Attention(1), StageId(0))
                .map_or((), drop)
        },
        "attention of layer 1 is on stage0, expected stage1 or later, \
         where feed-forward of layer 0 is",
    );
    check(
        &good,
        |p| p.stages[StageId(3)].ipu = IpuId(2),
        "projection on the vocabulary uses the word table of word embedding, \
         expected IPU 0, got IPU 2",
    );
    check(
        &good,
        |p| {
            p.stages.push(good_stage());
        },
        "stage4 on IPU 7 has nothing to do",
    );
    fn good_stage() -> Stage {
        Stage {
            ipu: IpuId(7),
            memory_proportion: MemoryProportion::POPLIBS_DEFAULT,
            recomputation: Recomputation::Off,
        }
    }
}
