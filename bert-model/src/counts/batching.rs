//! Samples of a weight update, and the pipeline cycles that they take.

/// A global batch that micro-batches don't fill evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a global batch of {global_batch} is not a multiple of micro-batch {micro_batch} times {replicas} replicas"
)]
pub struct UnevenBatch {
    /// Samples of a weight update.
    pub global_batch: u64,
    /// Samples of a micro-batch.
    pub micro_batch: u32,
    /// Data-parallel copies.
    pub replicas: u32,
}

/// How the samples of a weight update are split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Samples in one run of the graph on one replica.
    pub micro_batch: u32,
    /// Data-parallel copies.
    pub replicas: u32,
    /// Micro-batches that a replica adds up before an update.
    pub accumulation: u64,
}

impl Batching {
    /// The split of a global batch over replicas.
    ///
    /// # Errors
    /// It isn't a multiple of what the replicas take at once.
    pub fn of_global_batch(
        global_batch: u64,
        micro_batch: u32,
        replicas: u32,
    ) -> Result<Self, UnevenBatch> {
        let at_once = u64::from(micro_batch) * u64::from(replicas);
        match global_batch.checked_rem(at_once) {
            Some(0) if global_batch > 0 => Ok(Self {
                micro_batch,
                replicas,
                accumulation: global_batch / at_once,
            }),
            _ => Err(UnevenBatch {
                global_batch,
                micro_batch,
                replicas,
            }),
        }
    }

    /// Samples of one weight update.
    #[must_use]
    pub fn global_batch(self) -> u64 {
        u64::from(self.micro_batch) * u64::from(self.replicas) * self.accumulation
    }
}

/// The cycles of a pipeline in which every stage runs once for each micro-batch
/// (PopART, `willow/src/transforms/pipeline.cpp`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipelineCycles {
    /// Stages, backward ones included; at least 1.
    pub stages: u64,
    /// Micro-batches that go through, at least as many as stages.
    pub micro_batches: u64,
}

impl PipelineCycles {
    /// Cycles before all stages are at work, and as many after.
    #[must_use]
    pub fn fill(self) -> u64 {
        self.stages - 1
    }

    /// Cycles in which all stages are at work.
    #[must_use]
    pub fn main(self) -> u64 {
        self.micro_batches - self.fill()
    }

    /// All cycles.
    #[must_use]
    pub fn total(self) -> u64 {
        self.micro_batches + self.fill()
    }

    /// The share of cycles in which a stage is at work.
    #[must_use]
    pub fn utilisation(self) -> f64 {
        self.micro_batches as f64 / self.total() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_batches_and_cycles() {
        #[track_caller]
        fn check(
            (micro_batch, replicas, global_batch, stages): (u32, u32, u64, u64),
            (accumulation, total, percent): (u64, u64, f64),
        ) {
            let batching = Batching::of_global_batch(global_batch, micro_batch, replicas).unwrap();
            assert_eq!(batching.accumulation, accumulation);
            assert_eq!(batching.global_batch(), global_batch);
            let cycles = PipelineCycles {
                stages,
                micro_batches: accumulation,
            };
            assert_eq!(cycles.total(), total);
            assert_eq!(cycles.total(), 2 * cycles.fill() + cycles.main());
            assert!((100.0 * cycles.utilisation() - percent).abs() <= 0.005);
        }
        check((8, 4, 65_536, 9), (2048, 2056, 99.61));
        check((8, 16, 65_536, 9), (512, 520, 98.46));
        check((2, 4, 16_384, 9), (2048, 2056, 99.61));
        check((32, 4, 65_536, 9), (512, 520, 98.46));
        check((8, 4, 16_384, 9), (512, 520, 98.46));
        check((2, 4, 128, 3), (16, 18, 88.89));
        check((4, 2, 256, 15), (32, 46, 69.57));
        // One stage is no pipeline; three stages and their mirrors.
        check((1, 1, 5, 1), (5, 5, 100.0));
        check((1, 1, 5, 3), (5, 7, 71.43));
        check((1, 1, 5, 5), (5, 9, 55.56));
    }

    #[test]
    fn uneven_batches_are_errors() {
        for (global_batch, micro_batch, replicas) in [(65, 8, 4), (0, 1, 1), (8, 0, 1)] {
            assert_eq!(
                Batching::of_global_batch(global_batch, micro_batch, replicas),
                Err(UnevenBatch {
                    global_batch,
                    micro_batch,
                    replicas,
                })
            );
        }
    }
}
