//! How much of the machine's arithmetic a run uses: floating-point operations of its matrix
//! products over what the matrix units could do in the same time.
//!
//! Counted on the program as it runs, a multiply-add as two; padding and everything but matrix
//! products is left out, as in published FLOPs of models. *Model* operations leave out what is
//! computed a second time for the backward pass; *hardware* operations count it.

use ipu_sim::cost::amp::AmpTypes;
use ipu_sim::engine::{ProductFlops, Timeline};
use ipu_sim::program::Program;
use ipu_sim::spec::MachineSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::explain;

/// Use of the matrix units.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Utilisation {
    /// Operations a second that one IPU could do with the types that the products have; the mean,
    /// weighed by time, if they have several. FP16.16 without any product.
    pub peak_flops_per_second: f64,
    /// All IPUs of the run, replicas included.
    pub all: AchievedRate,
    /// Every IPU of one replica.
    pub ipus: Vec<AchievedRate>,
}

/// Operations a second over a whole step, and their shares of the peak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AchievedRate {
    /// Operations a second, those computed again left out.
    pub model_flops_per_second: f64,
    /// Operations a second, those computed again left out, over the peak.
    pub model_share: f64,
    /// Operations a second, those computed again included.
    pub hardware_flops_per_second: f64,
    /// Operations a second, those computed again included, over the peak.
    pub hardware_share: f64,
}

impl Utilisation {
    /// The use of a run whose time is `timeline`.
    #[must_use]
    pub fn new(program: &Program, timeline: &Timeline, machine: &MachineSpec) -> Self {
        let tile = &machine.tile;
        let peak = |types: AmpTypes| {
            types.peak_flops_per_cycle(tile) * f64::from(tile.tiles_per_ipu) * tile.clock.0
        };
        let seconds = tile.clock.seconds(timeline.total).0;
        // Seconds that one IPU would take at its peak.
        let at_peak = |products: &ProductFlops| -> f64 {
            let parts = products.iter();
            parts.map(|(types, flops)| flops as f64 / peak(types)).sum()
        };
        let achieved = |model: &ProductFlops, hardware: &ProductFlops, n_ipus: f64| {
            let rate = |products: &ProductFlops| products.total() as f64 / seconds;
            let share = |products: &ProductFlops| match n_ipus * seconds {
                0.0 => 0.0,
                possible => at_peak(products) / possible,
            };
            AchievedRate {
                model_flops_per_second: rate(model),
                model_share: share(model),
                hardware_flops_per_second: rate(hardware),
                hardware_share: share(hardware),
            }
        };
        let again = explain::called_again(program, timeline);
        let counts: Vec<[ProductFlops; 2]> = timeline
            .ipus
            .values()
            .zip(again.values())
            .map(|(ipu, again)| {
                let hardware = ipu.tally.products;
                [hardware.since(&again.tally.products), hardware]
            })
            .collect();
        let mut all = [ProductFlops::default(); 2];
        for of_ipu in &counts {
            for (sum, products) in all.iter_mut().zip(of_ipu) {
                sum.add(products, program.n_replicas.into());
            }
        }
        let n_ipus = f64::from(program.n_ipus) * f64::from(program.n_replicas);
        Self {
            peak_flops_per_second: match at_peak(&all[1]) {
                0.0 => peak(AmpTypes::F16F16),
                seconds => all[1].total() as f64 / seconds,
            },
            all: achieved(&all[0], &all[1], n_ipus),
            ipus: counts
                .iter()
                .map(|[model, hardware]| achieved(model, hardware, 1.0))
                .collect(),
        }
    }
}
