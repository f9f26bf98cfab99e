use std::collections::BTreeSet;
use std::fmt::Write;

use expect_test::{Expect, expect};
use ipu_sim::ids::IpuId;
use ipu_sim::numerics::DType;
use popart_graph::ir::{MatMulPass, OpKind, PartKind, Piece, Purpose, Recompute, StageId};
use popart_graph::verify::{Form, verify};

use super::*;
use crate::config::{Dropout, Mode, SequenceFormat};
use crate::placement::tests::{on_one_ipu, published};
use crate::placement::{Block, Execution};

const PRETRAINING: Task = Task::Pretraining(Mode::Training);

fn one_layer() -> BertConfig {
    BertConfig {
        num_layers: 1,
        ..BertConfig::tiny()
    }
}

/// Every operation on a line: stage, IPU, name, kind and first result.
#[track_caller]
fn check(model: &BertModel, expected: &Expect) {
    verify(&model.graph, Form::Logical).unwrap();
    let mut text = String::new();
    for op in model.graph.ops.values() {
        let stage = op.stage.map_or("-".to_owned(), |stage| stage.0.to_string());
        let ipu = op.ipu.unwrap().0;
        let (name, kind) = (&op.name, op.kind.name());
        let result = model.graph.tensors[op.outputs[0]].ty();
        writeln!(text, "{stage} {ipu} {name} {kind} {result}").unwrap();
    }
    expected.assert_eq(&text);
}

#[test]
fn pretraining_with_two_embedding_ipus() {
    let config = BertConfig {
        split_qkv: true,
        vocab_steps: 2,
        ..one_layer()
    };
    let placement = published(2, &[1], 1, PRETRAINING);
    check(
        &build(&config, &placement, PRETRAINING).unwrap(),
        &expect![[r#"
            0 0 Embedding/Transpose transpose f32[6,4]
            0 0 Embedding/Gather gather f32[16,4]
            0 0 Embedding/Transpose transpose f32[6,4]
            0 0 Embedding/Gather gather f32[16,4]
            0 0 Embedding/Add add f32[16,4]
            1 1 Embedding/Segment/OneHot one_hot f32[16,2]
            1 1 Embedding/Segment/MatMul matmul f32[16,4]
            1 1 Embedding/Position/Gather gather f32[16,4]
            1 1 Embedding/Position/Add add f32[16,4]
            1 1 Embedding/Segment/Add add f32[16,4]
            1 1 Embedding/Norm layer_norm f32[16,4]
            1 1 Embedding/Dropout dropout f32[16,4]
            1 1 Mask/mask_tokens_mask_idx detach u32[2,1]
            1 1 Mask/sequence_mask_idx detach u32[2,1]
            2 2 Mask/2/SequenceMask sequence_mask f32[2,1,1,8]
            2 2 Mask/2/Detach detach f32[2,1,1,8]
            2 2 Layer0/Attention/QKV_Concat concat f32[4,12]
            2 2 Layer0/Attention/QKV matmul f32[16,12]
            2 2 Layer0/Attention/QKV_Split/Q slice f32[16,4]
            2 2 Layer0/Attention/Q/Reshape reshape f32[2,8,2,2]
            2 2 Layer0/Attention/Q/Transpose transpose f32[2,2,8,2]
            2 2 Layer0/Attention/QKV_Split/K slice f32[16,4]
            2 2 Layer0/Attention/K/Reshape reshape f32[2,8,2,2]
            2 2 Layer0/Attention/K/Transpose transpose f32[2,2,2,8]
            2 2 Layer0/Attention/QKV_Split/V slice f32[16,4]
            2 2 Layer0/Attention/V/Reshape reshape f32[2,8,2,2]
            2 2 Layer0/Attention/V/Transpose transpose f32[2,2,8,2]
            2 2 Layer0/Attention/Z/QK matmul f32[2,2,8,8]
            2 2 Layer0/Attention/Z/Scale scale f32[2,2,8,8]
            2 2 Layer0/Attention/Z/ApplyMask add f32[2,2,8,8]
            2 2 Layer0/Attention/Z/Softmax softmax f32[2,2,8,8]
            2 2 Layer0/Attention/Z/Dropout dropout f32[2,2,8,8]
            2 2 Layer0/Attention/Z/AV matmul f32[2,2,8,2]
            2 2 Layer0/Attention/Z/Transpose transpose f32[2,8,2,2]
            2 2 Layer0/Attention/Z/Reshape reshape f32[16,4]
            2 2 Layer0/Attention/Out matmul f32[16,4]
            2 2 Layer0/Attention/Dropout dropout f32[16,4]
            2 2 Layer0/Attention/Add add f32[16,4]
            2 2 Layer0/Attention/Norm layer_norm f32[16,4]
            2 2 Layer0/FF/1 matmul f32[16,16]
            2 2 Layer0/FF/1/Add add f32[16,16]
            2 2 Layer0/FF/Gelu gelu f32[16,16]
            2 2 Layer0/FF/2 matmul f32[16,4]
            2 2 Layer0/FF/2/Add add f32[16,4]
            2 2 Layer0/FF/Dropout dropout f32[16,4]
            2 2 Layer0/FF/Add add f32[16,4]
            2 2 Layer0/FF/Norm layer_norm f32[16,4]
            3 1 NSP/Sequences reshape f32[2,8,4]
            3 1 NSP/Slice slice f32[2,1,4]
            3 1 NSP/Rows reshape f32[2,4]
            3 1 NSP/Pool matmul f32[2,4]
            3 1 NSP/Pool/Add add f32[2,4]
            3 1 NSP/Pool/Tanh tanh f32[2,4]
            3 1 NSP/Nsp matmul f32[2,2]
            3 1 NSP/Nsp/Add add f32[2,2]
            3 1 CLS/LMPrediction matmul f32[16,4]
            3 1 CLS/LMPrediction/Add add f32[16,4]
            3 1 CLS/Gelu gelu f32[16,4]
            3 1 CLS/Norm layer_norm f32[16,4]
            4 0 MLM/Sequences reshape f32[2,8,4]
            4 0 MLM/Slice slice f32[2,3,4]
            4 0 MLM/Rows reshape f32[6,4]
            4 0 MLM/Projection matmul f32[6,6]
            4 0 MLM/Projection matmul f32[6,6]
            4 0 MLM/Concat concat f32[6,12]
            4 0 MLM/Labels reshape u32[6]
            4 0 MLM/Softmax softmax f32[6,12]
            4 0 MLM/Loss nll_loss f32[]
            4 0 MLM/Accuracy accuracy f32[2]
            4 0 MLM/Attempted slice f32[1]
            4 0 MLM/Attempted/Number reshape f32[]
            4 0 MLM/Loss/Mean div f32[]
            3 1 NSP/Softmax softmax f32[2,2]
            3 1 NSP/Loss nll_loss f32[]
            3 1 NSP/Accuracy accuracy f32[2]
            3 1 NSP/Attempted slice f32[1]
            3 1 NSP/Attempted/Number reshape f32[]
            3 1 NSP/Loss/Mean div f32[]
            4 0 Loss/Sum add f32[]
        "#]],
    );
}

#[test]
fn squad_inference_on_one_ipu() {
    let task = Task::Squad(Mode::Inference);
    let config = BertConfig {
        vocab_steps: 2,
        ..one_layer()
    };
    check(
        &build(&config, &on_one_ipu(1, task), task).unwrap(),
        &expect![[r#"
            - 0 Embedding/Gather gather f32[16,4]
            - 0 Embedding/Gather gather f32[16,4]
            - 0 Embedding/Add add f32[16,4]
            - 0 Embedding/Segment/OneHot one_hot f32[16,2]
            - 0 Embedding/Segment/MatMul matmul f32[16,4]
            - 0 Embedding/Position/Gather gather f32[16,4]
            - 0 Embedding/Position/Add add f32[16,4]
            - 0 Embedding/Segment/Add add f32[16,4]
            - 0 Embedding/Norm layer_norm f32[16,4]
            - 0 Mask/0/SequenceMask sequence_mask f32[2,1,1,8]
            - 0 Layer0/Attention/QKV matmul f32[16,12]
            - 0 Layer0/Attention/QKV_Split/Q slice f32[16,4]
            - 0 Layer0/Attention/Q/Reshape reshape f32[2,8,2,2]
            - 0 Layer0/Attention/Q/Transpose transpose f32[2,2,8,2]
            - 0 Layer0/Attention/QKV_Split/K slice f32[16,4]
            - 0 Layer0/Attention/K/Reshape reshape f32[2,8,2,2]
            - 0 Layer0/Attention/K/Transpose transpose f32[2,2,2,8]
            - 0 Layer0/Attention/QKV_Split/V slice f32[16,4]
            - 0 Layer0/Attention/V/Reshape reshape f32[2,8,2,2]
            - 0 Layer0/Attention/V/Transpose transpose f32[2,2,8,2]
            - 0 Layer0/Attention/Z/QK matmul f32[2,2,8,8]
            - 0 Layer0/Attention/Z/Scale scale f32[2,2,8,8]
            - 0 Layer0/Attention/Z/ApplyMask add f32[2,2,8,8]
            - 0 Layer0/Attention/Z/Softmax softmax f32[2,2,8,8]
            - 0 Layer0/Attention/Z/AV matmul f32[2,2,8,2]
            - 0 Layer0/Attention/Z/Transpose transpose f32[2,8,2,2]
            - 0 Layer0/Attention/Z/Reshape reshape f32[16,4]
            - 0 Layer0/Attention/Out matmul f32[16,4]
            - 0 Layer0/Attention/Add add f32[16,4]
            - 0 Layer0/Attention/Norm layer_norm f32[16,4]
            - 0 Layer0/FF/1 matmul f32[16,16]
            - 0 Layer0/FF/1/Add add f32[16,16]
            - 0 Layer0/FF/Gelu gelu f32[16,16]
            - 0 Layer0/FF/2 matmul f32[16,4]
            - 0 Layer0/FF/2/Add add f32[16,4]
            - 0 Layer0/FF/Add add f32[16,4]
            - 0 Layer0/FF/Norm layer_norm f32[16,4]
            - 0 Squad/Gemm matmul f32[16,2]
            - 0 Squad/Gemm/Add add f32[16,2]
        "#]],
    );
}

#[test]
fn weights_have_their_published_names() {
    let names = |config: &BertConfig, task| -> Vec<String> {
        let model = build(config, &on_one_ipu(1, task), task).unwrap();
        let weights = model.weights.iter();
        weights
            .map(|weight| {
                let tensor = &model.graph.tensors[weight.tensor];
                format!("{} {}", tensor.name, tensor.shape)
            })
            .collect()
    };
    let with_all = BertConfig {
        attention_bias: true,
        projection_bias: true,
        ..one_layer()
    };
    expect![[r#"
        Embedding/Embedding_Dict [4,12]
        Embedding/Segment_Dict [2,4]
        Embedding/Positional_Dict [10,4]
        Embedding/Gamma [4]
        Embedding/Beta [4]
        Layer0/Attention/QKV [4,12]
        Layer0/Attention/QKV_Bias [12]
        Layer0/Attention/Out [4,4]
        Layer0/Attention/Out_Bias [4]
        Layer0/Attention/Gamma [4]
        Layer0/Attention/Beta [4]
        Layer0/FF/1/W [4,16]
        Layer0/FF/1/B [16]
        Layer0/FF/2/W [16,4]
        Layer0/FF/2/B [4]
        Layer0/FF/Gamma [4]
        Layer0/FF/Beta [4]
        NSP/PoolW [4,4]
        NSP/PoolB [4]
        NSP/NspW [4,2]
        NSP/NspB [2]
        CLS/LMPredictionW [4,4]
        CLS/LMPredictionB [4]
        CLS/Gamma [4]
        CLS/Beta [4]
        MLM/ProjectionB [12]"#]]
    .assert_eq(&names(&with_all, PRETRAINING).join("\n"));
    let split = BertConfig {
        split_qkv: true,
        vocab_steps: 3,
        ..with_all
    };
    expect![[r#"
        Embedding/Embedding_Dict/split0 [4,4]
        Embedding/Embedding_Dict/split1 [4,4]
        Embedding/Embedding_Dict/split2 [4,4]
        Embedding/Segment_Dict [2,4]
        Embedding/Positional_Dict [10,4]
        Embedding/Gamma [4]
        Embedding/Beta [4]
        Layer0/Attention/Q [4,4]
        Layer0/Attention/K [4,4]
        Layer0/Attention/V [4,4]
        Layer0/Attention/Q_Bias [4]
        Layer0/Attention/K_Bias [4]
        Layer0/Attention/V_Bias [4]
        Layer0/Attention/Out [4,4]
        Layer0/Attention/Out_Bias [4]
        Layer0/Attention/Gamma [4]
        Layer0/Attention/Beta [4]
        Layer0/FF/1/W [4,16]
        Layer0/FF/1/B [16]
        Layer0/FF/2/W [16,4]
        Layer0/FF/2/B [4]
        Layer0/FF/Gamma [4]
        Layer0/FF/Beta [4]
        Squad/SquadW [4,2]
        Squad/SquadB [2]"#]]
    .assert_eq(&names(&split, Task::Squad(Mode::Training)).join("\n"));
}

#[test]
fn a_tied_table_in_slices_is_one_weight() {
    let config = BertConfig {
        vocab_steps: 3,
        ..one_layer()
    };
    #[track_caller]
    fn check(config: &BertConfig, task: Task, axis: u32, joint_norm: bool) {
        let model = build(config, &published(1, &[1], 1, task), task).unwrap();
        let [weight] = model.serialised_weights.as_slice() else {
            panic!("expected one, got {:?}", model.serialised_weights);
        };
        assert_eq!(weight.name, "Embedding/Embedding_Dict");
        assert_eq!((weight.axis, weight.joint_norm), (axis, joint_norm));
        let slices: Vec<_> = model.weights[..3].iter().map(|w| w.tensor).collect();
        assert_eq!(weight.slices, slices);
        let stage = model.weights[0].stage.0;
        assert_eq!(stage, if joint_norm { 2 } else { 0 });
    }
    check(&config, PRETRAINING, 1, true);
    check(&config, Task::Squad(Mode::Training), 0, false);
    let whole = build(&one_layer(), &on_one_ipu(1, PRETRAINING), PRETRAINING).unwrap();
    assert_eq!(whole.serialised_weights, []);
}

/// Products of training with all that is serialised, by what they are a piece of: those of columns
/// and, before any gradient, addends; and casts.
fn pieces(dtype: DType, half_partials: bool) -> [usize; 3] {
    let config = BertConfig {
        dtype,
        half_partials,
        split_linear_layers: true,
        vocab_steps: 3,
        ..one_layer()
    };
    let model = build(&config, &on_one_ipu(1, PRETRAINING), PRETRAINING).unwrap();
    verify(&model.graph, Form::Logical).unwrap();
    let count = |wanted: &dyn Fn(&OpKind) -> bool| {
        let kinds = model.graph.ops.values().map(|op| &op.kind);
        kinds.filter(|kind| wanted(kind)).count()
    };
    let piece = |wanted: Piece| {
        count(&|kind| matches!(kind, OpKind::MatMul { piece, .. } if *piece == wanted))
    };
    let is_cast = |kind: &OpKind| matches!(kind, OpKind::Cast { .. });
    [piece(Piece::Columns), piece(Piece::Addend), count(&is_cast)]
}

#[test]
fn pieces_keep_their_precision_where_partial_sums_have_more() {
    let steps = (one_layer().ff_size / one_layer().hidden_size) as usize;
    // Queries, keys and values; the wide layer; the vocabulary.
    assert_eq!(pieces(DType::F16, false), [3 + steps + 3, steps, 1]);
    assert_eq!(pieces(DType::F16, true), [0, 0, 0]);
    assert_eq!(pieces(DType::F32, false), [0, 0, 0]);
}

#[test]
fn products_know_their_memory_and_pass() {
    let mut placement = published(1, &[1], 1, PRETRAINING);
    let share = popart_graph::ir::MemoryProportion::new(0.25).unwrap();
    for stage in placement.stages.values_mut() {
        stage.memory_proportion = share;
    }
    let model = build(&one_layer(), &placement, PRETRAINING).unwrap();
    let mut n_products = 0;
    for op in model.graph.ops.values() {
        let OpKind::MatMul {
            pass,
            available_memory_proportion,
            ..
        } = op.kind
        else {
            continue;
        };
        n_products += 1;
        let in_encoder = op.name.starts_with("Layer");
        assert_eq!(
            available_memory_proportion == share,
            in_encoder,
            "{}",
            op.name
        );
        let expected = match op.name.as_str() {
            "MLM/Projection" => MatMulPass::None,
            _ => MatMulPass::TrainingFwd,
        };
        assert_eq!(pass, expected, "{}", op.name);
    }
    // Segments; QKV, scores, context, out, two of feed-forward; four of heads.
    assert_eq!(n_products, 11);
}

#[test]
fn every_dropout_has_its_own_mask() {
    let ids = |dropout, task| {
        let config = BertConfig {
            dropout,
            ..BertConfig::tiny()
        };
        let model = build(&config, &on_one_ipu(2, task), task).unwrap();
        let kinds = model.graph.ops.values().map(|op| op.kind.clone());
        let ids: Vec<u32> = kinds
            .filter_map(|kind| match kind {
                OpKind::Dropout { id, .. } => Some(id),
                _ => None,
            })
            .collect();
        let distinct: BTreeSet<u32> = ids.iter().copied().collect();
        assert_eq!(distinct.len(), ids.len());
        assert_eq!(model.input(Input::Seed).is_some(), !ids.is_empty());
        ids.len()
    };
    assert_eq!(ids(Dropout::Off, PRETRAINING), 0);
    assert_eq!(ids(Dropout::Hidden, PRETRAINING), 1 + 2 * 2);
    assert_eq!(ids(Dropout::HiddenAndAttention, PRETRAINING), 1 + 3 * 2);
    let inference = Task::Pretraining(Mode::Inference);
    assert_eq!(ids(Dropout::HiddenAndAttention, inference), 0);
}

#[test]
fn half_layers_may_be_apart() {
    let config = BertConfig::tiny();
    let mut placement = published(1, &[1, 1], 2, PRETRAINING);
    placement.blocks.insert(Block::FeedForward(0), StageId(2));
    let model = build(&config, &placement, PRETRAINING).unwrap();
    verify(&model.graph, Form::Logical).unwrap();
    for op in model.graph.ops.values() {
        let expected = match op.name.as_str() {
            name if name.starts_with("Layer0/Attention") => 1,
            name if name.starts_with("Layer") => 2,
            _ => continue,
        };
        assert_eq!(op.stage, Some(StageId(expected)), "{}", op.name);
        assert_eq!(op.recompute, Recompute::Checkpoint);
    }
    // Both halves of layer 1 follow on the stage that ends layer 0.
    assert_eq!(model.checkpoints.len(), 1);
    // One mask for each IPU that attends.
    let masks = model.graph.ops.values();
    let is_mask = |kind: &OpKind| matches!(kind, OpKind::SequenceMask { .. });
    assert_eq!(masks.filter(|op| is_mask(&op.kind)).count(), 2);
}

/// Every layer of packs makes a mask of its own, after its scores, and nothing of it is made once
/// on an IPU.
#[test]
fn each_layer_of_packs_has_a_mask() {
    let config = BertConfig {
        sequence_format: SequenceFormat::Packed { sequences: 3 },
        ..BertConfig::tiny()
    };
    let placement = published(1, &[2], 2, PRETRAINING);
    let model = build(&config, &placement, PRETRAINING).unwrap();
    let numbers = model.input(Input::SequenceNumbers).unwrap();
    let ops = model.graph.ops.values();
    let readers: Vec<(&str, &str)> = ops
        .filter(|op| op.inputs.contains(&numbers))
        .map(|op| (op.name.as_str(), op.kind.name()))
        .collect();
    assert_eq!(
        readers,
        [
            ("Layer0/Attention/Z/AttentionMask", "attention_mask"),
            ("Layer1/Attention/Z/AttentionMask", "attention_mask"),
        ]
    );
    let names = model.inputs.iter();
    let names: Vec<&str> = names
        .map(|info| model.graph.tensors[info.tensor].name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "input_ids",
            "input_mask",
            "segment_ids",
            "position_ids",
            "masked_lm_ids",
            "masked_lm_weights",
            "nsp_labels",
            "nsp_weights",
            "seed",
        ]
    );
}

#[test]
fn results_of_inference_are_taken_where_the_wrapped_heads_are() {
    for (task, last) in [
        (Task::Squad(Mode::Inference), "Squad"),
        (Task::Pretraining(Mode::Inference), "MLM"),
    ] {
        for squad_single_output in [false, true] {
            let config = BertConfig {
                squad_single_output,
                ..BertConfig::tiny()
            };
            let mut placement = published(1, &[1, 1], 2, task);
            for execution in [Execution::Pipelined, Execution::Sequential] {
                placement.execution = execution;
                let model = build(&config, &placement, task).unwrap();
                verify(&model.graph, Form::Logical).unwrap();
                let producers = model.graph.producers();
                for &output in &model.graph.outputs {
                    let op = &model.graph.ops[producers[output].unwrap()];
                    assert_eq!(op.ipu, Some(IpuId(0)), "{}", op.name);
                    let staged = execution == Execution::Pipelined;
                    assert_eq!(op.stage, staged.then_some(StageId(3)), "{}", op.name);
                    let here = op.name.starts_with(last) || op.name.starts_with("NSP");
                    assert!(here, "{}", op.name);
                }
            }
        }
    }
}

#[test]
fn without_a_pipeline_operations_have_an_ipu_but_no_stage() {
    let mut placement = published(2, &[1], 1, PRETRAINING);
    placement.execution = Execution::Sequential;
    let model = build(&one_layer(), &placement, PRETRAINING).unwrap();
    assert!(model.graph.ops.values().all(|op| op.stage.is_none()));
    let ipus: BTreeSet<u32> = model
        .graph
        .ops
        .values()
        .map(|op| op.ipu.unwrap().0)
        .collect();
    assert_eq!(ipus, BTreeSet::from([0, 1, 2]));
}

#[test]
fn rules_are_checked_before_building() {
    let config = BertConfig {
        attention_heads: 3,
        ..one_layer()
    };
    let placement = on_one_ipu(1, PRETRAINING);
    let error = build(&config, &placement, PRETRAINING).unwrap_err();
    let expected = "`hidden_size` must be a multiple of `attention_heads` 3, got 4";
    assert_eq!(error.to_string(), expected);
    let error = build(&one_layer(), &placement, Task::Squad(Mode::Training)).unwrap_err();
    let expected = "next-sentence head is placed but is not part of the model";
    assert_eq!(error.to_string(), expected);
}

/// Parts are where names begin, and every block has one.
#[test]
fn blocks_are_parts() {
    let config = BertConfig {
        num_layers: 2,
        dropout: Dropout::HiddenAndAttention,
        ..BertConfig::tiny()
    };
    let placement = published(1, &[1, 1], 2, PRETRAINING);
    let model = build(&config, &placement, PRETRAINING).unwrap();
    let (graph, parts) = (&model.graph, &model.graph.parts);
    let of_ops = graph.ops.values().map(|op| (&op.name, op.part));
    let of_tensors = graph
        .tensors
        .values()
        .map(|tensor| (&tensor.name, tensor.part));
    for (name, part) in of_ops.chain(of_tensors) {
        let outermost = parts.outermost(part.expect("all of the model has a part"));
        assert_eq!(name.split('/').next(), Some(parts[outermost].name.as_str()));
    }
    let [attention, feed_forward, mlm] =
        [Block::Attention(1), Block::FeedForward(1), Block::Mlm].map(|block| model.parts[&block]);
    let layer = parts.outermost(attention);
    assert_eq!(parts.outermost(feed_forward), layer);
    assert_eq!(parts[layer].kind, PartKind::Repeated);
    assert_ne!(attention, feed_forward);
    assert_eq!(parts.outermost(mlm), mlm);
    let scores = graph
        .ops
        .values()
        .filter(|op| op.purpose == Purpose::Scores);
    assert!(scores.clone().all(|op| op.name.contains("/Attention/Z/")));
    let softmaxes = graph.ops.values().filter(|op| op.kind == OpKind::Softmax);
    assert!(softmaxes.clone().all(|op| op.purpose != Purpose::General));
    assert_eq!(scores.filter(|op| op.kind == OpKind::Softmax).count(), 2);
}
