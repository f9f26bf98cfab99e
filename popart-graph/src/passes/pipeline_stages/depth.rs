//! How many micro-batches go through a pipeline?

/// Micro-batches that go through a pipeline between filling and flushing it, by what says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipelineDepth {
    /// Those whose gradients are accumulated for one weight update.
    Accumulation(u32),
    /// Weight updates of a run that doesn't accumulate, each for one micro-batch.
    Updates(u32),
    /// Those of a run of inference.
    MicroBatches(u32),
}

impl PipelineDepth {
    /// Micro-batches between filling and flushing the pipeline.
    #[must_use]
    pub fn micro_batches(self) -> u32 {
        match self {
            PipelineDepth::Accumulation(count)
            | PipelineDepth::Updates(count)
            | PipelineDepth::MicroBatches(count) => count,
        }
    }
}
