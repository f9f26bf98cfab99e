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

use super::measurements::{Gemm, Measurements, Role};
use super::{Row, machine};
use crate::run::TIMING;

/// Largest relative error of the cycles of a product, by the notebook's constant residual.
const GEMM_CYCLES: f64 = 0.02;

/// Largest relative error of its rate.
const GEMM_RATE: f64 = 0.05;

/// All rows.
///
/// # Errors
///
/// As [`engine::time`].
pub(super) fn rows(measured: &Measurements) -> anyhow::Result<Vec<Row>> {
    let mut rows = gemm(&measured.gemm)?;
    for peak in &measured.peak {
        let machine = machine(&peak.rate.system)?;
        let found = product::peak(&machine, peak.product, peak.ipus)? / 1e12;
        rows.push(peak.rate.row(found));
    }
    for rate in &measured.exchange {
        let found = moves::exchange_rate(&machine(&rate.system)?)? / 1e12;
        rows.push(rate.row(found));
    }
    let paired = &measured.paired;
    rows.push(paired.row(moves::paired_message(&machine(&paired.system)?)?));
    let copy = &measured.local_copy;
    rows.push(copy.row(moves::local_copy(&machine(&copy.system)?)?));
    let link = &measured.link;
    rows.push(link.row(moves::link_rate(&machine(&link.system)?)? / 1e9));
    for host in &measured.host {
        let found = moves::host_rate(&machine(&host.system)?, host.way)? / 1e9;
        rows.push(host.row(found));
    }
    Ok(rows)
}

/// Cycles of products on every tile, and the rates that they mean.
fn gemm(gemm: &Gemm) -> anyhow::Result<Vec<Row>> {
    let machine = machine(&gemm.system)?;
    let mut rows = Vec::new();
    for &(n, rate, cycles) in &gemm.rows {
        let found = product::gemm_cycles(&machine, n)?;
        let row = |unit: &str, expected, found, tolerance| Row {
            name: format!("{}, N = {n}: {unit}", gemm.name),
            unit: unit.into(),
            expected,
            found,
            tolerance,
            is_range: false,
            role: Role::Validation,
            source: gemm.source.clone(),
            known: None,
        };
        let found_rate = product::rate(&machine, [n, 16], found) / 1e12;
        rows.push(row("cycles", cycles, found, GEMM_CYCLES));
        rows.push(row("TFLOP/s", rate, found_rate, GEMM_RATE));
    }
    Ok(rows)
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
fn time(program: &Program, machine: &MachineSpec) -> anyhow::Result<Cycles> {
    Ok(engine::time(program, machine, TIMING)?.total)
}
