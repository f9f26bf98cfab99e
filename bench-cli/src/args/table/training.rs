//! Options of optimizers, schedules, initial weights and data.

use super::Section;
use crate::args::spec::*;

/// Why options that only change the numbers have no effect.
const VALUES_ONLY: &str = "it changes values, not simulated time";
const ORDER_ONLY: &str = "the order of samples does not change simulated time";
const NO_CACHE: &str = "features are not cached";
const WEIGHTS: &str = "the values of weights do not change simulated time: they are not read";

pub(super) const OPTIMIZER: Section = Section {
    title: "Optimizer Config",
    options: &[
        text("--optimizer", "optimizer", "SGD")
            .choices(&["SGD", "ADAM", "ADAM_NO_BIAS", "LAMB", "LAMB_NO_BIAS"])
            .help("optimizer; NO_BIAS forms leave out bias correction"),
        float("--learning-rate", "learning_rate", 0.0008)
            .help("constant rate, or the peak of a linear schedule"),
        float("--loss-scaling", "loss_scaling", 4.0)
            .on_values()
            .help("factor on the loss gradient"),
        float("--weight-decay", "weight_decay", 0.0)
            .whole_default(0)
            .help("decay of weight matrices"),
        float("--momentum", "momentum", 0.984375).help("momentum of SGD"),
        maybe_float("--dampening", "dampening")
            .on_values()
            .help("dampening of SGD; unset, the momentum"),
        float("--velocity-scaling", "velocity_scaling", 1.0)
            .on_values()
            .help("factor on the velocity of SGD"),
        float("--beta1", "beta1", 0.9)
            .on_values()
            .help("decay of the first moment in ADAM and LAMB"),
        float("--beta2", "beta2", 0.999)
            .on_values()
            .help("decay of the second moment in ADAM and LAMB"),
        maybe_float("--max-weight-norm", "max_weight_norm")
            .on_values()
            .help("limit of a weight norm in LAMB"),
        switch(
            "--use-half-optimizer-state",
            "use_half_optimizer_state",
            false,
        )
        .help("first moment of ADAM and LAMB in f16, both scaled as the loss is"),
        int("--epochs-inference", "epochs_inference", 1).help("passes over the data in inference"),
        switch("--stochastic-rounding", "stochastic_rounding", false)
            .no_effect(VALUES_ONLY)
            .help("round f16 results stochastically"),
        text(
            "--gradient-reduction-type",
            "gradient_reduction_type",
            "Sum",
        )
        .choices(&["Sum", "Mean", "RunningMean"])
        .help("how losses and accumulated gradients are reduced"),
        text(
            "--learning-rate-function",
            "learning_rate_function",
            "Scheduled",
        )
        .choices(&["Scheduled", "Linear"])
        .help("kind of learning-rate schedule"),
        maybe_int("--epochs", "epochs").help("passes over the data in training"),
        maybe_int("--training-steps", "training_steps").help("steps to train for"),
    ],
};

pub(super) const CONTINUOUS_PIPELINING: Section = Section {
    title: "Continuous Pipelining Config",
    options: &[switch(
        "--continuous-pipeline-optimizer-scaling",
        "continuous_pipeline_optimizer_scaling",
        false,
    )
    .help("scale rate and momentum by pipeline stage")],
};

pub(super) const LINEAR: Section = Section {
    title: "Linear Optimizer Config",
    options: &[
        int_or_config_float("--lr-warmup-start", "lr_warmup_start", 1e-7)
            .help("rate at the start of the warm-up"),
        int("--lr-warmup-steps", "lr_warmup_steps", 0).help("steps of the warm-up"),
        int(
            "--lr-steps-per-warmup-update",
            "lr_steps_per_warmup_update",
            1,
        )
        .help("steps between new rates in the warm-up"),
        int(
            "--lr-steps-per-decay-update",
            "lr_steps_per_decay_update",
            1,
        )
        .help("steps between new rates after the warm-up"),
    ],
};

pub(super) const SCHEDULED: Section = Section {
    title: "Scheduled Optimizer Config",
    options: &[
        schedule("--lr-schedule-by-epoch", "lr_schedule_by_epoch")
            .help("learning rates as epoch:rate pairs"),
        schedule("--lr-schedule-by-step", "lr_schedule_by_step")
            .help("learning rates as step:rate pairs"),
        schedule("--ls-schedule-by-epoch", "ls_schedule_by_epoch")
            .no_effect(VALUES_ONLY)
            .help("loss scalings as epoch:factor pairs"),
        schedule("--ls-schedule-by-step", "ls_schedule_by_step")
            .no_effect(VALUES_ONLY)
            .help("loss scalings as step:factor pairs"),
    ],
};

pub(super) const INITIALISATION: Section = Section {
    title: "Initialisation Config",
    options: &[
        maybe_text("--tf-checkpoint", "tf_checkpoint")
            .no_effect(WEIGHTS)
            .help("TensorFlow checkpoint to start from"),
        maybe_text("--onnx-checkpoint", "onnx_checkpoint")
            .no_effect(WEIGHTS)
            .help("ONNX checkpoint to start from"),
        maybe_text("--checkpoint-input-dir", "onnx_checkpoint")
            .no_effect("the values of weights do not change simulated time: they are not read")
            .help("the same file, as release v3.1 calls it"),
    ],
};

pub(super) const DATA: Section = Section {
    title: "Data Config",
    options: &[
        maybe_texts("--input-files", "input_files")
            .help("data files or patterns of their names: records are counted, questions are read; values do not change simulated time"),
        switch("--shuffle", "shuffle", false)
            .no_effect(ORDER_ONLY)
            .help("shuffle the data"),
        switch("--overwrite-cache", "overwrite_cache", false)
            .no_effect(NO_CACHE)
            .help("rebuild the SQuAD feature cache"),
        switch("--no-drop-remainder", "no_drop_remainder", false)
            .help("pad SQuAD data to a whole number of steps"),
        switch("--generated-data", "generated_data", false)
            .help("random data made on the host, one step an epoch"),
        switch("--synthetic-data", "synthetic_data", false)
            .help("data made on the device, without host streams"),
        text(
            "--synthetic-data-initializer",
            "synthetic_data_initializer",
            "random_normal",
        )
        .choices(&["random_normal", "zeros"])
        .help("kind of synthetic data, as the log names it: its values are not computed with"),
        int("--duplication-factor", "duplication_factor", 1)
            .help("copies of each sample in a pretraining file, of which an epoch reads one"),
        int("--epochs-to-cache", "epochs_to_cache", 0)
            .help("epochs of data to keep in memory, read as one"),
    ],
};
