//! Rules of what moves: exchanges, copies between IPUs, transfers and collectives.

use super::fault::Violation;
use crate::exchange::pieces;
use crate::layout::Layout;
use crate::program::{
    Collective, CollectiveKind, CollectiveTensor, Exchange, IpuCopy, Program, Transfer, VarId,
};
use crate::view::{View, ViewShape};

/// What one exchange may move: traffic of a tile is counted in 32 bits.
const PHASE_MAX: u64 = u32::MAX as u64;

fn name(program: &Program, var: VarId) -> String {
    program.vars[var].name.clone()
}

pub(super) fn exchange(program: &Program, exchange: &Exchange) -> Result<(), Violation> {
    let mut bytes = 0u64;
    for copy in &exchange.copies {
        for view in [&copy.src, &copy.dst] {
            let got = program.vars[view.var].ipu;
            if got != exchange.ipu {
                return Err(Violation::WrongIpu {
                    variable: name(program, view.var),
                    expected: exchange.ipu,
                    got,
                });
            }
            in_range(program, view)?;
        }
        same_type(program, copy.src.var, copy.dst.var)?;
        let fit = pieces::views_fit(&copy.src.shape, &copy.dst.shape);
        if !fit {
            return Err(Violation::ViewsDiffer {
                from: name(program, copy.src.var),
                src: copy.src.shape.extents(),
                to: name(program, copy.dst.var),
                dst: copy.dst.shape.extents(),
            });
        }
        let elements = extents(&copy.dst.shape).fold(1, u64::saturating_mul);
        let element = program.vars[copy.src.var].dtype.size().0;
        bytes = bytes.saturating_add(elements.saturating_mul(element));
    }
    if bytes <= PHASE_MAX {
        return Ok(());
    }
    Err(Violation::TooLarge {
        what: "bytes in one exchange",
        most: PHASE_MAX,
        got: bytes,
    })
}

fn extents(view: &ViewShape) -> impl Iterator<Item = u64> {
    let digits = view.axes.iter().flatten();
    digits.map(|digit| u64::from(digit.extent))
}

/// Whether a view shows nothing but what its variable has.
fn in_range(program: &Program, view: &View) -> Result<(), Violation> {
    let shape = program.shape_of(view.var);
    let mut last: Vec<u64> = view.shape.offsets.iter().map(|&at| u64::from(at)).collect();
    let mut fits = last.len() == shape.len();
    for axis in &view.shape.axes {
        let values = axis.iter().map(|digit| u64::from(digit.extent));
        fits &= values.fold(1, u64::saturating_mul) <= u64::from(u32::MAX);
        for digit in axis {
            match last.get_mut(usize::from(digit.axis)) {
                Some(last) if digit.extent > 0 => {
                    *last += u64::from(digit.extent - 1) * u64::from(digit.stride);
                }
                _ => fits = false,
            }
        }
    }
    fits &= last
        .iter()
        .zip(&shape)
        .all(|(&last, &extent)| last < u64::from(extent));
    match fits {
        true => Ok(()),
        false => Err(Violation::BrokenView {
            variable: name(program, view.var),
        }),
    }
}

fn same_type(program: &Program, src: VarId, dst: VarId) -> Result<(), Violation> {
    if program.vars[src].dtype == program.vars[dst].dtype {
        return Ok(());
    }
    Err(Violation::TypesDiffer {
        src: name(program, src),
        dst: name(program, dst),
    })
}

fn same_layout(program: &Program, src: VarId, dst: VarId) -> Result<(), Violation> {
    if program.vars[src].layout == program.vars[dst].layout {
        return Ok(());
    }
    Err(Violation::LayoutsDiffer {
        src: name(program, src),
        dst: name(program, dst),
    })
}

pub(super) fn ipu_copies(program: &Program, copies: &[IpuCopy]) -> Result<(), Violation> {
    for &IpuCopy { src, dst } in copies {
        if program.vars[src].ipu == program.vars[dst].ipu {
            return Err(Violation::SameIpu {
                src: name(program, src),
                dst: name(program, dst),
            });
        }
        same_layout(program, src, dst)?;
        same_type(program, src, dst)?;
    }
    Ok(())
}

/// Whether variables fit their buffers; who uses a buffer or stream, is a rule of the program.
pub(super) fn transfers(program: &Program, transfers: &[Transfer]) -> Result<(), Violation> {
    for transfer in transfers {
        let (Transfer::RemoteLoad { buffer, var } | Transfer::RemoteStore { buffer, var }) =
            *transfer
        else {
            continue;
        };
        let (needed, buffer) = (program.bytes_of(var), &program.remote_buffers[buffer]);
        if needed > buffer.bytes {
            return Err(Violation::SmallBuffer {
                buffer: buffer.name.clone(),
                variable: name(program, var),
                needed,
                available: buffer.bytes,
            });
        }
    }
    Ok(())
}

pub(super) fn collective(program: &Program, collective: &Collective) -> Result<(), Violation> {
    for &CollectiveTensor { src, dst } in &collective.tensors {
        let (expected, got) = (program.vars[src].ipu, program.vars[dst].ipu);
        if expected != got {
            return Err(Violation::WrongIpu {
                variable: name(program, dst),
                expected,
                got,
            });
        }
        same_type(program, src, dst)?;
        match collective.kind {
            CollectiveKind::AllReduce => same_layout(program, src, dst)?,
            CollectiveKind::ReduceScatter | CollectiveKind::TakeShard => {
                shards(program, src, dst, false)?;
            }
            CollectiveKind::AllGather => shards(program, dst, src, true)?,
        }
    }
    Ok(())
}

/// Whether every box of `whole`, or of `shard`, has its counterpart, and a shard the right size.
///
/// What is gathered needs a shard for every box, on its tile or that of the box's first copy; what
/// is scattered needs a box for every shard.
fn shards(program: &Program, whole: VarId, shard: VarId, gathers: bool) -> Result<(), Violation> {
    let stored = |layout: &Layout| {
        let boxes = layout.boxes().flat_map(|(first, places)| {
            let stored = layout.stored_elements(&layout.extents(&places));
            layout
                .copies_of(first)
                .map(move |tile| (tile, (first, stored)))
        });
        boxes.collect::<std::collections::BTreeMap<_, _>>()
    };
    let [wholes, shards] = [whole, shard].map(|var| stored(program.layout_of(var)));
    let missing = |variable, output, tile| Violation::MissingBox {
        variable: name(program, variable),
        tile,
        output: name(program, output),
    };
    let share = |tile, expected: u64, got: u64| {
        let expected = expected.div_ceil(u64::from(program.n_replicas));
        if expected == got {
            return Ok(());
        }
        Err(Violation::Shard {
            shard: name(program, shard),
            whole: name(program, whole),
            tile,
            expected,
            got,
        })
    };
    if gathers {
        for (&tile, &(first, elements)) in &wholes {
            let found = shards.get(&tile).or_else(|| shards.get(&first));
            let &(_, got) = found.ok_or_else(|| missing(shard, whole, tile))?;
            share(tile, elements, got)?;
        }
        return Ok(());
    }
    for (&tile, &(_, got)) in &shards {
        let &(_, elements) = wholes
            .get(&tile)
            .ok_or_else(|| missing(whole, shard, tile))?;
        share(tile, elements, got)?;
    }
    Ok(())
}
