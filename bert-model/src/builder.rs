//! The pieces that all layers are made of, and what has been built so far.
//!
//! A [`Component`] is a named part of a block: its operations run where its block
//! is placed, and its weights carry its name. Names are those of the published
//! application (`applications/popart/bert/bert_model.py`), by which checkpoints
//! know the weights.

use std::collections::BTreeMap;

use ipu_sim::ids::IpuId;
use ipu_sim::numerics::DType;
use popart_graph::infer::InferError;
use popart_graph::ir::{
    BinaryFn, Graph, Init, MatMulPass, MemoryProportion, OpKind, Partials, Phase, Piece, Purpose,
    Recompute, Scope, Shape, StageId, TensorId, UnaryFn,
};

use crate::config::{Activation, BertConfig, Dropout, Task};
use crate::interface::{Input, InputInfo, Output, OutputInfo, SerialisedWeight, WeightInfo};
use crate::optim::decays;
use crate::parts::Unit;
use crate::placement::{Block, Execution, Placement};

/// The result of building a part of a model.
pub(crate) type Result<T> = std::result::Result<T, InferError>;

/// How weights of matrix products and tables start
/// (`applications/popart/bert/bert_model.py`, `normal_init_tensor`).
pub(crate) const NORMAL: Init = Init::TruncatedNormal {
    mean: 0.0,
    std_dev: 0.02,
};

const OUTPUTS: Component = Component::new(Block::Outputs, "Outputs");

/// A model being built.
pub(crate) struct Builder<'a> {
    pub(crate) config: &'a BertConfig,
    pub(crate) placement: &'a Placement,
    pub(crate) task: Task,
    pub(crate) graph: Graph,
    pub(crate) inputs: Vec<InputInfo>,
    pub(crate) outputs: Vec<OutputInfo>,
    pub(crate) weights: Vec<WeightInfo>,
    pub(crate) serialised: Vec<SerialisedWeight>,
    pub(crate) checkpoints: Vec<TensorId>,
    /// The word table, in slices of the vocabulary.
    pub(crate) word_table: Vec<TensorId>,
    /// The mask indices, as the encoder reads them.
    pub(crate) mask_indices: Vec<TensorId>,
    /// The attention mask of each IPU and pipeline stage that has one.
    pub(crate) masks: BTreeMap<(IpuId, Option<StageId>), TensorId>,
    next_dropout: u32,
}

/// A named component of the model.
#[derive(Clone, Copy)]
pub(crate) struct Component<'n> {
    /// Where it runs.
    pub(crate) block: Block,
    /// Scope path.
    pub(crate) name: &'n str,
    /// What it counts as, whatever it runs with.
    pub(crate) unit: Unit,
    /// What its operations are for, where their kinds don't say.
    pub(crate) purpose: Purpose,
}

impl<'n> Component<'n> {
    /// A component in a block.
    pub(crate) const fn new(block: Block, name: &'n str) -> Self {
        Self {
            block,
            name,
            unit: Unit::Block(block),
            purpose: Purpose::General,
        }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }

    /// The same under another path, for an activation function of several operations.
    fn of_activation_function(self, name: &'n str) -> Self {
        Self {
            name,
            purpose: Purpose::ActivationFunction,
            ..self
        }
    }
}

impl<'a> Builder<'a> {
    pub(crate) fn new(config: &'a BertConfig, placement: &'a Placement, task: Task) -> Self {
        Self {
            config,
            placement,
            task,
            graph: Graph::default(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            weights: Vec::new(),
            serialised: Vec::new(),
            checkpoints: Vec::new(),
            word_table: Vec::new(),
            mask_indices: Vec::new(),
            masks: BTreeMap::new(),
            next_dropout: 0,
        }
    }

    /// Whether the model has dropout, and so a seed.
    pub(crate) fn has_dropout(&self) -> bool {
        self.task.trains()
            && self.config.dropout != Dropout::Off
            && self.config.dropout_probability > 0.0
    }

    /// The pipeline stage of a block; none without a pipeline.
    pub(crate) fn pipeline_stage(&self, block: Block) -> Option<StageId> {
        let is_pipeline =
            self.placement.execution == Execution::Pipelined && self.placement.stages.len() > 1;
        is_pipeline.then(|| self.placement.stage(block))
    }

    /// Surroundings of the operation `name` of a component.
    pub(crate) fn scope(&mut self, component: Component, name: &str) -> Scope {
        Scope {
            name: component.path(name),
            ipu: Some(self.placement.ipu(component.block)),
            stage: self.pipeline_stage(component.block),
            part: Some(component.unit.part(&mut self.graph.parts)),
            phase: Phase::Forward,
            recompute: Recompute::Checkpoint,
            purpose: component.purpose,
        }
    }

    /// Adds the operation `name` of a component; gives its first result.
    pub(crate) fn op(
        &mut self,
        component: Component,
        name: &str,
        kind: OpKind,
        operands: &[TensorId],
    ) -> Result<TensorId> {
        let scope = self.scope(component, name);
        self.graph.add(kind, operands, &scope)
    }

    /// Adds a stream of `u32`.
    pub(crate) fn input(&mut self, input: Input, shape: impl Into<Shape>) -> TensorId {
        let format = self.config.sequence_format;
        let name = input.name(format);
        let tensor = self.graph.stream(name, DType::U32, shape.into());
        let part = Unit::Input(input, format).part(&mut self.graph.parts);
        self.graph.tensors[tensor].part = Some(part);
        self.inputs.push(InputInfo { tensor, input });
        tensor
    }

    /// The stream of that meaning, which must have been added.
    pub(crate) fn tensor_of(&self, input: Input) -> TensorId {
        let found = self.inputs.iter().find(|info| info.input == input);
        found
            .expect("all streams are made before the layers")
            .tensor
    }

    /// Lists a result of a component for the host, which takes results of inference from the block of
    /// outputs.
    pub(crate) fn output(
        &mut self,
        component: Component,
        output: Output,
        tensor: TensorId,
    ) -> Result<()> {
        let name = self.graph.tensors[tensor].name.clone();
        let tensor = match self.task.trains() || self.is_among_outputs(component.block) {
            true => tensor,
            false => self.op(OUTPUTS, &name, OpKind::Identity, &[tensor])?,
        };
        self.graph.outputs.push(tensor);
        self.outputs.push(OutputInfo { tensor, output });
        Ok(())
    }

    /// Whether a block runs where the host takes results: in the same stage, or without a
    /// pipeline on the same IPU.
    fn is_among_outputs(&self, block: Block) -> bool {
        let placement = self.placement;
        match placement.execution {
            Execution::Sequential => placement.ipu(block) == placement.ipu(Block::Outputs),
            Execution::Pipelined => placement.stage(block) == placement.stage(Block::Outputs),
        }
    }

    /// Adds the weight `name` of a component.
    pub(crate) fn weight(
        &mut self,
        component: Component,
        name: &str,
        shape: impl Into<Shape>,
        init: Init,
    ) -> TensorId {
        let name = component.path(name);
        let dtype = self.config.dtype;
        let tensor = self.graph.variable(&name, dtype, shape.into(), Some(init));
        let belongs_to = component.unit.part(&mut self.graph.parts);
        self.graph.tensors[tensor].part = Some(belongs_to);
        self.weights.push(WeightInfo {
            tensor,
            decays: decays(&name),
            stage: self.placement.stage(component.block),
        });
        tensor
    }

    /// The pass that plans of this model's products are made for.
    pub(crate) fn matmul_pass(&self) -> MatMulPass {
        match (self.config.fully_connected_pass, self.task.trains()) {
            (false, _) => MatMulPass::None,
            (true, true) => MatMulPass::TrainingFwd,
            (true, false) => MatMulPass::InferenceFwd,
        }
    }

    /// A matrix product with the partials of the model.
    pub(crate) fn matmul_kind(&self, share: MemoryProportion, pass: MatMulPass) -> OpKind {
        self.piece_kind(share, pass, Piece::Whole)
    }

    /// A matrix product that is `piece` of a larger one, if partial sums have a precision to keep
    /// (PopART, `keep_precision`).
    pub(crate) fn piece_kind(
        &self,
        share: MemoryProportion,
        pass: MatMulPass,
        piece: Piece,
    ) -> OpKind {
        let partials = self.config.partials();
        let keeps = partials == Partials::Float && self.config.dtype == DType::F16;
        OpKind::MatMul {
            pass,
            available_memory_proportion: share,
            partials,
            piece: if keeps { piece } else { Piece::Whole },
        }
    }

    /// A matrix product of an encoder layer, with its stage's share of memory.
    pub(crate) fn encoder_matmul(
        &mut self,
        component: Component,
        name: &str,
        operands: [TensorId; 2],
    ) -> Result<TensorId> {
        self.encoder_piece(component, name, operands, Piece::Whole)
    }

    /// A piece of such a product.
    pub(crate) fn encoder_piece(
        &mut self,
        component: Component,
        name: &str,
        operands: [TensorId; 2],
        piece: Piece,
    ) -> Result<TensorId> {
        let stage = self.placement.stage(component.block);
        let share = self.placement.stages[stage].memory_proportion;
        let kind = self.piece_kind(share, self.matmul_pass(), piece);
        self.op(component, name, kind, &operands)
    }

    /// A matrix product outside the encoder, with the library's share of memory.
    pub(crate) fn matmul(
        &mut self,
        component: Component,
        name: &str,
        operands: [TensorId; 2],
    ) -> Result<TensorId> {
        let kind = self.matmul_kind(MemoryProportion::POPLIBS_DEFAULT, self.matmul_pass());
        self.op(component, name, kind, &operands)
    }

    pub(crate) fn add(
        &mut self,
        component: Component,
        name: &str,
        operands: [TensorId; 2],
    ) -> Result<TensorId> {
        self.op(component, name, OpKind::Binary(BinaryFn::Add), &operands)
    }

    pub(crate) fn reshape(
        &mut self,
        component: Component,
        name: &str,
        x: TensorId,
        shape: impl Into<Shape>,
    ) -> Result<TensorId> {
        let shape = shape.into();
        self.op(component, name, OpKind::Reshape { shape }, &[x])
    }

    /// Normalisation of the rows of `[t, H]`, with weights `Gamma` and `Beta`.
    pub(crate) fn norm(&mut self, component: Component, x: TensorId) -> Result<TensorId> {
        let width = self.config.hidden_size;
        let gamma = self.weight(component, "Gamma", [width], Init::Ones);
        let beta = self.weight(component, "Beta", [width], Init::Zeros);
        let epsilon = self.config.layer_norm_epsilon;
        self.op(
            component,
            "Norm",
            OpKind::LayerNorm { epsilon },
            &[x, gamma, beta],
        )
    }

    /// Dropout where the model has it, with an id of its own.
    pub(crate) fn dropout(&mut self, component: Component, x: TensorId) -> Result<TensorId> {
        if !self.has_dropout() {
            return Ok(x);
        }
        let id = self.next_dropout;
        self.next_dropout += 1;
        let probability = self.config.dropout_probability;
        let seed = self.tensor_of(Input::Seed);
        self.op(
            component,
            "Dropout",
            OpKind::Dropout { probability, id },
            &[x, seed],
        )
    }

    /// The result without a gradient: [`OpKind::Detach`] when training, else `x`.
    pub(crate) fn detach(
        &mut self,
        component: Component,
        name: &str,
        x: TensorId,
    ) -> Result<TensorId> {
        match self.task.trains() {
            true => self.op(component, name, OpKind::Detach, &[x]),
            false => Ok(x),
        }
    }

    /// The end of both halves of a layer: dropout, residual sum, norm.
    pub(crate) fn add_and_norm(
        &mut self,
        component: Component,
        residual: TensorId,
        x: TensorId,
    ) -> Result<TensorId> {
        let x = self.dropout(component, x)?;
        let x = self.add(component, "Add", [residual, x])?;
        self.norm(component, x)
    }

    /// The model's activation function.
    pub(crate) fn activation(&mut self, component: Component, x: TensorId) -> Result<TensorId> {
        let unary = |function| OpKind::Unary(function);
        match self.config.activation {
            Activation::Gelu => self.op(component, "Gelu", unary(UnaryFn::Gelu), &[x]),
            Activation::GeluErf => self.op(component, "Gelu", unary(UnaryFn::GeluErf), &[x]),
            Activation::Relu => self.op(component, "Relu", unary(UnaryFn::Relu), &[x]),
            Activation::SigmoidGelu => {
                // The approximation of Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.
                let factor = 1.702;
                let name = component.path("SGelu");
                let component = component.of_activation_function(&name);
                let scaled = self.op(component, "Scale", OpKind::Scale { factor }, &[x])?;
                let gate = self.op(component, "Sigmoid", unary(UnaryFn::Sigmoid), &[scaled])?;
                self.op(component, "Mul", OpKind::Binary(BinaryFn::Mul), &[x, gate])
            }
            Activation::LeakyRelu { leak } => {
                let name = component.path("LRelu");
                let component = component.of_activation_function(&name);
                let plus = self.op(component, "Plus", unary(UnaryFn::Relu), &[x])?;
                let minus = self.op(component, "Neg", unary(UnaryFn::Neg), &[x])?;
                let minus = self.op(component, "Minus", unary(UnaryFn::Relu), &[minus])?;
                let factor = leak;
                let minus = self.op(component, "Scale", OpKind::Scale { factor }, &[minus])?;
                let sub = OpKind::Binary(BinaryFn::Sub);
                self.op(component, "Sub", sub, &[plus, minus])
            }
        }
    }
}
