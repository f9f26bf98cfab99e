//! What can go wrong in the compiler.

use std::fmt;

use ipu_sim::ids::IpuId;
use thiserror::Error;

use crate::ir::{OpId, OpKind, PartId, Phase, Shape, StageId, TensorId, TensorType};

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// An operation in a message: ``matmul `qk` ``.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpLabel {
    /// The word for what it computes.
    pub kind: &'static str,
    /// Scope path of the operation.
    pub name: String,
}

impl OpLabel {
    /// The label of an operation.
    #[must_use]
    pub fn new(kind: &OpKind, name: &str) -> Self {
        Self {
            kind: kind.name(),
            name: name.to_owned(),
        }
    }
}

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

impl fmt::Display for OpLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind, self.name)
    }
}

/// Error of a user's model, text or data.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum Error {
    /// A matrix product has no plan.
    #[error(transparent)]
    Plan(#[from] crate::plan::PlanError),
    /// Too few or too many operands.
    #[error("{op}: wrong number of operands, expected {expected}, got {got}")]
    OperandCount {
        /// Where.
        op: OpLabel,
        /// Operands it takes.
        expected: usize,
        /// Operands it was given.
        got: usize,
    },
    /// An operand of an element type that the operation doesn't take.
    #[error("{op}: operand {operand} has the wrong type, expected {expected}, got {got}")]
    OperandType {
        /// Where.
        op: OpLabel,
        /// Position of the operand.
        operand: usize,
        /// What it takes.
        expected: &'static str,
        /// What it was given.
        got: &'static str,
    },
    /// An operand with too few or too many axes.
    #[error("{op}: operand {operand} has the wrong rank, expected {expected}, got {got}")]
    OperandRank {
        /// Where.
        op: OpLabel,
        /// Position of the operand.
        operand: usize,
        /// Axes it takes.
        expected: usize,
        /// Axes it was given.
        got: usize,
    },
    /// Two sizes that must be equal and aren't.
    #[error("{op}: {what} differ, expected {expected}, got {got}")]
    Sizes {
        /// Where.
        op: OpLabel,
        /// Which sizes.
        what: &'static str,
        /// What the others imply.
        expected: u64,
        /// What was found.
        got: u64,
    },
    /// An operand of the wrong shape.
    #[error("{op}: operand {operand} has the wrong shape, expected {expected}, got {got}")]
    OperandShape {
        /// Where.
        op: OpLabel,
        /// Position of the operand.
        operand: usize,
        /// What the others imply.
        expected: Shape,
        /// What was found.
        got: Shape,
    },
    /// Shapes that don't stretch to each other.
    #[error("{op}: shapes {left} and {right} don't broadcast")]
    Broadcast {
        /// Where.
        op: OpLabel,
        /// One shape.
        left: Shape,
        /// The other.
        right: Shape,
    },
    /// An axis that the operand doesn't have.
    #[error("{op}: axis {axis} is outside rank {rank}")]
    Axis {
        /// Where.
        op: OpLabel,
        /// The axis.
        axis: u32,
        /// Axes there are.
        rank: usize,
    },
    /// Positions that the operand doesn't have.
    #[error("{op}: range {begin}..{end} is outside 0..{size}")]
    Range {
        /// Where.
        op: OpLabel,
        /// First position.
        begin: u32,
        /// One past the last.
        end: u32,
        /// Positions there are.
        size: u32,
    },
    /// A result that must be a float and isn't.
    #[error("{op}: the result has the wrong type, expected a float, got u32")]
    ResultNotFloat {
        /// Where.
        op: OpLabel,
    },
    /// An attribute out of its range.
    #[error("{op}: {attribute} is out of range, expected {expected}, got {got}")]
    Attribute {
        /// Where.
        op: OpLabel,
        /// Its name.
        attribute: &'static str,
        /// Values it may have.
        expected: &'static str,
        /// The value it has.
        got: f64,
    },
    /// A graph that breaks an invariant.
    #[error("malformed graph: {0}")]
    Malformed(#[from] Violation),
    /// Text that is not a graph.
    #[error("line {line}: expected {expected}, got `{got}`")]
    Parse {
        /// Counted from 1.
        line: usize,
        /// What could have stood there.
        expected: &'static str,
        /// What stands there; empty at the end of a line.
        got: String,
    },
    /// A tensor without a value to evaluate the graph with.
    #[error("no value for {tensor} `{name}`")]
    ValueMissing {
        /// The tensor.
        tensor: TensorId,
        /// Its name.
        name: String,
    },
    /// A value that doesn't fit its tensor.
    #[error(
        "the value of {tensor} `{name}` doesn't fit, expected {expected} elements of {dtype}, \
         got {got} of {got_dtype}"
    )]
    ValueSize {
        /// The tensor.
        tensor: TensorId,
        /// Its name.
        name: String,
        /// Elements it has.
        expected: usize,
        /// Its element type.
        dtype: &'static str,
        /// Elements of the value.
        got: usize,
        /// What the value's elements are.
        got_dtype: &'static str,
    },
    /// Values for another number of replicas.
    #[error(
        "{tensor} `{name}` has values for the wrong number of replicas, expected {expected}, \
         got {got}"
    )]
    ValueReplicas {
        /// The tensor.
        tensor: TensorId,
        /// Its name.
        name: String,
        /// Replicas evaluated.
        expected: u32,
        /// Replicas with a value.
        got: usize,
    },
    /// Shards that can't be dealt out to the replicas.
    #[error("{op}: {shards} shards don't divide {replicas} replicas")]
    Shards {
        /// Where.
        op: OpLabel,
        /// Shards of the tensor.
        shards: u32,
        /// Replicas evaluated.
        replicas: u32,
    },
    /// A label that no class has.
    #[error("{op}: label {label} of sample {sample} is outside {classes} classes")]
    Label {
        /// Where.
        op: OpLabel,
        /// Position of the sample.
        sample: usize,
        /// Its label.
        label: u32,
        /// Classes there are.
        classes: usize,
    },
    /// A gradient through an operation that has none.
    #[error("{op}: no gradient is defined")]
    NoGradient {
        /// Where.
        op: OpLabel,
    },
    /// A loss that is not one float.
    #[error("loss {tensor} `{name}` has type {got}, expected one float")]
    LossNotScalar {
        /// The loss.
        tensor: TensorId,
        /// Its name.
        name: String,
        /// Its type.
        got: TensorType,
    },
    /// A gradient of something that the loss doesn't depend on.
    #[error("the loss doesn't depend on {tensor} `{name}`")]
    Independent {
        /// The tensor.
        tensor: TensorId,
        /// Its name.
        name: String,
    },
    /// All stages of a pipeline on one IPU.
    #[error("a pipeline needs stages on at least two IPUs")]
    PipelineOnOneIpu,
    /// Fewer micro-batches than stages: the pipeline would be flushed before it is full.
    #[error("a pipeline of {stages} stages needs as many micro-batches, got {}", depth.micro_batches())]
    PipelineDepth {
        /// Forward and backward stages.
        stages: usize,
        /// What should be as many.
        depth: PipelineDepth,
    },
    /// A stage that is to compute nothing again, in a model or a run without it.
    #[error("{stage} is to compute nothing again, but there is no such stage")]
    NoSuchStage {
        /// The stage, as the model numbers them.
        stage: StageId,
    },
    /// Neighbours on one IPU, which are one stage, of which only one computes nothing again.
    #[error("{whole} computes nothing again and {other} does, but both are one stage of {ipu}")]
    MixedRecomputation {
        /// A stage that computes nothing again, as the model numbers them.
        whole: StageId,
        /// One that does.
        other: StageId,
        /// Where both are.
        ipu: IpuId,
    },
    /// A tensor that must be the result of an operation and isn't.
    #[error("{tensor} `{name}` is not the result of an operation")]
    NotComputed {
        /// The tensor.
        tensor: TensorId,
        /// Its name.
        name: String,
    },
    /// A forward operation in a stage that only has gradients.
    #[error("{op} `{name}` is in {stage}, after the loss in {loss_stage}")]
    AfterLoss {
        /// The operation.
        op: OpId,
        /// Its scope path.
        name: String,
        /// Its stage.
        stage: StageId,
        /// The stage of the loss.
        loss_stage: StageId,
    },
    /// A variable that operations on two IPUs read.
    #[error("variable {tensor} `{name}` is read on {first} and on {second}")]
    VariableOnTwoIpus {
        /// The variable.
        tensor: TensorId,
        /// Its name.
        name: String,
        /// One IPU.
        first: IpuId,
        /// Another.
        second: IpuId,
    },
    /// A variable whose new value is written before an operation has read the old one.
    #[error("{op} `{name}` reads {tensor} after its new value is written")]
    ReadAfterWrite {
        /// The reader.
        op: OpId,
        /// Its scope path.
        name: String,
        /// The variable.
        tensor: TensorId,
    },
    /// An option of a pass out of its range.
    #[error("{option} is out of range, expected {expected}, got {got}")]
    OptionRange {
        /// Its name.
        option: &'static str,
        /// Values it may have.
        expected: &'static str,
        /// The value it has.
        got: f64,
    },
    /// A graph that a pass has broken: a mistake of the compiler, or of the graph it began with.
    #[error("after pass {pass}: {source}\n{graph}")]
    Pass {
        /// The pass.
        pass: &'static str,
        /// What is wrong.
        source: Box<Error>,
        /// The graph as text.
        graph: String,
    },
}

/// A broken invariant of [`crate::verify`].
#[derive(Clone, Debug, Error, PartialEq)]
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
    /// Operations that wait for each other.
    #[error("{op} `{name}` depends on itself")]
    Cycle {
        /// One of them.
        op: OpId,
        /// Its scope path.
        name: String,
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
