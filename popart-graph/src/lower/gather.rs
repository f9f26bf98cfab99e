//! Rows picked from a table and added to it, by index.
//!
//! Indices are only known at run time, so every tile that holds rows looks all of them up
//! and gives zeros where a row is not its own; the partial results are then exchanged and
//! added. Updates are brought to every tile that may hold their rows
//! (popops, `lib/popops/DynamicSlice.cpp`: a plan that splits both rows and columns).

use ipu_sim::layout::{AxisSplit, Layout};
use ipu_sim::numerics::DType;
use ipu_sim::program::{Label, Operand, VarId, VarKind, VertexGroup};
use ipu_sim::vertex::{ReduceOp, Vertex};
use smallvec::SmallVec;

use super::ctx::{Ctx, label_of};
use super::layouts;
use super::value::Value;

/// Rows looked up or added at once take this part of a tile's memory at most: our choice,
/// small enough to fit beside three layers of BERT-Large, large enough that launches of
/// exchanges don't matter.
const MEMORY_SHARE: u64 = 16;

/// Label of the parts that partial results are in; tables have fewer axes.
const PART: u8 = 4;
/// Label of the looked-up indices.
const INDEX: u8 = 5;

/// A table `[rows, columns]` on one variable, and its axes there.
struct Table {
    var: VarId,
    layout: Layout,
    rows: usize,
    columns: usize,
}

impl Table {
    fn of(ctx: &Ctx<'_>, value: &Value) -> Self {
        let var = value.single().expect("labelled values have one part").var;
        Self {
            var,
            layout: ctx.builder.program.layout_of(var).clone(),
            rows: usize::from(label_of(value, 0).0),
            columns: usize::from(label_of(value, 1).0),
        }
    }

    fn operand(&self) -> Operand {
        let labels: Vec<u8> = (0..self.layout.axes.len() as u8).collect();
        Operand::new(self.var, &labels)
    }

    /// `n` indices on every tile that holds rows.
    fn indices(&self, n: u32) -> Layout {
        let everywhere = self.layout.project(&[]);
        Layout {
            first_tile: everywhere.first_tile,
            copies: everywhere.copies,
            ..Layout::row_major(vec![AxisSplit::whole(n)])
        }
    }

    /// `n` rows on every tile that may hold them: `[n, columns]`.
    fn updates(&self, n: u32) -> Layout {
        let columns = self.layout.project(&[self.columns]);
        Layout {
            first_tile: columns.first_tile,
            copies: columns.copies,
            ..Layout::row_major(vec![AxisSplit::whole(n), columns.axes[0].clone()])
        }
    }
}

/// Lookups at once, so that what tiles exchange for them takes its share of memory at most.
///
/// PopLibs plans the serial split of lookups by the same rule (`DynamicSlice.cpp`).
fn lookups_at_once(ctx: &Ctx<'_>, table: &Table, n: u32, dtype: DType) -> u32 {
    let columns = u64::from(table.layout.axes[table.columns].extent_max());
    let bytes = columns * dtype.size().0;
    let share = ctx.spec().memory.0 / MEMORY_SHARE;
    let most = u32::try_from(share / bytes).unwrap_or(u32::MAX).max(1);
    n.div_ceil(n.div_ceil(most))
}

/// `table [rows, columns], indices [n] -> [n, columns]`.
pub(crate) fn gather(
    ctx: &mut Ctx<'_>,
    table: &Value,
    indices: &Value,
    first_row: u32,
    name: &str,
) -> Value {
    let labelled = ctx.labelled(table);
    let n = indices.shape()[0];
    let at_once = lookups_at_once(ctx, &Table::of(ctx, &labelled), n, table.dtype);
    let parts: Vec<Value> = (0..n)
        .step_by(at_once as usize)
        .map(|begin| {
            let end = (begin + at_once).min(n);
            let indices = ctx.builder.slice(indices, 0, begin, end);
            gather_at_once(ctx, &labelled, &indices, first_row, name)
        })
        .collect();
    let parts: Vec<&Value> = parts.iter().collect();
    ctx.builder.concat(&parts, 0)
}

fn gather_at_once(
    ctx: &mut Ctx<'_>,
    table: &Value,
    indices: &Value,
    first_row: u32,
    name: &str,
) -> Value {
    let (n, dtype) = (indices.shape()[0], table.dtype);
    let table = Table::of(ctx, table);
    let indices = ctx
        .builder
        .materialise(indices, &table.indices(n), &ctx.builder.part("indices"));
    let rows = &table.layout.axes[table.rows];
    let in_parts = rows.places.len() > 1;
    let mut axes = vec![
        AxisSplit::whole(n),
        table.layout.axes[table.columns].clone(),
    ];
    let mut labels = vec![INDEX, table.columns as u8];
    if in_parts {
        axes.insert(0, AxisSplit::one_each(rows));
        labels.insert(0, PART);
    }
    let rows_at = if in_parts { 0 } else { rows.places[0].tile };
    let layout = Layout {
        first_tile: table.layout.first_tile + rows_at,
        ..Layout::row_major(axes)
    };
    let kind = if in_parts {
        VarKind::Temporary
    } else {
        VarKind::Activation
    };
    let found = ctx.builder.add_var(name, dtype, layout, kind);
    ctx.builder.emit_compute(vec![VertexGroup {
        vertex: Vertex::MultiSlice {
            row: Label(table.rows as u8),
            first_row,
        },
        output: Operand::new(found, &labels),
        inputs: SmallVec::from_iter([table.operand(), Operand::new(indices, &[INDEX])]),
    }]);
    if !in_parts {
        return ctx.builder.value_of(found);
    }
    let parts = ctx.builder.value_of(found);
    let together = layouts::shared_among(ctx.builder.program.layout_of(found), 0);
    let name_of_parts = ctx.builder.part("gathered");
    let gathered = ctx.builder.materialise(&parts, &together, &name_of_parts);
    let result_layout = Layout {
        first_tile: together.first_tile,
        ..Layout::row_major(together.axes[1..].to_vec())
    };
    let result = ctx
        .builder
        .add_var(name, dtype, result_layout, VarKind::Activation);
    ctx.builder.emit_compute(vec![VertexGroup {
        vertex: Vertex::Reduce {
            op: ReduceOp::Sum,
            scale: 1.0,
        },
        output: Operand::new(result, &[1, 2]),
        inputs: SmallVec::from_iter([Operand::new(gathered, &[0, 1, 2])]),
    }]);
    ctx.builder.value_of(result)
}

/// Adds `factor * dy [n, columns]` to the rows `indices [n]` of a table, in place.
pub(crate) fn accumulate(
    ctx: &mut Ctx<'_>,
    accumulator: &Value,
    dy: &Value,
    indices: &Value,
    first_row: u32,
    factor: f64,
) -> Value {
    let labelled = ctx.labelled(accumulator);
    let table = Table::of(ctx, &labelled);
    let n = indices.shape()[0];
    let at_once = lookups_at_once(ctx, &table, n, dy.dtype);
    for begin in (0..n).step_by(at_once as usize) {
        let end = (begin + at_once).min(n);
        let dy = ctx.builder.slice(dy, 0, begin, end);
        let indices = ctx.builder.slice(indices, 0, begin, end);
        accumulate_at_once(ctx, &table, &dy, &indices, first_row, factor);
    }
    if labelled == *accumulator {
        return labelled;
    }
    let target = accumulator
        .single()
        .expect("accumulators are one view")
        .clone();
    ctx.builder.copy_to_view(&labelled, &target);
    accumulator.clone()
}

fn accumulate_at_once(
    ctx: &mut Ctx<'_>,
    table: &Table,
    dy: &Value,
    indices: &Value,
    first_row: u32,
    factor: f64,
) {
    let n = indices.shape()[0];
    let (updates, index_layout) = (table.updates(n), table.indices(n));
    let name = ctx.builder.part("updates");
    let placed = ctx
        .builder
        .materialise_many(&[(dy, &updates), (indices, &index_layout)], &name);
    ctx.builder.emit_compute(vec![VertexGroup {
        vertex: Vertex::MultiUpdateAdd {
            row: Label(table.rows as u8),
            first_row,
            scale: factor,
        },
        output: table.operand(),
        inputs: SmallVec::from_iter([
            Operand::new(placed[0], &[INDEX, table.columns as u8]),
            Operand::new(placed[1], &[INDEX]),
        ]),
    }]);
}

/// `dy [n, columns], indices [n] -> [rows, columns]`.
pub(crate) fn gather_grad(
    ctx: &mut Ctx<'_>,
    dy: &Value,
    indices: &Value,
    first_row: u32,
    rows: u32,
    name: &str,
) -> Value {
    let columns = dy.shape()[1];
    let layout = layouts::table(rows, columns, dy.dtype, ctx.spec().tiles_per_ipu);
    let var = ctx
        .builder
        .add_var(name, dy.dtype, layout, VarKind::Activation);
    ctx.builder.fill(var, 0.0);
    let table = ctx.builder.value_of(var);
    accumulate(ctx, &table, dy, indices, first_row, 1.0)
}
