//! Compute sets: which vertices run on which tiles, and whether they may.

use super::error::ExecuteError;
use super::float::{FloatUnit, Launch};
use super::memory::{Atlas, Memory};
use super::nest::Nest;
use super::vertices::VertexInstance;
use crate::ids::IpuId;
use crate::program::{ComputeSet, VarId};

/// Runs a compute set on all its tiles, for all replicas.
pub(super) fn run(memory: &mut Memory<'_>, set: &ComputeSet) -> Result<(), ExecuteError> {
    let number = memory.launch();
    let Memory {
        atlas,
        replicas,
        control,
        ..
    } = memory;
    let step = atlas.step(set.source);
    check_races(atlas, step, set)?;
    for group in &set.vertices {
        for operand in std::iter::once(&group.output).chain(&group.inputs) {
            check_ipu(atlas, step, operand.var, set.ipu)?;
        }
        let placement = atlas.placement(group.output.var);
        for cell in &placement.cells {
            let nest = Nest::new(atlas, step, group, cell)?;
            let launch = Launch {
                number,
                ipu: set.ipu,
                tile: placement.copies_of(cell.number)[0].tile,
            };
            for stores in replicas.values_mut() {
                let tile = cell.tile;
                VertexInstance {
                    atlas,
                    stores,
                    step,
                    group,
                    tile,
                    nest: &nest,
                    float: FloatUnit::new(*control, launch, nest.n_outputs()),
                }
                .run()?;
            }
        }
    }
    Ok(())
}

/// Refuses a variable that lies on another IPU than its step.
pub(super) fn check_ipu(
    atlas: &Atlas<'_>,
    step: &str,
    var: VarId,
    expected: IpuId,
) -> Result<(), ExecuteError> {
    let got = atlas.program.vars[var].ipu;
    if got == expected {
        return Ok(());
    }
    Err(ExecuteError::WrongIpu {
        step: step.to_owned(),
        variable: atlas.name(var),
        expected,
        got,
    })
}

/// Vertices of one set run at the same time, so what one group writes no other may touch.
fn check_races(atlas: &Atlas<'_>, step: &str, set: &ComputeSet) -> Result<(), ExecuteError> {
    for (position, writer) in set.vertices.iter().enumerate() {
        let var = writer.output.var;
        let clash = set.vertices.iter().enumerate().any(|(other, group)| {
            other != position
                && (group.output.var == var || group.inputs.iter().any(|input| input.var == var))
        });
        if clash {
            return Err(ExecuteError::Race {
                step: step.to_owned(),
                variable: atlas.name(var),
            });
        }
    }
    Ok(())
}
