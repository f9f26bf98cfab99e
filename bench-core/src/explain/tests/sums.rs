//! Of any run the explanation sums exactly; runs that contradict themselves
//! are refused before there is anything to explain.

use proptest::prelude::*;

use super::*;
use crate::evaluate::evaluate;

/// What keeps a run from being simulated.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    /// More replicas than the machine has IPUs.
    Replicas,
    /// Heads that don't divide the hidden size.
    Heads,
    /// Fewer micro-batches than stages of the pipeline.
    Shallow,
    /// Inference that accumulates gradients.
    Accumulation,
}

impl Flaw {
    /// What the refusal names.
    fn named(self) -> &'static str {
        match self {
            Self::Replicas => "the configuration needs",
            Self::Heads => "a multiple of 3 heads",
            Self::Shallow => "a pipeline of",
            Self::Accumulation => "inference accumulates no gradients",
        }
    }
}

#[derive(Clone, Debug)]
struct Training {
    optimizer: &'static str,
    accumulates: bool,
    state_offchip: bool,
    sharded: bool,
    merged: bool,
}

/// A run of a tiny model.
#[derive(Clone, Debug)]
struct Run {
    system: &'static str,
    replicas: u32,
    task: &'static str,
    micro_batch: u32,
    /// Of inference there is none.
    training: Option<Training>,
    /// Layers of every IPU of a replica.
    layers: Vec<u32>,
    pipelined: bool,
    recompute_every_layer: bool,
    outlined: bool,
    flaw: Option<Flaw>,
}

/// IPUs of a replica at most; with four replicas, they are no more than a machine of 16 has.
const IPUS_MAX: usize = 3;

/// Micro-batches that fill every pipeline: the stages forward are one for each IPU, one more where
/// the heads come back to the first, and those backward one less.
const DEPTH: usize = 2 * (IPUS_MAX + 1) - 1;

fn systems() -> impl Strategy<Value = (&'static str, u32)> {
    let small = prop::sample::select(vec!["mk2-pod16", "bow-pod16", "mk1-server16"]);
    prop_oneof![
        3 => (small, 1..=4_u32),
        1 => (Just("mk2-pod128"), prop::sample::select(vec![6, 16, 32])),
    ]
}

fn training() -> impl Strategy<Value = Training> {
    let optimizer = prop::sample::select(vec!["SGD", "SGD --momentum 0.9", "ADAM", "LAMB"]);
    let switches = any::<[bool; 4]>();
    (optimizer, switches).prop_map(|(optimizer, switches)| {
        let [accumulates, state_offchip, sharded, merged] = switches;
        Training {
            optimizer,
            accumulates,
            state_offchip,
            sharded,
            merged,
        }
    })
}

fn run() -> impl Strategy<Value = Run> {
    let flaws = vec![
        Flaw::Replicas,
        Flaw::Heads,
        Flaw::Shallow,
        Flaw::Accumulation,
    ];
    (
        systems(),
        prop::sample::select(vec!["PRETRAINING", "SQUAD"]),
        1..=2_u32,
        prop::option::weighted(0.8, training()),
        prop::collection::vec(1..=2_u32, 1..=IPUS_MAX),
        any::<[bool; 3]>(),
        prop::option::weighted(0.2, prop::sample::select(flaws)),
    )
        .prop_map(
            |((system, replicas), task, micro_batch, training, mut layers, switches, flaw)| {
                let [pipelined, recompute_every_layer, outlined] = switches;
                let pipelined = pipelined || flaw == Some(Flaw::Shallow);
                // One IPU is no pipeline.
                if pipelined && layers.len() == 1 {
                    layers.push(1);
                }
                Run {
                    system,
                    replicas,
                    task,
                    micro_batch,
                    training: training.filter(|_| flaw != Some(Flaw::Accumulation)),
                    layers,
                    pipelined,
                    recompute_every_layer,
                    outlined,
                    flaw,
                }
            },
        )
}

impl Run {
    fn words(&self) -> String {
        let layers = &self.layers;
        let each: Vec<String> = layers.iter().map(ToString::to_string).collect();
        let replicas = match self.flaw {
            Some(Flaw::Replicas) => 200,
            _ => self.replicas,
        };
        let heads = match self.flaw {
            Some(Flaw::Heads) => 3,
            _ => 2,
        };
        let depth = match (self.flaw, self.pipelined) {
            (Some(Flaw::Shallow), _) => 1,
            (_, true) => DEPTH,
            (_, false) => 3,
        };
        let accumulates = match &self.training {
            Some(training) => training.accumulates,
            None => self.flaw == Some(Flaw::Accumulation),
        };
        let (accumulation, batches_per_step) = match accumulates {
            true => (depth, 2),
            false => (1, depth),
        };
        let switch = |name: &str, on: bool| match on {
            true => format!("{name} true "),
            false => String::new(),
        };
        let mut words = format!(
            "--system {} --replication-factor {replicas} --generated-data true --task {} \
             --hidden-size 64 --attention-heads {heads} --sequence-length 16 --mask-tokens 4 \
             --vocab-length 256 --encoder-start-ipu 0 --micro-batch-size {} --num-layers {} \
             --layers-per-ipu {} --execution-mode {} --batches-per-step {batches_per_step} \
             --gradient-accumulation-factor {accumulation} ",
            self.system,
            self.task,
            self.micro_batch,
            layers.iter().sum::<u32>(),
            each.join(" "),
            if self.pipelined {
                "PIPELINE"
            } else {
                "DEFAULT"
            },
        );
        words += &switch(
            "--recompute-checkpoint-every-layer",
            self.recompute_every_layer,
        );
        words += &switch("--no-outlining", !self.outlined);
        match &self.training {
            Some(training) => {
                words += &format!("--epochs 1 --optimizer {} ", training.optimizer);
                words += &switch("--optimizer-state-offchip", training.state_offchip);
                words += &switch("--replicated-tensor-sharding", training.sharded);
                if training.merged {
                    words += "--merge-collectives ";
                }
            }
            None => words += "--inference ",
        }
        words
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_explanation_sums_exactly(run in run()) {
        let words = run.words();
        let case = match (Case::try_new(&words), run.flaw) {
            (Ok(case), None) => case,
            (Err(error), Some(flaw)) => {
                let said = format!("{error:#}");
                prop_assert!(said.contains(flaw.named()), "{flaw:?} of {words}: {said}");
                return Ok(());
            }
            (Ok(_), Some(flaw)) => panic!("{flaw:?} isn't refused: {words}"),
            (Err(error), None) => panic!("refused: {words}: {error:#}"),
        };
        let found = check_sums_of(&case, &words);
        let plans = PlanCache::new(case.machine.tile.clone());
        let metrics = evaluate(&case.config, &case.machine, &plans).unwrap();
        prop_assert_eq!(&metrics.time, &found);
    }
}
