//! What the throughput of a run depends on: constants of the machine that aren't known exactly.
//!
//! The time of the IPU that waits least is taken as a sum of prices ([`ConstantUsage`]), so that another
//! value of a constant changes a step by what is paid at its price ([`Expense`]):
//!
//! | constant | what is paid for |
//! |---|---|
//! | `compute.dispatch` | every compute set |
//! | `compute.trust_ratio` | every weight that LAMB moves by the ratio of two norms |
//! | `exchange.sync_max`, `exchange.phase_extra` | every exchange phase |
//! | `chip.assemble_64_bytes` | cycles of bringing in order what arrived, in proportion |
//! | `streaming_memory.latency` | every load and store |
//! | `streaming_memory.bandwidth` | cycles of their bytes, in inverse proportion |
//! | `links.usable` | cycles of bytes between IPUs, in inverse proportion |
//! | `links.latency` | cycles of the way over one link, in proportion |
//! | `links.hop` | the same of further links |
//! | `gateway.latency` | every way to another rack, syncs of collectives included |
//! | `host.run` | the start of the run |
//! | `host.latency` | every transfer of the host, twice if it isn't made ready ahead |
//!
//! No step is costed or planned again. Left out: other constants with a range, none of which
//! changes a step of the published benchmark by 1 % within it, and what another IPU then bounds.

use std::collections::BTreeMap;

use ipu_sim::engine::{Activity, ConstantUsage, IpuTime, Timeline};
use ipu_sim::spec::MachineSpec;
use ipu_sim::spec::constant::{Constant, ConstantId, Expense, Kind};
use ipu_sim::spec::quantity::Quantity;
use serde::{Deserialize, Serialize};

/// A constant that isn't known exactly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UncertainConstant {
    /// Value of the constant, as the description has it.
    pub value: String,
    /// The values that sources leave possible.
    pub range: [String; 2],
    /// Whether it was fitted to runs.
    pub fitted: bool,
}

/// Effect of a constant on the natural logarithm of a run's throughput.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Effect {
    /// Change with the logarithm of the constant.
    pub slope: f64,
    /// Changes if it is at the ends of its range.
    pub ends: [f64; 2],
}

/// The constants that a run depends on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects(pub BTreeMap<ConstantId, (UncertainConstant, Effect)>);

/// How time depends on a constant.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Price {
    /// So many cycles for each unit of it.
    Each(f64),
    /// These cycles, in proportion.
    Proportional(f64),
    /// These cycles, in inverse proportion.
    Inverse(f64),
}

impl Price {
    /// What was paid for this on a machine with this tile clock; none if it isn't looked at.
    fn of(expense: Expense, paid: &ConstantUsage, clock: f64) -> Option<Self> {
        let seconds = |times: u64| Self::Each(times as f64 * clock);
        Some(match expense {
            Expense::ComputeSets => Self::Each(paid.dispatches as f64),
            Expense::TrustRatios => Self::Each(paid.trust_ratios as f64),
            Expense::ExchangePhases => Self::Each(paid.launches as f64),
            Expense::Assembly => Self::Proportional(paid.assembly.0 as f64),
            Expense::StreamingAccesses => seconds(paid.accesses),
            Expense::StreamingBytes => Self::Inverse(paid.streaming.0 as f64),
            Expense::LinkBytes => Self::Inverse(paid.links.0 as f64),
            Expense::FurtherLinks => Self::Proportional(paid.latency_hops.0 as f64),
            Expense::GatewayCrossings => seconds(paid.gateways),
            Expense::FirstLinks => Self::Proportional(paid.latency.0 as f64),
            Expense::HostRuns => seconds(paid.runs),
            Expense::HostTransfers => seconds(paid.answers),
            // Within their ranges, none of these changes a step by 1 %, or they have none.
            Expense::Cycles
            | Expense::Plans
            | Expense::Vertices
            | Expense::Exchanges
            | Expense::Syncs
            | Expense::Routes
            | Expense::GatewayBytes
            | Expense::HostBytes
            // Nor these, which cost no time.
            | Expense::Memory
            | Expense::Nothing => return None,
        })
    }

    /// Cycles more if the constant isn't `from` but `to`.
    fn change(self, from: f64, to: f64) -> f64 {
        match self {
            Self::Each(cycles) => cycles * (to - from),
            Self::Proportional(cycles) => cycles * (to / from - 1.0),
            Self::Inverse(cycles) => cycles * (from / to - 1.0),
        }
    }

    /// Change of cycles with the logarithm of the constant.
    fn slope(self, value: f64) -> f64 {
        match self {
            Self::Each(cycles) => cycles * value,
            Self::Proportional(cycles) => cycles,
            Self::Inverse(cycles) => -cycles,
        }
    }

    fn cycles(self) -> f64 {
        match self {
            Self::Each(cycles) | Self::Proportional(cycles) | Self::Inverse(cycles) => cycles,
        }
    }
}

impl Effects {
    /// Effects of uncertain constants on a run on a machine.
    #[must_use]
    pub fn of(timeline: &Timeline, machine: &MachineSpec) -> Self {
        let idle = |ipu: &&IpuTime| ipu.tally.spent.on(Activity::Idle);
        let Some(busiest) = timeline.ipus.values().min_by_key(idle) else {
            return Self::default();
        };
        let step = timeline.total.0 as f64;
        let effect = |constant: Constant<'_>| {
            let range = constant.range?;
            let value = constant.value.magnitude()?;
            let price = Price::of(constant.id.expense(), &busiest.usage, machine.tile.clock.0)?;
            let end = |end: Quantity| {
                let longer = price.change(value, end.magnitude);
                -libm::log1p(longer / step)
            };
            let effect = match price.cycles() {
                // Also where a ratio is no number.
                0.0 => Effect::default(),
                _ => Effect {
                    slope: -price.slope(value) / step,
                    ends: range.map(end),
                },
            };
            let uncertain = UncertainConstant {
                value: constant.value.to_string(),
                range: range.map(|end| end.to_string()),
                fitted: constant.kind == Kind::Fitted,
            };
            Some((constant.id, (uncertain, effect)))
        };
        Self(machine.constants().filter_map(effect).collect())
    }
}
