//! Operations that combine the replicas.

use smallvec::smallvec;

use super::error::{EvalError, Result};
use super::value::{PerReplica, Value, count, floats};
use super::{Operand, Results, views};
use crate::ir::{OpKind, OpLabel};

/// The values of a collective; `None` for all other kinds.
pub(super) fn eval(
    kind: &OpKind,
    operands: &[Operand<'_>],
    replicas: u32,
    label: &dyn Fn() -> OpLabel,
) -> Option<Result<Results>> {
    if let OpKind::Multi { kind, .. } = kind {
        let each = operands.iter().enumerate().map(|(number, operand)| {
            let member = kind.member(number).expect("inference has counted them");
            let value = single(&member, operand.value, replicas, label);
            value.expect("its members are collectives")
        });
        return Some(each.collect());
    }
    let value = single(kind, operands.first()?.value, replicas, label)?;
    Some(value.map(|value| smallvec![value]))
}

/// The value of a collective of one operand.
fn single(
    kind: &OpKind,
    value: &PerReplica,
    replicas: u32,
    label: &dyn Fn() -> OpLabel,
) -> Option<Result<PerReplica>> {
    let dealt = |shards: u32| {
        if replicas.is_multiple_of(shards) {
            return Ok(shards as usize);
        }
        Err(EvalError::Shards {
            op: label(),
            shards,
            replicas,
        })
    };
    let n_replicas = replicas as usize;
    match kind {
        OpKind::AllReduce => Some(Ok(PerReplica::Same(sum(value, n_replicas)))),
        OpKind::ReduceScatter { shards } => Some(dealt(*shards).map(|shards| {
            let total = PerReplica::Same(sum(value, n_replicas));
            local_slices(&total, shards, n_replicas)
        })),
        OpKind::LocalSlice { shards } => {
            Some(dealt(*shards).map(|shards| local_slices(value, shards, n_replicas)))
        }
        OpKind::AllGather { shards, shape } => {
            Some(dealt(*shards).map(|shards| gather(value, shards, n_replicas, count(shape))))
        }
        _ => None,
    }
}

/// Over all replicas, in their order.
fn sum(value: &PerReplica, n_replicas: usize) -> Value {
    match value {
        PerReplica::Same(value) => {
            let scaled = value.as_floats().iter().map(|x| x * n_replicas as f64);
            floats(scaled.collect())
        }
        PerReplica::Each(values) => {
            let mut total = vec![0.0; values[0].len()];
            for value in values {
                for (total, x) in total.iter_mut().zip(value.as_floats()) {
                    *total += x;
                }
            }
            floats(total)
        }
    }
}

/// Every replica's own shard, the last ones padded with zeros.
fn local_slices(value: &PerReplica, shards: usize, n_replicas: usize) -> PerReplica {
    let own = |replica: usize| {
        let whole = value.on(replica);
        let length = whole.len().div_ceil(shards);
        let begin = (replica % shards * length).min(whole.len());
        let end = (begin + length).min(whole.len());
        views::padded_piece(whole, begin..end, length)
    };
    PerReplica::from_each((0..n_replicas).map(own).collect())
}

/// Every group of `shards` replicas puts its shards together.
fn gather(value: &PerReplica, shards: usize, n_replicas: usize, length: usize) -> PerReplica {
    let whole = |replica: usize| {
        let first = replica - replica % shards;
        views::joined(
            (first..first + shards).map(|member| value.on(member)),
            length,
        )
    };
    PerReplica::from_each((0..n_replicas).map(whole).collect())
}
