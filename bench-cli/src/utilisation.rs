//! How much of the machine's arithmetic a run uses: floating-point operations of its matrix
//! products over what the matrix units could do in the same time.
//!
//! Counted on the program as it runs, a multiply-add as two; padding and everything but matrix
//! products is left out, as in published FLOPs of models. *Model* operations leave out what is
//! computed a second time for the backward pass; *hardware* operations count it.

use ipu_sim::engine::Timeline;
use ipu_sim::program::Program;
use ipu_sim::spec::MachineSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::explain;

/// Use of the matrix units.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Utilisation {
    /// FP16.16 operations a second that one IPU could do.
    pub peak_flops_per_second: f64,
    /// All IPUs of the run, replicas included.
    pub all: Achieved,
    /// Every IPU of one replica.
    pub ipus: Vec<Achieved>,
}

/// What was achieved over a whole step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Achieved {
    /// Operations a second, those computed again left out.
    pub model_flops_per_second: f64,
    /// The same over the peak.
    pub model_share: f64,
    /// Operations a second, those computed again included.
    pub hardware_flops_per_second: f64,
    /// The same over the peak.
    pub hardware_share: f64,
}

impl Utilisation {
    /// The use of a run whose time is `timeline`.
    #[must_use]
    pub fn new(program: &Program, timeline: &Timeline, machine: &MachineSpec) -> Self {
        let tile = &machine.tile;
        let per_cycle = tile.peak_flops_per_cycle().0 as f64 * f64::from(tile.tiles_per_ipu);
        let peak = per_cycle * tile.clock.0;
        let seconds = tile.clock.seconds(timeline.total).0;
        let achieved = |model: u128, hardware: u128, n_ipus: f64| {
            let rate = |flops: u128| flops as f64 / seconds;
            let share = |flops: u128| match n_ipus * peak * seconds {
                0.0 => 0.0,
                possible => flops as f64 / possible,
            };
            Achieved {
                model_flops_per_second: rate(model),
                model_share: share(model),
                hardware_flops_per_second: rate(hardware),
                hardware_share: share(hardware),
            }
        };
        let again = explain::called_again(program, timeline);
        let counts: Vec<(u128, u128)> = timeline
            .ipus
            .values()
            .zip(again.values())
            .map(|(ipu, again)| {
                let hardware = ipu.tally.matmul_flops;
                (hardware - again.tally.matmul_flops, hardware)
            })
            .collect();
        let replicas = u128::from(program.n_replicas);
        let model: u128 = counts.iter().map(|&(model, _)| model * replicas).sum();
        let hardware: u128 = counts
            .iter()
            .map(|&(_, hardware)| hardware * replicas)
            .sum();
        let n_ipus = f64::from(program.n_ipus) * f64::from(program.n_replicas);
        Self {
            peak_flops_per_second: peak,
            all: achieved(model, hardware, n_ipus),
            ipus: counts
                .into_iter()
                .map(|(model, hardware)| achieved(model, hardware, 1.0))
                .collect(),
        }
    }
}
