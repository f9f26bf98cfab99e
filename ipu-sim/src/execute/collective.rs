//! What replicas do together: sums over replicas, and shards of boxes.
//!
//! A box that stores `n` elements is cut into one slice of `ceil(n / replicas)` per
//! replica, in storage order, the last ones padded with zeros. A replica's shard
//! lies on the tile of its box. Sums run in f32, replica after replica.

use super::error::ExecuteError;
use super::float::{FloatUnit, Launch};
use super::memory::{Memory, get};
use super::moves::{check_layouts, check_types};
use super::placement::Cell;
use crate::ids::{Id, ReplicaId, TileId};
use crate::numerics::DType;
use crate::program::{Collective, CollectiveKind, CollectiveTensor, VarId};

/// Runs a collective over all replicas.
pub(super) fn run(memory: &mut Memory<'_>, collective: &Collective) -> Result<(), ExecuteError> {
    let number = memory.launch();
    let step = memory.atlas.step(collective.source);
    for &tensor in &collective.tensors {
        check_types(&memory.atlas, step, tensor.src, tensor.dst)?;
        match collective.kind {
            CollectiveKind::AllReduce => {
                check_layouts(&memory.atlas, step, tensor.src, tensor.dst)?;
                all_reduce(memory, step, number, tensor)?;
            }
            CollectiveKind::ReduceScatter => scatter(memory, step, number, tensor, Shard::OfSum)?,
            CollectiveKind::TakeShard => scatter(memory, step, number, tensor, Shard::OfOwn)?,
            CollectiveKind::AllGather => all_gather(memory, step, tensor)?,
        }
    }
    Ok(())
}

/// What a shard is cut from.
#[derive(Clone, Copy)]
enum Shard {
    /// The sum over all replicas.
    OfSum,
    /// The replica's own values.
    OfOwn,
}

fn all_reduce(
    memory: &mut Memory<'_>,
    step: &str,
    number: u64,
    tensor: CollectiveTensor,
) -> Result<(), ExecuteError> {
    let n_cells = memory.atlas.placement(tensor.src).cells.len();
    for cell in 0..n_cells {
        let placement = memory.atlas.placement(tensor.src);
        let cell = placement.cells[cell];
        let mut summing = Summing::new(memory, step, number, tensor, &cell);
        for offset in cell.base..cell.base + stored(memory, tensor.src, &cell) {
            let sum = summing.sum(memory, offset)?;
            for stores in memory.replicas.values_mut() {
                stores[tensor.dst].put(offset, sum);
            }
        }
    }
    Ok(())
}

fn scatter(
    memory: &mut Memory<'_>,
    step: &str,
    number: u64,
    tensor: CollectiveTensor,
    what: Shard,
) -> Result<(), ExecuteError> {
    let mut results = Vec::new();
    for shard in &memory.atlas.placement(tensor.dst).cells {
        let whole = cell_on(memory, step, tensor.src, shard.tile)?;
        let share = check_share(
            memory,
            step,
            Ends {
                tensor: tensor.src,
                shard: tensor.dst,
            },
            &whole,
            shard,
        )?;
        let end = whole.base + stored(memory, tensor.src, &whole);
        let mut summing = Summing::new(memory, step, number, tensor, &whole);
        for replica in memory.replicas.ids() {
            for at in 0..share {
                let from = whole.base + replica.index() * share + at;
                let value = match what {
                    _ if from >= end => 0.0,
                    Shard::OfSum => summing.sum(memory, from)?,
                    Shard::OfOwn => {
                        get(&memory.atlas, &memory.replicas[replica], tensor.src, from)?
                    }
                };
                results.push((replica, shard.base + at, value));
            }
        }
    }
    store(memory, tensor.dst, results);
    Ok(())
}

fn all_gather(
    memory: &mut Memory<'_>,
    step: &str,
    tensor: CollectiveTensor,
) -> Result<(), ExecuteError> {
    let placement = memory.atlas.placement(tensor.dst);
    let mut results = Vec::new();
    for whole in &placement.cells {
        // A shard needn't be on every tile that gets a copy of the whole.
        let first = placement.copies_of(whole.number)[0].tile;
        let shard = cell_on(memory, step, tensor.src, whole.tile)
            .or_else(|_| cell_on(memory, step, tensor.src, first))?;
        let ends = Ends {
            tensor: tensor.dst,
            shard: tensor.src,
        };
        let share = check_share(memory, step, ends, whole, &shard)?;
        for at in 0..stored(memory, tensor.dst, whole) {
            let owner = ReplicaId::from_index(at / share);
            let from = shard.base + at % share;
            let value = get(&memory.atlas, &memory.replicas[owner], tensor.src, from)?;
            let all = memory.replicas.ids();
            results.extend(all.map(|replica| (replica, whole.base + at, value)));
        }
    }
    store(memory, tensor.dst, results);
    Ok(())
}

fn store(memory: &mut Memory<'_>, var: VarId, results: Vec<(ReplicaId, usize, f64)>) {
    for (replica, offset, value) in results {
        memory.replicas[replica][var].put(offset, value);
    }
}

/// Sums over all replicas of the elements of one box.
///
/// One replica makes a sum and the others get copies, so each is rounded once.
struct Summing<'s> {
    step: &'s str,
    tensor: CollectiveTensor,
    tile: TileId,
    float: FloatUnit,
}

impl<'s> Summing<'s> {
    fn new(
        memory: &Memory<'_>,
        step: &'s str,
        number: u64,
        tensor: CollectiveTensor,
        cell: &Cell,
    ) -> Self {
        let placement = memory.atlas.placement(tensor.src);
        let launch = Launch {
            number,
            ipu: memory.atlas.program.vars[tensor.src].ipu,
            tile: placement.copies_of(cell.number)[0].tile,
        };
        let elements = placement.box_of(cell).stored;
        Self {
            step,
            tensor,
            tile: cell.tile,
            float: FloatUnit::new(memory.control, launch, elements),
        }
    }

    /// The sum over all replicas of one element, rounded.
    fn sum(&mut self, memory: &Memory<'_>, offset: usize) -> Result<f64, ExecuteError> {
        let var = self.tensor.src;
        let dtype = memory.atlas.program.vars[var].dtype;
        let mut sum = 0.0;
        for stores in memory.replicas.values() {
            let term = get(&memory.atlas, stores, var, offset)?;
            self.float.note(term);
            sum += term;
            if dtype != DType::U32 {
                sum = DType::F32.round(sum);
            }
        }
        let rounded = self.float.round(dtype, sum).map_err(|exception| {
            let result = (self.tensor.dst, self.tile);
            memory.atlas.raised(self.step, result, exception)
        })?;
        self.float.next_element();
        Ok(rounded)
    }
}

fn cell_on(
    memory: &Memory<'_>,
    step: &str,
    var: VarId,
    tile: TileId,
) -> Result<Cell, ExecuteError> {
    let cell = memory.atlas.placement(var).cell_on(tile);
    cell.copied().ok_or_else(|| ExecuteError::MissingBox {
        step: step.to_owned(),
        variable: memory.atlas.name(var),
        tile,
    })
}

fn stored(memory: &Memory<'_>, var: VarId, cell: &Cell) -> usize {
    memory.atlas.placement(var).box_of(cell).stored
}

/// A tensor and the variable that holds its shard.
#[derive(Clone, Copy)]
struct Ends {
    tensor: VarId,
    shard: VarId,
}

/// Elements of a replica's slice of `whole`, if the shard stores as many.
fn check_share(
    memory: &Memory<'_>,
    step: &str,
    ends: Ends,
    whole: &Cell,
    shard: &Cell,
) -> Result<usize, ExecuteError> {
    let expected = stored(memory, ends.tensor, whole).div_ceil(memory.replicas.len());
    let got = stored(memory, ends.shard, shard);
    if expected == got {
        return Ok(expected);
    }
    Err(ExecuteError::ShardSize {
        step: step.to_owned(),
        variable: memory.atlas.name(ends.shard),
        tile: shard.tile,
        expected,
        got,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execute::fixtures::{QueueHost, count, source, var, whole};
    use crate::execute::{RemoteMemory, run};
    use crate::ids::Id;
    use crate::layout::fixtures::cut;
    use crate::layout::{AxisSplit, Layout};
    use crate::program::{Program, Step};

    /// [2, 3] on two tiles in blocks of 4 columns: each box stores 4 elements, one of them padding.
    fn tensor_layout() -> Layout {
        Layout::row_major(vec![cut(2, 2, 3), whole(3)]).with_order(&[(1, 4), (0, 1), (1, 1)])
    }

    /// One part per box, of `per_box` elements.
    fn shard_layout(per_box: u32) -> Layout {
        let runs = [(0, per_box, 0), (per_box, per_box, 3)];
        Layout::row_major(vec![AxisSplit::from_runs(runs)])
    }

    struct Case<'c> {
        kinds: &'c [CollectiveKind],
        replicas: u32,
        per_box: u32,
        dtype: DType,
        /// By replica.
        inputs: &'c [Vec<f64>],
    }

    /// Runs collectives one after the other: from `tensor`, through `shard`, to `result`.
    fn results(case: &Case<'_>) -> Result<Vec<[Option<Vec<f64>>; 2]>, ExecuteError> {
        let mut program = Program::new(1, case.replicas);
        let tensor = var(&mut program, "tensor", case.dtype, tensor_layout());
        let shard = var(
            &mut program,
            "shard",
            case.dtype,
            shard_layout(case.per_box),
        );
        let result = var(&mut program, "result", case.dtype, tensor_layout());
        let source = source(&mut program);
        program.steps = case
            .kinds
            .iter()
            .map(|&kind| {
                let (src, dst) = match kind {
                    CollectiveKind::AllReduce => (tensor, result),
                    CollectiveKind::ReduceScatter | CollectiveKind::TakeShard => (tensor, shard),
                    CollectiveKind::AllGather => (shard, result),
                };
                Step::Collective(Collective {
                    source,
                    kind,
                    tensors: vec![CollectiveTensor { src, dst }],
                })
            })
            .collect();
        let mut memory = Memory::new(&program)?;
        for (position, values) in case.inputs.iter().enumerate() {
            memory.write(ReplicaId::from_index(position), tensor, values)?;
        }
        let remote = &mut RemoteMemory::new(&program);
        run(&mut memory, &mut QueueHost::default(), remote)?;
        let replicas = (0..case.replicas).map(ReplicaId);
        Ok(replicas
            .map(|replica| [shard, result].map(|var| memory.read(replica, var).ok()))
            .collect())
    }

    fn check(case: &Case<'_>, expected: &[[Option<&[f64]>; 2]]) {
        let got = results(case).unwrap();
        let expected: Vec<[Option<Vec<f64>>; 2]> = expected
            .iter()
            .map(|pair| pair.map(|values| values.map(<[f64]>::to_vec)))
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn two_replicas_share_out_sums_and_get_them_back() {
        let inputs = [count(6), vec![10.0; 6]];
        let case = |kinds| Case {
            kinds,
            replicas: 2,
            per_box: 2,
            dtype: DType::F16,
            inputs: &inputs,
        };
        let sum = [10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
        check(
            &case(&[CollectiveKind::AllReduce]),
            &[[None, Some(&sum)], [None, Some(&sum)]],
        );
        let shards = [[10.0, 11.0, 13.0, 14.0], [12.0, 0.0, 15.0, 0.0]];
        check(
            &case(&[CollectiveKind::ReduceScatter, CollectiveKind::AllGather]),
            &shards
                .each_ref()
                .map(|shard| [Some(shard.as_slice()), Some(&sum)]),
        );
        let own = [[0.0, 1.0, 3.0, 4.0], [10.0, 0.0, 10.0, 0.0]];
        let mixed = [0.0, 1.0, 10.0, 3.0, 4.0, 10.0];
        check(
            &case(&[CollectiveKind::TakeShard, CollectiveKind::AllGather]),
            &own.each_ref()
                .map(|shard| [Some(shard.as_slice()), Some(&mixed)]),
        );
    }

    #[test]
    fn shards_of_boxes_that_dont_divide_are_padded() {
        let inputs = [count(6), count(6), count(6)];
        let case = Case {
            kinds: &[CollectiveKind::TakeShard, CollectiveKind::AllGather],
            replicas: 3,
            per_box: 2,
            dtype: DType::F32,
            inputs: &inputs,
        };
        let shards = [[0.0, 1.0, 3.0, 4.0], [2.0, 0.0, 5.0, 0.0], [0.0; 4]];
        let whole = count(6);
        check(
            &case,
            &shards
                .each_ref()
                .map(|shard| [Some(shard.as_slice()), Some(&whole)]),
        );
    }

    /// Replica after replica in f32, then once to half: in halves both ones would be lost.
    #[test]
    fn sums_over_replicas_run_in_f32() {
        let inputs = [vec![2048.0; 6], vec![1.0; 6], vec![1.0; 6]];
        let case = Case {
            kinds: &[CollectiveKind::AllReduce],
            replicas: 3,
            per_box: 2,
            dtype: DType::F16,
            inputs: &inputs,
        };
        let sum = [2050.0; 6];
        check(&case, &[[None, Some(sum.as_slice())]; 3]);
    }

    #[test]
    fn a_shard_of_another_size_is_refused() {
        let case = Case {
            kinds: &[CollectiveKind::TakeShard],
            replicas: 2,
            per_box: 3,
            dtype: DType::F16,
            inputs: &[count(6), count(6)],
        };
        let expected = "`test`: expected 2 elements of shard `shard` on tile 0, got 3";
        assert_eq!(results(&case).unwrap_err().to_string(), expected);
    }
}
