//! Copies: between tiles of an IPU, and between IPUs of a replica.
//!
//! The copies of one phase happen at once: everything is read before anything is written.

use super::compute::check_ipu;
use super::error::ExecuteError;
use super::memory::{Atlas, Memory, get};
use super::placement::{Cell, Placement};
use super::strides::{Strides, walk};
use crate::program::{Exchange, IpuCopy, SourceId, TileCopy, VarId};
use crate::view::{ViewAxis, ViewShape};

/// One element on its way, as offsets in the arrays of two variables.
struct Move {
    src: usize,
    dst: usize,
}

/// Runs an exchange phase, for all replicas.
pub(super) fn exchange(memory: &mut Memory<'_>, exchange: &Exchange) -> Result<(), ExecuteError> {
    let Memory {
        atlas, replicas, ..
    } = memory;
    let step = atlas.step(exchange.source);
    let mut moves = Vec::with_capacity(exchange.copies.len());
    for copy in &exchange.copies {
        for var in [copy.src.var, copy.dst.var] {
            check_ipu(atlas, step, var, exchange.ipu)?;
        }
        check_types(atlas, step, copy.src.var, copy.dst.var)?;
        moves.push(moves_of(atlas, copy));
    }
    for stores in replicas.values_mut() {
        let mut values = Vec::new();
        for (copy, moves) in exchange.copies.iter().zip(&moves) {
            for each in moves {
                values.push(get(atlas, stores, copy.src.var, each.src)?);
            }
        }
        let mut values = values.into_iter();
        for (copy, moves) in exchange.copies.iter().zip(&moves) {
            for (each, value) in moves.iter().zip(&mut values) {
                stores[copy.dst.var].set(each.dst, value);
            }
        }
    }
    Ok(())
}

/// Runs copies between IPUs, for all replicas.
pub(super) fn ipu_copies(
    memory: &mut Memory<'_>,
    source: SourceId,
    copies: &[IpuCopy],
) -> Result<(), ExecuteError> {
    let Memory {
        atlas, replicas, ..
    } = memory;
    let step = atlas.step(source);
    for &IpuCopy { src, dst } in copies {
        check_layouts(atlas, step, src, dst)?;
        check_types(atlas, step, src, dst)?;
    }
    for stores in replicas.values_mut() {
        let mut arrays = Vec::with_capacity(copies.len());
        for copy in copies {
            let array: Vec<f64> = (0..atlas.placement(copy.src).len)
                .map(|offset| get(atlas, stores, copy.src, offset))
                .collect::<Result<_, _>>()?;
            arrays.push(array);
        }
        for (copy, array) in copies.iter().zip(arrays) {
            for (offset, value) in array.into_iter().enumerate() {
                stores[copy.dst].set(offset, value);
            }
        }
    }
    Ok(())
}

/// Refuses to copy between variables of different element types.
pub(super) fn check_types(
    atlas: &Atlas<'_>,
    step: &str,
    src: VarId,
    dst: VarId,
) -> Result<(), ExecuteError> {
    if atlas.program.vars[src].dtype == atlas.program.vars[dst].dtype {
        return Ok(());
    }
    Err(ExecuteError::TypesDiffer {
        step: step.to_owned(),
        src: atlas.name(src),
        dst: atlas.name(dst),
    })
}

/// Refuses to copy box by box between variables of different layouts.
pub(super) fn check_layouts(
    atlas: &Atlas<'_>,
    step: &str,
    src: VarId,
    dst: VarId,
) -> Result<(), ExecuteError> {
    if atlas.program.vars[src].layout == atlas.program.vars[dst].layout {
        return Ok(());
    }
    Err(ExecuteError::LayoutsDiffer {
        step: step.to_owned(),
        src: atlas.name(src),
        dst: atlas.name(dst),
    })
}

/// Every element of a copy, once per copy of the destination.
fn moves_of(atlas: &Atlas<'_>, copy: &TileCopy) -> Vec<Move> {
    let (src, dst) = (&copy.src.shape, &copy.dst.shape);
    assert_eq!(
        src.extents(),
        dst.extents(),
        "views of a copy have equal extents"
    );
    let from = atlas.placement(copy.src.var);
    let to = atlas.placement(copy.dst.var);
    // The walk's numbers are the indices in the source, then those in the destination.
    let n_src = src.offsets.len();
    let loops: Vec<Strides> = src
        .axes
        .iter()
        .zip(&dst.axes)
        .map(|(src_axis, dst_axis)| {
            let extent = src_axis.iter().map(|digit| digit.extent as usize).product();
            let mut strides = Strides::new(extent, n_src + dst.offsets.len());
            add_digits(&mut strides, src_axis, 0);
            add_digits(&mut strides, dst_axis, n_src);
            strides
        })
        .collect();
    let loops: Vec<&Strides> = loops.iter().collect();
    let mut moves = Vec::new();
    let done = walk::<std::convert::Infallible>(&loops, &start(src, dst), &mut |at| {
        let (number, offset) = from.find(&at[..n_src]);
        let (dst_number, dst_offset) = to.find(&at[n_src..]);
        for cell in to.copies_of(dst_number) {
            moves.push(Move {
                src: nearest(from, number, cell).base + offset,
                dst: cell.base + dst_offset,
            });
        }
        Ok(())
    });
    match done {
        Ok(()) => moves,
        Err(never) => match never {},
    }
}

fn start(src: &ViewShape, dst: &ViewShape) -> Vec<usize> {
    let offsets = src.offsets.iter().chain(&dst.offsets);
    offsets.map(|&offset| offset as usize).collect()
}

/// Lets the steps of a view axis move along the axes of its variable, from number `first` on.
fn add_digits(strides: &mut Strides, axis: &ViewAxis, first: usize) {
    let mut inner = 1;
    for digit in axis.iter().rev() {
        let (extent, stride) = (digit.extent as usize, digit.stride as usize);
        strides.add(
            first + usize::from(digit.axis),
            (0..).map(|step: usize| step / inner % extent * stride),
        );
        inner *= extent;
    }
}

/// The copy of a box that a cell on another variable is filled from: its own tile's, else the first.
fn nearest<'t>(from: &'t Placement, number: usize, to: &Cell) -> &'t Cell {
    from.cell_on(to.tile)
        .filter(|cell| cell.number == number)
        .unwrap_or_else(|| &from.copies_of(number)[0])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::execute::fixtures::{check, count, exchange, outcome, source, var, var_on, whole};
    use crate::ids::IpuId;
    use crate::layout::Layout;
    use crate::layout::fixtures::cut;
    use crate::numerics::DType;
    use crate::program::{Program, Step};
    use crate::view::View;

    /// Any layout of a matrix of `shape`, cut along both axes, perhaps blocked and copied.
    fn layouts(shape: [u32; 2]) -> impl Strategy<Value = Layout> {
        let parts = (1..=shape[0], 1..=shape[1]);
        (parts, 1..4u32, 0..4u32, 0..3usize).prop_map(move |((rows, columns), n, first, order)| {
            let axes = vec![cut(shape[0], rows, columns * n), cut(shape[1], columns, n)];
            let orders: [&[(u8, u32)]; 3] = [
                &[(0, 1), (1, 1)],
                &[(1, 1), (0, 1)],
                &[(1, 4), (0, 2), (1, 1), (0, 1)],
            ];
            Layout {
                first_tile: first,
                ..Layout::row_major(axes)
                    .with_order(orders[order])
                    .with_copies((0..n).collect())
            }
        })
    }

    proptest! {
        #[test]
        fn a_new_layout_keeps_the_tensor((src, dst) in (1..7u32, 1..9u32)
            .prop_flat_map(|(m, n)| (layouts([m, n]), layouts([m, n]))))
        {
            let mut program = Program::new(1, 1);
            let values = count(src.shape().iter().product());
            let x = var(&mut program, "x", DType::F32, src);
            let y = var(&mut program, "y", DType::F32, dst);
            program.steps = vec![exchange(&mut program, &[(x, y)])];
            prop_assert_eq!(outcome(&program, &[(x, &values)], y).unwrap(), values);
        }
    }

    /// [sequences x positions, heads x size] to [sequences, heads, positions, size].
    #[test]
    fn views_say_which_element_goes_where() {
        let mut program = Program::new(1, 1);
        let layout = Layout::row_major(vec![cut(6, 4, 2), cut(4, 2, 1)]);
        let x = var(&mut program, "x", DType::F16, layout);
        let layout = Layout::row_major(vec![whole(2), cut(2, 2, 3), cut(3, 3, 1), whole(2)]);
        let heads = var(&mut program, "heads", DType::F16, layout);
        let shape = program.view(x).shape.reshape(&[2, 3, 2, 2]).unwrap();
        let src = View {
            var: x,
            shape: shape.transpose(&[0, 2, 1, 3]),
        };
        let dst = program.view(heads);
        program.steps = vec![Step::Exchange(Exchange {
            source: source(&mut program),
            ipu: IpuId(0),
            copies: vec![TileCopy { src, dst }],
        })];
        let rows = [[0, 4, 8], [2, 6, 10], [12, 16, 20], [14, 18, 22]];
        let expected: Vec<f64> = rows
            .as_flattened()
            .iter()
            .flat_map(|&at| [f64::from(at), f64::from(at + 1)])
            .collect();
        check(&program, &[(x, &count(24))], heads, &expected);
    }

    #[test]
    fn copies_of_one_phase_happen_at_once() {
        let mut program = Program::new(1, 1);
        let x = var(
            &mut program,
            "x",
            DType::F32,
            Layout::row_major(vec![cut(4, 2, 1)]),
        );
        let y = var(
            &mut program,
            "y",
            DType::F32,
            Layout::row_major(vec![cut(4, 4, 1)]),
        );
        program.steps = vec![exchange(&mut program, &[(x, y), (y, x)])];
        let inputs: [(VarId, &[f64]); 2] = [(x, &[1.0; 4]), (y, &[2.0; 4])];
        check(&program, &inputs, x, &[2.0; 4]);
        check(&program, &inputs, y, &[1.0; 4]);
    }

    /// Two IPUs that swap what they hold, all replicas alike.
    fn swap(there: Layout, dtype: DType) -> (Program, [VarId; 2]) {
        let mut program = Program::new(2, 2);
        let layout = Layout::row_major(vec![cut(5, 2, 1)]).with_copies(vec![0, 2]);
        let x = var(&mut program, "x", DType::F16, layout);
        let y = var_on(&mut program, "y", dtype, there, IpuId(1));
        let source = source(&mut program);
        let copies = [(x, y), (y, x)].map(|(src, dst)| IpuCopy { src, dst });
        let copies = copies.to_vec();
        program.steps = vec![Step::IpuCopies { source, copies }];
        (program, [x, y])
    }

    #[test]
    fn ipus_exchange_whole_variables_at_once() {
        let layout = || Layout::row_major(vec![cut(5, 2, 1)]).with_copies(vec![0, 2]);
        let (program, [x, y]) = swap(layout(), DType::F16);
        let inputs: [(VarId, &[f64]); 2] = [(x, &count(5)), (y, &[7.0; 5])];
        check(&program, &inputs, x, &[7.0; 5]);
        check(&program, &inputs, y, &count(5));

        let refused = |layout, dtype, expected: &str| {
            let (program, [x, y]) = swap(layout, dtype);
            let error = outcome(&program, &[(x, &count(5)), (y, &count(5))], x);
            assert_eq!(error.unwrap_err().to_string(), expected);
        };
        let elsewhere = Layout::row_major(vec![cut(5, 3, 1)]);
        let expected = "`test`: `x` and `y` have different layouts";
        refused(elsewhere, DType::F16, expected);
        let expected = "`test`: `x` and `y` have different element types";
        refused(layout(), DType::F32, expected);
    }
}
