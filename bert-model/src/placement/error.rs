//! What can be wrong with a placement?
//!
//! Every cause is a variant with its facts. Left out: what doesn't fit a machine, which a
//! compiled program shows.

use ipu_sim::ids::IpuId;
use popart_graph::ir::StageId;

use super::block::Block;

/// Why a model can't be placed so.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlacementError {
    /// A model without an encoder layer.
    #[error("`num_layers` must be at least 1")]
    NoLayers,
    /// IPUs of no layers each.
    #[error("`layers_per_ipu` must be at least 1")]
    NoneOnAnIpu,
    /// A replica of more IPUs than can be counted.
    #[error(
        "a replica must have less than 2^32 IPUs, got {encoder_ipus} with encoder layers from IPU {encoder_start_ipu} on"
    )]
    ReplicaTooLarge {
        /// First IPU with encoder layers.
        encoder_start_ipu: u32,
        /// IPUs with encoder layers.
        encoder_ipus: u32,
    },
    /// More IPUs in all than can be counted.
    #[error("{replicas} replicas of {replica_ipus} IPUs must have less than 2^32 IPUs in all")]
    TooManyReplicas {
        /// IPUs of one replica.
        replica_ipus: u32,
        /// Data-parallel copies.
        replicas: u32,
    },
    /// A share of memory that is none.
    #[error("`available_memory_proportion` must be above 0 and at most 1, got {value}")]
    MemoryProportion {
        /// The share.
        value: f64,
    },
    /// A list of layers per IPU that ends before the layers do.
    #[error("`layers_per_ipu` must cover {num_layers} layers, got {covered}")]
    LayersPerIpu {
        /// Encoder layers of the model.
        num_layers: u32,
        /// Sum of the list.
        covered: u64,
    },
    /// Groups of half layers that are too few or too many for the layers.
    #[error(
        "`att_ffn_placement` must have {num_layers} attention and {num_layers} feed-forward \
         blocks, got {attention} and {feed_forward}"
    )]
    HalvesCovered {
        /// Encoder layers of the model.
        num_layers: u32,
        /// Attention halves of all groups.
        attention: u64,
        /// Feed-forward halves of all groups.
        feed_forward: u64,
    },
    /// Groups of half layers in which a half would run before the one that it reads.
    #[error(
        "`att_ffn_placement` has {attention} attention and {feed_forward} feed-forward blocks up \
         to group {group}, expected as many of both or one attention block more"
    )]
    HalvesOrder {
        /// Number of the group, from 1.
        group: usize,
        /// Attention halves up to there.
        attention: u64,
        /// Feed-forward halves up to there.
        feed_forward: u64,
    },
    /// A group of half layers with none.
    #[error("group {group} of `att_ffn_placement` has no attention and no feed-forward block")]
    EmptyGroup {
        /// Number of the group, from 1.
        group: usize,
    },
    /// An IPU that can't be counted.
    #[error("group {group} of `att_ffn_placement` is on an IPU that is not below 2^32 - 1")]
    IpuRange {
        /// Number of the group, from 1.
        group: usize,
    },
    /// An encoder that starts in the embedding's stage on another IPU.
    #[error(
        "`encoder_start_pipeline_stage` 0 is the stage of the embedding on IPU 0, expected the \
         first group of `att_ffn_placement` there, got {ipu}"
    )]
    SharedStage {
        /// IPU of the first group.
        ipu: IpuId,
    },
    /// An encoder that leaves stages out.
    #[error(
        "`encoder_start_pipeline_stage` must be 1, or 0 for a first group on IPU 0, got {start}: \
         nothing would run in the stages before"
    )]
    EncoderStartStage {
        /// Stage of the first group.
        start: u32,
    },
    /// A list of memory proportions that is too short.
    #[error("`available_memory_proportion` must have 1 value or {expected}, got {got}")]
    MemoryProportions {
        /// IPUs with encoder layers.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// A part of the model without a stage.
    #[error("{block} has no stage")]
    NotPlaced {
        /// The part.
        block: Block,
    },
    /// A placed part that the model doesn't have.
    #[error("{block} is placed but is not part of the model")]
    NotInModel {
        /// The part.
        block: Block,
    },
    /// A stage that the placement doesn't describe.
    #[error("{block} is on {stage}, expected one of {n_stages} stages")]
    UnknownStage {
        /// The part.
        block: Block,
        /// Where it is placed.
        stage: StageId,
        /// How many stages there are.
        n_stages: usize,
    },
    /// A stage with nothing to do: values must move on one stage at a time.
    #[error("{stage} on {ipu} has nothing to do")]
    EmptyStage {
        /// The stage.
        stage: StageId,
        /// Its IPU.
        ipu: IpuId,
    },
    /// A part before one whose result it reads.
    #[error("{block} is on {stage}, expected {earliest} or later, where {producer} is")]
    StageOrder {
        /// The reader.
        block: Block,
        /// Its stage.
        stage: StageId,
        /// The part that it reads from.
        producer: Block,
        /// That part's stage.
        earliest: StageId,
    },
    /// The two uses of the tied word table on different IPUs.
    #[error(
        "{projection} uses the word table of {word}, expected {word_ipu}, got {projection_ipu}"
    )]
    TiedTable {
        /// The look-up.
        word: Block,
        /// Where it is.
        word_ipu: IpuId,
        /// The projection.
        projection: Block,
        /// Where it is.
        projection_ipu: IpuId,
    },
}
