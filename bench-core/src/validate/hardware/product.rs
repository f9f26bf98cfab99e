//! Products on every tile of an IPU.

use ipu_sim::cost::amp::AmpTypes;
use ipu_sim::ids::IpuId;
use ipu_sim::program::{ComputeSet, Label, Operand, Program, Step, VertexGroup};
use ipu_sim::spec::MachineSpec;
use ipu_sim::vertex::{MatMulMethod, Vertex, WeightLoad};

use super::{on_all_tiles, time};
use crate::error::Result;
use crate::validate::measurements::Product;

/// Channels out of one AMP block.
const BLOCK: u32 = 16;

/// Rows, and channels in, of the products whose differences show a peak; all fit on a tile of
/// every chip, and its workers share the rows evenly.
const PEAK_ROWS: [u32; 2] = [240, 480];
const PEAK_CHANNELS: [u32; 2] = [32, 64];

/// Cycles of `[n, 16] x [16, 16]` on every tile of an IPU at once, in FP16.16.
///
/// The codelet that was measured loads its coefficients 128 bits at a time, twice as fast as
/// PopLibs does by default.
///
/// # Errors
///
/// As [`ipu_sim::engine::time`].
pub(super) fn gemm_cycles(machine: &MachineSpec, n: u32) -> Result<f64> {
    let sizes = Sizes {
        rows: n,
        channels: 16,
        replicas: 1,
    };
    product_cycles(machine, Product::F16, WeightLoad::Bits128, sizes)
}

/// Floating-point operations a second of an IPU whose tiles take so many cycles for
/// `[rows, channels] x [channels, 16]`.
pub(super) fn rate(machine: &MachineSpec, [rows, channels]: [u32; 2], cycles: f64) -> f64 {
    let multiply_adds = f64::from(rows * channels * BLOCK);
    let flops = 2.0 * multiply_adds * f64::from(machine.tile.tiles_per_ipu);
    flops * machine.tile.clock.0 / cycles
}

/// Operations a second of so many IPUs, each with the same work, while their AMP units do nothing
/// but multiply and add: those of further channels of further rows, over their cycles.
///
/// # Errors
///
/// As [`ipu_sim::engine::time`].
pub(super) fn peak(machine: &MachineSpec, product: Product, ipus: u32) -> Result<f64> {
    let cycles = |rows, channels| {
        let sizes = Sizes {
            rows,
            channels,
            replicas: ipus,
        };
        product_cycles(machine, product, WeightLoad::Bits64, sizes)
    };
    let ([few, many], [narrow, wide]) = (PEAK_ROWS, PEAK_CHANNELS);
    let of_wide = cycles(many, wide)? - cycles(few, wide)?;
    let of_narrow = cycles(many, narrow)? - cycles(few, narrow)?;
    let one = rate(machine, [many - few, wide - narrow], of_wide - of_narrow);
    Ok(f64::from(ipus) * one)
}

/// Sizes of a product on every tile of each replica, which is one IPU.
#[derive(Clone, Copy)]
struct Sizes {
    rows: u32,
    channels: u32,
    replicas: u32,
}

/// Cycles of `[rows, channels] x [channels, 16]` on every tile.
fn product_cycles(
    machine: &MachineSpec,
    product: Product,
    load: WeightLoad,
    sizes: Sizes,
) -> Result<f64> {
    let Sizes {
        rows,
        channels,
        replicas,
    } = sizes;
    let mut program = Program::new(1, replicas);
    let source = program.add_source("gemm", "matmul");
    let ipu = IpuId(0);
    let amp = &machine.tile.amp;
    let (types, units) = match product {
        Product::F32 => (AmpTypes::F32F32, amp.units_f32_f32),
        Product::F16 => (AmpTypes::F16F16, amp.units_f16_f16),
        Product::Mixed => (AmpTypes::F16F32, amp.units_f16_f32),
    };
    let input_group = types.weights_per_unit(&machine.tile) as u32;
    let mut var = |dtype, rest: [u32; 2]| on_all_tiles(&mut program, machine, ipu, dtype, &rest);
    let input = var(types.operand(), [rows, channels]);
    let weights = var(types.operand(), [channels, BLOCK]);
    let output = var(types.partials(), [rows, BLOCK]);
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
                input_group,
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
    Ok(time(&program, machine)?.0 as f64)
}
