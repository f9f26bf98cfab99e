//! What a configuration or placement can get wrong.

use ipu_sim::ids::IpuId;
use popart_graph::ir::StageId;

use crate::placement::Block;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a model can't be built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A size that must be at least 1.
    #[error("`{field}` must be at least 1")]
    Zero {
        /// Which size.
        field: &'static str,
    },
    /// A product of sizes that doesn't fit 32 bits.
    #[error("`{product}` must be below 2^32, got {value}")]
    TooLarge {
        /// The product, in words.
        product: &'static str,
        /// Its value.
        value: u64,
    },
    /// Attention heads of unequal size.
    #[error("attention heads must divide the hidden size {hidden_size}, got {attention_heads}")]
    Heads {
        /// Width of the model.
        hidden_size: u32,
        /// Heads asked for.
        attention_heads: u32,
    },
    /// Slices of the word table of unequal size.
    #[error("vocabulary steps must divide the vocabulary of {vocab_length}, got {vocab_steps}")]
    VocabSteps {
        /// Rows of the word table.
        vocab_length: u32,
        /// Slices asked for.
        vocab_steps: u32,
    },
    /// Linear layers that don't fall into square pieces.
    #[error(
        "split linear layers need a feed-forward width of a multiple of {hidden_size}, got {ff_size}"
    )]
    LinearPieces {
        /// Width of the model, and of a piece.
        hidden_size: u32,
        /// Width inside the feed-forward block.
        ff_size: u32,
    },
    /// No room for `[CLS]` behind the masked tokens.
    #[error(
        "mask tokens must be fewer than the {sequence_length} positions of a sequence, got {mask_tokens}"
    )]
    MaskTokens {
        /// Positions of a sequence.
        sequence_length: u32,
        /// Positions reserved for masked tokens.
        mask_tokens: u32,
    },
    /// Positions without a row in the position table.
    #[error(
        "the position table must have at least {sequence_length} rows, got {max_positional_length}"
    )]
    PositionTable {
        /// Positions of a sequence.
        sequence_length: u32,
        /// Rows of the table.
        max_positional_length: u32,
    },
    /// A number outside its range.
    #[error("`{field}` must be {range}, got {value}")]
    Range {
        /// Which number.
        field: &'static str,
        /// What it may be, in words.
        range: &'static str,
        /// What it is.
        value: f64,
    },
    /// An element type that activations can't have.
    #[error("the element type must be a float")]
    NotFloat,

    /// A list of layers per IPU that ends before the layers do.
    #[error("`layers_per_ipu` must cover {num_layers} layers, got {covered}")]
    LayersPerIpu {
        /// Encoder layers of the model.
        num_layers: u32,
        /// Sum of the list.
        covered: u64,
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

    /// A global batch that micro-batches don't fill evenly.
    #[error(
        "a global batch of {global_batch} is not a multiple of micro-batch {micro_batch} times {replicas} replicas"
    )]
    GlobalBatch {
        /// Samples of a weight update.
        global_batch: u64,
        /// Samples of a micro-batch.
        micro_batch: u32,
        /// Data-parallel copies.
        replicas: u32,
    },
    /// A variable whose first value comes from outside.
    #[error("`{name}` has no rule for its first value")]
    NoInit {
        /// The variable.
        name: String,
    },
    /// Bytes that end within a record of training data.
    #[error(
        "expected a multiple of {record_bytes} bytes, the size of a record, got {got}: {} bytes are left over",
        got % record_bytes
    )]
    RecordLength {
        /// Bytes of one record.
        record_bytes: u64,
        /// Bytes of the file.
        got: u64,
    },
    /// A question to train on without an answer, or with several. The sentence is the
    /// application's.
    #[error("`{id}`: For training, each question should have exactly 1 answer. Got {count}")]
    Answers {
        /// The question.
        id: String,
        /// Its answers.
        count: usize,
    },
    /// An answer beyond its text.
    #[error(
        "`{id}`: the answer must end within the {characters} characters of its text, got {start} as its start"
    )]
    AnswerOutside {
        /// The question.
        id: String,
        /// Where the answer begins.
        start: usize,
        /// Characters of the text.
        characters: usize,
    },
    /// A text that no record can be made of.
    #[error("the text has no word that a record could be made of")]
    NoText,
    /// A vocabulary without a token that records need.
    #[error("the vocabulary has no {token}")]
    MissingToken {
        /// The token.
        token: &'static str,
    },
    /// A vocabulary that its text doesn't fit into.
    #[error("the vocabulary must have room for {least} characters and reserved tokens, got {size}")]
    VocabularySize {
        /// Tokens asked for.
        size: u32,
        /// Tokens needed at the least.
        least: usize,
    },
    /// The compiler refused the graph.
    #[error(transparent)]
    Graph(#[from] popart_graph::error::Error),
}
