//! The table: every constant of a machine, what changing it must do, and where that shows.

use std::fmt;

use ipu_sim::spec::MachineSpec;
use ipu_sim::spec::constant::ConstantId as Id;
use ipu_sim::spec::quantity::Value as Constant;
use serde_json::{Map, Value, json};

use crate::config::RunConfig;

/// A new value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// So many times the old one, in its unit.
    Times(f64),
    /// This one.
    To(&'static str),
}

impl Change {
    /// The new value in the place of `old`, as text; no value for a multiple of a word.
    pub(super) fn of(self, old: Constant) -> String {
        match (self, old) {
            (Self::To(value), _) => value.into(),
            (Self::Times(factor), Constant::Quantity(old)) => {
                old.with_number(old.number() * factor).to_string()
            }
            (Self::Times(_), Constant::Word(word)) => format!("{word} {self}"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Times(factor) => write!(f, "x {factor}"),
            Self::To(value) => f.write_str(value),
        }
    }
}

/// Effect that a change must have by physics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedEffect {
    /// A step takes less time.
    Faster,
    /// A step takes more time.
    Slower,
    /// The fullest tile is fuller.
    MoreMemory,
    /// The machine no longer runs it.
    Refused,
    /// Nothing, for this reason.
    Nothing(&'static str),
}

impl ExpectedEffect {
    /// Word for the effect in tables.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::MoreMemory => "more memory",
            Self::Refused => "refused",
            Self::Nothing(_) => "nothing",
        }
    }
}

/// Program that runs on the changed machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramChoice {
    /// The one that was compiled for the unchanged machine.
    Fixed,
    /// One compiled for it.
    Again,
}

/// A small run that shows something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Pre-training in a pipeline, eight replicas of two IPUs, state sharded and off the chip.
    Training,
    /// The same on 64 replicas over two racks.
    Racks,
    /// Pre-training in a pipeline over four IPUs, in four replicas.
    FourIpus,
    /// SQuAD inference on one IPU, inputs not fetched ahead.
    Inference,
    /// A layer of BERT-Base with f16 partial sums.
    Base,
    /// A layer with f32 partial sums.
    Partials,
    /// A layer in f32.
    Float,
}

impl Run {
    /// Every run.
    pub const ALL: [Self; 7] = [
        Self::Training,
        Self::Racks,
        Self::FourIpus,
        Self::Inference,
        Self::Base,
        Self::Partials,
        Self::Float,
    ];

    /// Name of the run in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Racks => "two racks",
            Self::FourIpus => "four IPUs",
            Self::Inference => "inference",
            Self::Base => "base",
            Self::Partials => "f32 partials",
            Self::Float => "f32",
        }
    }

    /// The run and its machine.
    #[must_use]
    pub fn configured(self) -> (RunConfig, MachineSpec) {
        let small = json!({
            "hidden_size": 64, "attention_heads": 1, "sequence_length": 32, "vocab_length": 512,
        });
        let training = json!({
            "encoder_start_ipu": 0, "mask_tokens": 4, "optimizer": "LAMB", "num_layers": 2,
            "layers_per_ipu": [1, 1], "execution_mode": "PIPELINE",
            "gradient_accumulation_factor": 8, "replicated_tensor_sharding": true,
            "optimizer_state_offchip": true,
        });
        let layer = json!({
            "task": "SQUAD", "inference": true, "encoder_start_ipu": 0, "num_layers": 1,
            "layers_per_ipu": [1], "batches_per_step": 8, "minimum_latency_inference": true,
        });
        let narrow = json!({
            "hidden_size": 256, "attention_heads": 4, "sequence_length": 64, "vocab_length": 512,
            "micro_batch_size": 2,
        });
        let base = json!({
            "hidden_size": 768, "attention_heads": 12, "vocab_length": 1024,
            "micro_batch_size": 8, "enable_half_partials": true,
        });
        let deep = json!({
            "num_layers": 4, "layers_per_ipu": [1, 1, 1, 1], "gradient_accumulation_factor": 16,
            "replication_factor": 4,
        });
        let replicas = |count: u32| json!({ "replication_factor": count });
        let float = json!({ "popart_dtype": "FLOAT" });
        let (system, keys) = match self {
            Self::Training => ("mk2-pod16", vec![small, training, replicas(8)]),
            Self::Racks => ("mk2-pod128", vec![small, training, replicas(64)]),
            Self::FourIpus => ("mk2-pod16", vec![small, training, deep]),
            Self::Inference => ("mk2-m2000", vec![layer, small]),
            Self::Base => ("mk2-m2000", vec![layer, base]),
            Self::Partials => ("mk2-m2000", vec![layer, narrow]),
            Self::Float => ("mk2-m2000", vec![layer, narrow, float]),
        };
        let keys: Map<String, Value> = keys
            .into_iter()
            .filter_map(|keys| match keys {
                Value::Object(keys) => Some(keys),
                _ => None,
            })
            .flatten()
            .collect();
        let config = RunConfig::from_keys(&keys).expect("the keys make a run");
        (
            config,
            MachineSpec::shipped(system).expect("the machine ships"),
        )
    }
}

/// One constant, changed.
#[derive(Clone, Copy, Debug)]
pub struct Knob {
    /// The constant, then others that must follow for the machine to make sense.
    pub changes: &'static [(Id, Change)],
    /// Effect that the change must have.
    pub effect: ExpectedEffect,
    /// Run that shows the effect.
    pub run: Run,
    /// Program that runs on the changed machine.
    pub plan: ProgramChoice,
}

impl Knob {
    const fn new(changes: &'static [(Id, Change)], effect: ExpectedEffect, run: Run) -> Self {
        Self {
            changes,
            effect,
            run,
            plan: ProgramChoice::Fixed,
        }
    }

    /// The same, compiled for the changed machine.
    const fn planned_again(mut self) -> Self {
        self.plan = ProgramChoice::Again;
        self
    }
}

const CHECKED: &str = "only checked: the other numbers of a description must agree with it";
const NARROW_LOADS: &str =
    "PopLibs loads coefficients 64 bits at a time, from anywhere, unless it is told otherwise";

use Change::{Times, To};
use ExpectedEffect::{Faster, MoreMemory, Nothing, Refused, Slower};

/// Every constant, in the order of a description.
pub const KNOBS: &[Knob] = &[
    Knob::new(&[(Id::SystemIpus, To("8"))], Refused, Run::Training),
    Knob::new(
        &[(Id::SystemIpusPerMachine, To("2"))],
        Faster,
        Run::Training,
    ),
    // One torus of twice the length: rings and syncs that had a shorter one in each rack go
    // farther than the gateways between two racks made them.
    Knob::new(&[(Id::SystemIpusPerRack, To("128"))], Slower, Run::Racks),
    Knob::new(&[(Id::SystemWiring, To("ladder"))], Slower, Run::Racks),
    Knob::new(&[(Id::ChipClock, Times(2.0))], Faster, Run::Training),
    Knob::new(&[(Id::ChipTiles, To("736"))], Slower, Run::Base).planned_again(),
    Knob::new(
        &[
            (Id::ChipMemory, To("256 KiB")),
            (Id::MemoryInterleaved, To("48 KiB")),
        ],
        Slower,
        Run::Base,
    )
    .planned_again(),
    // What a sum receives lies in one region only while its whole elements are less than a
    // sixteenth of the memory; otherwise its vertex takes longer.
    Knob::new(&[(Id::ChipMemoryElement, To("208 KiB"))], Slower, Run::Base).planned_again(),
    Knob::new(&[(Id::ChipWorkers, Times(2.0))], MoreMemory, Run::Inference),
    Knob::new(&[(Id::ChipDataPath, Times(2.0))], Faster, Run::Base),
    Knob::new(&[(Id::ChipAmpUnitsF16F16, To("8"))], Slower, Run::Base).planned_again(),
    Knob::new(&[(Id::ChipAmpUnitsF16F32, To("4"))], Slower, Run::Partials).planned_again(),
    Knob::new(&[(Id::ChipAmpUnitsF32F32, To("8"))], Slower, Run::Float).planned_again(),
    Knob::new(&[(Id::ChipAmpChainDepth, To("2"))], Slower, Run::Base).planned_again(),
    Knob::new(
        &[(Id::ChipAmpCoefficientRate, Times(2.0))],
        Faster,
        Run::Base,
    ),
    Knob::new(
        &[(Id::ChipAmpCoefficientRateInterleaved, Times(2.0))],
        Nothing(NARROW_LOADS),
        Run::Base,
    ),
    Knob::new(&[(Id::ChipExchangeRate, Times(2.0))], Faster, Run::Base),
    Knob::new(&[(Id::ChipTilesPerExchangeBus, To("1"))], Slower, Run::Base),
    Knob::new(&[(Id::ChipAssemble64Bytes, Times(2.0))], Slower, Run::Base),
    Knob::new(&[(Id::ComputeDispatch, Times(2.0))], Slower, Run::Training),
    Knob::new(
        &[(Id::ComputeTrustRatio, Times(2.0))],
        Slower,
        Run::Training,
    ),
    Knob::new(&[(Id::ExchangeColumns, Times(2.0))], Slower, Run::Training),
    Knob::new(&[(Id::ExchangeRows, Times(2.0))], Slower, Run::Training),
    Knob::new(
        &[(Id::ExchangeTilesPerBlock, Times(2.0))],
        Faster,
        Run::Training,
    ),
    Knob::new(&[(Id::ExchangeSyncMax, Times(2.0))], Slower, Run::Training),
    Knob::new(
        &[(Id::ExchangePhaseExtra, To("100 cycles"))],
        Slower,
        Run::Training,
    ),
    Knob::new(
        &[(Id::ExchangeRouteBase, Times(2.0))],
        Slower,
        Run::Training,
    ),
    Knob::new(
        &[(Id::ExchangeRoutePerRow, Times(2.0))],
        Slower,
        Run::Training,
    ),
    Knob::new(
        &[(Id::ExchangeRoutePerColumn, Times(2.0))],
        Slower,
        Run::Training,
    ),
    Knob::new(
        &[(Id::ExchangeControlWordsPerFragment, Times(2.0))],
        Slower,
        Run::Training,
    ),
    Knob::new(
        &[(Id::ExchangeWordsPerTransferMax, To("64"))],
        MoreMemory,
        Run::Base,
    ),
    Knob::new(&[(Id::SyncGlobal, Times(2.0))], Slower, Run::Training),
    Knob::new(&[(Id::SyncHop, Times(10.0))], Slower, Run::Training),
    Knob::new(
        &[(Id::LinksLinksPerIpu, To("12"))],
        Nothing(CHECKED),
        Run::Training,
    ),
    Knob::new(
        &[(Id::LinksLanesPerLink, Times(2.0))],
        Nothing("the rate of a link is given, not made of its lanes"),
        Run::Training,
    ),
    Knob::new(&[(Id::LinksLinksPerRung, To("2"))], Slower, Run::FourIpus),
    Knob::new(&[(Id::LinksLinksPerRail, To("1"))], Slower, Run::Training),
    Knob::new(&[(Id::LinksLinksPerFlow, To("1"))], Slower, Run::Training),
    Knob::new(
        &[(Id::LinksRaw, Times(2.0))],
        Nothing(CHECKED),
        Run::Training,
    ),
    Knob::new(&[(Id::LinksUsable, Times(0.5))], Slower, Run::Training),
    Knob::new(&[(Id::LinksLatency, Times(10.0))], Slower, Run::Training),
    Knob::new(&[(Id::LinksHop, Times(10.0))], Slower, Run::Training),
    Knob::new(&[(Id::GatewayPortsPerMachine, To("1"))], Slower, Run::Racks),
    Knob::new(&[(Id::GatewayPort, Times(0.1))], Slower, Run::Racks),
    Knob::new(&[(Id::GatewayLatency, Times(10.0))], Slower, Run::Racks),
    Knob::new(&[(Id::HostHosts, Times(2.0))], Faster, Run::Racks),
    Knob::new(&[(Id::HostIpuBandwidth, Times(0.01))], Slower, Run::Racks),
    Knob::new(
        &[(Id::HostMachineBandwidth, Times(0.5))],
        Slower,
        Run::Training,
    ),
    Knob::new(
        &[(Id::HostServerBandwidth, Times(0.01))],
        Slower,
        Run::Training,
    ),
    Knob::new(&[(Id::HostLatency, Times(2.0))], Slower, Run::Inference),
    Knob::new(&[(Id::HostRun, Times(2.0))], Slower, Run::Training),
    Knob::new(
        &[(Id::StreamingMemoryCapacity, To("1 kB"))],
        Refused,
        Run::Training,
    )
    .planned_again(),
    Knob::new(
        &[(Id::StreamingMemoryBandwidth, Times(0.5))],
        Slower,
        Run::Training,
    ),
    Knob::new(
        &[(Id::StreamingMemoryLatency, Times(2.0))],
        Slower,
        Run::Training,
    ),
    Knob::new(
        &[
            (Id::MemoryExecutable, To("16 KiB")),
            (Id::MemoryInterleaved, To("608 KiB")),
        ],
        Refused,
        Run::Training,
    ),
    Knob::new(
        &[
            (Id::MemoryInterleaved, To("208 KiB")),
            (Id::MemoryExecutable, To("416 KiB")),
        ],
        Nothing(NARROW_LOADS),
        Run::Training,
    ),
    Knob::new(&[(Id::MemoryLoader, Times(2.0))], MoreMemory, Run::Training),
    Knob::new(
        &[(Id::MemoryStackWorker, Times(2.0))],
        MoreMemory,
        Run::Training,
    ),
    Knob::new(
        &[(Id::MemoryStackSupervisor, Times(2.0))],
        MoreMemory,
        Run::Training,
    ),
    Knob::new(
        &[(Id::MemoryVertexStateBase, Times(2.0))],
        MoreMemory,
        Run::Training,
    ),
    Knob::new(
        &[(Id::MemoryVertexStatePerEdge, Times(2.0))],
        MoreMemory,
        Run::Training,
    ),
    Knob::new(
        &[(Id::MemoryVertexCodePerType, Times(2.0))],
        MoreMemory,
        Run::Training,
    ),
    Knob::new(
        &[(Id::MemoryExchangeCodePerPhase, Times(2.0))],
        MoreMemory,
        Run::Training,
    ),
    Knob::new(
        &[(Id::MemoryExchangeCodePerFragment, Times(2.0))],
        MoreMemory,
        Run::Training,
    ),
    Knob::new(
        &[(Id::MemoryControlCodePerStep, Times(2.0))],
        MoreMemory,
        Run::Training,
    ),
];
