//! Options that shape the model, its placement and its batches.

use super::Section;
use crate::args::spec::*;

/// Why options of phased execution change nothing in the other modes.
pub(super) const PHASED: &str = "only phased execution reads it";

pub(super) const MODEL: Section = Section {
    title: "Model Config",
    options: &[
        int("--micro-batch-size", "micro_batch_size", 1)
            .help("sequences in one pass of one replica through the model"),
        int("--sequence-length", "sequence_length", 128).help("tokens in one sequence"),
        int("--max-positional-length", "max_positional_length", 512)
            .help("rows of the position embedding"),
        text("--host-embedding", "host_embedding", "NONE")
            .choices(&["NONE", "WORD", "ALL", "MERGE"])
            .not_yet("embeddings are always looked up on the IPU")
            .help("embeddings that the host looks up"),
        int("--mask-tokens", "mask_tokens", 20)
            .help("slots of a sequence that hold masked-token targets"),
        int("--vocab-length", "vocab_length", 30400).help("rows of the word embedding"),
        int("--hidden-size", "hidden_size", 768).help("width of the encoder"),
        maybe_int("--ff-size", "ff_size__")
            .help("width inside the feed-forward block; unset, four times the hidden size"),
        int("--attention-heads", "attention_heads", 12).help("attention heads of one layer"),
        switch("--attention-bias", "attention_bias", false)
            .help("give the attention projections biases"),
        switch("--inference", "inference", false).help("run the model forward only"),
        int("--num-layers", "num_layers", 2).help("encoder layers"),
        int("--encoder-start-ipu", "encoder_start_ipu", 2)
            .help("IPU of the first encoder layer; from 2 on, the embedding takes two IPUs"),
        ints("--layers-per-ipu", "layers_per_ipu", &[2])
            .help("encoder layers on one IPU, or a count for each"),
        int("--layers-per-phase", "layers_per_phase", 3)
            .no_effect(PHASED)
            .help("encoder layers in one phase"),
        floats(
            "--available-memory-proportion",
            "available_memory_proportion",
            &[0.1525878906],
        )
        .help("part of tile memory that encoder matmuls may plan with; one, or one for each IPU"),
        switch(
            "--recompute-checkpoint-every-layer",
            "recompute_checkpoint_every_layer",
            true,
        )
        .help("when recomputing, keep the output of each layer instead of each IPU"),
        switch("--split-transformer", "split_transformer", false)
            .no_effect(PHASED)
            .help("put attention and feed-forward into separate phases"),
        switch("--no-dropout", "no_dropout", false)
            .help("leave out dropout after embedding, attention and feed-forward"),
        switch("--no-attn-dropout", "no_attn_dropout", false)
            .help("leave out dropout on attention probabilities"),
        maybe_switch(
            "--disable-attention-dropout-bwd",
            "disable_attention_dropout_bwd",
        )
        .help("leave dropout out of the gradient of attention probabilities, which is inexact then [default: false; release 96fef3f does so for SQuAD]"),
        float("--dropout-prob", "dropout_prob", 0.1).help("probability of dropping a value"),
        float("--attn-dropout-prob", "attn_dropout_prob", 0.1)
            .no_effect(PHASED)
            .help("probability of dropping an attention probability in phased execution"),
        float("--layer-norm-eps", "layer_norm_eps", 0.001)
            .on_values()
            .help("epsilon of layer norms"),
        text("--task", "task", "PRETRAINING")
            .choices(&["PRETRAINING", "SQUAD", "MRPC"])
            .help("what the model is trained or used for"),
        switch("--split-linear-layers", "split_linear_layers", false)
            .help("cut the wide linear layers into square pieces"),
        switch("--split-qkv", "split_qkv", false)
            .help("keep query, key and value weights as three tensors"),
        switch("--no-mask", "no_mask", false)
            .no_effect("only phased execution leaves the mask out")
            .help("leave out the padding mask"),
        text("--activation-type", "activation_type", "Gelu")
            .help("activation function: Gelu, SGelu, LRelu; any other word means Relu"),
        float("--relu-leak", "relu_leak", 0.1)
            .on_values()
            .help("slope of LRelu below zero"),
        text("--dtype", "popart_dtype", "FLOAT16")
            .choices(&["FLOAT16", "FLOAT"])
            .help("type of weights and activations"),
        int(
            "--embedding-serialization-vocab-steps",
            "embedding_serialization_vocab_steps",
            1,
        )
        .help("pieces into which the word embedding is cut along the vocabulary"),
        switch("--update-embedding-dict", "update_embedding_dict", true)
            .help("let gradients reach the word embedding through the look-up"),
        switch(
            "--use-default-available-memory-proportion",
            "use_default_available_memory_proportion",
            false,
        )
        .help("plan matmuls with the library's own memory proportion"),
        switch("--no-cls-layer", "no_cls_layer", false)
            .help("leave out the dense layer before the masked-token projection"),
        switch("--projection-bias", "projection_bias", false)
            .help("give the masked-token projection a bias"),
        int("--num-attention-splits", "num_attention_splits", 1)
            .no_effect(PHASED)
            .help("pieces of the attention block in phased execution"),
        int("--num-ffwd-splits", "num_ffwd_splits", 1)
            .no_effect(PHASED)
            .help("pieces of the feed-forward block in phased execution"),
        mode("--execution-mode", "execution_mode", "DEFAULT").help("DEFAULT, PIPELINE or PHASED"),
        int("--num-io-tiles", "num_io_tiles", 0)
            .no_effect(PHASED)
            .help("tiles of each IPU that only do I/O"),
        text("--phased-execution-type", "phased_execution_type", "SINGLE")
            .choices(&["SINGLE", "DUAL"])
            .no_effect(PHASED)
            .help("devices of one replica in phased execution"),
        switch("--squad-single-output", "squad_single_output", true)
            .help("return start and end logits of inference as one tensor"),
        maybe_switch("--squad-wrap-final-layer", "squad_wrap_final_layer")
            .bare(false)
            .help("put the SQuAD head on the first IPU instead of the last [default: true; release 96fef3f: true in training, false in inference]"),
        switch(
            "--use-packed-sequence-format",
            "use_packed_sequence_format",
            false,
        )
        .help("pre-train on packs of several sequences a row (from v2.1 on)"),
        int("--max-sequences-per-pack", "max_sequences_per_pack", 1)
            .help("sequences of a pack at the most"),
    ],
};

pub(super) const SQUAD: Section = Section {
    title: "SQuAD Config",
    options: &[
        maybe_text("--vocab-file", "vocab_file").help("WordPiece vocabulary"),
        switch("--do-lower-case", "do_lower_case", false)
            .help("lower-case the text and strip its accents"),
        text("--squad-results-dir", "squad_results_dir", "squad_results")
            .no_effect("no predictions are written")
            .help("folder of the predictions"),
        maybe_text("--squad-evaluate-script", "squad_evaluate_script")
            .no_effect("no predictions are written")
            .help("script that scores the predictions"),
        float("--squad-lr-scale", "squad_lr_scale", 1.0)
            .help("factor on the learning rate of the SQuAD head"),
    ],
};

pub(super) const BATCH: Section = Section {
    title: "Batch Config",
    options: &[
        maybe_int("--global-batch-size", "global_batch_size")
            .help("sequences behind one weight update"),
        maybe_int(
            "--gradient-accumulation-factor",
            "gradient_accumulation_factor",
        )
        .help("micro batches that one replica sums before a weight update; 1 updates after each"),
        int("--replication-factor", "replication_factor", 1).help("copies of the model"),
        int("--batch-serialize", "batch_serialize", 1)
            .no_effect(PHASED)
            .help("pieces of a micro batch in phased execution"),
    ],
};
