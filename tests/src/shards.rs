//! Moments that replicas share out between them, put together again.
//!
//! A shard on the machine is a slice of every tile's box of the weight it belongs to; the
//! evaluator cuts the tensor in row-major order instead, which no result shows.

use ipu_sim::execute::Memory;
use ipu_sim::program::{Program, VarId};
use popart_graph::ir::TensorId;

use crate::{Case, Result};

/// The weight of which a variable holds this replica's shard of a moment; `None` if the
/// variable is whole.
#[must_use]
pub fn weight_of(case: &Case, variable: TensorId) -> Option<TensorId> {
    let tensors = &case.compiled.graph.tensors;
    let name = &tensors[variable].name;
    let weight = name
        .strip_prefix("Accl1___")
        .or_else(|| name.strip_prefix("Accl2___"))?;
    let mut weights = case.model.weights.iter().map(|weight| weight.tensor);
    let weight = weights.find(|&id| tensors[id].name == weight)?;
    (tensors[variable].shape != tensors[weight].shape).then_some(weight)
}

/// Puts the shards of all replicas, as they lie in storage, together to a tensor that lies like
/// `weight`, in its logical order.
///
/// # Errors
/// The shards aren't as many elements as the weight's boxes give.
pub fn gather(
    program: &Program,
    memory: &Memory<'_>,
    weight: VarId,
    shards: &[Vec<f64>],
) -> Result<Vec<f64>> {
    let layout = program.layout_of(weight);
    let mut stored = Vec::new();
    let mut begin = 0;
    for (_, index) in layout.boxes() {
        let whole = layout.stored_elements(&layout.extents(&index)) as usize;
        let share = whole.div_ceil(shards.len());
        let pieces = shards.iter().map(|shard| shard.get(begin..begin + share));
        let pieces: Option<Vec<&[f64]>> = pieces.collect();
        let pieces = pieces.ok_or("a shard is too short for its weight")?;
        stored.extend(pieces.concat().into_iter().take(whole));
        begin += share;
    }
    from_storage(program, memory, weight, &stored)
}

/// The logical order of what lies in storage.
///
/// # Errors
/// There are more or fewer elements than the variable stores.
pub fn from_storage(
    program: &Program,
    memory: &Memory<'_>,
    var: VarId,
    stored: &[f64],
) -> Result<Vec<f64>> {
    let n = program.elements_of(var).0 as usize;
    // Where each element goes; padding, which is 0, belongs to none.
    let numbers: Vec<f64> = (1..=n).map(|number| number as f64).collect();
    let numbers = memory.to_storage(var, &numbers)?;
    if numbers.len() != stored.len() {
        return Err(format!("expected {} elements, got {}", numbers.len(), stored.len()).into());
    }
    let mut values = vec![f64::NAN; n];
    for (number, &value) in numbers.iter().zip(stored) {
        if *number > 0.0 {
            values[*number as usize - 1] = value;
        }
    }
    Ok(values)
}
