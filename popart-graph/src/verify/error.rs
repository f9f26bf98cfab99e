//! Every way a graph can be malformed.

use ipu_sim::ids::IpuId;

use crate::infer::InferError;
use crate::ir::{Cycle, OpId, PartId, Phase, StageId, TensorId, TensorType};

/// Why a graph is not well-formed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum VerifyError {
    /// It breaks a rule.
    #[error("malformed graph: {0}")]
    Malformed(#[from] Violation),
    /// Operations wait for each other.
    #[error(transparent)]
    Cycle(#[from] Cycle),
    /// The operands or the attributes of an operation.
    #[error(transparent)]
    Infer(#[from] InferError),
}

/// A broken invariant of [`crate::verify`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Violation {
    /// An id that is not in the arena.
    #[error("{tensor} doesn't exist")]
    UnknownTensor {
        /// The id.
        tensor: TensorId,
    },
    /// A part that the graph doesn't have.
    #[error("{part} doesn't exist")]
    UnknownPart {
        /// The id.
        part: PartId,
    },
    /// An activation that nothing produces.
    #[error("{tensor} `{name}` has no producer")]
    NoProducer {
        /// The tensor.
        tensor: TensorId,
        /// Its name.
        name: String,
    },
    /// A tensor produced twice, or produced though it is an input of the graph.
    #[error("{tensor} `{name}` is produced by {op} and has another source")]
    TwoSources {
        /// The tensor.
        tensor: TensorId,
        /// Its name.
        name: String,
        /// One producer.
        op: OpId,
    },
    /// Inputs are not exactly the streams.
    #[error("{tensor} `{name}` is {times} times among the inputs, expected {expected}")]
    Inputs {
        /// The tensor.
        tensor: TensorId,
        /// Its name.
        name: String,
        /// Times it is listed.
        times: usize,
        /// 1 for a stream, 0 for others.
        expected: usize,
    },
    /// An update of something that isn't a variable.
    #[error("the update of {tensor} `{name}` is not of a variable")]
    UpdateTarget {
        /// The tensor.
        tensor: TensorId,
        /// Its name.
        name: String,
    },
    /// A variable updated more than once.
    #[error("variable {tensor} `{name}` is updated twice")]
    UpdatedTwice {
        /// The variable.
        tensor: TensorId,
        /// Its name.
        name: String,
    },
    /// A value of another type or shape than the variable it is for.
    #[error("the update of {variable} `{name}` by {value} changes its type or shape")]
    UpdateType {
        /// The variable.
        variable: TensorId,
        /// Its name.
        name: String,
        /// The value.
        value: TensorId,
    },
    /// A first value that its element type can't hold.
    #[error("{tensor} `{name}` starts from a value that its type can't hold")]
    InitialValue {
        /// The tensor.
        tensor: TensorId,
        /// Its name.
        name: String,
    },
    /// A result whose stored type is not the one that follows from the operands.
    #[error("result {result} of {op} `{name}` has type {got}, expected {expected}")]
    ResultType {
        /// The operation.
        op: OpId,
        /// Its scope path.
        name: String,
        /// Position of the result.
        result: usize,
        /// As inferred.
        expected: TensorType,
        /// As stored.
        got: TensorType,
    },
    /// Another number of results than inferred.
    #[error("{op} `{name}` has {got} results, expected {expected}")]
    ResultCount {
        /// The operation.
        op: OpId,
        /// Its scope path.
        name: String,
        /// As inferred.
        expected: usize,
        /// As stored.
        got: usize,
    },
    /// A value that flows to an earlier pipeline stage.
    #[error("{op} `{name}` in {consumer} reads a result of {producer}")]
    StageOrder {
        /// The consumer.
        op: OpId,
        /// Its scope path.
        name: String,
        /// Stage of the consumer.
        consumer: StageId,
        /// Stage of the producer.
        producer: StageId,
    },
    /// A value that flows to an earlier phase.
    #[error("{op} `{name}` in phase {} reads a result of phase {}", consumer.name(), producer.name())]
    PhaseOrder {
        /// The consumer.
        op: OpId,
        /// Its scope path.
        name: String,
        /// Phase of the consumer.
        consumer: Phase,
        /// Phase of the producer.
        producer: Phase,
    },
    /// An operation without an IPU in a placed graph.
    #[error("{op} `{name}` is not placed")]
    NotPlaced {
        /// The operation.
        op: OpId,
        /// Its scope path.
        name: String,
    },
    /// An operand on another IPU than the operation.
    #[error("{op} `{name}` on {ipu} reads {tensor}, which is on {tensor_ipu}")]
    Remote {
        /// The operation.
        op: OpId,
        /// Its scope path.
        name: String,
        /// Where it runs.
        ipu: IpuId,
        /// The operand.
        tensor: TensorId,
        /// Where that is.
        tensor_ipu: IpuId,
    },
    /// A copy from an IPU to itself.
    #[error("{op} `{name}` copies within {ipu}")]
    CopyToSelf {
        /// The copy.
        op: OpId,
        /// Its scope path.
        name: String,
        /// Source and destination.
        ipu: IpuId,
    },
    /// A variable updated with a value that lives on another IPU.
    #[error("variable {variable} `{name}` on {ipu} is updated from {value_ipu}")]
    UpdateIpu {
        /// The variable.
        variable: TensorId,
        /// Its name.
        name: String,
        /// Where it is.
        ipu: IpuId,
        /// Where its next value is.
        value_ipu: IpuId,
    },
    /// A stage on two IPUs.
    #[error("{op} `{name}` puts {stage} on {got}, others are on {expected}")]
    StageIpu {
        /// The operation.
        op: OpId,
        /// Its scope path.
        name: String,
        /// The stage.
        stage: StageId,
        /// Where an earlier operation of the stage is.
        expected: IpuId,
        /// Where this one is.
        got: IpuId,
    },
    /// An operation of a micro-batch without a stage though others have one.
    #[error("{op} `{name}` has no stage, others do")]
    NoStage {
        /// The operation.
        op: OpId,
        /// Its scope path.
        name: String,
    },
    /// A value that is of another micro-batch where it is read.
    #[error("{op} `{name}` reads {tensor} in {stage}, where it is of another micro-batch")]
    OtherMicroBatch {
        /// The reader.
        op: OpId,
        /// Its name.
        name: String,
        /// The value.
        tensor: TensorId,
        /// The stage that runs the reader.
        stage: StageId,
    },
    /// An operation of a micro-batch's weight update that has no stage, though others have.
    #[error("{op} `{name}` updates weights outside of stages, others do so in theirs")]
    UpdateOutsideStages {
        /// The operation.
        op: OpId,
        /// Its scope path.
        name: String,
    },
    /// A stage between others without an operation.
    #[error("{stage} is empty, later ones are not")]
    StageGap {
        /// The stage.
        stage: StageId,
    },
}
