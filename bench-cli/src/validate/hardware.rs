//! Hand-written programs for what was measured on bare hardware.

use ipu_sim::engine;
use ipu_sim::ids::IpuId;
use ipu_sim::layout::{AxisSplit, Cut, Layout};
use ipu_sim::numerics::DType;
use ipu_sim::program::{
    ComputeSet, IpuCopy, Label, Operand, Program, Step, Stream, Transfer, VarId, VarKind, Variable,
    VertexGroup,
};
use ipu_sim::spec::MachineSpec;
use ipu_sim::vertex::{MatMulMethod, Vertex, WeightLoad};

use crate::run::TIMING;

/// Channels in and out of one AMP block.
const BLOCK: u32 = 16;

/// Bytes that each tile sends over the link, as the measurement's 64 KB.
const SENT_PER_TILE: u32 = 64 * 1024;

/// Elements of the stream that are read.
const HOST_READS: u32 = 16;

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
    let layout = program.add_layout(Layout::row_major(axes.collect()));
    program.vars.push(Variable {
        name: "x".into(),
        dtype,
        ipu,
        layout,
        kind: VarKind::Weight,
    })
}

/// Rows of the product that shows the peak of single precision.
const PEAK_ROWS: u32 = 8192;

/// Cycles of `[n, 16] x [16, 16]` on every tile of an IPU at once, in FP16.16.
///
/// The codelet that was measured loads its coefficients 128 bits at a time, twice as fast as
/// PopLibs does by default.
///
/// # Errors
///
/// As [`engine::time`].
pub(super) fn gemm_cycles(machine: &MachineSpec, n: u32) -> anyhow::Result<f64> {
    product_cycles(machine, DType::F16, WeightLoad::Bits128, n)
}

/// Floating-point operations a second of an IPU whose tiles multiply a long matrix in f32.
///
/// # Errors
///
/// As [`engine::time`].
pub(super) fn single_precision_rate(machine: &MachineSpec) -> anyhow::Result<f64> {
    let cycles = product_cycles(machine, DType::F32, WeightLoad::Bits64, PEAK_ROWS)?;
    let multiply_adds = f64::from(PEAK_ROWS * BLOCK * BLOCK);
    let flops = 2.0 * multiply_adds * f64::from(machine.tile.tiles_per_ipu);
    Ok(flops * machine.tile.clock.0 / cycles)
}

/// Cycles of `[n, 16] x [16, 16]` on every tile.
fn product_cycles(
    machine: &MachineSpec,
    dtype: DType,
    load: WeightLoad,
    n: u32,
) -> anyhow::Result<f64> {
    let mut program = Program::new(1, 1);
    let source = program.add_source("gemm", "matmul");
    let ipu = IpuId(0);
    let mut var = |rest: [u32; 2]| on_all_tiles(&mut program, machine, ipu, dtype, &rest);
    let (input, weights, output) = (var([n, BLOCK]), var([BLOCK, BLOCK]), var([n, BLOCK]));
    let amp = &machine.tile.amp;
    let units = match dtype {
        DType::F32 => amp.units_f32_f32,
        _ => amp.units_f16_f16,
    };
    program.steps = vec![Step::Compute(ComputeSet {
        source,
        ipu,
        vertices: vec![VertexGroup {
            vertex: Vertex::MatMul {
                method: MatMulMethod::Amp { units, load },
                groups: [Label(0)].into_iter().collect(),
                field: Label(1),
                input: Label(2),
                output: Label(3),
                input_group: BLOCK,
                output_group: BLOCK,
            },
            output: Operand::new(output, &[0, 1, 3]),
            inputs: [
                Operand::new(input, &[0, 1, 2]),
                Operand::new(weights, &[0, 2, 3]),
            ]
            .into_iter()
            .collect(),
        }],
    })];
    Ok(engine::time(&program, machine, TIMING)?.total.0 as f64)
}

/// Bytes a second from one IPU to its neighbour while as much comes back.
///
/// # Errors
///
/// As [`engine::time`].
pub(super) fn link_rate(machine: &MachineSpec) -> anyhow::Result<f64> {
    let mut program = Program::new(2, 1);
    let source = program.add_source("link", "ipu_copy");
    let elements = SENT_PER_TILE / 2;
    let mut var = |ipu| on_all_tiles(&mut program, machine, IpuId(ipu), DType::F16, &[elements]);
    let (here, there) = ([var(0), var(0)], [var(1), var(1)]);
    let copies = vec![
        IpuCopy {
            src: here[0],
            dst: there[0],
        },
        IpuCopy {
            src: there[1],
            dst: here[1],
        },
    ];
    program.steps = vec![Step::IpuCopies { source, copies }];
    let cycles = engine::time(&program, machine, TIMING)?.total;
    let bytes = f64::from(machine.tile.tiles_per_ipu) * f64::from(SENT_PER_TILE);
    Ok(bytes / machine.tile.clock.seconds(cycles).0)
}

/// Bytes a second from the host into an IPU, the next element made ready while one arrives.
///
/// # Errors
///
/// As [`engine::time`].
pub(super) fn host_rate(machine: &MachineSpec) -> anyhow::Result<f64> {
    let mut program = Program::new(1, 1);
    let source = program.add_source("host", "host_input");
    let elements = SENT_PER_TILE / DType::F16.size().0 as u32;
    let var = on_all_tiles(&mut program, machine, IpuId(0), DType::F16, &[elements]);
    let stream = program.streams.push(Stream {
        name: "input".into(),
        prefetch: true,
        buffering_depth: 1,
    });
    program.steps = vec![Step::Repeat {
        count: HOST_READS,
        body: vec![Step::Transfers {
            source,
            transfers: vec![Transfer::HostRead { stream, var }],
        }],
    }];
    let cycles = engine::time(&program, machine, TIMING)?.total;
    let tiles = f64::from(machine.tile.tiles_per_ipu);
    let bytes = tiles * f64::from(SENT_PER_TILE) * f64::from(HOST_READS);
    Ok(bytes / machine.tile.clock.seconds(cycles).0)
}
