//! What is measured, each with its one definition.

use ipu_sim::units::SimSeconds;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::RunConfig;

/// Throughput in sequences per simulated second.
///
/// Samples of one step (micro-batch x accumulation x replicas x batches per step; padding
/// samples count), each with its sequences (1, of packs [`RunConfig::sequences_per_sample`]), over
/// the simulated time of that step, transfers of its inputs included, compilation excluded. All
/// simulated steps are alike, so that there is no warm-up and the mean over any window is this value.
#[must_use]
pub fn sequences_per_second(config: &RunConfig, step: SimSeconds) -> f64 {
    config.sequences_per_sample() * samples_per_second(config, step)
}

/// Throughput in packs per simulated second, by the same definition but for what a pack holds; none
/// where samples aren't packs.
#[must_use]
pub fn packs_per_second(config: &RunConfig, step: SimSeconds) -> Option<f64> {
    config.is_packed().then(|| samples_per_second(config, step))
}

fn samples_per_second(config: &RunConfig, step: SimSeconds) -> f64 {
    assert!(step.0 > 0.0, "a step takes time");
    config.samples_per_step() as f64 / step.0
}

/// Spread of the latency of micro-batches, in simulated seconds.
///
/// From the host handing over the first input of a micro-batch to the arrival of its last output;
/// not divided by the micro-batch size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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

/// Samples that are alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Samples {
    /// Simulated seconds of each sample.
    pub value: SimSeconds,
    /// How many they are.
    pub count: u64,
}

/// The spread of all `samples`; none of none. Percentiles interpolate between neighbours, as
/// `numpy.percentile` does.
#[must_use]
pub fn latency(samples: &[Samples]) -> Option<Latency> {
    let mut sorted: Vec<Samples> = samples.iter().copied().filter(|of| of.count > 0).collect();
    sorted.sort_by(|a, b| a.value.0.total_cmp(&b.value.0));
    let (first, last) = (sorted.first()?, sorted.last()?);
    let count: u64 = sorted.iter().map(|of| of.count).sum();
    let total: f64 = sorted.iter().map(|of| of.value.0 * of.count as f64).sum();
    let at = |place: u64| {
        let mut before = 0;
        let found = sorted.iter().find(|of| {
            before += of.count;
            place < before
        });
        found.unwrap_or(last).value.0
    };
    let percentile = |part: f64| {
        let place = part * (count - 1) as f64;
        let low = place.floor() as u64;
        SimSeconds(at(low) + (at(low + 1) - at(low)) * place.fract())
    };
    Some(Latency {
        min: first.value,
        max: last.value,
        mean: SimSeconds(total / count as f64),
        p99: percentile(0.99),
        p999: percentile(0.999),
    })
}

#[cfg(test)]
mod tests {
    use bert_model::config::SequenceFormat;

    use super::*;
    use crate::config::Batching;

    #[test]
    fn latency_interpolates() {
        let one = |n| Samples {
            value: SimSeconds(f64::from(n)),
            count: 1,
        };
        let samples: Vec<Samples> = (0..=100).rev().map(one).collect();
        let spread = latency(&samples).unwrap();
        assert_eq!(
            (spread.min.0, spread.mean.0, spread.max.0),
            (0.0, 50.0, 100.0)
        );
        assert!((spread.p99.0 - 99.0).abs() < 1e-9 && (spread.p999.0 - 99.9).abs() < 1e-9);
        assert_eq!(latency(&[]), None);
    }

    #[test]
    fn samples_that_are_alike_count_as_often_as_they_are() {
        let of = |value, count| Samples {
            value: SimSeconds(value),
            count,
        };
        let spread = latency(&[of(3.0, 1), of(1.0, 199), of(2.0, 0)]).unwrap();
        assert_eq!(
            (spread.min.0, spread.max.0, spread.mean.0, spread.p99.0),
            (1.0, 3.0, 1.01, 1.0)
        );
        // Place 198.801 of 199 lies between the last 1 and the 3.
        assert!((spread.p999.0 - (1.0 + 2.0 * 0.801)).abs() < 1e-9);
    }

    #[test]
    fn throughput_counts_all_sequences_of_a_step() {
        let mut config = RunConfig::default();
        config.model.micro_batch = 8;
        config.batching = Batching {
            accumulation: 2048,
            replicas: 4,
            batches_per_step: 1,
        };
        assert_eq!(sequences_per_second(&config, SimSeconds(16.0)), 4096.0);
        assert_eq!(packs_per_second(&config, SimSeconds(16.0)), None);
    }

    #[test]
    fn packs_count_as_their_sequences() {
        let packed = |sequences| SequenceFormat::Packed { sequences };
        let mut config = RunConfig::default();
        config.model.micro_batch = 10;
        let step = SimSeconds(2.0);
        for (sequences, said, expected) in [
            // As the application reads generated packs.
            (3, None, 10.0),
            // It draws nothing else than 0 for packs of one: no throughput.
            (1, None, 5.0),
            (3, Some(1.5), 7.5),
        ] {
            config.model.sequence_format = packed(sequences);
            config.sequences_per_pack = said;
            assert_eq!(sequences_per_second(&config, step), expected);
            assert_eq!(packs_per_second(&config, step), Some(5.0));
        }
    }
}
