//! A typed configuration, written and read back, is the same; what it doesn't know is refused.

use bert_model::config::{Activation, BertConfig, Mode, Task};
use bert_model::optim::{OptimizerKind, OptimizerOptions, StageScaling};
use bert_model::placement::{
    EncoderMemory, EncoderPlacement, Execution, HalvesPerStage, LayersPerIpu, Placement,
    PlacementOptions, Recomputation, SquadHead,
};
use popart_graph::passes::optimizer::rules::{Correction, MomentTypes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const PRETRAINING: Task = Task::Pretraining(Mode::Training);

/// Writes `value`, checks that it reads back, and gives what was written.
#[track_caller]
fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) -> Value {
    let text = serde_json::to_string(value).expect("the value can be written");
    let read: T = serde_json::from_str(&text).expect("what is written can be read");
    assert_eq!(&read, value, "{text}");
    let written: Value = serde_json::from_str(&text).expect("what is written is JSON");
    if let Value::Object(mut fields) = written.clone() {
        fields.insert("unknown".into(), json!(1));
        let unknown = serde_json::from_value::<T>(Value::Object(fields));
        assert!(unknown.is_err(), "{unknown:?}");
    }
    written
}

fn layers() -> PlacementOptions {
    PlacementOptions {
        encoder: EncoderPlacement::Layers(LayersPerIpu {
            encoder_start_ipu: 1,
            layers_per_ipu: vec![1, 1],
        }),
        memory: EncoderMemory::PerIpu(vec![0.15]),
        squad_head: SquadHead::FirstIpu,
        recomputation: Recomputation::FromEveryLayer,
        execution: Execution::Pipelined,
    }
}

#[test]
fn configurations() {
    for config in [BertConfig::base(), BertConfig::large(), BertConfig::tiny()] {
        check(&config);
    }
    let written = check(&BertConfig {
        activation: Activation::LeakyRelu { leak: 0.1 },
        ..BertConfig::base()
    });
    assert_eq!(written["activation"], json!({"leaky_relu": {"leak": 0.1}}));
    assert_eq!(written["dropout"], "hidden_and_attention");
    assert_eq!(
        (&written["dtype"], &written["reduction"]),
        (&json!("f16"), &json!("sum"))
    );
    assert_eq!(check(&PRETRAINING), json!({"pretraining": "training"}));
}

#[test]
fn placements() {
    let written = check(&layers());
    assert_eq!(written["memory"], json!({"per_ipu": [0.15]}));
    assert_eq!(
        written["encoder"]["layers"]["layers_per_ipu"],
        json!([1, 1])
    );
    let written = check(&PlacementOptions {
        encoder: EncoderPlacement::Halves(HalvesPerStage::evenly(2, 3)),
        recomputation: Recomputation::FromEveryBlock,
        ..layers()
    });
    let groups = &written["encoder"]["halves"]["groups"];
    let first = json!({"ipu": 1, "halves": {"attention": 2, "feed_forward": 1}});
    assert_eq!((&groups[0], &groups[1]["ipu"]), (&first, &json!(2)));
    let placement = Placement::from_options(&layers(), 2, PRETRAINING).unwrap();
    let written = check(&placement);
    assert_eq!(written["blocks"]["feed_forward_1"], 2);
    assert_eq!(written["stages"][1]["ipu"], 1);
    assert_eq!(written["stages"][1]["memory_proportion"], 0.15);

    let refused = |change: fn(&mut Value), expected: &str| {
        let mut changed = written.clone();
        change(&mut changed);
        let error = serde_json::from_value::<Placement>(changed).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    refused(
        |placement| placement["blocks"]["attention_x"] = json!(1),
        "no part of a model is called `attention_x`",
    );
    refused(
        |placement| placement["stages"][0]["memory_proportion"] = json!(1.5),
        "a share of memory must be above 0 and at most 1, got 1.5",
    );
}

#[test]
fn optimizers() {
    for (kind, expected) in [
        (OptimizerKind::Sgd, json!("sgd")),
        (
            OptimizerKind::Adam(Correction::Bias),
            json!({"adam": "bias"}),
        ),
        (
            OptimizerKind::Lamb(Correction::None),
            json!({"lamb": "none"}),
        ),
    ] {
        let written = check(&OptimizerOptions {
            kind,
            loss_scaling: 4.0,
            weight_decay: 0.01,
            momentum: 0.9,
            dampening: None,
            velocity_scaling: 1.0,
            beta1: 0.9,
            beta2: 0.999,
            moments: MomentTypes::HALF_FIRST,
            max_weight_norm: Some(65_504.0),
            clip_norm: Some(1.0),
            squad_lr_scale: 1.0,
            stage_scaling: StageScaling::On,
        });
        assert_eq!(written["kind"], expected);
        assert_eq!(written["moments"], json!({"first": "f16", "second": "f32"}));
    }
}
