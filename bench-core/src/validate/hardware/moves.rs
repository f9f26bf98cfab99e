//! Moving bytes: on a tile, between tiles, between IPUs, and between an IPU and its host.

use ipu_sim::ids::IpuId;
use ipu_sim::layout::Layout;
use ipu_sim::numerics::DType;
use ipu_sim::program::{
    ComputeSet, Exchange, IpuCopy, Operand, Program, Step, Stream, TileCopy, Transfer, VertexGroup,
};
use ipu_sim::spec::MachineSpec;
use ipu_sim::units::Cycles;
use ipu_sim::vertex::Vertex;
use ipu_sim::view::{View, ViewShape};

use super::{on_all_tiles, time, var};
use crate::error::Result;
use crate::validate::measurements::HostDirection;

/// Bytes that each tile sends over links and to or from the host, as the link measurement's 64 KB.
const SENT_PER_TILE: u32 = 64 * 1024;

/// Elements of the stream that are read or written.
const HOST_ELEMENTS: u32 = 16;

/// Words of one message to a pair of tiles, and how many of them.
const PAIRED: (u32, u32) = (352, 4);

/// Bytes of a copy on a tile.
const COPIED: u32 = 8 * 1024;

const IPU: IpuId = IpuId(0);

/// Bytes a second that arrive when every tile but the last sends to the next one: those of a
/// longer message, over the cycles that it takes longer.
///
/// # Errors
///
/// As [`ipu_sim::engine::time`].
pub(super) fn exchange_rate(machine: &MachineSpec) -> Result<f64> {
    let tiles = machine.tile.tiles_per_ipu;
    let cycles = |elements: u32| -> Result<Cycles> {
        let mut program = Program::new(1, 1);
        let source = program.add_source("exchange", "copy");
        let mut side = |begin, end| {
            let var = on_all_tiles(&mut program, machine, IPU, DType::F16, &[elements]);
            let shape = ViewShape::identity(&[tiles, elements]).slice(0, begin, end)?;
            Some(View { var, shape })
        };
        let sides = side(0, tiles - 1).zip(side(1, tiles));
        let (src, dst) = sides.expect("all tiles but one are a slice of all");
        program.steps = vec![Step::Exchange(Exchange {
            source,
            ipu: IPU,
            copies: vec![TileCopy { src, dst }],
        })];
        time(&program, machine)
    };
    let elements = SENT_PER_TILE / DType::F16.size().0 as u32;
    let more = cycles(2 * elements)? - cycles(elements)?;
    let bytes = f64::from(tiles - 1) * f64::from(SENT_PER_TILE);
    Ok(bytes / machine.tile.clock.seconds(more).0)
}

/// Cycles that each further message from a tile to both tiles of another pair takes.
///
/// # Errors
///
/// As [`ipu_sim::engine::time`].
pub(super) fn paired_message(machine: &MachineSpec) -> Result<f64> {
    let (words, messages) = PAIRED;
    let cycles = |messages: u32| -> Result<f64> {
        let mut program = Program::new(1, 1);
        let source = program.add_source("exchange", "copy");
        let mut message = || {
            let from = Layout::on_every_tile(&[words], 1);
            let mut to = Layout::on_every_tile(&[words], 2);
            to.first_tile = 2;
            let [src, dst] = [from, to].map(|layout| var(&mut program, IPU, DType::F32, layout));
            let [src, dst] = [src, dst].map(|var| program.view(var));
            TileCopy { src, dst }
        };
        let copies = (0..messages).map(|_| message()).collect();
        program.steps = vec![Step::Exchange(Exchange {
            source,
            ipu: IPU,
            copies,
        })];
        Ok(time(&program, machine)?.0 as f64)
    };
    Ok((cycles(messages)? - cycles(1)?) / f64::from(messages - 1))
}

/// Cycles of a copy on one tile.
///
/// # Errors
///
/// As [`ipu_sim::engine::time`].
pub(super) fn local_copy(machine: &MachineSpec) -> Result<f64> {
    let mut program = Program::new(1, 1);
    let source = program.add_source("copy", "copy");
    let elements = COPIED / DType::F16.size().0 as u32;
    let mut operand = || {
        let layout = Layout::on_every_tile(&[elements], 1);
        Operand::new(var(&mut program, IPU, DType::F16, layout), &[0])
    };
    let (input, output) = (operand(), operand());
    program.steps = vec![Step::Compute(ComputeSet {
        source,
        ipu: IPU,
        vertices: vec![VertexGroup {
            vertex: Vertex::Copy,
            output,
            inputs: [input].into_iter().collect(),
        }],
    })];
    Ok(time(&program, machine)?.0 as f64)
}

/// Bytes a second from one IPU to its neighbour while as much comes back.
///
/// # Errors
///
/// As [`ipu_sim::engine::time`].
pub(super) fn link_rate(machine: &MachineSpec) -> Result<f64> {
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
    let cycles = time(&program, machine)?;
    let bytes = f64::from(machine.tile.tiles_per_ipu) * f64::from(SENT_PER_TILE);
    Ok(bytes / machine.tile.clock.seconds(cycles).0)
}

/// Bytes a second between the host and an IPU, one element waiting beside the device while
/// another is on its way.
///
/// # Errors
///
/// As [`ipu_sim::engine::time`].
pub(super) fn host_rate(machine: &MachineSpec, way: HostDirection) -> Result<f64> {
    let mut program = Program::new(1, 1);
    let source = program.add_source("host", "stream");
    let elements = SENT_PER_TILE / DType::F16.size().0 as u32;
    let var = on_all_tiles(&mut program, machine, IPU, DType::F16, &[elements]);
    let stream = program.streams.push(Stream {
        name: "stream".into(),
        prefetch: way == HostDirection::In,
        buffering_depth: 1,
    });
    let transfer = match way {
        HostDirection::In => Transfer::HostRead { stream, var },
        HostDirection::Out => Transfer::HostWrite { stream, var },
    };
    program.steps = vec![Step::Repeat {
        count: HOST_ELEMENTS,
        body: vec![Step::Transfers {
            source,
            transfers: vec![transfer],
        }],
    }];
    let cycles = time(&program, machine)?;
    let tiles = f64::from(machine.tile.tiles_per_ipu);
    let bytes = tiles * f64::from(SENT_PER_TILE) * f64::from(HOST_ELEMENTS);
    Ok(bytes / machine.tile.clock.seconds(cycles).0)
}
