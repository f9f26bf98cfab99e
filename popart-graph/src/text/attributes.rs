//! The attributes of an operation, to text and from it.

use ipu_sim::ids::IpuId;
use smallvec::SmallVec;

use super::error::{ParseError, Result};
use super::lexer::{Line, Token};
use crate::ir::{
    BiasCorrection, BinaryFn, MatMulPass, MemoryProportion, MultiKind, OpKind, Partials, Piece,
    Reduction, Shape, UnaryFn, dtype_from_name, dtype_name,
};

const WHOLE: &str = "a whole number below 2^32";

/// Keys and values as they are printed; an optional attribute that is absent has
/// no key.
pub(super) fn of_kind(kind: &OpKind) -> Vec<(&'static str, String)> {
    let ignore = |index: &Option<u32>| index.map(|index| ("ignore_index", index.to_string()));
    let number = |value: &f64| format!("{value:?}");
    match kind {
        OpKind::MatMul {
            pass,
            available_memory_proportion,
            partials,
            piece,
        } => {
            let piece = (*piece != Piece::Whole).then(|| ("piece", piece.name().to_owned()));
            [
                ("pass", pass.name().to_owned()),
                ("proportion", number(&available_memory_proportion.value())),
                ("partials", partials.name().to_owned()),
            ]
            .into_iter()
            .chain(piece)
            .collect()
        }
        OpKind::Scale { factor } | OpKind::Accumulate { factor } => {
            vec![("factor", number(factor))]
        }
        OpKind::Cast { to } => vec![("to", dtype_name(*to).to_owned())],
        OpKind::Reshape { shape } | OpKind::Broadcast { shape } => {
            vec![("shape", shape.to_string())]
        }
        OpKind::Transpose { perm } => vec![("perm", numbers(perm))],
        OpKind::Slice { axis, begin, end } => vec![
            ("axis", axis.to_string()),
            ("begin", begin.to_string()),
            ("end", end.to_string()),
        ],
        OpKind::Concat { axis } => vec![("axis", axis.to_string())],
        OpKind::Pad {
            axis,
            before,
            after,
        } => vec![
            ("axis", axis.to_string()),
            ("before", before.to_string()),
            ("after", after.to_string()),
        ],
        OpKind::ReduceSum { axes, keep_dims } => vec![
            ("axes", numbers(axes)),
            ("keep_dims", keep_dims.to_string()),
        ],
        OpKind::LayerNorm { epsilon } => vec![("epsilon", number(epsilon))],
        OpKind::Dropout { probability, id } => {
            vec![("probability", number(probability)), ("id", id.to_string())]
        }
        OpKind::Gather { first_row } => vec![("first_row", first_row.to_string())],
        OpKind::GatherGrad { first_row, rows } => vec![
            ("first_row", first_row.to_string()),
            ("rows", rows.to_string()),
        ],
        OpKind::OneHot { depth, dtype } => vec![
            ("depth", depth.to_string()),
            ("dtype", dtype_name(*dtype).to_owned()),
        ],
        OpKind::SequenceMask {
            sequence_length,
            mask_tokens,
            dtype,
        } => [("sequence_length", sequence_length.to_string())]
            .into_iter()
            .chain(mask_tokens.map(|count| ("mask_tokens", count.to_string())))
            .chain([("dtype", dtype_name(*dtype).to_owned())])
            .collect(),
        OpKind::NllLoss {
            reduction,
            ignore_index,
        }
        | OpKind::NllSoftmaxGrad {
            reduction,
            ignore_index,
        } => reduction
            .map(|reduction| ("reduction", reduction.name().to_owned()))
            .into_iter()
            .chain(ignore(ignore_index))
            .collect(),
        OpKind::Accuracy {
            ignore_index,
            weighted,
        } => ignore(ignore_index)
            .into_iter()
            .chain(weighted.then(|| ("weighted", true.to_string())))
            .collect(),
        OpKind::SparseAccumulate { first_row, factor } => vec![
            ("first_row", first_row.to_string()),
            ("factor", number(factor)),
        ],
        OpKind::AdamMoment { beta, square } => {
            vec![("beta", number(beta)), ("square", square.to_string())]
        }
        OpKind::AdamUpdater {
            epsilon,
            weight_decay,
            bias_correction,
        } => [("epsilon", number(epsilon))]
            .into_iter()
            .chain(weight_decay.map(|decay| ("weight_decay", number(&decay))))
            .chain(bias_correction.iter().flat_map(|betas| {
                [
                    ("beta1", number(&betas.beta1)),
                    ("beta2", number(&betas.beta2)),
                ]
            }))
            .collect(),
        OpKind::LambUpdate { max_weight_norm } => {
            vec![("max_weight_norm", number(max_weight_norm))]
        }
        OpKind::SgdUpdate {
            scale,
            weight_decay,
        } => vec![
            ("scale", number(scale)),
            ("weight_decay", number(weight_decay)),
        ],
        OpKind::SgdMomentum {
            momentum,
            weight_decay,
        } => vec![
            ("momentum", number(momentum)),
            ("weight_decay", number(weight_decay)),
        ],
        OpKind::IpuCopy { to } => vec![("to", format!("ipu{}", to.0))],
        OpKind::Stash { slots } | OpKind::Restore { slots } => {
            vec![("slots", slots.to_string())]
        }
        OpKind::ReduceScatter { shards } | OpKind::LocalSlice { shards } => {
            vec![("shards", shards.to_string())]
        }
        OpKind::AllGather { shards, shape } => {
            vec![("shards", shards.to_string()), ("shape", shape.to_string())]
        }
        OpKind::Multi { kind, ipus } => {
            let ipus: SmallVec<[u32; 4]> = ipus.iter().map(|ipu| ipu.0).collect();
            let mut attributes = vec![("ipus", numbers(&ipus))];
            match kind {
                MultiKind::AllReduce => {}
                MultiKind::ReduceScatter { shards } => {
                    attributes.push(("shards", shards.to_string()));
                }
                MultiKind::AllGather { shards, shapes } => {
                    let shapes: Vec<String> = shapes.iter().map(Shape::to_string).collect();
                    attributes.push(("shards", shards.to_string()));
                    attributes.push(("shapes", format!("[{}]", shapes.join(","))));
                }
            }
            attributes
        }
        OpKind::Binary(_)
        | OpKind::Unary(_)
        | OpKind::UnaryGrad(_)
        | OpKind::Identity
        | OpKind::Detach
        | OpKind::AttentionMask
        | OpKind::Softmax
        | OpKind::SoftmaxGrad
        | OpKind::LayerNormGrad
        | OpKind::Zero
        | OpKind::SquareSum
        | OpKind::AdamUpdate
        | OpKind::CallInput
        | OpKind::CallOutput
        | OpKind::AllReduce
        | OpKind::RemoteLoad
        | OpKind::RemoteStore => Vec::new(),
    }
}

fn numbers(values: &[u32]) -> String {
    Shape::from(values).to_string()
}

/// The kind `word` with the attributes that belong to it; `None` if there is no
/// such kind.
pub(super) fn read_kind(word: &str, read: &mut Reader<'_>) -> Result<Option<OpKind>> {
    if let Some(function) = BinaryFn::from_name(word) {
        return Ok(Some(OpKind::Binary(function)));
    }
    for &function in UnaryFn::ALL {
        if word == function.name() {
            return Ok(Some(OpKind::Unary(function)));
        }
        if word == function.gradient_name() {
            return Ok(Some(OpKind::UnaryGrad(function)));
        }
    }
    Ok(Some(match word {
        "matmul" => OpKind::MatMul {
            pass: read.word("pass", MatMulPass::from_name)?,
            available_memory_proportion: read.proportion("proportion")?,
            partials: read.word("partials", Partials::from_name)?,
            piece: read
                .optional("piece", |read, key| read.word(key, Piece::from_name))?
                .unwrap_or(Piece::Whole),
        },
        "scale" => OpKind::Scale {
            factor: read.float("factor")?,
        },
        "cast" => OpKind::Cast {
            to: read.word("to", dtype_from_name)?,
        },
        "identity" => OpKind::Identity,
        "detach" => OpKind::Detach,
        "reshape" => OpKind::Reshape {
            shape: Shape(read.list("shape")?),
        },
        "transpose" => OpKind::Transpose {
            perm: read.list("perm")?,
        },
        "slice" => OpKind::Slice {
            axis: read.int("axis")?,
            begin: read.int("begin")?,
            end: read.int("end")?,
        },
        "concat" => OpKind::Concat {
            axis: read.int("axis")?,
        },
        "pad" => OpKind::Pad {
            axis: read.int("axis")?,
            before: read.int("before")?,
            after: read.int("after")?,
        },
        "broadcast" => OpKind::Broadcast {
            shape: Shape(read.list("shape")?),
        },
        "reduce_sum" => OpKind::ReduceSum {
            axes: read.list("axes")?,
            keep_dims: read.word("keep_dims", |word| word.parse().ok())?,
        },
        "softmax" => OpKind::Softmax,
        "softmax_grad" => OpKind::SoftmaxGrad,
        "layer_norm" => OpKind::LayerNorm {
            epsilon: read.float("epsilon")?,
        },
        "layer_norm_grad" => OpKind::LayerNormGrad,
        "dropout" => OpKind::Dropout {
            probability: read.float("probability")?,
            id: read.int("id")?,
        },
        "gather" => OpKind::Gather {
            first_row: read.int("first_row")?,
        },
        "gather_grad" => OpKind::GatherGrad {
            first_row: read.int("first_row")?,
            rows: read.int("rows")?,
        },
        "one_hot" => OpKind::OneHot {
            depth: read.int("depth")?,
            dtype: read.word("dtype", dtype_from_name)?,
        },
        "sequence_mask" => OpKind::SequenceMask {
            sequence_length: read.int("sequence_length")?,
            mask_tokens: read.optional("mask_tokens", Reader::int)?,
            dtype: read.word("dtype", dtype_from_name)?,
        },
        _ => return read_training_kind(word, read),
    }))
}

/// [`read_kind`] of losses, optimisers and movement.
fn read_training_kind(word: &str, read: &mut Reader<'_>) -> Result<Option<OpKind>> {
    let reduction = |read: &mut Reader<'_>, key| read.word(key, Reduction::from_name);
    let flag = |read: &mut Reader<'_>, key| read.word(key, |word| word.parse().ok());
    Ok(Some(match word {
        "attention_mask" => OpKind::AttentionMask,
        "nll_loss" => OpKind::NllLoss {
            reduction: read.optional("reduction", reduction)?,
            ignore_index: read.optional("ignore_index", Reader::int)?,
        },
        "nll_softmax_grad" => OpKind::NllSoftmaxGrad {
            reduction: read.optional("reduction", reduction)?,
            ignore_index: read.optional("ignore_index", Reader::int)?,
        },
        "accuracy" => OpKind::Accuracy {
            ignore_index: read.optional("ignore_index", Reader::int)?,
            weighted: read.optional("weighted", flag)?.unwrap_or(false),
        },
        "accumulate" => OpKind::Accumulate {
            factor: read.float("factor")?,
        },
        "sparse_accumulate" => OpKind::SparseAccumulate {
            first_row: read.int("first_row")?,
            factor: read.float("factor")?,
        },
        "zero" => OpKind::Zero,
        "adam_moment" => OpKind::AdamMoment {
            beta: read.float("beta")?,
            square: read.word("square", |word| word.parse().ok())?,
        },
        "adam_updater" => OpKind::AdamUpdater {
            epsilon: read.float("epsilon")?,
            weight_decay: read.optional("weight_decay", Reader::float)?,
            bias_correction: match read.optional("beta1", Reader::float)? {
                Some(beta1) => Some(BiasCorrection {
                    beta1,
                    beta2: read.float("beta2")?,
                }),
                None => None,
            },
        },
        "square_sum" => OpKind::SquareSum,
        "adam_update" => OpKind::AdamUpdate,
        "lamb_update" => OpKind::LambUpdate {
            max_weight_norm: read.float("max_weight_norm")?,
        },
        "sgd_update" => OpKind::SgdUpdate {
            scale: read.float("scale")?,
            weight_decay: read.float("weight_decay")?,
        },
        "sgd_momentum" => OpKind::SgdMomentum {
            momentum: read.float("momentum")?,
            weight_decay: read.float("weight_decay")?,
        },
        "ipu_copy" => OpKind::IpuCopy {
            to: read.word("to", super::parser::ipu)?,
        },
        "stash" => OpKind::Stash {
            slots: read.int("slots")?,
        },
        "restore" => OpKind::Restore {
            slots: read.int("slots")?,
        },
        "call_input" => OpKind::CallInput,
        "call_output" => OpKind::CallOutput,
        "all_reduce" => OpKind::AllReduce,
        "reduce_scatter" => OpKind::ReduceScatter {
            shards: read.int("shards")?,
        },
        "all_gather" => OpKind::AllGather {
            shards: read.int("shards")?,
            shape: Shape(read.list("shape")?),
        },
        "multi_all_reduce" => multi(MultiKind::AllReduce, read)?,
        "multi_reduce_scatter" => {
            let shards = read.int("shards")?;
            multi(MultiKind::ReduceScatter { shards }, read)?
        }
        "multi_all_gather" => {
            let shards = read.int("shards")?;
            let shapes = read.lists("shapes")?.into_iter().map(Shape).collect();
            multi(MultiKind::AllGather { shards, shapes }, read)?
        }
        "local_slice" => OpKind::LocalSlice {
            shards: read.int("shards")?,
        },
        "remote_load" => OpKind::RemoteLoad,
        "remote_store" => OpKind::RemoteStore,
        _ => return Ok(None),
    }))
}

fn multi(kind: MultiKind, read: &mut Reader<'_>) -> Result<OpKind> {
    let ipus = read.list("ipus")?.into_iter().map(IpuId).collect();
    Ok(OpKind::Multi { kind, ipus })
}

/// The `{key: value, ..}` of one operation, taken out by key.
pub(super) struct Reader<'a> {
    line: usize,
    entries: Vec<(&'a str, Value<'a>)>,
}

enum Value<'a> {
    One(Token<'a>),
    List(SmallVec<[u32; 4]>),
    Lists(Vec<SmallVec<[u32; 4]>>),
}

/// The rest of `[1, 2]` or `[[1, 2], [3]]`.
fn list<'a>(line: &mut Line<'a>) -> Result<Value<'a>> {
    let row = |line: &mut Line<'a>| line.list(']', |line| line.number(WHOLE));
    if !line.try_sign('[') {
        return Ok(Value::List(row(line)?));
    }
    let mut lists = vec![row(line)?];
    while !line.try_sign(']') {
        line.sign(',', "a comma or the end of the list")?;
        line.sign('[', "a list")?;
        lists.push(row(line)?);
    }
    Ok(Value::Lists(lists))
}

impl<'a> Reader<'a> {
    /// Reads the attributes, if there are any.
    pub(super) fn new(line: &mut Line<'a>) -> Result<Self> {
        let mut entries = Vec::new();
        if line.try_sign('{') {
            entries.extend(line.list('}', |line| {
                let key = line
                    .try_word()
                    .ok_or_else(|| line.unexpected("the name of an attribute"))?;
                line.sign(':', "a colon after the attribute's name")?;
                let value = if line.try_sign('[') {
                    list(line)?
                } else {
                    Value::One(line.take("a value", |token| Some(token.clone()))?)
                };
                Ok((key, value))
            })?);
        }
        Ok(Self {
            line: line.number,
            entries,
        })
    }

    /// Refuses attributes that nothing has asked for.
    pub(super) fn finish(self) -> Result<()> {
        match self.entries.first() {
            Some((key, _)) => Err(self.error("only attributes of this operation", key)),
            None => Ok(()),
        }
    }

    fn error(&self, expected: &'static str, got: &str) -> ParseError {
        ParseError {
            line: self.line,
            expected,
            got: got.to_owned(),
        }
    }

    fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(entry, _)| *entry == key)
    }

    fn take(&mut self, key: &'static str) -> Result<Value<'a>> {
        match self.entries.iter().position(|(entry, _)| *entry == key) {
            Some(position) => Ok(self.entries.remove(position).1),
            None => Err(self.error(key, "")),
        }
    }

    fn one<T>(
        &mut self,
        key: &'static str,
        expected: &'static str,
        meaning: impl Fn(&Token<'a>) -> Option<T>,
    ) -> Result<T> {
        let value = match self.take(key)? {
            Value::One(token) => meaning(&token),
            Value::List(_) | Value::Lists(_) => None,
        };
        value.ok_or_else(|| self.error(expected, key))
    }

    fn int(&mut self, key: &'static str) -> Result<u32> {
        self.one(key, WHOLE, |token| match token {
            Token::Number(digits) => digits.parse().ok(),
            _ => None,
        })
    }

    fn float(&mut self, key: &'static str) -> Result<f64> {
        // `1e999` is read as infinity, which has no digits to be printed with.
        self.one(key, "a finite number", |token| match token {
            Token::Number(digits) => digits
                .parse()
                .ok()
                .filter(|number: &f64| number.is_finite()),
            _ => None,
        })
    }

    fn proportion(&mut self, key: &'static str) -> Result<MemoryProportion> {
        let value = self.float(key)?;
        MemoryProportion::new(value)
            .ok_or_else(|| self.error("a number above 0 and at most 1", key))
    }

    fn list(&mut self, key: &'static str) -> Result<SmallVec<[u32; 4]>> {
        match self.take(key)? {
            Value::List(values) => Ok(values),
            Value::One(_) | Value::Lists(_) => Err(self.error("a list of whole numbers", key)),
        }
    }

    fn lists(&mut self, key: &'static str) -> Result<Vec<SmallVec<[u32; 4]>>> {
        match self.take(key)? {
            Value::Lists(lists) => Ok(lists),
            Value::One(_) | Value::List(_) => Err(self.error("a list of lists", key)),
        }
    }

    fn word<T>(&mut self, key: &'static str, meaning: impl Fn(&str) -> Option<T>) -> Result<T> {
        self.one(
            key,
            "a word that this attribute knows",
            |token| match token {
                Token::Word(word) => meaning(word),
                _ => None,
            },
        )
    }

    fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&mut Self, &'static str) -> Result<T>,
    ) -> Result<Option<T>> {
        self.has(key).then(|| read(self, key)).transpose()
    }
}
