//! What is measured, each with its one definition.

use ipu_sim::units::SimSeconds;
use serde::{Deserialize, Serialize};

use crate::config::options::Batching;

/// Throughput in sequences per simulated second.
///
/// Sequences of one step (micro batch x accumulation x replicas x batches per step; padding
/// sequences count, packed ones would count each) over the simulated time of that step, transfers
/// of its inputs included, compilation excluded. All simulated steps are alike, so that there is no
/// warm-up and the mean over any window is this value.
#[must_use]
pub fn sequences_per_second(batching: &Batching, step: SimSeconds) -> f64 {
    assert!(step.0 > 0.0, "a step takes time");
    batching.sequences_per_step() as f64 / step.0
}

/// Spread of the latency of micro batches, in simulated seconds.
///
/// From the host handing over the first input of a micro batch to the arrival of its last output;
/// not divided by the micro batch size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Mean.
    pub mean: SimSeconds,
    /// Shortest.
    pub min: SimSeconds,
    /// Longest.
    pub max: SimSeconds,
    /// 99th percentile.
    pub p99: SimSeconds,
    /// 99.9th percentile.
    pub p999: SimSeconds,
}

/// The spread of `samples`; none of none. Percentiles interpolate between neighbours, as
/// `numpy.percentile` does.
#[must_use]
pub fn latency(samples: &[SimSeconds]) -> Option<Latency> {
    let mut seconds: Vec<f64> = samples.iter().map(|sample| sample.0).collect();
    seconds.sort_by(f64::total_cmp);
    let percentile = |part: f64| {
        let place = part * (seconds.len() - 1) as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        SimSeconds(seconds[low] + (seconds[high] - seconds[low]) * place.fract())
    };
    Some(Latency {
        min: SimSeconds(*seconds.first()?),
        max: SimSeconds(*seconds.last()?),
        mean: SimSeconds(seconds.iter().sum::<f64>() / seconds.len() as f64),
        p99: percentile(0.99),
        p999: percentile(0.999),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_interpolates() {
        let samples: Vec<SimSeconds> = (0..=100).rev().map(|n| SimSeconds(f64::from(n))).collect();
        let spread = latency(&samples).unwrap();
        assert_eq!(
            (spread.min.0, spread.mean.0, spread.max.0),
            (0.0, 50.0, 100.0)
        );
        assert!((spread.p99.0 - 99.0).abs() < 1e-9 && (spread.p999.0 - 99.9).abs() < 1e-9);
        assert_eq!(latency(&[]), None);
    }

    #[test]
    fn throughput_counts_all_sequences_of_a_step() {
        let batching = Batching {
            micro_batch_size: 8,
            gradient_accumulation_factor: 2048,
            replication_factor: 4,
            batches_per_step: 1,
        };
        assert_eq!(sequences_per_second(&batching, SimSeconds(16.0)), 4096.0);
    }
}
