//! Hand-written programs for what was measured on bare hardware.

mod moves;
mod product;

use ipu_sim::engine;
use ipu_sim::ids::IpuId;
use ipu_sim::layout::{AxisSplit, Cut, Layout};
use ipu_sim::numerics::DType;
use ipu_sim::program::{Program, VarId, VarKind, Variable};
use ipu_sim::spec::MachineSpec;
use ipu_sim::units::Cycles;

use super::measurements::{Gemm, Measurements};
use super::{Row, machine};
use crate::error::Result;
use crate::evaluate::TIMING;

/// Largest relative error of the rate of a product, by the notebook's constant residual.
const GEMM: f64 = 0.02;

/// All rows.
///
/// # Errors
///
/// As [`engine::time`].
pub(super) fn rows(measured: &Measurements) -> Result<Vec<Row>> {
    let mut rows = gemm(&measured.gemm)?;
    for peak in &measured.peak {
        let machine = machine(&peak.rate.system);
        let found = product::peak(&machine, peak.product, peak.ipus)? / 1e12;
        rows.push(peak.rate.row(found));
    }
    for rate in &measured.exchange {
        let found = moves::exchange_rate(&machine(&rate.system))? / 1e12;
        rows.push(rate.row(found));
    }
    let paired = &measured.paired;
    rows.push(paired.row(moves::paired_message(&machine(&paired.system))?));
    let copy = &measured.local_copy;
    rows.push(copy.row(moves::local_copy(&machine(&copy.system))?));
    let link = &measured.link;
    rows.push(link.row(moves::link_rate(&machine(&link.system))? / 1e9));
    for host in &measured.host {
        let found = moves::host_rate(&machine(&host.system), host.way)? / 1e9;
        rows.push(host.row(found));
    }
    Ok(rows)
}

/// Rates of products on every tile.
fn gemm(gemm: &Gemm) -> Result<Vec<Row>> {
    let machine = machine(&gemm.system);
    let row = |&(n, expected): &(u32, f64)| {
        let cycles = product::gemm_cycles(&machine, n)?;
        Ok(Row {
            name: format!("{}, N = {n}", gemm.name),
            unit: "TFLOP/s".into(),
            expected,
            found: product::rate(&machine, [n, 16], cycles) / 1e12,
            tolerance: GEMM,
            is_range: false,
            role: gemm.role,
            source: gemm.source.clone(),
            known: None,
        })
    };
    gemm.rows.iter().map(row).collect()
}

/// A variable with an equal part of its first axis on every tile.
fn on_all_tiles(
    program: &mut Program,
    machine: &MachineSpec,
    ipu: IpuId,
    dtype: DType,
    rest: &[u32],
) -> VarId {
    let tiles = machine.tile.tiles_per_ipu;
    let cut = Cut {
        parts: tiles,
        grain: 1,
        tile_stride: 1,
    };
    let axes = std::iter::once(AxisSplit::cut(tiles, &[cut]))
        .chain(rest.iter().map(|&extent| AxisSplit::whole(extent)));
    var(program, ipu, dtype, Layout::row_major(axes.collect()))
}

/// A variable that lies like this.
fn var(program: &mut Program, ipu: IpuId, dtype: DType, layout: Layout) -> VarId {
    let layout = program.add_layout(layout);
    program.vars.push(Variable {
        name: "x".into(),
        dtype,
        ipu,
        layout,
        kind: VarKind::Weight,
    })
}

/// Cycles of a program.
fn time(program: &Program, machine: &MachineSpec) -> Result<Cycles> {
    Ok(engine::time(program, machine, TIMING)?.total)
}
