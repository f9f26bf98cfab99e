//! A small machine and small programs for it.

use std::sync::Arc;

use ipu_sim::device::{
    AttachLocks, AttachedDevice, Clock, Connection, DeviceManager, Executable, HOST_SYNC_TIMEOUT,
    Ports,
};
use ipu_sim::engine;
use ipu_sim::execute::FloatControl;
use ipu_sim::ids::IpuId;
use ipu_sim::layout::{AxisSplit, Cut, Layout};
use ipu_sim::numerics::DType;
use ipu_sim::program::{
    ComputeSet, Exchange, Operand, Program, RemoteBuffer, SourceId, Step, Stream, StreamId,
    TileCopy, Transfer, VarId, VarKind, Variable, VertexGroup,
};
use ipu_sim::spec::MachineSpec;
use ipu_sim::units::Bytes;
use ipu_sim::vertex::{MapOp, UnaryFn, Vertex};

/// 4 IPUs of 32 tiles: devices 0 to 3 are IPUs, 4 and 5 are pairs, 6 is all of them.
pub(crate) fn machine() -> MachineSpec {
    let pod = MachineSpec::shipped("mk2-pod16").unwrap();
    pod.scaled_down(4, 32).unwrap()
}

/// The devices of [`machine`].
pub(crate) fn manager_with(
    locks: impl AttachLocks + 'static,
    clock: Arc<dyn Clock>,
) -> DeviceManager {
    let locks = Arc::new(locks);
    let ports = Ports {
        locks,
        clock,
        ..Ports::alone()
    };
    DeviceManager::new(machine(), ports)
}

/// The devices of [`machine`], without locks and real time.
pub(crate) fn manager() -> DeviceManager {
    DeviceManager::new(machine(), Ports::alone())
}

/// A device of `n_ipus` IPUs.
pub(crate) fn attach(n_ipus: u32) -> AttachedDevice {
    manager().attach_any(n_ipus, Connection::Always).unwrap()
}

/// A program ready to be loaded.
pub(crate) fn executable(program: Program) -> Executable {
    Executable {
        name: "test".to_owned(),
        program: Arc::new(program),
        timing: engine::Options {
            mode: engine::Mode::Folded,
            trace_depth: 0,
        },
        float_control: FloatControl::default(),
        host_sync_timeout: Some(HOST_SYNC_TIMEOUT),
    }
}

/// `extent` elements in `parts` even pieces, one on each tile.
pub(crate) fn spread(extent: u32, parts: u32) -> Layout {
    Layout::row_major(vec![AxisSplit::cut(extent, &[Cut::even(parts)])])
}

/// Adds a variable on IPU 0.
pub(crate) fn var(program: &mut Program, name: &str, kind: VarKind, layout: Layout) -> VarId {
    let layout = program.add_layout(layout);
    program.vars.push(Variable {
        name: name.to_owned(),
        dtype: DType::F16,
        ipu: IpuId(0),
        layout,
        kind,
    })
}

/// `to[i] = from[i]^2` in one compute set on IPU 0.
pub(crate) fn square(source: SourceId, from: VarId, to: VarId) -> Step {
    Step::Compute(ComputeSet {
        source,
        ipu: IpuId(0),
        vertices: vec![VertexGroup {
            vertex: Vertex::Map(MapOp::Unary(UnaryFn::Square)),
            output: Operand::new(to, &[0]),
            inputs: [Operand::new(from, &[0])].into_iter().collect(),
        }],
    })
}

/// A program that squares six numbers from the host, and what it is made of.
pub(crate) struct Squares {
    pub(crate) program: Program,
    /// In 2 pieces.
    pub(crate) input: VarId,
    /// In 3 pieces.
    pub(crate) output: VarId,
    pub(crate) to_device: StreamId,
    pub(crate) from_device: StreamId,
}

/// Host to 2 tiles, by an exchange to 3 tiles, squared there, and back to the host.
pub(crate) fn squares(n_replicas: u32) -> Squares {
    let mut program = Program::new(1, n_replicas);
    let input = var(&mut program, "input", VarKind::StreamBuffer, spread(6, 2));
    let moved = var(&mut program, "moved", VarKind::Temporary, spread(6, 3));
    let output = var(&mut program, "output", VarKind::StreamBuffer, spread(6, 3));
    let [to_device, from_device] = ["to device", "from device"].map(|name| {
        program.streams.push(Stream {
            name: name.to_owned(),
            prefetch: true,
            buffering_depth: 1,
        })
    });
    let source = program.add_source("squares", "test");
    let transfer = |transfer| Step::Transfers {
        source,
        transfers: vec![transfer],
    };
    program.steps = vec![
        transfer(Transfer::HostRead {
            stream: to_device,
            var: input,
        }),
        Step::Exchange(Exchange {
            source,
            ipu: IpuId(0),
            copies: vec![TileCopy {
                src: program.view(input),
                dst: program.view(moved),
            }],
        }),
        square(source, moved, output),
        transfer(Transfer::HostWrite {
            stream: from_device,
            var: output,
        }),
    ];
    Squares {
        program,
        input,
        output,
        to_device,
        from_device,
    }
}

/// A program that does nothing, with a buffer of `bytes` in streaming memory.
pub(crate) fn buffered(n_ipus: u32, n_replicas: u32, bytes: Bytes) -> Program {
    let mut program = Program::new(n_ipus, n_replicas);
    program.remote_buffers.push(RemoteBuffer {
        name: "buffer".to_owned(),
        bytes,
    });
    program
}
